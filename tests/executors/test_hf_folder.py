"""The embedded model as a Hugging Face folder: its values, its tokens, its place in the cache."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import venv
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_gguf as tiny

from executors.hf_folder import ABOUT, WEIGHTS, hf_folder
from executors.interpreters import interpreter_for
from executors.process import Watch, run_worker
from executors.worker import checkpoint
from executors.worker.protocol import WorkerError
from knowledge.base import EXIT_BAD_INPUT, EXIT_STEP_FAILED, AdvisorError
from knowledge.checkpoint import read_model_path
from knowledge.gguf import read_gguf
from knowledge.models import embedded_path

ROOT = Path(__file__).resolve().parents[2]
READER = ("tokenizers==0.23.3", "numpy==2.4.6")  # as in the locks
real = pytest.mark.skipif(not (find_spec("llama_cpp") and embedded_path()), reason="needs edge-advisor[llamacpp]")


def watch(folder: Path) -> Watch:
    return Watch(folder / "log.txt", lambda event: None, 300.0, 60.0, None, None)


# ---- the arithmetic


def test_a_q4_1_block_is_scale_times_nibble_plus_minimum() -> None:
    nibbles = np.arange(32) % 16
    packed = (nibbles[:16] | nibbles[16:] << 4).astype(np.uint8)
    block = np.frombuffer(np.array([0.5, -2.0], "<f2").tobytes() + packed.tobytes(), np.uint8)[None]
    assert checkpoint.TYPES["Q4_1"][1](block)[0].tolist() == (0.5 * nibbles - 2).tolist()


def test_a_q8_0_block_is_scale_times_signed_byte() -> None:
    values = np.arange(-16, 16, dtype=np.int8)
    block = np.frombuffer(np.array([0.25], "<f2").tobytes() + values.tobytes(), np.uint8)[None]
    assert checkpoint.TYPES["Q8_0"][1](block)[0].tolist() == (values * 0.25).tolist()


def written(tmp_path: Path, values: Any, **changes: Any) -> Any:
    """`values` through write_weights: what stands in the safetensors file, by its own header."""
    source = tmp_path / "source"
    source.write_bytes(b"head" + values.tobytes())
    tensor = {
        "name": "x", "type": "F32", "offset": 4, "bytes": values.nbytes, "rows": values.shape[0],
        "row_length": values.shape[1], "dimensions": 2, "heads": 0, **changes,
    }  # fmt: skip
    checkpoint.write_weights({"tensors": [tensor], "model": str(source), "output": str(tmp_path / "out")})
    return safetensors(tmp_path / "out")["x"]


def safetensors(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    del header["__metadata__"]
    spans = sorted(tensor["data_offsets"] for tensor in header.values())
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert spans[-1][1] == len(data) - 8 - size
    return {
        name: np.frombuffer(data, "<f2", offset=8 + size + tensor["data_offsets"][0], count=np.prod(tensor["shape"]))
        .reshape(tensor["shape"])
        for name, tensor in header.items()
    }  # fmt: skip


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "progress", lambda *words: None)


def test_rows_of_a_head_go_back_to_their_order(tmp_path: Path) -> None:
    """llama.cpp interleaves the two halves of each head: its rows 0 1 2 3 are the halves' 0 2 1 3."""
    values = np.arange(16, dtype="<f4").reshape(8, 2)
    found = written(tmp_path, values, heads=2)
    assert found[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]


def test_many_rows_are_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "ROWS_AT_ONCE", 3)
    values = np.arange(20, dtype="<f4").reshape(10, 2)
    assert np.array_equal(written(tmp_path, values), values)


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_a_value_that_f16_does_not_hold_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(WorkerError) as caught:
        written(tmp_path, np.full((1, 2), value, "<f4"))
    assert caught.value.code == "damaged-file"


@pytest.mark.parametrize(("changes", "code"), [({"type": "Q4_K"}, "unsupported-type"), ({"offset": 9}, "damaged-file")])
def test_weights_that_cannot_be_read_are_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(WorkerError) as caught:
        written(tmp_path, np.zeros((2, 2), "<f4"), **changes)
    assert caught.value.code == code


def test_a_vocabulary_that_ends_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary"
    path.write_bytes(struct.pack("<Q", 2) + b"ab" + struct.pack("<Q", 2**40))
    for count in (2, 3):
        span = {"offset": 0, "count": count, "bytes": path.stat().st_size}
        request = {"pre": "smollm", "arrays": {"tokens": span, "merges": span}, "model": str(path)}
        with pytest.raises(WorkerError) as caught:
            checkpoint.write_tokenizer(request)
        assert caught.value.code == "damaged-file"


