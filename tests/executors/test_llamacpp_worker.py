"""The real llama.cpp: the embedded model quantized, scored and timed; damaged and foreign files survived and named."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_gguf as tiny

from executors import validation
from executors.integrity import integrity
from executors.interpreters import interpreter_for
from executors.process import Watch, WorkerResult, resident_bytes, run_worker
from executors.validation import judge
from executors.worker import scales
from knowledge.base import EXIT_STEP_FAILED, GIB, MIB, AdvisorError
from knowledge.gguf import read_gguf
from knowledge.models import embedded_path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (find_spec("llama_cpp") and embedded_path()), reason="needs edge-advisor[llamacpp]"),
]
MIX = ("Q8_0", [("ffn_gate", "Q5_0")])


def watch(folder: Path, **limits: Any) -> Watch:
    options = {"time_limit_seconds": 300.0, "silence_limit_seconds": 60.0, "rss_limit_bytes": None} | limits
    return Watch(log_path=folder / "log.txt", on_event=lambda event: None, cancel=None, **options)


def ask(folder: Path, request: dict[str, Any], **limits: Any) -> WorkerResult:
    return run_worker(interpreter_for("llama.cpp"), "llama.cpp", request, watch(folder, **limits))


def quantize(source: Path, output: Path, kind: str, rules: Any = (), **more: Any) -> WorkerResult:
    request = {"op": "quantize", "input": str(source), "output": str(output), "type": kind, "threads": 1}
    rules = [{"pattern": pattern, "type": to} for pattern, to in rules]
    return ask(output.parent, {**request, "tensor_types": rules, **more})


def refused(folder: Path, request: dict[str, Any], **limits: Any) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        ask(folder, request, **limits)
    return caught.value


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with f16.gguf and mix.gguf of the embedded model, and `few`: 640 scored tokens of the reference."""
    folder = tmp_path_factory.mktemp("models")
    source = embedded_path()
    assert source is not None
    quantize(source, folder / "f16.gguf", "F16", allow_requantize=True)
    quantize(folder / "f16.gguf", folder / "mix.gguf", *MIX)
    validation.reference(
        folder / "f16.gguf", folder / "few", context=256, blocks=20, block_tokens=32, threads=1, watch=watch(folder)
    )
    return folder


def few(models: Path, artifact: Path) -> dict[str, Any]:
    return validation.distribution(artifact, models / "few", context=256, threads=1, watch=watch(models))


