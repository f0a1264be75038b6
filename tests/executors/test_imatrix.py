"""Importance matrices collected by the real llama.cpp: what they hold, who can read them, what they change."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import MACHINE
from test_tiny_run import tiny_plan
from tiny_gguf import HIDDEN, INTERMEDIATE, LAYERS, U32, TinyModel, tiny_model, without

from advisor.plan import SensitivitySettings
from executors.interpreters import interpreter_for
from executors.llamacpp import CALIBRATION_TEXT
from executors.process import Watch, WorkerResult, run_worker
from executors.runner import run_plan
from executors.validation import TEXT
from knowledge.base import AdvisorError
from knowledge.gguf import _read_one, read_gguf

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs the extra llamacpp")]
EXPERTS, USED = 4, 2
TOKENS = 512


def ask(folder: Path, request: dict[str, Any]) -> WorkerResult:
    interpreter = interpreter_for("llama.cpp")
    watch = Watch(folder / "log.txt", lambda _: None, 300, 60, None, None)
    return run_worker(interpreter, "llama.cpp", request, watch)


def collect(model: Path, output: Path, text: Path = CALIBRATION_TEXT) -> dict[str, Any]:
    request = {"op": "imatrix", "model": str(model), "output": str(output), "text": str(text), "tokens": TOKENS}
    return ask(output.parent, request).result


def matrices(path: Path) -> dict[str, Any]:
    """The file's matrices, read from its bytes without llama.cpp."""
    file, data = _read_one(path), path.read_bytes()  # read_gguf wants a model
    found, offset = {}, file.data_offset
    for tensor in file.tensors:
        size = tensor.stored_bytes or 0
        found[tensor.name] = np.frombuffer(data[offset : offset + size], "<f4").reshape(tensor.rows, tensor.row_length)
        offset += -(-size // file.alignment) * file.alignment
    return found


def tiny_experts() -> TinyModel:
    """The tiny model with four experts in each layer, two of them used."""
    plain = tiny_model()
    draw = np.random.default_rng(1)
    tensors = dict(without(plain, *(n for n in plain.tensors if "ffn_" in n and "norm" not in n)).tensors)
    shapes = {
        "gate_inp": (HIDDEN, EXPERTS),
        "gate_exps": (HIDDEN, INTERMEDIATE, EXPERTS),
        "up_exps": (HIDDEN, INTERMEDIATE, EXPERTS),
        "down_exps": (INTERMEDIATE, HIDDEN, EXPERTS),
    }
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            data = draw.standard_normal(shape).astype("<f4") / np.sqrt(shape[0], dtype="<f4")
            tensors[f"blk.{layer}.ffn_{name}.weight"] = (shape, 0, data.astype("<f4").tobytes())
    counts = {"llama.expert_count": (U32, EXPERTS), "llama.expert_used_count": (U32, USED)}
    return TinyModel({**plain.values, **counts}, tensors)


def test_what_enters_a_matrix_is_summed_once_per_token(tmp_path: Path) -> None:
    result = collect(tiny_model().write(tmp_path / "model.gguf"), tmp_path / "imatrix.gguf")
    with pytest.raises(AdvisorError, match="is an importance matrix"):
        read_gguf(tmp_path / "imatrix.gguf")
    found = matrices(tmp_path / "imatrix.gguf")
    assert result["tokens"] == TOKENS
    assert result["weights"] == 7 * LAYERS == len(found) / 2
    for layer in range(LAYERS):
        sums = {name: found[f"blk.{layer}.{name}.weight.in_sum2"] for name in ("attn_q", "attn_k", "attn_v")}
        assert np.array_equal(sums["attn_q"], sums["attn_k"])  # all three see the same normalized activations
        assert np.array_equal(sums["attn_q"], sums["attn_v"])
        # rows of length HIDDEN normalized to a mean square of 1, and norms of weight 1
        assert sums["attn_q"].sum() == pytest.approx(TOKENS * HIDDEN, rel=0.02)
        assert found[f"blk.{layer}.ffn_down.weight.in_sum2"].shape == (1, INTERMEDIATE)
    assert {float(counts[0, 0]) for name, counts in found.items() if name.endswith(".counts")} == {float(TOKENS)}


def test_routed_products_are_summed_by_expert(tmp_path: Path) -> None:
    collect(tiny_experts().write(tmp_path / "model.gguf"), tmp_path / "imatrix.gguf")
    found = matrices(tmp_path / "imatrix.gguf")
    for name, columns in (("gate_exps", HIDDEN), ("up_exps", HIDDEN), ("down_exps", INTERMEDIATE)):
        counts = found[f"blk.0.ffn_{name}.weight.counts"]
        assert counts.shape == (EXPERTS, 1)
        assert counts.sum() == TOKENS * USED
        assert found[f"blk.0.ffn_{name}.weight.in_sum2"].shape == (EXPERTS, columns)
    gate = found["blk.0.ffn_gate_exps.weight.in_sum2"]
    assert gate.sum(axis=1) == pytest.approx(HIDDEN * found["blk.0.ffn_gate_exps.weight.counts"][:, 0], rel=0.02)


@pytest.mark.parametrize("build", [tiny_model, tiny_experts])
def test_a_matrix_changes_what_the_quantizer_makes(build: Any, tmp_path: Path) -> None:
    model, matrix = build().write(tmp_path / "model.gguf"), tmp_path / "imatrix.gguf"
    collect(model, matrix)
    for name, imatrix in (("plain", ""), ("weighted", str(matrix))):
        request = {"op": "quantize", "input": str(model), "output": str(tmp_path / name), "type": "Q5_1"}
        ask(tmp_path, {**request, "imatrix": imatrix})
    plain, weighted = ((tmp_path / name).read_bytes() for name in ("plain", "weighted"))
    assert len(plain) == len(weighted)
    assert plain != weighted


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "a model"])
def test_a_damaged_matrix_is_refused_and_nothing_is_made(damage: str, tmp_path: Path) -> None:
    model, matrix = tiny_model().write(tmp_path / "model.gguf"), tmp_path / "imatrix.gguf"
    if damage == "a model":
        matrix.write_bytes(model.read_bytes())
    elif damage == "empty":
        matrix.touch()
    elif damage == "cut":
        collect(model, matrix)
        matrix.write_bytes(matrix.read_bytes()[:-2000])
    request = {"op": "quantize", "input": str(model), "output": str(tmp_path / "made"), "type": "Q4_0"}
    with pytest.raises(AdvisorError) as refusal:
        ask(tmp_path, {**request, "imatrix": str(matrix)})
    assert refusal.value.code == "damaged-file"
    assert not (tmp_path / "made").exists()