def test_a_model_whose_tokenizer_was_not_compared_is_refused(tmp_path: Path, advisor_home: Path) -> None:
    with pytest.raises(AdvisorError) as caught:
        hf_folder(tiny.tiny_model().write(tmp_path / "tiny.gguf"), watch(tmp_path))
    assert (caught.value.code, caught.value.exit_code) == ("unsupported-architecture", EXIT_BAD_INPUT)
    assert not list((advisor_home / "cache" / "checkpoints").glob("*/"))


def byte_level(**values: tiny.Value) -> tiny.TinyModel:
    """A tiny model whose tokens are the bytes, as GPT-2 writes them."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [*map(chr, shown), *(chr(256 + number) for number in range(256 - len(shown)))]
    pairs = [f"{a} {b}" for a in "aeiou" for b in "nrstl"][: len(tiny.TOKENS) - 256]
    tokens = [*letters, *(pair.replace(" ", "") for pair in pairs), "<|a|>", "<|b|>"]
    known = {
        "tokenizer__ggml__model": (tiny.STRING, "gpt2"),
        "tokenizer__ggml__pre": (tiny.STRING, "smollm"),
        "tokenizer__ggml__tokens": (tiny.ARRAY, (tiny.STRING, tokens)),
        "tokenizer__ggml__merges": (tiny.ARRAY, (tiny.STRING, pairs)),
        "tokenizer__ggml__token_type": (tiny.ARRAY, (tiny.I32, [tiny.NORMAL] * 281 + [tiny.CONTROL] * 2)),
        "tokenizer__ggml__bos_token_id": (tiny.U32, 281),
        "tokenizer__ggml__eos_token_id": (tiny.U32, 282),
    }
    return tiny.tiny_model(**known | values)


@pytest.mark.parametrize(
    "missing",
    [
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.token_type",
        "llama.context_length",
        "llama.attention.layer_norm_rms_epsilon",
    ],
)
def test_a_file_that_does_not_say_all_is_refused_in_one_sentence(missing: str, tmp_path: Path) -> None:
    path = tiny.without(byte_level(), missing).write(tmp_path / "tiny.gguf")
    with pytest.raises(AdvisorError) as caught:
        hf_folder(path, watch(tmp_path))
    assert caught.value.exit_code == EXIT_BAD_INPUT
    assert missing.rpartition(".")[2] in caught.value.message


@pytest.mark.slow
@real
@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"general__name": (tiny.STRING, "My Tiny/1.5")}, "My-Tiny-1.5-converted"),
        ({"general__name": (tiny.STRING, "..")}, "model-converted"),
        ({"general__name": (tiny.STRING, "")}, "of-mine-converted"),
    ],
)
def test_another_model_has_its_own_name_and_was_not_dequantized(
    values: dict[str, tiny.Value], name: str, tmp_path: Path
) -> None:
    folder = hf_folder(byte_level(**values).write(tmp_path / "of mine.gguf"), watch(tmp_path))
    assert folder.name == name
    assert "converted from F32 to F16" in (folder / "README.md").read_text()
    assert "dequantized_from" not in json.loads((folder / "config.json").read_text())


# ---- the embedded model


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose cache has the folder."""
    base = tmp_path_factory.mktemp("checkpoint")
    source = embedded_path()
    assert source is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(base / "home"))
        hf_folder(source, watch(base))
    return base / "home"


@pytest.fixture
def folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVISOR_HOME", str(cache))
    return embedded(tmp_path)


def embedded(tmp_path: Path, framework: str | None = None) -> Path:
    source = embedded_path()
    assert source is not None
    return hf_folder(source, watch(tmp_path), framework=framework)


