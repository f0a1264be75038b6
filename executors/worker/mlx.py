"""What a worker can do with MLX: convert, quantize, look into, run and time a model folder; see OPERATIONS.

A model folder is what `mlx_lm.load` opens: config.json with its `quantization` block, safetensors, a tokenizer.
Requests give paths and bounds; nothing here decides anything about quality. The same code runs on a Mac's GPU and on a
Linux CPU.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import choices, evaluation, template
from .mlx_session import (
    CONFIG_FILE,
    Session,
    device,
    first_sentence,
    load_lazily,
    load_tokenizer,
    tokenize,
)
from .protocol import Operation, Request, WorkerError, metric, progress

# isort: split
import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm import utils
from mlx_lm.convert import mixed_quant_predicate_builder
from mlx_lm.generate import generate_step

SCORE_BATCH = 256  # a CPU's attention costs more with more rows at once, and unpacking with less
NATIVE_CPU_BATCH = 8  # a CPU needs seconds for each token: shorter silences between signs of life
DTYPES = {"F16": mx.float16, "BF16": mx.bfloat16}
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_BINS = 4096  # rows of a tensor that are looked at at once


def info(_request: Request) -> dict[str, Any]:
    """`version` of MLX and of `mlx_lm`, the `device` that it computes on."""
    return {"version": version("mlx"), "mlx_lm": version("mlx-lm"), "device": device()}


def convert(request: Request) -> dict[str, Any]:
    """Write the Hugging Face folder `input` as the MLX folder `output` with weights of `type` (F16 or BF16).

    Returns `bytes`, `seconds`. Raises `cannot-load`, `convert-failed`, `same-file`.
    """
    source, output, started = _places(request)
    model, config = load_lazily(source)
    config["torch_dtype"] = config["dtype"] = str(DTYPES[str(request["type"])]).rpartition(".")[2]
    progress(0, 1, "converting")
    _cast(model, DTYPES[str(request["type"])])
    return _write(model, config, source, output, started)


def quantize(request: Request) -> dict[str, Any]:
    """Write the MLX folder `input` with its matrices packed by `packing` as the new folder `output`.

    `packing` {"mode", "bits", "group_size", "recipe"}: `recipe` names one of mlx-lm's own mixes; 16 bits: nothing is
    packed, `mode` is the type. Matrices whose rows the group does not divide, and layers that the architecture itself
    keeps, stay. Returns `bytes`, `seconds`. Raises `cannot-load`, `convert-failed`, `same-file`.
    """
    source, output, started = _places(request)
    model, config = load_lazily(source)
    packing = request["packing"]
    bits, group, mode = int(packing["bits"]), int(packing["group_size"]), str(packing["mode"])
    progress(0, 1, "quantizing")
    if bits == 16:
        _cast(model, getattr(mx, mode))
        config["torch_dtype"] = config["dtype"] = mode
    else:
        try:
            recipe = str(packing["recipe"])
            chosen = mixed_quant_predicate_builder(recipe, model, group) if recipe else None
            model, config = utils.quantize_model(model, config, group, bits, mode=mode, quant_predicate=chosen)
        except (ValueError, RuntimeError) as error:
            raise WorkerError("convert-failed", f"MLX cannot quantize so: {first_sentence(error)}.") from error
    return _write(model, config, source, output, started)


def _places(request: Request) -> tuple[Path, Path, float]:
    source, output = Path(request["input"]).resolve(strict=True), Path(request["output"])
    if output.exists() or source in output.resolve().parents:
        raise WorkerError("same-file", "The output is, or lies in, the input.")
    return source, output, time.perf_counter()


def _cast(model: nn.Module, kind: mx.Dtype) -> None:
    """All floating weights in `kind`, but for those that the architecture wants in 32 bits."""
    wanted = getattr(model, "cast_predicate", lambda _: True)

    def cast(name: str, value: mx.array) -> mx.array:
        return value.astype(kind) if wanted(name) and mx.issubdtype(value.dtype, mx.floating) else value

    model.update(tree_map_with_path(cast, model.parameters()))


def _write(model: nn.Module, config: dict[str, Any], source: Path, output: Path, started: float) -> dict[str, Any]:
    """The model folder: weights are computed and written shard by shard, the tokenizer's files copied as they are."""
    output.mkdir()
    try:
        utils.save_model(output, model, donate_model=True)
    except RuntimeError as error:
        raise WorkerError("convert-failed", f"MLX cannot write the model: {first_sentence(error)}.") from error
    utils.save_config(config, output / CONFIG_FILE)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, output / name)
    progress(1, 1, "converting")
    size = sum(file.stat().st_size for file in output.iterdir())
    return {"bytes": size, "seconds": time.perf_counter() - started}


