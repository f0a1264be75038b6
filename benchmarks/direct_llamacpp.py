"""The llama.cpp calls of a run as a plain script makes them: no worker, no folder, no hashes. Used by overhead.py.

Reads one JSON object on standard input (paths and sizes, see overhead.py), prints the seconds of each part as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

BATCH = 128


def main() -> None:
    job = json.load(sys.stdin)
    llama.llama_log_set(_quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    text = Path(job["text"]).read_bytes()
    seconds = {}
    for part, work in PARTS.items():
        if job.get("only", part) != part:
            continue
        start = time.perf_counter()
        work(job, text)
        seconds[part] = round(time.perf_counter() - start, 3)
    print(json.dumps(seconds))


@llama.llama_log_callback
def _quiet(level: int, text: bytes, data: Any) -> None:
    pass


def dequantize(job: dict[str, Any], text: bytes) -> None:
    _quantize(job["source"], job["reference"], "F16", [], job["threads"])


def quantize(job: dict[str, Any], text: bytes) -> None:
    _quantize(job["reference"], job["artifact"], job["type"], job["tensor_types"], job["threads"])


def _quantize(source: str, target: str, kind: str, rules: list[dict[str, str]], threads: int) -> None:
    params = llama.llama_model_quantize_default_params()
    params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.nthread = threads
    params.allow_requantize = True
    overrides = (llama.llama_model_tensor_override * (len(rules) + 1))()
    for override, rule in zip(overrides, rules, strict=False):
        override.pattern = rule["pattern"].encode()
        override.type = getattr(llama, f"GGML_TYPE_{rule['type']}")
    params.tt_overrides = ctypes.cast(overrides, ctypes.POINTER(llama.llama_model_tensor_override))
    assert llama.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)) == 0


def smoke(job: dict[str, Any], text: bytes) -> None:
    model = Model(job["artifact"], job["smoke_context"], BATCH, job["threads"])
    for prompt in job["prompts"]:
        model.generate(model.tokens(prompt.encode()), job["answer_tokens"])


def distribution(job: dict[str, Any], text: bytes) -> None:
    """Perplexity of both and the mean KL divergence, over the same tokens in the same windows."""
    rows = job["blocks"] * job["block_tokens"]
    window = (job["context"] - 1) // job["block_tokens"] * job["block_tokens"]
    reference = Model(job["reference"], job["context"], BATCH, job["threads"])
    tokens = reference.tokens(text)[: rows + 1]
    rows = len(tokens) - 1
    kept = np.memmap(job["scores"], np.float16, "w+", shape=(rows, reference.vocabulary))
    done = 0
    for logits, _ in reference.windows(tokens, window):
        kept[done : done + len(logits)] = _log_softmax(logits)
        done += len(logits)
    artifact = Model(job["artifact"], job["context"], BATCH, job["threads"])
    nll, kl, done = 0.0, 0.0, 0
    for logits, targets in artifact.windows(tokens, window):
        q, p = _log_softmax(logits), kept[done : done + len(logits)].astype(np.float32)
        nll -= float(q[np.arange(len(targets)), targets].sum())
        kl += float((np.exp(p) * (p - q)).sum())
        done += len(logits)
    print(f"perplexity {np.exp(nll / rows):.3f}, KL divergence {kl / rows:.4f}", file=sys.stderr)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def benchmark(job: dict[str, Any], text: bytes) -> None:
    """A warming pair and then the timed ones, reference and artifact in turn, each loaded anew and warmed up."""
    for _ in range(job["pairs"] + 1):
        for path in (job["reference"], job["artifact"]):
            model = Model(path, job["bench_context"], 512, job["threads"])
            prompt = model.tokens(text)[: job["prompt_tokens"]]
            model.generate(prompt[:8], 1)
            model.generate(prompt, job["decode_tokens"])
            model.close()


PARTS = {
    "dequantize": dequantize,
    "quantize": quantize,
    "smoke": smoke,
    "distribution": distribution,
    "benchmark": benchmark,
}


class Model:
    """A loaded model with a context and one batch."""

    def __init__(self, path: str, context: int, batch: int, threads: int) -> None:
        self.model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, batch, batch
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.vocabulary = llama.llama_vocab_n_tokens(self.vocab)
        self.size = batch
        self.batch = llama.llama_batch_init(batch, 0, 1)

    def close(self) -> None:
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def tokens(self, text: bytes) -> np.ndarray:
        found = np.empty(len(text) + 16, np.int32)
        pointer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = llama.llama_tokenize(self.vocab, text, len(text), pointer, len(found), False, False)
        return found[:count]

    def decode(self, tokens: np.ndarray, position: int, every: bool) -> np.ndarray:
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i] = int(token), position + i
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            self.batch.logits[i] = every or i == len(tokens) - 1
        assert llama.llama_decode(self.context, self.batch) == 0
        rows = len(tokens) if every else 1
        return np.ctypeslib.as_array(llama.llama_get_logits(self.context), (rows, self.vocabulary))

    def generate(self, prompt: np.ndarray, count: int) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
        for start in range(0, len(prompt), self.size):
            logits = self.decode(prompt[start : start + self.size], start, False)
        for made in range(count):
            logits = self.decode(np.array([logits[-1].argmax()]), len(prompt) + made, False)

    def windows(self, tokens: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(1, len(tokens), window):
            llama.llama_memory_clear(llama.llama_get_memory(self.context), True)
            targets = tokens[start : start + window]
            for at in range(0, len(targets), self.size):
                here = targets[at : at + self.size]
                yield self.decode(tokens[start - 1 + at : start - 1 + at + len(here)], at, True), here


if __name__ == "__main__":
    main()
