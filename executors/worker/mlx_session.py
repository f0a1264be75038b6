"""One MLX model folder loaded for evaluation: its tokenizer, its logits piece by piece, in one of three arithmetics.

- `native`: as users run it.
- `wide`: packed weights as they are, everything else in 32 bits. On the CPU the kernel for packed weights is right so.
- `exact`: the weights themselves. Matrices are unpacked in 32 bits, so that no kernel for packed weights is involved:
  as many as fit `kept_bytes` once, every other one when its turn comes, so that memory stays bounded. On the CPU numpy
  multiplies: MLX's wheels for Linux bring a reference BLAS, 25 times slower (own measurement, mlx 0.32.4).

Raises WorkerError `cannot-load`. Nothing is downloaded, and no code of a model's folder runs.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map, tree_unflatten
from mlx_lm import utils
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache, trim_prompt_cache

from .evaluation import Logits, Tokens
from .protocol import Request, WorkerError

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 4 * 1024**2
KEPT_BYTES = 250_000_000
LOGIT_BYTES = 156_000_000  # of one batch, kept whole: 256 rows of a 152k vocabulary
ROWS_AT_ONCE = 2048
_MODULE = re.compile(r"[A-Za-z0-9_]{1,64}")  # what mlx-lm imports by a name that the folder gives
_MATRICES = (nn.Linear, nn.Embedding, nn.QuantizedLinear, nn.QuantizedEmbedding)


def first_sentence(error: BaseException) -> str:
    """What an exception says, on one line and without a trailing full stop."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:300].rstrip(".")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder, refused where mlx-lm would import what it names from elsewhere."""
    try:
        if (folder / CONFIG_FILE).stat().st_size > MAX_CONFIG_BYTES:
            raise WorkerError("cannot-load", f"{CONFIG_FILE} is too large.")
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkerError("cannot-load", f"There is no readable {CONFIG_FILE} in the folder.") from error
    if not isinstance(config, dict) or not _MODULE.fullmatch(str(config.get("model_type", ""))):
        raise WorkerError("cannot-load", f"{CONFIG_FILE} names no architecture.")
    if config.get("model_file"):
        raise WorkerError("cannot-load", "The model needs code of its own (model_file), which is never run.")
    return config


