"""What a worker can do with Olive and ONNX Runtime GenAI: make, look into, run and time a model folder; see OPERATIONS.

A model folder is what ONNX Runtime GenAI opens: model.onnx, genai_config.json, tokenizer.json. Olive, which takes
seconds to import, is only imported to make one, and onnx, a fifth of a second of each timing, to look into one.
"""

from __future__ import annotations

import json
import os
import time
from importlib import import_module
from typing import Any

# ONNX Runtime 1.32 itself asks the network and keeps a device id below the home directory, unless it is told not to.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime_genai as genai

from . import choices, evaluation
from .olive_session import Session, first_sentence, load
from .protocol import Operation, Request, WorkerError, metric, progress

SCORE_BATCH = 128  # logits of one batch are kept whole: 128 rows of a 152k vocabulary are 78 MB
WARM_UP_TOKENS = 8


def smoke(request: Request) -> dict[str, Any]:
    """Load `model` with a context of `n_ctx` and answer `prompts` greedily, at most `max_tokens` tokens each.

    `chat` (optional, messages) is rendered with the model's own template as one more prompt; a template that fails is
    noted. Returns `answers`, `load_seconds`, `notes`, `devices`. Raises `non-finite-logits`.
    """
    model = Session(request, batch_tokens=SCORE_BATCH)
    prompts = [str(prompt) for prompt in request["prompts"]]
    notes = []
    if request.get("chat"):
        try:
            messages = json.dumps(request["chat"])
            prompts.append(model.tokenizer.apply_chat_template(messages, add_generation_prompt=True))
        except RuntimeError as error:
            notes.append(f"The chat template fails: {first_sentence(error)}.")
    room = max(1, min(int(request["max_tokens"]), model.n_ctx // 2))
    answers = []
    for number, prompt in enumerate(prompts):
        progress(number, len(prompts), "answering")
        answers.append(evaluation.answer(model, prompt, special=True, room=room))
    return {"answers": answers, "load_seconds": model.load_seconds, "notes": notes, "devices": [model.device]}


def score(request: Request) -> dict[str, Any]:
    """Teacher forcing, see evaluation.score."""
    return evaluation.score(Session(request, batch_tokens=SCORE_BATCH), request)


def choose(request: Request) -> dict[str, Any]:
    """Put `items` [{"prompt", "options"}] to `model`: `{"log_likelihoods": [[one per option], ...]}`; see choices."""
    model = Session(request, batch_tokens=SCORE_BATCH)

    def evaluate(tokens: evaluation.Tokens, position: int, every: bool) -> evaluation.Logits:
        """See choices.Evaluate."""
        return evaluation.feed_all(model, tokens, position, every=every)

    return choices.answer(
        request["items"],
        lambda text: model.tokenize(text, special=False),
        evaluate,
        first_token=model.first_token,
        room=model.n_ctx,
    )


def bench(request: Request) -> dict[str, Any]:
    """One timing of `model`, loaded anew, as users run it: GenAI's own loop, warmed up, cache for `n_ctx`.

    A prompt of `prompt_tokens` from the file `text`, then `decode_tokens` tokens, greedy, end-of-text suppressed.
    Returns `load_seconds`, `prefill_tps`, `ttft_ms` (prompt to first token), `decode_tps`, `prompt_tokens`,
    `decode_tokens`.
    """
    text, n_ctx = evaluation.read_text(request), int(request["n_ctx"])
    decode_tokens = max(2, min(int(request["decode_tokens"]), n_ctx // 2))
    started = time.perf_counter()
    model, params = load(request, max_length=n_ctx, min_length=n_ctx, do_sample=False)
    tokenizer = genai.Tokenizer(model)
    load_seconds = time.perf_counter() - started
    tokens = np.asarray(tokenizer.encode(text), np.int32)
    prompt = np.resize(tokens, max(1, min(int(request["prompt_tokens"]), n_ctx - decode_tokens - 1)))
    _timed(genai.Generator(model, params), prompt[:WARM_UP_TOKENS], 1)
    generator = genai.Generator(model, params)
    progress(0, 1, "measuring")
    first, rest = _timed(generator, prompt, decode_tokens)
    result = {
        "load_seconds": load_seconds,
        "prefill_tps": len(prompt) / first,
        "ttft_ms": 1000 * first,
        "decode_tps": decode_tokens / rest,
        "prompt_tokens": len(prompt),
        "decode_tokens": decode_tokens,
    }
    metric("decode_tps", result["decode_tps"])
    return result


def _timed(generator: genai.Generator, prompt: evaluation.Tokens, count: int) -> tuple[float, float]:
    """Seconds to the first token, and for `count` more."""
    started = time.perf_counter()
    try:
        generator.append_tokens(prompt)
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(count):
            generator.generate_next_token()
    except RuntimeError as error:
        message = f"ONNX Runtime GenAI cannot evaluate the model: {first_sentence(error)}."
        raise WorkerError("worker-error", message) from error
    return first - started, time.perf_counter() - first


def _of(module: str, name: str) -> Operation:
    """The operation `name` of a sibling that is imported when the operation is asked for."""

    def operation(request: Request) -> dict[str, Any]:
        found: dict[str, Any] = getattr(import_module(f"{__package__}.{module}"), name)(request)
        return found

    return operation


OPERATIONS: dict[str, Operation] = {
    "build": _of("olive_make", "build"),
    "quantize": _of("olive_make", "quantize"),
    "optimize": _of("olive_make", "optimize"),
    "import": _of("olive_make", "import_made"),
    "host": _of("olive_make", "host"),
    "scan": _of("onnx_graph", "scan"),
    "smoke": smoke,
    "score": score,
    "bench": bench,
    "choices": choose,
}
