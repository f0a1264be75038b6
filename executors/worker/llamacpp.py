"""What a worker can do with llama.cpp. Each operation takes the request and returns the result; see OPERATIONS.

Requests give paths, bounds and threads; nothing here decides anything about quality.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

from . import scales, scoring, template
from .llama_choices import choose
from .llama_imatrix import for_quantizer, imatrix, read_importance
from .llama_session import (
    SCORE_BATCH,
    Session,
    Tokens,
    buffer_bytes,
    clear,
    feed,
    first_token,
    load_model,
    open_session,
    piece,
    prefill,
    reason,
    teacher_forced,
    tokenize,
)
from .protocol import Operation, Request, WorkerError, metric, progress

MAX_TEXT_BYTES = 8 * 1024**2
MAX_ANSWER_CHARACTERS = 2000
MAX_REPETITION = 20
BENCH_BATCH = 512
WARM_UP_TOKENS = 8


def info(_request: Request) -> dict[str, Any]:
    """`version` of the binding, `system` (instruction sets that llama.cpp was built with), `gpu_offload`."""
    return {
        "version": llama.__version__,
        "system": (llama.llama_print_system_info() or b"").decode("utf-8", "replace").strip(),
        "gpu_offload": bool(llama.llama_supports_gpu_offload()),
    }


def quantize(request: Request) -> dict[str, Any]:
    """Write `input` to `output` as `type`, a GGUF file type (Q4_K_M, Q8_0; F16 dequantizes).

    `tensor_types` [{"pattern", "type"}] wins for tensors whose name contains the pattern; `token_embedding_type` and
    `output_tensor_type` for those two; `imatrix`, a file of the operation of that name; `threads`; `allow_requantize`
    for a source that is quantized already. `output` is flushed to disk, and removed on failure. Returns `bytes`,
    `seconds`. Raises `same-file`, `damaged-file` (the importance matrix) and `quantize-failed`.
    """
    source, output = Path(request["input"]), Path(request["output"])
    if source.resolve() == output.resolve() or (output.exists() and source.samefile(output)):
        raise WorkerError("same-file", "The output is the input: quantizing would destroy it.")
    params = llama.llama_model_quantize_default_params()
    params.ftype = _file_type(str(request["type"]))
    params.nthread = max(1, int(request.get("threads", 1)))
    params.allow_requantize = bool(request.get("allow_requantize", False))
    if request.get("token_embedding_type"):
        params.token_embedding_type = _tensor_type(str(request["token_embedding_type"]))
    if request.get("output_tensor_type"):
        params.output_tensor_type = _tensor_type(str(request["output_tensor_type"]))
    rules = request.get("tensor_types") or []
    overrides = (llama.llama_model_tensor_override * (len(rules) + 1))()  # ended by an empty entry
    for override, rule in zip(overrides, rules, strict=False):
        override.pattern = str(rule["pattern"]).replace(".", r"\.").encode()  # llama.cpp searches it as a regex
        override.type = _tensor_type(str(rule["type"]))
    if request.get("imatrix"):
        importance = read_importance(Path(request["imatrix"]))
        params.imatrix = ctypes.cast(for_quantizer(importance), ctypes.POINTER(llama.llama_model_imatrix_data))
    params.tt_overrides = ctypes.cast(overrides, ctypes.POINTER(llama.llama_model_tensor_override))
    started = time.perf_counter()
    try:
        status = llama.llama_model_quantize(os.fsencode(source), os.fsencode(output), ctypes.byref(params))
        if status != 0:
            raise WorkerError("quantize-failed", f"llama.cpp cannot quantize: {reason(f'status {status}')}.")
        load_model(str(output), vocab_only=True)
        with output.open("rb+") as file:
            os.fsync(file.fileno())
    except WorkerError:
        with contextlib.suppress(OSError):
            output.unlink(missing_ok=True)
        raise
    return {"bytes": output.stat().st_size, "seconds": time.perf_counter() - started}


def _file_type(name: str) -> int:
    number = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{name}", None) or {"F32": 0, "MXFP4": 38}.get(name)
    if not isinstance(number, int):
        raise WorkerError("quantize-failed", f"llama.cpp has no file type {name}.")
    return number


def _tensor_type(name: str) -> int:
    number = getattr(llama, f"GGML_TYPE_{name}", None)
    if not isinstance(number, int):
        raise WorkerError("quantize-failed", f"llama.cpp has no tensor type {name}.")
    return number


def smoke(request: Request) -> dict[str, Any]:
    """Load `model` with a context of `n_ctx` and answer `prompts` greedily, at most `max_tokens` tokens each.

    `chat` (optional, messages) is rendered with the model's own template as one more prompt; a template that fails is
    noted. Returns `answers` [{"prompt", "text", "tokens", "longest_repetition"}], `load_seconds`, `kv_bytes`,
    `compute_bytes`, `notes`. Raises `non-finite-logits`.
    """
    session = open_session(request, batch_tokens=SCORE_BATCH)
    prompts = [(str(prompt), False) for prompt in request["prompts"]]
    notes: list[str] = []
    if request.get("chat"):
        try:
            prompts.append((_chat_prompt(session, request["chat"]), True))
        except WorkerError as error:
            notes.append(error.message)
    room = max(1, min(int(request["max_tokens"]), session.n_ctx // 2))
    answers = []
    for number, (prompt, special) in enumerate(prompts):
        progress(number, len(prompts), "answering")
        answers.append(_answer(session, prompt, special, room))
    return {
        "answers": answers,
        "load_seconds": session.load_seconds,
        "kv_bytes": buffer_bytes("kv"),
        "compute_bytes": buffer_bytes("compute"),
        "notes": notes,
    }


def _chat_prompt(session: Session, messages: list[dict[str, str]]) -> str:
    source = llama.llama_model_chat_template(session.model, None)
    if not source:
        raise WorkerError("bad-template", "The model has no chat template.")
    bos, eos = (
        (llama.llama_vocab_get_text(session.vocab, token) or b"").decode("utf-8", "replace") if token >= 0 else ""
        for token in (llama.llama_vocab_bos(session.vocab), llama.llama_vocab_eos(session.vocab))
    )
    return template.render(source.decode("utf-8", "replace"), messages, bos_token=bos, eos_token=eos)


def _answer(session: Session, prompt: str, special: bool, room: int) -> dict[str, Any]:
    tokens = tokenize(session.vocab, prompt, special=special)[: session.n_ctx - room]
    start = first_token(session.vocab)
    if start is not None and not (len(tokens) and tokens[0] == start):
        tokens = np.concatenate([np.array([start], np.int32), tokens])[: session.n_ctx - room]
    if not len(tokens):
        raise WorkerError("tokenizer-mismatch", "The model's tokenizer makes nothing of plain text.")
    clear(session)
    logits, text, made, last, run, longest = prefill(session, tokens), b"", 0, -1, 0, 0
    while True:
        scoring.check_finite(logits)
        token = int(logits[-1].argmax())
        if llama.llama_vocab_is_eog(session.vocab, token):
            break
        text += piece(session.vocab, token)
        made += 1
        run = run + 1 if token == last else 1
        last, longest = token, max(longest, run)
        if made >= room or longest > MAX_REPETITION:
            break
        logits = feed(session, np.array([token], np.int32), len(tokens) + made - 1, every=False)
    words = text.decode("utf-8", "replace")[:MAX_ANSWER_CHARACTERS]
    return {"prompt": prompt[:MAX_ANSWER_CHARACTERS], "text": words, "tokens": made, "longest_repetition": longest}


def score(request: Request) -> dict[str, Any]:
    """Teacher forcing on the file `text`; see scoring for the store.

    `mode` "reference" writes the folder `store`: `blocks` blocks of `block_tokens` scored tokens, in windows of as many
    blocks as fit `n_ctx` (fewer blocks when the text is short). `mode` "compare" scores the same tokens in the same
    windows. The tokenizers are compared before anything is computed. Raises `tokenizer-mismatch`, `text-too-short`.
    """
    session = open_session(request, batch_tokens=SCORE_BATCH)
    text = _text(request)
    tokens = tokenize(session.vocab, text, special=False)
    store = Path(request["store"])
    if request["mode"] == "reference":
        block_tokens = int(request["block_tokens"])
        window = (session.n_ctx - 1) // block_tokens * block_tokens
        blocks = min(int(request["blocks"]), (len(tokens) - 1) // block_tokens)
        if blocks < 1 or window < 1 or blocks * block_tokens > scoring.MAX_ROWS:
            raise WorkerError("text-too-short", "The text or the context does not hold one block.")
        tokens = tokens[: blocks * block_tokens + 1]
        about = {
            "rows": blocks * block_tokens,
            "vocabulary": session.vocabulary,
            "block_tokens": block_tokens,
            "context": window + 1,
            "first_token": first_token(session.vocab),
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        return scoring.write_reference(teacher_forced(session, tokens, window), store, tokens, about)
    index = scoring.read_index(store)
    expected = scoring.read_tokens(store, index)
    _check_tokenizer(session, tokens, expected, index)
    if session.n_ctx < index["context"]:
        raise WorkerError("tokenizer-mismatch", "The model's context is shorter than the reference's.")
    pieces = teacher_forced(session, expected, index["context"] - 1)
    return scoring.compare(pieces, store, index)


def _text(request: Request) -> str:
    with Path(request["text"]).open("rb") as file:
        return file.read(MAX_TEXT_BYTES).decode("utf-8")


def _check_tokenizer(session: Session, tokens: Tokens, expected: Tokens, index: dict[str, Any]) -> None:
    if session.vocabulary != index["vocabulary"]:
        message = f"The artifact has {session.vocabulary} tokens and the reference has {index['vocabulary']}."
        raise WorkerError("tokenizer-mismatch", message)
    if first_token(session.vocab) != index["first_token"]:
        raise WorkerError("tokenizer-mismatch", "The artifact begins a text otherwise than the reference.")
    if not np.array_equal(tokens[: len(expected)], expected):
        raise WorkerError("tokenizer-mismatch", "The artifact splits the text into other tokens than the reference.")


def bench(request: Request) -> dict[str, Any]:
    """One timing of `model` in this fresh process, after a short warm-up.

    A prompt of `prompt_tokens` from the file `text`, then `decode_tokens` tokens, greedy, end-of-text ignored. Returns
    `load_seconds` (file in the page cache or not, as found), `prefill_tps`, `ttft_ms` (prompt to first token),
    `decode_tps`, `prompt_tokens`, `decode_tokens`.
    """
    session = open_session(request, batch_tokens=BENCH_BATCH)
    text = _text(request)
    decode_tokens = max(1, min(int(request["decode_tokens"]), session.n_ctx // 2))
    prompt = tokenize(session.vocab, text, special=False)
    prompt = np.resize(prompt, max(1, min(int(request["prompt_tokens"]), session.n_ctx - decode_tokens)))
    prefill(session, prompt[:WARM_UP_TOKENS])
    feed(session, prompt[:1], len(prompt[:WARM_UP_TOKENS]), every=False)
    clear(session)
    started = time.perf_counter()
    logits = prefill(session, prompt)
    scoring.check_finite(logits)
    token = int(logits[-1].argmax())
    first = time.perf_counter()
    for made in range(decode_tokens):
        logits = feed(session, np.array([token], np.int32), len(prompt) + made, every=False)
        token = int(logits[-1].argmax())
        progress(made + 1, decode_tokens, "measuring")
    decoded = time.perf_counter()
    result = {
        "load_seconds": session.load_seconds,
        "prefill_tps": len(prompt) / (first - started),
        "ttft_ms": (first - started) * 1000,
        "decode_tps": decode_tokens / (decoded - first),
        "prompt_tokens": len(prompt),
        "decode_tokens": decode_tokens,
    }
    metric("decode_tps", result["decode_tps"])
    return result


def render_template(request: Request) -> dict[str, Any]:
    """`text`: the request's `template` applied to its `messages`, in the sandbox. Raises `bad-template`."""
    return {"text": template.render(str(request["template"]), request["messages"])}


OPERATIONS: dict[str, Operation] = {
    "info": info,
    "quantize": quantize,
    "imatrix": imatrix,
    "smoke": smoke,
    "score": score,
    "choices": choose,
    "bench": bench,
    "render_template": render_template,
    "scan_scales": scales.scan,
}
