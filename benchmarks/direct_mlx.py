"""The MLX calls of a run as a plain script makes them: no worker, no folder, no hashes; used by overhead.py. See
direct_parts for what it reads and prints; `plain` is the Hugging Face folder that it starts from. Run by the Python of
the MLX toolchain, on Linux's CPU: weights are judged unpacked, and numpy multiplies there, as in a run.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import direct_parts
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from direct_parts import Job
from mlx.utils import tree_map, tree_unflatten
from mlx_lm import utils
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache

NATIVE_BLOCK = 8  # tokens at once: the native kernel is slow


def convert(job: Job, text: str) -> None:
    model, config = utils.load_model(Path(job["plain"]), lazy=True)
    model.update(tree_map(lambda value: value.astype(mx.float16), model.parameters()))
    _save(model, config, job["plain"], job["reference"])


def quantize(job: Job, text: str) -> None:
    model, config = utils.load_model(Path(job["reference"]), lazy=True)
    packing = job["mlx"]
    model, config = utils.quantize_model(model, config, packing["group_size"], packing["bits"], mode=packing["mode"])
    _save(model, config, job["reference"], job["artifact"])


def _save(model: Any, config: dict[str, Any], source: str, target: str) -> None:
    Path(target).mkdir()
    utils.save_model(target, model, donate_model=True)
    utils.save_config(config, Path(target) / "config.json")
    for path in Path(source).glob("*token*"):
        shutil.copyfile(path, Path(target) / path.name)


def smoke(job: Job, text: str) -> None:
    direct_parts.smoke(Model("wide", job["artifact"]), job)


def distribution(job: Job, text: str) -> None:
    direct_parts.distribution(partial(Model, "exact"), job, text)


def runtime(job: Job, text: str) -> None:
    """The artifact as the runtime computes it against its own weights, on the few tokens of that tier."""
    kinds = iter(("exact", "native"))
    few = {**job, **job["runtime"], "reference": job["artifact"]}
    direct_parts.distribution(lambda path: Model(next(kinds), path), few, text)


def benchmark(job: Job, text: str) -> None:
    """As direct_parts.benchmark, by mlx-lm's own loop."""
    for _ in range(job["pairs"] + 1):
        for path in (job["reference"], job["artifact"]):
            model = Model("native", path)
            prompt = mx.array(model.tokens(text)[: job["prompt_tokens"]])
            for tokens, count in ((prompt[:1], 0), (prompt, job["decode_tokens"] + 1)):
                for _ in generate_step(tokens, model.model, max_tokens=count):
                    pass


class Model:
    """A model folder: `native` as it is, `wide` with all but packed weights in 32 bits, `exact` with those unpacked."""

    def __init__(self, arithmetic: str, path: str) -> None:
        self.model, _ = utils.load_model(Path(path), lazy=True)
        self.tokenizer = utils.load_tokenizer(Path(path))
        self.batch = NATIVE_BLOCK if arithmetic == "native" else 256
        if arithmetic != "native":
            self.model.update(tree_map(_wide, self.model.parameters()))
        if arithmetic == "exact":
            matrices = (nn.Linear, nn.Embedding, nn.QuantizedLinear, nn.QuantizedEmbedding)
            named = [(name, Plain(one)) for name, one in self.model.named_modules() if type(one) in matrices]
            self.model.update_modules(tree_unflatten(named))
        mx.eval(self.model.parameters())
        self.clear()

    def clear(self) -> None:
        self.cache = make_prompt_cache(self.model)

    def tokens(self, text: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(text, add_special_tokens=False), np.int32)

    def feed(self, tokens: np.ndarray, position: int, every: bool) -> np.ndarray:
        if not every and len(tokens) > 1:  # no output layer for what nobody looks at
            self.model(mx.array(tokens[:-1])[None], cache=self.cache)
            mx.eval([layer.state for layer in self.cache])
            tokens = tokens[-1:]
        logits = self.model(mx.array(tokens)[None], cache=self.cache)[0].astype(mx.float32)
        mx.eval(logits)
        return np.asarray(logits)


def _wide(value: mx.array) -> mx.array:
    return value.astype(mx.float32) if mx.issubdtype(value.dtype, mx.floating) else value


class Plain(nn.Module):
    """A matrix in 32 bits, as a layer or as a table that is the output layer too."""

    def __init__(self, packed: nn.Module) -> None:
        super().__init__()
        matrix = packed.weight
        if "scales" in packed:
            matrix = mx.dequantize(matrix, packed.scales, packed.biases, packed.group_size, packed.bits, packed.mode)
        self._matrix, self._table = np.asarray(matrix), "Embedding" in type(packed).__name__

    def __call__(self, x: mx.array) -> mx.array:
        return mx.array(self._matrix[np.asarray(x)]) if self._table else self.as_linear(x)

    def as_linear(self, x: mx.array) -> mx.array:
        return mx.array(np.asarray(x) @ self._matrix.T)


if __name__ == "__main__":
    parts = {"convert": convert, "quantize": quantize, "smoke": smoke, "distribution": distribution}
    direct_parts.run_parts({**parts, "runtime": runtime, "benchmark": benchmark})
