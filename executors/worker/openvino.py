"""What a worker can do with OpenVINO: convert, compress, look into, run and time a model folder; see OPERATIONS.

A model folder is what OpenVINO GenAI opens: openvino_model.{xml,bin}, tokenizer and detokenizer, config.json. Requests
give paths, bounds and threads; nothing here decides anything about quality.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai

from . import choices, encoding, evaluation, ir
from .openvino_session import (
    MODEL_FILE,
    Session,
    first_sentence,
    input_names,
    load_tokenizer,
    model_inputs,
    read_model,
    runtime_options,
    tokenize,
)
from .protocol import Operation, Request, WorkerError, metric, progress

SCORE_BATCH = 128  # logits of one batch are kept whole: 128 rows of a 152k vocabulary are 78 MB
WARM_UP_TOKENS = 8
TOKENIZER_FILES = tuple(f"openvino_{part}.{end}" for part in ("tokenizer", "detokenizer") for end in ("xml", "bin"))
CONFIG_FILES = ("config.json", "generation_config.json")


def info(_request: Request) -> dict[str, Any]:
    """`version` of the runtime and of `genai`, the `devices` it sees."""
    core = ov.Core()
    return {"version": ov.__version__, "genai": genai.__version__, "devices": list(core.available_devices)}


def to_ir(request: Request) -> dict[str, Any]:
    """Write the 16-bit GGUF `input` as the model folder `output`, with `files` {name: text} beside the model.

    OpenVINO GenAI reads the GGUF and saves what it read into the GGUF's folder: so it gets a link of its own in
    `output`. Exact for F16 and BF16; it would round a quantized GGUF. Returns `bytes`, `seconds`.
    Raises `convert-failed`.
    """
    source, output = Path(request["input"]).resolve(strict=True), Path(request["output"])
    output.mkdir()
    started = time.perf_counter()
    linked = output / "source.gguf"
    try:
        os.link(source, linked)
    except OSError:
        shutil.copyfile(source, linked)
    progress(0, 2, "reading the GGUF")
    try:
        genai.LLMPipeline(str(linked), "CPU", enable_save_ov_model=True, **runtime_options(request))
    except (RuntimeError, ValueError) as error:
        raise WorkerError(
            "convert-failed", f"OpenVINO GenAI cannot read this GGUF: {first_sentence(error)}."
        ) from error
    finally:
        linked.unlink()
    missing = [name for name in (MODEL_FILE, *TOKENIZER_FILES) if not (output / name).is_file()]
    if missing:
        raise WorkerError(
            "convert-failed", f"OpenVINO GenAI wrote no {missing[0]}: it does not know this architecture."
        )
    for name, text in request["files"].items():
        if name not in CONFIG_FILES:
            raise WorkerError("convert-failed", f"{name} is no file of a model folder.")
        (output / name).write_text(text, encoding="utf-8")
    progress(2, 2, "reading the GGUF")
    return {"bytes": _size(output), "seconds": time.perf_counter() - started}


def compress(request: Request) -> dict[str, Any]:
    """Write the model folder `input` to the new folder `output` with its weights compressed by `passes`, in order.

    See ir.compress for a pass. `text`: the calibration text for passes that estimate scales (`samples` windows of
    `sample_tokens` tokens). Tokenizer, configuration and `papers` are copied. Returns `bytes`, `seconds`.
    Raises `same-file`, `compress-failed`.
    """
    source, output = Path(request["input"]).resolve(strict=True), Path(request["output"])
    if output.exists() or source == output.resolve() or source in output.resolve().parents:
        raise WorkerError("same-file", "The output is, or lies in, the input: saving would destroy the mapped weights.")
    started = time.perf_counter()
    model = read_model(str(source))
    samples = _samples(request, source, model) if request.get("text") else []
    model = ir.compress(model, request["passes"], samples)
    output.mkdir()
    ov.save_model(model, str(output / MODEL_FILE), compress_to_fp16=False)
    for name in (*TOKENIZER_FILES, *CONFIG_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, output / name)
    encoding.copy_papers(source, output, request.get("papers", ()))
    return {"bytes": _size(output), "seconds": time.perf_counter() - started}


def _samples(request: Request, folder: Path, model: ov.Model) -> list[dict[str, Any]]:
    """Windows of the calibration text as inputs of `model`."""
    text = Path(request["text"]).read_text(encoding="utf-8")[: evaluation.MAX_TEXT_BYTES]
    tokens = tokenize(load_tokenizer(str(folder)), text)
    size = int(request["sample_tokens"])
    starts = range(0, len(tokens) - size + 1, size)
    names = input_names(model)
    inputs = [model_inputs(tokens[start : start + size], 0, names) for start in starts[: int(request["samples"])]]
    if not inputs:
        raise WorkerError("text-too-short", "The calibration text does not hold one window.")
    return inputs


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def scan(request: Request) -> dict[str, Any]:
    """Look into the weights of the folder `model`; see ir.look."""
    return {"weights": ir.look(read_model(str(request["model"])))}


def smoke(request: Request) -> dict[str, Any]:
    """Load `model` with a context of `n_ctx` and answer `prompts` greedily, at most `max_tokens` tokens each.

    `chat` (optional, messages) is rendered with the model's own template as one more prompt; a template that fails is
    noted. Returns `answers`, `load_seconds`, `notes`, `devices` (EXECUTION_DEVICES: what really ran), `kv_cache`.
    Raises `non-finite-logits`.
    """
    model = Session(request, batch_tokens=SCORE_BATCH)
    prompts = [str(prompt) for prompt in request["prompts"]]
    notes = []
    if request.get("chat"):
        try:
            prompts.append(model.tokenizer.apply_chat_template(request["chat"], add_generation_prompt=True))
        except RuntimeError as error:
            notes.append(f"The chat template fails: {first_sentence(error)}.")
    room = max(1, min(int(request["max_tokens"]), model.n_ctx // 2))
    answers = []
    for number, prompt in enumerate(prompts):
        progress(number, len(prompts), "answering")
        answers.append(evaluation.answer(model, prompt, special=True, room=room))
    return {
        "answers": answers,
        "load_seconds": model.load_seconds,
        "notes": notes,
        "devices": model.devices,
        "kv_cache": model.kv_cache,
    }


def score(request: Request) -> dict[str, Any]:
    """Teacher forcing, see evaluation.score; logits in 32 bits throughout (`exact`). Adds `devices`, `kv_cache`."""
    model = Session({"exact": True, **request}, batch_tokens=SCORE_BATCH)
    return {**evaluation.score(model, request), "devices": model.devices, "kv_cache": model.kv_cache}


def token_ids(request: Request) -> dict[str, Any]:
    """`ids`: the tokens of each of `texts` by the tokenizer of the folder `model`, nothing added in front."""
    tokenizer = load_tokenizer(str(request["model"]))
    return {"ids": [tokenize(tokenizer, str(text)).tolist() for text in request["texts"]]}


def bench(request: Request) -> dict[str, Any]:
    """One timing of `model`, loaded anew, as users run it: OpenVINO GenAI with its own defaults, warmed up.

    A prompt of `prompt_tokens` from the file `text`, then `decode_tokens` tokens, greedy, end-of-text ignored. Returns
    `load_seconds`, `prefill_tps`, `ttft_ms` (prompt to first token), `decode_tps`, `prompt_tokens`, `decode_tokens`.
    """
    text = evaluation.read_text(request)
    decode_tokens = max(2, min(int(request["decode_tokens"]), int(request["n_ctx"]) // 2))
    started = time.perf_counter()
    pipeline = _pipeline(request)
    load_seconds = time.perf_counter() - started
    tokens = tokenize(pipeline.get_tokenizer(), text).astype(np.int64)
    prompt = np.resize(tokens, max(1, min(int(request["prompt_tokens"]), int(request["n_ctx"]) - decode_tokens)))
    settings = genai.GenerationConfig()
    settings.do_sample, settings.ignore_eos, settings.max_new_tokens = False, True, 2
    pipeline.generate(ov.Tensor(prompt[None, :WARM_UP_TOKENS].copy()), settings)
    settings.max_new_tokens = decode_tokens + 1  # the first token belongs to the prompt's time
    progress(0, 1, "measuring")
    timed = pipeline.generate(ov.Tensor(prompt[None].copy()), settings).perf_metrics
    ttft_ms, token_ms = timed.get_ttft().mean, timed.get_tpot().mean
    result = {
        "load_seconds": load_seconds,
        "prefill_tps": 1000 * len(prompt) / ttft_ms,
        "ttft_ms": ttft_ms,
        "decode_tps": 1000 / token_ms,
        "prompt_tokens": len(prompt),
        "decode_tokens": timed.get_num_generated_tokens() - 1,
    }
    metric("decode_tps", result["decode_tps"])
    return result


def choose(request: Request) -> dict[str, Any]:
    """Put `items` [{"prompt", "options"}] to `model`: `{"log_likelihoods": [[one per option], ...]}`; see choices."""
    model = Session({"exact": True, **request}, batch_tokens=SCORE_BATCH)
    past = np.empty(0, np.int32)

    def evaluate(tokens: evaluation.Tokens, position: int, every: bool) -> evaluation.Logits:
        """See choices.Evaluate. The cache cannot be cut: what stood before is evaluated again."""
        nonlocal past
        if position != len(past):
            model.clear()
            if position:
                evaluation.prefill(model, past[:position])
        elif not position:
            model.clear()
        past = np.concatenate([past[:position], tokens])
        return evaluation.feed_all(model, tokens, position, every=every)

    return choices.answer(
        request["items"],
        lambda text: model.tokenize(text, special=False),
        evaluate,
        first_token=model.first_token,
        room=model.n_ctx,
    )


def _pipeline(request: Request) -> genai.LLMPipeline:
    options = runtime_options(request)
    try:
        return genai.LLMPipeline(str(request["model"]), "CPU", **options)
    except (RuntimeError, ValueError) as error:
        raise WorkerError("cannot-load", f"OpenVINO GenAI cannot load the model: {first_sentence(error)}.") from error


OPERATIONS: dict[str, Operation] = {
    "info": info,
    "to_ir": to_ir,
    "compress": compress,
    "scan": scan,
    "smoke": smoke,
    "score": score,
    "bench": bench,
    "choices": choose,
    "token_ids": token_ids,
}