def test_a_text_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too little.")
    with pytest.raises(AdvisorError) as refusal:
        collect(tiny_model().write(tmp_path / "model.gguf"), tmp_path / "imatrix.gguf", tmp_path / "short.txt")
    assert refusal.value.code == "text-too-short"


def test_the_texts_to_calibrate_and_to_judge_have_no_paragraph_in_common() -> None:
    one, other = (set(path.read_text(encoding="utf-8").split("\n\n")) for path in (CALIBRATION_TEXT, TEXT))
    assert not one & other


def test_a_run_measures_a_mix_when_nothing_else_passes(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_model().write(tmp_path / "model.gguf"))
    work = plan.plan
    assert work is not None
    work.ladder[0] = work.ladder[0].model_copy(
        update={"precision": "Q8_0+measured", "type": "Q8_0", "lower": "Q5_0", "memory_ratio": 0.5}
    )
    for gate in work.gates:
        if gate.id == "quality":
            gate.value = 1.5  # out of reach, so that the ladder is climbed to its end
    report = run_plan(plan, tmp_path / "run", machine=MACHINE, escalate=True)
    found = report["sensitivity"]
    groups = [one["group"] for one in found["measured"]]
    assert groups[0] == ""
    assert len(groups) == 9
    assert found["mix"]["precision"].startswith("Q8_0+")
    assert found["mix"]["tensor_bytes"] <= 0.5 * 2 * report["validation"]["integrity"]["parameters"]
    assert report["rungs"][1]["precision"] == found["mix"]["precision"]
    assert "## Sensitivity" in (tmp_path / "run/report.md").read_text(encoding="utf-8")
    assert [path.name for path in (tmp_path / "run/work/rungs/1").iterdir() if path.is_dir()] == []


def test_the_settings_of_a_search_bound_their_share() -> None:
    with pytest.raises(ValueError, match="memory_ratio"):
        SensitivitySettings(reference="work/a", output="work/b", base="Q8_0", lower="Q5_0", memory_ratio=2)


def test_another_layout_of_tensors_is_noticed_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from executors.worker import ggml_tensors
    from executors.worker.protocol import WorkerError

    assert set(ggml_tensors.check_layout()) == {"MUL_MAT", "MUL_MAT_ID"}
    monkeypatch.setattr(ggml_tensors, "view", lambda address: ggml_tensors.Tensor.from_address(address + 8))
    with pytest.raises(WorkerError, match="lays out its tensors otherwise"):
        ggml_tensors.check_layout()