def inspect(request: Request) -> dict[str, Any]:
    """Look into the folder `model`: `tensors`, one per matrix or vector, and `tokenizer_sha256`.

    A tensor is {"name", "shape", "elements", "bytes", "type", "not_finite", "zero_share"}: `type` such as `affine 4, 64
    per group` or `float16`; `bytes` with scales and biases; `zero_share` of the scales (of the values where there are
    none). Raises `damaged-file`, `cannot-load`.
    """
    folder = Path(request["model"])
    model, _ = load_lazily(folder)
    modules = [(name, module) for name, module in model.named_modules() if "weight" in module]
    seen, covered = [], set()
    for number, (name, module) in enumerate(modules):
        progress(number, len(modules), "looking into the weights")
        covered |= {f"{name}.{key}" for key in ("weight", "scales", "biases")}
        seen.append(_packed(name, module) if "scales" in module else _plain(f"{name}.weight", module.weight))
    rest = [(name, value) for name, value in tree_flatten(model.parameters()) if name not in covered]
    return {
        "tensors": [*seen, *(_plain(name, value) for name, value in rest)],
        "tokenizer_sha256": _tokenizer_sha256(folder),
    }


def _packed(name: str, module: nn.Module) -> dict[str, Any]:
    weight, scales, biases = module.weight, module.scales, module.get("biases")
    rows = list(scales.shape[:-1])
    columns = scales.shape[-1] * module.group_size
    found = _values(f"{name}.scales", scales)
    if biases is not None:
        found["not_finite"] += _values(f"{name}.biases", biases)["not_finite"]
    return {
        "name": f"{name}.weight",
        "shape": [*rows, columns],
        "elements": int(np.prod(rows)) * columns,
        "bytes": weight.nbytes + scales.nbytes + (biases.nbytes if biases is not None else 0),
        "type": f"{module.mode} {module.bits}, {module.group_size} per group",
        **found,
    }


def _plain(name: str, value: mx.array) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(value.shape),
        "elements": value.size,
        "bytes": value.nbytes,
        "type": str(value.dtype).rpartition(".")[2],
        **_values(name, value),
    }


def _values(name: str, value: mx.array) -> dict[str, Any]:
    """How many values are not finite, and which share is zero; an 8-bit exponent (MXFP) is neither but for 255."""
    rows = value.reshape(-1, value.shape[-1]) if value.ndim > 1 else value.reshape(1, -1)
    bad, zero = 0, 0
    try:
        for start in range(0, rows.shape[0], _BINS):
            part = rows[start : start + _BINS]
            if mx.issubdtype(part.dtype, mx.floating):
                bad += int((~mx.isfinite(part)).sum().item())
                zero += int((part == 0).sum().item())
            else:
                bad += int((part == 255).sum().item())
    except RuntimeError as error:
        raise WorkerError("damaged-file", f"The data of {name} cannot be read: {first_sentence(error)}.") from error
    return {"not_finite": bad, "zero_share": zero / value.size if value.size else 0.0}


