"""The worker of a framework that is not there: a bigram model of bytes in numpy, kept in 16 or in 4 bits.

A model is a folder: model.json (name, parameters), weights.f16 or weights.q4 (blocks of 32: a 16-bit scale, 16 bytes).
What it "converts" are the last floats of a GGUF in F32.
"""

import hashlib
import json
import time
from pathlib import Path

import numpy as np

from . import choices, evaluation
from .protocol import WorkerError, progress

VOCABULARY, BLOCK, SKIPPED = 256, 32, 4096


class Model:
    """See evaluation.Model: the next byte depends on the last one alone."""

    batch_tokens, vocabulary, first_token = 128, VOCABULARY, None

    def __init__(self, request):
        started = time.perf_counter()
        self.table = read(Path(request["model"]))[: VOCABULARY**2].reshape(VOCABULARY, VOCABULARY).astype(np.float32)
        self.n_ctx = int(request["n_ctx"])
        self.exact = bool(request.get("exact", True))
        self.load_seconds = time.perf_counter() - started

    def tokenize(self, text, *, special):
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    def detokenize(self, tokens):
        return bytes(tokens).decode("latin-1")

    def ends(self, token):
        return False

    def clear(self):
        pass

    def feed(self, tokens, position, *, every):
        return self.table[tokens if every else tokens[-1:]]


def read(folder):
    """All weights as 32-bit floats."""
    if (folder / "weights.f16").is_file():
        return np.fromfile(folder / "weights.f16", "<f2").astype(np.float32)
    try:
        blocks = np.fromfile(folder / "weights.q4", np.uint8).reshape(-1, 2 + BLOCK // 2)
    except (OSError, ValueError) as error:
        raise WorkerError("damaged-file", "There are no whole weights in the folder.") from error
    packed = blocks[:, 2:]
    values = np.stack([packed & 15, packed >> 4], axis=2).reshape(len(blocks), BLOCK).astype(np.float32) - 8
    return (values * scales(blocks)).reshape(-1)


def scales(blocks):
    return np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)


def write(folder, name, data, parameters):
    folder.mkdir()
    data.tofile(folder / name)
    about = {"made_by": "fake", "parameters": parameters}
    (folder / "model.json").write_text(json.dumps(about))
    return {"bytes": sum(file.stat().st_size for file in folder.iterdir())}


def convert(request):
    floats = np.fromfile(request["input"], "<f4")[SKIPPED:]
    floats = floats[: len(floats) // BLOCK * BLOCK]
    return write(Path(request["output"]), "weights.f16", floats.astype("<f2"), len(floats))


def quantize(request):
    weights = read(Path(request["input"])).reshape(-1, BLOCK)
    scale = (np.abs(weights).max(axis=1, keepdims=True) / 7).astype("<f2")
    values = np.round(weights / np.maximum(scale.astype(np.float32), 1e-9)).clip(-7, 7) + 8
    pairs = values.astype(np.uint8).reshape(len(weights), BLOCK // 2, 2)
    packed = pairs[..., 0] | pairs[..., 1] << 4
    progress(1, 1, "quantizing")
    return write(
        Path(request["output"]), "weights.q4", np.concatenate([scale.view(np.uint8), packed], axis=1), weights.size
    )


def inspect(request):
    folder = Path(request["model"])
    weights = read(folder)
    quantized = folder / "weights.q4"
    kept = scales(np.fromfile(quantized, np.uint8).reshape(-1, 18)) if quantized.is_file() else weights
    tensor = {
        "name": "bigram",
        "shape": [len(weights)],
        "elements": len(weights),
        "bytes": sum(file.stat().st_size for file in folder.glob("weights.*")),
        "not_finite": int(np.count_nonzero(~np.isfinite(kept))),
        "zero_share": float(np.mean(kept == 0)),
    }
    return {"tensors": [tensor], "tokenizer_sha256": hashlib.sha256(b"bytes").hexdigest()}


def smoke(request):
    model = Model(request)
    answers = [
        evaluation.answer(model, prompt, special=False, room=int(request["max_tokens"]))
        for prompt in request["prompts"]
    ]
    return {"answers": answers, "load_seconds": model.load_seconds, "notes": []}


def score(request):
    return evaluation.score(Model(request), request)


def choose(request):
    model = Model(request)
    return choices.answer(
        request["items"],
        lambda text: model.tokenize(text, special=False),
        lambda tokens, position, every: model.feed(tokens, position, every=every),
        first_token=None,
        room=model.n_ctx,
    )


def bench(request):
    model = Model(request)
    started = time.perf_counter()
    evaluation.prefill(model, model.tokenize(evaluation.read_text(request)[: request["prompt_tokens"]], special=False))
    first = time.perf_counter()
    for _ in range(request["decode_tokens"]):
        model.feed(np.array([1], np.int32), 0, every=False)
    decoded = time.perf_counter()
    return {
        "load_seconds": model.load_seconds,
        "prefill_tps": request["prompt_tokens"] / (first - started),
        "ttft_ms": (first - started) * 1000,
        "decode_tps": request["decode_tokens"] / (decoded - first),
    }


OPERATIONS = {
    "convert": convert,
    "quantize": quantize,
    "inspect": inspect,
    "smoke": smoke,
    "score": score,
    "choices": choose,
    "bench": bench,
}