def load_lazily(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a folder and its configuration, the weights not read yet."""
    config = read_config(folder)
    try:
        model, config = utils.load_model(folder, lazy=True)
    except Exception as error:  # whatever a foreign configuration or file makes mlx-lm raise: the folder is at fault
        known = str(config["model_type"])
        what = f"MLX cannot load this {known} model: {first_sentence(error)}."
        raise WorkerError("cannot-load", what) from error
    return model, config


def load_tokenizer(folder: Path) -> Any:
    """mlx-lm's tokenizer of a folder."""
    try:
        about = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        named = [about.get(key) for key in ("chat_template_type", "tool_parser_type")]
        if any(name is not None and not _MODULE.fullmatch(str(name)) for name in named):
            raise WorkerError("cannot-load", "The tokenizer names a module that is not mlx-lm's.")
        return utils.load_tokenizer(folder, eos_token_ids=read_config(folder).get("eos_token_id"))
    except WorkerError:
        raise
    except Exception as error:  # as above
        raise WorkerError("cannot-load", f"MLX cannot load the tokenizer: {first_sentence(error)}.") from error


def tokenize(tokenizer: Any, text: str, *, start: bool = False) -> Tokens:
    """Token ids of `text`; with `start`, what the model expects in front of every text comes first."""
    return np.array(tokenizer.encode(text, add_special_tokens=start), np.int32)


def device() -> str:
    """`gpu` or `cpu`: where MLX computes by default."""
    return "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"


class Session:
    """`request["model"]` with `n_ctx` tokens at most, in batches of at most `batch_tokens` whose logits take no more
    than LOGIT_BYTES; see evaluation.Model. `kept_bytes` (KEPT_BYTES) of unpacked matrices stay in memory."""

    def __init__(self, request: Request, *, batch_tokens: int, arithmetic: str) -> None:
        started = time.perf_counter()
        folder = Path(request["model"])
        self.tokenizer = load_tokenizer(folder)
        self.model, _ = load_lazily(folder)
        if arithmetic != "native":
            _widen(self.model, keep=_MATRICES if arithmetic == "exact" else ())
        if arithmetic == "exact":
            _unpack_in_turn(self.model, int(request.get("kept_bytes", KEPT_BYTES)))
        try:
            mx.eval(self.model.parameters())
        except RuntimeError as error:
            raise WorkerError("cannot-load", f"MLX cannot read the weights: {first_sentence(error)}.") from error
        self.vocabulary = int(self.model(mx.array([[0]])).shape[-1])  # its shape is known without computing it
        self.n_ctx = max(16, int(request["n_ctx"]))
        self.batch_tokens = min(batch_tokens, self.n_ctx, max(1, LOGIT_BYTES // (4 * self.vocabulary)))
        start, bare = (tokenize(self.tokenizer, "a", start=start) for start in (True, False))
        self.first_token = int(start[0]) if len(start) > len(bare) else None
        self._seen = 0
        self.clear()
        self.load_seconds = time.perf_counter() - started

    def tokenize(self, text: str, *, special: bool) -> Tokens:
        """See evaluation.Model. Hugging Face's tokenizers always take written-out special tokens as such."""
        return tokenize(self.tokenizer, text)

    def detokenize(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens))

    def ends(self, token: int) -> bool:
        return token in self.tokenizer.eos_token_ids

    def clear(self) -> None:
        self._cache = make_prompt_cache(self.model)
        self._seen = 0

    def cut(self, position: int) -> bool:
        """Forget what stands from `position` on; False where the model's cache cannot be cut."""
        if position == self._seen:
            return True
        if position > self._seen or not can_trim_prompt_cache(self._cache):
            return False
        trim_prompt_cache(self._cache, self._seen - position)
        self._seen = position
        return True

    def feed(self, tokens: Tokens, position: int, *, every: bool) -> Logits:
        if not every and len(tokens) > 1:  # the output layer is not computed for what nobody looks at
            self._run(tokens[:-1])
            mx.eval([layer.state for layer in self._cache])
            tokens = tokens[-1:]
        logits = self._run(tokens)[0].astype(mx.float32)
        mx.eval(logits, [layer.state for layer in self._cache])
        return np.asarray(logits)

    def _run(self, tokens: Tokens) -> mx.array:
        self._seen += len(tokens)
        return self.model(mx.array(tokens)[None], cache=self._cache)


# ---- arithmetics


def _widen(model: nn.Module, *, keep: tuple[type[nn.Module], ...]) -> None:
    """Cast what is in 16 bits to 32, but for the modules of the types `keep`."""
    for _, module in model.named_modules():
        if isinstance(module, keep):
            continue
        own = {name: value for name, value in module.items() if isinstance(value, mx.array)}
        module.update(tree_map(_wide, own))


def _wide(value: mx.array) -> mx.array:
    return value.astype(mx.float32) if mx.issubdtype(value.dtype, mx.floating) else value


def _unpack_in_turn(model: nn.Module, room: int) -> None:
    """Let every matrix be unpacked in 32 bits each time it is needed, but for the first ones, which are kept so in
    `room` bytes."""
    for name, module in [(name, module) for name, module in model.named_modules() if type(module) in _MATRICES]:
        kind = _Embedding if isinstance(module, nn.Embedding | nn.QuantizedEmbedding) else _Linear
        elements = module.scales.size * module.group_size if "scales" in module else module.weight.size
        if 4 * elements <= room:
            room -= 4 * elements
            module = _plain(module)
        model.update_modules(tree_unflatten([(name, kind(module))]))


def _plain(packed: nn.Module) -> nn.Module:
    made = nn.Module()
    made.weight = mx.concatenate(list(_unpacked(packed)))
    if "bias" in packed:
        made.bias = packed.bias
    mx.eval(made.parameters())
    return made


class _Linear(nn.Module):  # type: ignore[misc]
    """x @ weights.T + bias, in 32 bits, of a packed or plain layer."""

    def __init__(self, packed: nn.Module) -> None:
        super().__init__()
        self.packed = packed
        self._multiply = _with_numpy if device() == "cpu" else _with_mlx

    def __call__(self, x: mx.array) -> mx.array:
        made = self._multiply(x, _unpacked(self.packed))
        return made + _wide(self.packed.bias) if "bias" in self.packed else made


class _Embedding(_Linear):
    """Rows of a packed or plain table, in 32 bits, and the table as the output layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return _rows(self.packed, x)

    def as_linear(self, x: mx.array) -> mx.array:
        return self._multiply(x, _unpacked(self.packed))


def _unpacked(module: nn.Module) -> Iterator[mx.array]:
    """The matrix of a linear layer or embedding in 32 bits, some rows at a time: MLX's CPU unpacks with temporaries of
    25 times the size."""
    for start in range(0, module.weight.shape[0], ROWS_AT_ONCE):
        yield _rows(module, slice(start, start + ROWS_AT_ONCE))


def _rows(module: nn.Module, which: mx.array | slice) -> mx.array:
    """Some rows of a matrix. Scales and biases are widened first: unpacking in their own 16 bits would round."""
    weight = module.weight[which]
    if "scales" not in module:
        return _wide(weight)
    biases = module.get("biases")
    widened = None if biases is None else _wide(biases[which])
    scales = _wide(module.scales[which])
    return _wide(mx.dequantize(weight, scales, widened, module.group_size, module.bits, module.mode))


Rows = Iterator[mx.array]


def _with_mlx(x: mx.array, matrix: Rows) -> mx.array:
    return mx.concatenate([x @ rows.T for rows in matrix], axis=-1)


def _with_numpy(x: mx.array, matrix: Rows) -> mx.array:
    left = np.asarray(x).reshape(-1, x.shape[-1])
    return mx.array(np.concatenate([left @ np.asarray(rows).T for rows in matrix], axis=1)).reshape(*x.shape[:-1], -1)
