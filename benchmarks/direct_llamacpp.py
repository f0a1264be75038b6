"""The llama.cpp calls of a run as a plain script makes them: no worker, no folder, no hashes. Used by overhead.py; see
direct_parts for what it reads and prints.
"""

from __future__ import annotations

import ctypes
import os
from functools import partial
from typing import Any

import direct_parts
import llama_cpp as llama
import numpy as np
from direct_parts import Job

BATCH, BENCH_BATCH = 128, 512


@llama.llama_log_callback
def _quiet(level: int, text: bytes, data: Any) -> None:
    pass


def dequantize(job: Job, text: str) -> None:
    _quantize(job["source"], job["reference"], "F16", [], job["threads"])


def quantize(job: Job, text: str) -> None:
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


def smoke(job: Job, text: str) -> None:
    direct_parts.smoke(Model(job["smoke_context"], BATCH, job["threads"], job["artifact"]), job)


def distribution(job: Job, text: str) -> None:
    direct_parts.distribution(partial(Model, job["context"], BATCH, job["threads"]), job, text)


def benchmark(job: Job, text: str) -> None:
    direct_parts.benchmark(partial(Model, job["bench_context"], BENCH_BATCH, job["threads"]), job, text)


class Model:
    """A loaded model with a context and one batch."""

    def __init__(self, context: int, batch: int, threads: int, path: str) -> None:
        self.model = llama.llama_model_load_from_file(os.fsencode(path), llama.llama_model_default_params())
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, batch, batch
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.vocabulary = llama.llama_vocab_n_tokens(self.vocab)
        self.batch = batch
        self._batch = llama.llama_batch_init(batch, 0, 1)

    def close(self) -> None:
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def tokens(self, text: str) -> np.ndarray:
        said = text.encode()
        found = np.empty(len(said) + 16, np.int32)
        pointer = found.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        count = llama.llama_tokenize(self.vocab, said, len(said), pointer, len(found), False, False)
        return found[:count]

    def feed(self, tokens: np.ndarray, position: int, every: bool) -> np.ndarray:
        self._batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self._batch.token[i], self._batch.pos[i] = int(token), position + i
            self._batch.n_seq_id[i], self._batch.seq_id[i][0] = 1, 0
            self._batch.logits[i] = every or i == len(tokens) - 1
        assert llama.llama_decode(self.context, self._batch) == 0
        rows = len(tokens) if every else 1
        return np.ctypeslib.as_array(llama.llama_get_logits(self.context), (rows, self.vocabulary))


if __name__ == "__main__":
    llama.llama_log_set(_quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    parts = {"dequantize": dequantize, "quantize": quantize, "smoke": smoke}
    direct_parts.run_parts({**parts, "distribution": distribution, "benchmark": benchmark})