@pytest.mark.slow
@real
def test_the_weights_are_those_of_llama_cpps_own_f16_file(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "f16.gguf"
    request = {"op": "quantize", "input": str(embedded_path()), "output": str(path), "type": "F16", "threads": 1}
    run_worker(interpreter_for("llama.cpp"), "llama.cpp", {**request, "allow_requantize": True}, watch(tmp_path))
    file, found = read_gguf(path), safetensors(folder / WEIGHTS)
    data, offset = np.memmap(path, np.uint8, "r"), file.data_offset
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    parts = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    }  # fmt: skip
    for tensor in file.tensors:
        size = tensor.stored_bytes or 0
        values = data[offset : offset + size].view("<f2" if tensor.dtype == "F16" else "<f4").astype("<f2")
        offset += -(-size // file.alignment) * file.alignment
        part = tensor.name.split(".")[-2]
        name = names.get(tensor.name) or f"model.layers.{tensor.layer}.{parts[part]}.weight"
        expected = found.pop(name)
        if part in ("attn_q", "attn_k"):  # conversion/llama.py, LlamaModel.permute
            heads = len(expected) // 64
            expected = expected.reshape(heads, 2, 32, -1).swapaxes(1, 2)
        assert np.array_equal(values, expected.reshape(-1)), tensor.name
    assert not found


@pytest.mark.slow
@real
def test_the_folder_says_what_it_is(folder: Path) -> None:
    model = read_model_path(folder)
    assert (model.architecture, model.layers, model.hidden, model.vocab) == ("llama", 30, 576, 49152)
    assert model.tied_embeddings
    assert model.params == 134_515_008
    assert folder.name == "SmolLM2-135M-Instruct-dequantized"
    assert "dequantized from Q4_1" in (folder / "README.md").read_text()
    assert "not the original release" in (folder / "README.md").read_text()
    assert json.loads((folder / "config.json").read_text())["dequantized_from"] == ["Q4_1", "Q8_0"]
    assert not list(folder.parent.parent.glob("*.partial"))


@pytest.mark.slow
@real
def test_the_folder_is_built_once(folder: Path, tmp_path: Path) -> None:
    before = (folder / WEIGHTS).stat().st_mtime_ns
    assert embedded(tmp_path) == folder
    assert (folder / WEIGHTS).stat().st_mtime_ns == before


@pytest.mark.slow
@real
def test_a_damaged_folder_is_built_anew(cache: Path, advisor_home: Path, tmp_path: Path) -> None:
    shutil.copytree(cache, advisor_home)
    weights = embedded(tmp_path) / WEIGHTS
    whole = weights.read_bytes()
    os.truncate(weights, 1000)
    assert (embedded(tmp_path) / WEIGHTS).read_bytes() == whole


@pytest.mark.slow
@real
@pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(advisor_home: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.path[:0] = ['tests/executors']; from pathlib import Path;"
        "import test_hf_folder as t; t.embedded(Path(sys.argv[1]))"
    )
    entries = advisor_home / "cache" / "checkpoints"
    for wait in (0.0, 0.5, 1.5):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT)
        while not list(entries.glob("*.partial")) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = [path for path in entries.glob("*-*") if not path.name.endswith(".partial")]
        assert all((path / ABOUT).is_file() for path in whole)
    assert (embedded(tmp_path) / WEIGHTS).stat().st_size > 269_000_000


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the tokenizers library alone."""
    place = tmp_path_factory.mktemp("reader")
    venv.create(place, with_pip=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *READER], capture_output=True)
    if done.returncode:
        pytest.skip("needs a package index")
    return python


def use(home: Path, python: Path) -> None:
    record = home / "toolchains" / "mlx" / "toolchain.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"framework": "mlx", "version": "0", "python": str(python)}))


@pytest.mark.slow
@real
def test_the_tokenizer_makes_the_same_tokens_as_llama_cpp(
    folder: Path, cache: Path, reader: Path, tmp_path: Path
) -> None:
    use(cache, reader)
    assert embedded(tmp_path, "mlx") == folder
    about = json.loads((folder.parent / ABOUT).read_text())
    assert "mlx 0" in about["proven"]
    assert len(about["ids"][0]) > 3000


@pytest.mark.slow
@real
def test_a_tokenizer_without_its_digit_splitter_is_refused(
    cache: Path, advisor_home: Path, reader: Path, tmp_path: Path
) -> None:
    shutil.copytree(cache, advisor_home)
    use(advisor_home, reader)
    folder = embedded(tmp_path)
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    document["pre_tokenizer"] = checkpoint.PRE_TOKENIZERS["gpt-2"]
    path.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
    record = folder.parent / ABOUT
    about = json.loads(record.read_text())
    record.write_text(json.dumps(about | {"proven": [], "files": {}}))
    with pytest.raises(AdvisorError) as caught:
        embedded(tmp_path, "mlx")
    assert (caught.value.code, caught.value.exit_code) == ("tokenizer-mismatch", EXIT_STEP_FAILED)