def _tokenizer_sha256(folder: Path) -> str:
    """Of the names and bytes of all files that say how text becomes tokens."""
    total = hashlib.sha256()
    for name in TOKENIZER_FILES[:-1]:
        if (folder / name).is_file():
            total.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def smoke(request: Request) -> dict[str, Any]:
    """Load `model` with a context of `n_ctx` and answer `prompts` greedily, at most `max_tokens` tokens each.

    `chat` (optional, messages) is rendered with the model's own template as one more prompt; a template that fails is
    noted. On a CPU everything but the packed weights is in 32 bits. Returns `answers`, `load_seconds`, `notes`,
    `devices`. Raises `non-finite-logits`.
    """
    arithmetic = "native" if device() == "gpu" else "wide"
    model = Session(request, batch_tokens=SCORE_BATCH, arithmetic=arithmetic)
    prompts = [str(prompt) for prompt in request["prompts"]]
    notes = []
    if arithmetic == "wide":
        notes.append(
            "Answered in 32 bits, where MLX's CPU kernel for packed weights is right; the Metal kernels were not run."
        )
    if request.get("chat"):
        try:
            prompts.append(template.render(_chat_template(model.tokenizer), request["chat"]))
        except WorkerError as error:
            notes.append(error.message)
    room = max(1, min(int(request["max_tokens"]), model.n_ctx // 2))
    answers = []
    for number, prompt in enumerate(prompts):
        progress(number, len(prompts), "answering")
        answers.append(evaluation.answer(model, prompt, special=True, room=room))
    return {"answers": answers, "load_seconds": model.load_seconds, "notes": notes, "devices": [device()]}


def _chat_template(tokenizer: Any) -> str:
    found = getattr(tokenizer, "chat_template", None)
    if not isinstance(found, str) or not found:
        raise WorkerError("bad-template", "The model has no chat template.")
    return found


def score(request: Request) -> dict[str, Any]:
    """Teacher forcing, see evaluation.score: of the weights themselves, or as users run them (`exact` false). Adds
    `devices`."""
    arithmetic = "exact" if request.get("exact", True) else "native"
    slow = arithmetic == "native" and device() == "cpu"
    model = Session(request, batch_tokens=NATIVE_CPU_BATCH if slow else SCORE_BATCH, arithmetic=arithmetic)
    return {**evaluation.score(model, request), "devices": [device()]}


def choose(request: Request) -> dict[str, Any]:
    """Put `items` [{"prompt", "options"}] to `model`: `{"log_likelihoods": [[one per option], ...]}`; see choices."""
    model = Session(request, batch_tokens=SCORE_BATCH, arithmetic="exact")
    past = np.empty(0, np.int32)

    def evaluate(tokens: evaluation.Tokens, position: int, every: bool) -> evaluation.Logits:
        """See choices.Evaluate."""
        nonlocal past
        if not model.cut(position):
            model.clear()
            evaluation.prefill(model, past[:position])
        past = np.concatenate([past[:position], tokens])
        return evaluation.feed_all(model, tokens, position, every=every)

    return choices.answer(
        request["items"],
        lambda text: model.tokenize(text, special=False),
        evaluate,
        first_token=model.first_token,
        room=model.n_ctx,
    )


def bench(request: Request) -> dict[str, Any]:
    """One timing of `model`, loaded anew, as users run it: mlx-lm's own generation, greedy, warmed up.

    A prompt of `prompt_tokens` from the file `text`, then `decode_tokens` tokens, end-of-text ignored. Returns
    `load_seconds`, `prefill_tps`, `ttft_ms` (prompt to first token), `decode_tps`, `prompt_tokens`, `decode_tokens`.
    """
    text = evaluation.read_text(request)
    decode_tokens = max(2, min(int(request["decode_tokens"]), int(request["n_ctx"]) // 2))
    started = time.perf_counter()
    folder = Path(request["model"])
    model, _ = load_lazily(folder)
    tokenizer = load_tokenizer(folder)
    mx.eval(model.parameters())
    load_seconds = time.perf_counter() - started
    prompt = np.resize(
        tokenize(tokenizer, text), max(1, min(int(request["prompt_tokens"]), int(request["n_ctx"]) - decode_tokens))
    )
    for _ in generate_step(mx.array(prompt[:1]), model, max_tokens=0):
        pass
    stamps = [time.perf_counter()]
    for made, _ in enumerate(generate_step(mx.array(prompt), model, max_tokens=decode_tokens + 1)):
        stamps.append(time.perf_counter())  # the first token belongs to the prompt's time
        progress(made, decode_tokens, "measuring")
    prefill, decode = stamps[1] - stamps[0], stamps[-1] - stamps[1]
    result = {
        "load_seconds": load_seconds,
        "prefill_tps": len(prompt) / prefill,
        "ttft_ms": 1000 * prefill,
        "decode_tps": decode_tokens / decode,
        "prompt_tokens": len(prompt),
        "decode_tokens": decode_tokens,
    }
    metric("decode_tps", result["decode_tps"])
    return result


OPERATIONS: dict[str, Operation] = {
    "info": info,
    "convert": convert,
    "quantize": quantize,
    "inspect": inspect,
    "smoke": smoke,
    "score": score,
    "choices": choose,
    "bench": bench,
}