def changed(models: Path, name: str, role: str, change: Any) -> Path:
    """A copy of mix.gguf whose blocks (rows of bytes) of `role` went through `change(blocks, kind)`, in place."""
    path = models / name
    shutil.copy(models / "mix.gguf", path)
    file = read_gguf(path)
    data = np.memmap(path, np.uint8, "r+")
    offset = file.data_offset
    for tensor in file.tensors:
        size = tensor.stored_bytes or 0
        if tensor.role == role:
            change(data[offset : offset + size].reshape(-1, scales.BLOCKS[str(tensor.dtype)][0]), tensor.dtype)
        offset += -(-size // file.alignment) * file.alignment
    data.flush()
    return path


def test_the_mix_keeps_95_per_cent_in_half_the_bytes(models: Path) -> None:
    """The ladder's figures for Q8_0 with ffn_gate at Q5_0: .498 of the bytes, retention .99, KL .009, top-1 .94."""
    sizes = [(models / f"{name}.gguf").stat().st_size for name in ("mix", "f16")]
    assert sizes[0] / sizes[1] == pytest.approx(0.498, abs=0.001)
    sound = integrity(
        models / "mix.gguf", reference=models / "f16.gguf", planned=MIX, expected_bytes=sizes[0], watch=watch(models)
    )
    assert sound["status"] == "pass"
    assert sound["tensor_bytes"] / (2 * sound["parameters"]) <= 0.5
    store = models / "store"
    stored = validation.reference(
        models / "f16.gguf", store, context=512, blocks=50, block_tokens=64, threads=1, watch=watch(models)
    )
    assert (stored["tokens"], stored["blocks"]) == (3200, 50)
    found = validation.distribution(models / "mix.gguf", store, context=512, threads=1, watch=watch(models))
    shutil.rmtree(store)
    assert found["retention"]["value"] == pytest.approx(0.99, abs=0.01)
    assert found["kl_divergence"]["mean"] == pytest.approx(0.009, abs=0.004)
    assert found["same_top1"]["value"] == pytest.approx(0.94, abs=0.02)
    assert found["perplexity"]["reference"] == pytest.approx(stored["perplexity"])
    assert judge(">=", 0.95, found["retention"]["low95"], found["retention"]["high95"]) == "pass"
    assert found["peak_rss_bytes"] < 500 * MIB


def test_a_model_compared_with_itself_differs_by_rounding_alone(models: Path) -> None:
    found = few(models, models / "f16.gguf")
    assert found["kl_divergence"]["mean"] < 1e-5
    assert found["same_top1"]["value"] == 1
    assert found["retention"]["value"] == pytest.approx(1, abs=1e-5)


def test_the_smoke_test_answers_with_the_models_own_chat_template(models: Path) -> None:
    found = validation.smoke(
        models / "mix.gguf", context=512, memory_budget_bytes=400 * MIB, threads=1, watch=watch(models)
    )
    assert found["status"] == "pass"
    assert len(found["answers"]) == len(validation.PROMPTS) + 1
    assert "<|im_start|>user" in found["answers"][-1]["prompt"]
    assert found["notes"] == []
    assert found["kv_bytes"] == 11.25 * MIB
    assert 130 * MIB < found["peak_rss_bytes"] < 400 * MIB


def test_a_context_is_never_larger_than_the_model_was_trained_on(tmp_path: Path) -> None:
    path = tiny.tiny_model().write(tmp_path / "tiny.gguf")
    found = [validation.smoke(path, context=n, threads=1, watch=watch(tmp_path)) for n in (256, 100_000)]
    assert found[0]["kv_bytes"] == found[1]["kv_bytes"]


def test_the_worker_says_what_it_is(tmp_path: Path) -> None:
    assert "CPU" in ask(tmp_path, {"op": "info"}).result["system"]


def test_a_budget_that_does_not_hold_the_model_ends_the_smoke_test(models: Path) -> None:
    with pytest.raises(AdvisorError) as caught:
        validation.smoke(
            models / "f16.gguf", context=512, memory_budget_bytes=100 * MIB, threads=1, watch=watch(models)
        )
    assert caught.value.code == "worker-memory"


def test_a_bench_sample_has_every_figure(models: Path) -> None:
    seen = watch(models)
    with validation.open_worker(seen) as worker:
        for _ in range(2):
            found = validation.benchmark(
                models / "mix.gguf", worker, context=512, prompt_tokens=64, decode_tokens=16, threads=1, watch=seen
            )
            assert all(math.isfinite(value) and value > 0 for value in found.values())
            assert found["ttft_ms"] == pytest.approx(64_000 / found["prefill_tps"])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_stays_frees_what_it_loaded(models: Path) -> None:
    seen = watch(models)
    size = (models / "f16.gguf").stat().st_size
    with validation.open_worker(seen) as worker:
        for _ in range(3):
            validation.benchmark(
                models / "f16.gguf", worker, context=512, prompt_tokens=64, decode_tokens=8, threads=1, watch=seen
            )
        assert resident_bytes(worker.process.pid) < 0.5 * size


def test_figures_do_not_depend_on_threads(models: Path) -> None:
    two = validation.distribution(models / "mix.gguf", models / "few", context=256, threads=2, watch=watch(models))
    assert two["retention"] == few(models, models / "mix.gguf")["retention"]


# ---- garbage is refused with its reason


def test_zeroed_scales_fail_integrity_and_quality(models: Path) -> None:
    def zero(blocks: Any, kind: str) -> None:
        for place in scales.BLOCKS[kind][1]:
            blocks[:, place : place + 2] = 0

    path = changed(models, "zeroed.gguf", "ffn_down", zero)
    found = integrity(path, reference=models / "f16.gguf", planned=MIX, watch=watch(models))
    assert found["code"] == "wrong-values"
    assert "ffn_down" in found["reason"]
    retention = few(models, path)["retention"]
    assert judge(">=", 0.95, retention["low95"], retention["high95"]) == "fail"


def test_shuffled_weights_pass_integrity_and_fail_quality(models: Path) -> None:
    draw = np.random.default_rng(0)
    path = changed(models, "shuffled.gguf", "attn_v", lambda blocks, kind: draw.shuffle(blocks))
    assert integrity(path, reference=models / "f16.gguf", planned=MIX, watch=watch(models))["status"] == "pass"
    found = few(models, path)
    assert judge(">=", 0.95, found["retention"]["low95"], found["retention"]["high95"]) == "fail"


def test_weights_of_0xff_are_no_numbers_in_every_tier(models: Path) -> None:
    def fill(blocks: Any, kind: str) -> None:
        blocks[:] = 0xFF

    path = changed(models, "ff.gguf", "ffn_up", fill)
    assert integrity(path, watch=watch(models))["code"] == "wrong-values"
    for found in (few(models, path), validation.smoke(path, context=128, threads=1, watch=watch(models))):
        assert (found["status"], found["code"]) == ("fail", "non-finite-logits")


def test_a_changed_tokenizer_is_refused_before_anything_is_computed(models: Path) -> None:
    path = models / "tokenizer.gguf"
    data = bytearray((models / "mix.gguf").read_bytes())
    one, other = (len(word.encode()).to_bytes(8, "little") + word.encode() for word in ("\u0120the", "\u0120and"))
    at, there = data.index(one), data.index(other)
    data[at : at + len(one)], data[there : there + len(other)] = other, one
    path.write_bytes(data)
    assert integrity(path, reference=models / "f16.gguf", watch=watch(models))["code"] == "wrong-tokenizer"
    started = time.perf_counter()
    assert few(models, path)["code"] == "tokenizer-mismatch"
    assert time.perf_counter() - started < 5


def test_another_model_is_refused_by_its_vocabulary(models: Path, tmp_path: Path) -> None:
    path = tiny.tiny_model().write(tmp_path / "tiny.gguf")
    found = few(models, path)
    assert found["code"] == "tokenizer-mismatch"
    assert str(len(tiny.TOKENS)) in found["reason"]


def test_a_file_of_another_size_than_predicted_fails(models: Path) -> None:
    size = (models / "mix.gguf").stat().st_size
    assert integrity(models / "mix.gguf", expected_bytes=round(size * 1.004), watch=watch(models))["status"] == "pass"
    found = integrity(models / "mix.gguf", expected_bytes=round(size * 1.006), watch=watch(models))
    assert found["code"] == "wrong-size"


# ---- quantizing never destroys its input and leaves nothing half-made


def link_to(target: Path, link: Path, how: str) -> Path:
    if how == "same":
        return target
    if how == "dots":
        return target.parent / "." / target.name
    (os.symlink if how == "symlink" else os.link)(target, link)
    return link


@pytest.mark.parametrize("how", ["same", "dots", "symlink", "hardlink"])
def test_quantizing_onto_the_input_is_refused(tmp_path: Path, how: str) -> None:
    source = tiny.tiny_model().write(tmp_path / "tiny.gguf")
    before = source.read_bytes()
    with pytest.raises(AdvisorError) as caught:
        quantize(source, link_to(source, tmp_path / "link.gguf", how), "Q8_0")
    assert caught.value.code == "same-file"
    assert source.read_bytes() == before


@pytest.mark.parametrize("kind", ["NOPE", "Q4_0"])
def test_a_failed_quantization_leaves_no_file(tmp_path: Path, kind: str) -> None:
    """NOPE is no type, and the source is quantized already."""
    quantize(tiny.tiny_model().write(tmp_path / "tiny.gguf"), tmp_path / "q.gguf", "Q8_0")
    with pytest.raises(AdvisorError) as caught:
        quantize(tmp_path / "q.gguf", tmp_path / "out.gguf.partial", kind)
    assert caught.value.code == "quantize-failed"
    assert not (tmp_path / "out.gguf.partial").exists()


def test_a_pattern_is_text_and_not_a_regular_expression(tmp_path: Path) -> None:
    source = tiny.tiny_model().write(tmp_path / "tiny.gguf")
    quantize(source, tmp_path / "out.gguf", "Q8_0", [("ffn.gate", "Q4_0"), ("attn_q", "Q5_0")])
    kinds = {tensor.role: tensor.dtype for tensor in read_gguf(tmp_path / "out.gguf").tensors}
    assert (kinds["ffn_gate"], kinds["attn_q"], kinds["attn_k"]) == ("Q8_0", "Q5_0", "Q8_0")


# ---- files that kill, hang or fool llama.cpp: one sentence, soon, and this process lives


def number(key: str, value: Any, kind: int = tiny.U32) -> tiny.TinyModel:
    return tiny.tiny_model(0, **{key: (kind, value)})


EPSILON = "llama__attention__layer_norm_rms_epsilon"
BROKEN: dict[str, tiny.TinyModel | bytes] = {
    "empty": b"",
    "random": bytes(np.random.default_rng(1).integers(0, 256, 100_000, np.uint8)),
    "zeros": bytes(100_000),
    "magic-alone": b"GGUF",
    "json": b'{"model": 1}',
    **{
        f"cut-at-{share}": tiny.tiny_model().encoded()[: int(449_152 * share)]
        for share in (0.001, 0.01, 0.03, 0.5, 0.99)
    },
    "version": tiny.lying(version=99),
    "tensor-count": tiny.lying(tensors=2**60),
    "value-count": tiny.lying(values=2**60),
    "key-length": tiny.lying(key_length=2**40),
    "dimension-count": tiny.lying(dimensions=2**20),
    "type": tiny.lying(type=99),
    "offset": tiny.lying(offset=2**50),
    "no-architecture": tiny.without(tiny.tiny_model(), "general.architecture"),
    "no-tokenizer": tiny.without(tiny.tiny_model(), "tokenizer.ggml.model", "tokenizer.ggml.tokens"),
    "no-embedding": tiny.without(tiny.tiny_model(), "token_embd.weight"),
    "no-layer-tensor": tiny.without(tiny.tiny_model(), "blk.1.ffn_up.weight"),
    "unknown-architecture": number("general__architecture", "zebra", tiny.STRING),
    "blocks-none": number("llama__block_count", 0),
    "blocks-billion": number("llama__block_count", 10**9),
    "heads-none": number("llama__attention__head_count", 0),
    "heads-many": number("llama__attention__head_count", 2**31),
    "kv-heads-none": number("llama__attention__head_count_kv", 0),
    "embedding-wrong": number("llama__embedding_length", 128),
    "rope-huge": number("llama__rope__dimension_count", 2**31),
    "epsilon-nan": number(EPSILON, math.nan, tiny.F32),
    "epsilon-negative": number(EPSILON, -1.0, tiny.F32),
    "epsilon-infinite": number(EPSILON, math.inf, tiny.F32),
    "weights-ff": tiny.with_weights(tiny.tiny_model(), lambda name, raw: b"\xff" * len(raw)),
    "weights-huge": tiny.with_weights(
        tiny.tiny_model(), lambda name, raw: np.full(len(raw) // 4, 3e38, "<f4").tobytes()
    ),
}
STRANGE = {
    "context-huge": number("llama__context_length", 2**31),
    "context-max": number("llama__context_length", 2**32 - 1),
    "context-none": number("llama__context_length", 0),
    "end-token-billion": number("tokenizer__ggml__eos_token_id", 10**9),
    "first-token-billion": number("tokenizer__ggml__bos_token_id", 10**9),
    "template-evil": number("tokenizer__chat_template", "{{ ''.__class__.__mro__ }}", tiny.STRING),
    "template-endless": number("tokenizer__chat_template", "{% for i in range(99999) %}loop{% endfor %}", tiny.STRING),
    "weights-zero": tiny.with_weights(tiny.tiny_model(), lambda name, raw: bytes(len(raw))),
    "bits-flipped": tiny.with_weights(tiny.tiny_model(), lambda name, raw: bytes([raw[0] ^ 0x10]) + raw[1:]),
}


def tried(model: tiny.TinyModel | bytes, folder: Path) -> dict[str, Any]:
    """The smoke test's verdict, or the one AdvisorError as a verdict; in less than 5 s and 500 MB."""
    path = folder / "model.gguf"
    path.write_bytes(model if isinstance(model, bytes) else model.encoded())
    started = time.perf_counter()
    try:
        found = validation.smoke(path, context=256, threads=1, watch=watch(folder, rss_limit_bytes=500 * MIB))
    except AdvisorError as error:
        found = {"status": f"exit {error.exit_code}", "code": error.code, "reason": error.message}
    assert time.perf_counter() - started < 5
    assert "\n" not in found.get("reason", "")
    assert "Traceback" not in found.get("reason", "")
    return found


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_broken_file_ends_in_one_sentence(tmp_path: Path, name: str) -> None:
    found = tried(BROKEN[name], tmp_path)
    assert found["status"] in ("fail", f"exit {EXIT_STEP_FAILED}")
    assert len(found["reason"]) > 20


@pytest.mark.parametrize("name", sorted(STRANGE))
def test_a_strange_file_is_survived(tmp_path: Path, name: str) -> None:
    found = tried(STRANGE[name], tmp_path)
    if name.startswith("template"):
        assert "chat template fails" in found["notes"][0]


def test_an_address_limit_stops_what_grows_too_fast_to_be_seen(tmp_path: Path) -> None:
    path = tiny.tiny_model(llama__context_length=(tiny.U32, 2**31)).write(tmp_path / "model.gguf")
    request = {"op": "smoke", "model": str(path), "n_ctx": 2**24, "prompts": ["a"], "max_tokens": 4}
    error = refused(tmp_path, request, address_limit_bytes=2 * GIB)
    assert error.code == "worker-memory"


def test_a_missing_model_and_an_unknown_operation_are_said(tmp_path: Path) -> None:
    request = {"op": "smoke", "model": str(tmp_path / "none.gguf"), "n_ctx": 64, "prompts": ["a"], "max_tokens": 4}
    assert refused(tmp_path, request).code == "cannot-load"
    assert refused(tmp_path, {"op": "dance"}).message == "There is no operation 'dance'."


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    source = tiny.tiny_model().write(tmp_path / "tiny.gguf")
    output = tmp_path / "none" / "out.gguf"
    error = refused(tmp_path, {"op": "quantize", "input": str(source), "output": str(output), "type": "Q8_0"})
    assert error.code == "quantize-failed"
