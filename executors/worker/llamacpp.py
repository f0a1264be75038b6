"""What a worker can do with llama.cpp. Each operation takes the request and returns the result; see OPERATIONS.

Requests give paths, bounds and threads; nothing here decides anything about quality.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

from . import evaluation, scales, scoring, template
from .llama_choices import choose
from .llama_imatrix import for_quantizer, imatrix, read_importance
from .llama_session import SCORE_BATCH, Session, buffer_bytes, load_model, open_session, reason, tokenize
from .protocol import Operation, Request, WorkerError, metric, progress

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
        answers.append(evaluation.answer(session, prompt, special=special, room=room))
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


def score(request: Request) -> dict[str, Any]:
    """Teacher forcing, see evaluation.score."""
    return evaluation.score(open_session(request, batch_tokens=SCORE_BATCH), request)


def token_ids(request: Request) -> dict[str, Any]:
    """`ids`: the tokens of each of `texts` by the vocabulary of `model`, written-out special tokens as such."""
    vocab = llama.llama_model_get_vocab(load_model(str(request["model"]), vocab_only=True))
    return {"ids": [tokenize(vocab, str(text), special=True).tolist() for text in request["texts"]]}


def bench(request: Request) -> dict[str, Any]:
    """One timing of `model`, loaded anew, after a short warm-up.

    A prompt of `prompt_tokens` from the file `text`, then `decode_tokens` tokens, greedy, end-of-text ignored. Returns
    `load_seconds` (file in the page cache or not, as found), `prefill_tps`, `ttft_ms` (prompt to first token),
    `decode_tps`, `prompt_tokens`, `decode_tokens`.
    """
    session = open_session(request, batch_tokens=BENCH_BATCH)
    text = evaluation.read_text(request)
    decode_tokens = max(1, min(int(request["decode_tokens"]), session.n_ctx // 2))
    prompt = session.tokenize(text, special=False)
    prompt = np.resize(prompt, max(1, min(int(request["prompt_tokens"]), session.n_ctx - decode_tokens)))
    evaluation.prefill(session, prompt[:WARM_UP_TOKENS])
    session.feed(prompt[:1], len(prompt[:WARM_UP_TOKENS]), every=False)
    session.clear()
    started = time.perf_counter()
    logits = evaluation.prefill(session, prompt)
    scoring.check_finite(logits)
    token = int(logits[-1].argmax())
    first = time.perf_counter()
    for made in range(decode_tokens):
        logits = session.feed(np.array([token], np.int32), len(prompt) + made, every=False)
        token = int(logits[-1].argmax())
        progress(made + 1, decode_tokens, "measuring")
    decoded = time.perf_counter()
    session.close()
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


OPERATIONS: dict[str, Operation] = {
    "info": info,
    "quantize": quantize,
    "imatrix": imatrix,
    "smoke": smoke,
    "score": score,
    "choices": choose,
    "bench": bench,
    "scan_scales": scales.scan,
    "token_ids": token_ids,
}
