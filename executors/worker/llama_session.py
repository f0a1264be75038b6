"""One llama.cpp model loaded for evaluation: what it says, its tokenizer, and its logits piece by piece.

Freed by Session.close alone: most workers answer one request and end. Raises WorkerError `cannot-load` and
`worker-error`.
"""

from __future__ import annotations

import collections
import ctypes
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

from .evaluation import Logits, Tokens
from .protocol import Request, WorkerError, progress

SCORE_BATCH = 128  # logits of one batch are kept whole: 128 rows of a 152k vocabulary are 78 MB
LEAST_CONTEXT = 16
_DEBUG, _ERROR, _CONTINUED = 1, 4, 5  # ggml_log_level (llama.cpp ggml/include/ggml.h)
_BUFFER = re.compile(r"(KV|compute|model) buffer size\s*=\s*([0-9.]+) MiB")
_PREFIX = re.compile(r"^(?:\w+: |error loading model(?: \w+)?: )+")
_STEP = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")

_errors: collections.deque[str] = collections.deque(maxlen=4)
_buffers: dict[str, float] = collections.defaultdict(float)
_last_level = 0


@llama.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _data: Any) -> None:
    global _last_level
    _last_level = level = _last_level if level == _CONTINUED else level
    if level == _DEBUG:
        return
    os.write(2, text)
    words = text.decode("utf-8", "replace")
    if level == _ERROR and words.strip():
        _errors.append(" ".join(words.split()))
    if found := _BUFFER.search(words):
        _buffers[found[1].lower()] += float(found[2]) * 1024**2
    if words.startswith("[") and (step := _STEP.match(words)):
        progress(int(step[1]), int(step[2]), "quantizing")


@llama.llama_progress_callback  # type: ignore[untyped-decorator]
def _on_load(share: float, _data: Any) -> bool:
    progress(round(share * 100), 100, "loading the model")
    return True


os.environ["GGML_NO_BACKTRACE"] = "1"  # an abort would run a debugger for seconds (ggml/src/ggml.c)
llama.llama_log_set(_on_log, ctypes.c_void_p(0))
llama.llama_backend_init()


def reason(default: str) -> str:
    """The last thing that llama.cpp complained about and that says more than that it failed; `default` if nothing."""
    telling = [words for words in _errors if "failed to load model" not in words] or [default]
    return _PREFIX.sub("", telling[-1]).rstrip(".")


def buffer_bytes(kind: str) -> int:
    """Bytes that llama.cpp says it allocated for `kv`, `compute` or `model` in this process."""
    return round(_buffers[kind])


@dataclass(slots=True)
class Session:
    """A model and a context of `n_ctx` tokens, evaluated in batches of at most `batch_tokens`; see evaluation.Model."""

    model: Any
    context: Any
    vocab: Any
    vocabulary: int
    n_ctx: int
    batch_tokens: int
    first_token: int | None
    batch: Any
    load_seconds: float

    def close(self) -> None:
        """Free all of it; the session is of no more use."""
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.context)
        llama.llama_model_free(self.model)

    def tokenize(self, text: str, *, special: bool) -> Tokens:
        return tokenize(self.vocab, text, special=special)

    def detokenize(self, tokens: list[int]) -> str:
        return b"".join(_piece(self.vocab, token) for token in tokens).decode("utf-8", "replace")

    def ends(self, token: int) -> bool:
        return bool(llama.llama_vocab_is_eog(self.vocab, token))

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def feed(self, tokens: Tokens, position: int, *, every: bool) -> Logits:
        count, batch = len(tokens), self.batch
        batch.n_tokens = count
        np.ctypeslib.as_array(batch.token, (count,))[:] = tokens
        np.ctypeslib.as_array(batch.pos, (count,))[:] = np.arange(position, position + count)
        wanted = np.ctypeslib.as_array(batch.logits, (count,))
        wanted[:] = every
        wanted[-1] = True
        status = llama.llama_decode(self.context, batch)
        if status != 0:
            raise WorkerError("worker-error", f"llama.cpp cannot evaluate the model: {reason(f'status {status}')}.")
        rows = count if every else 1
        return np.ctypeslib.as_array(llama.llama_get_logits(self.context), (rows, self.vocabulary))


def load_model(path: str, *, vocab_only: bool = False) -> Any:
    """The model in the file `path`, mapped into memory; its layers on the CPU."""
    if not Path(path).is_file():
        raise WorkerError("cannot-load", f"There is no model file at {path}.")
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    params.vocab_only = vocab_only
    params.progress_callback = _on_load
    model = llama.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise _refusal("load the model")
    return model


def _refusal(what: str) -> WorkerError:
    words = reason("it gives no reason")
    code = "worker-memory" if "allocate" in words else "cannot-load"
    return WorkerError(code, f"llama.cpp cannot {what}: {words}.")


def open_session(request: Request, *, batch_tokens: int, eval_callback: Any = None) -> Session:
    """Load `request["model"]` with a context of `n_ctx`, never more than asked for nor than the model was trained on.

    Also read: `threads` (1). `eval_callback` sees every node of the graph as it is computed; the caller keeps it alive.
    """
    started = time.perf_counter()
    model = load_model(str(request["model"]))
    trained = llama.llama_model_n_ctx_train(model)
    n_ctx = max(LEAST_CONTEXT, min(int(request["n_ctx"]), trained if trained > 0 else 2**31))
    params = llama.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = batch_tokens = min(batch_tokens, n_ctx)
    params.n_threads = params.n_threads_batch = max(1, int(request.get("threads", 1)))
    params.no_perf = True
    if eval_callback is not None:
        params.cb_eval = eval_callback
    context = llama.llama_init_from_model(model, params)
    if not context:
        raise _refusal(f"make a context of {n_ctx} tokens")
    vocab = llama.llama_model_get_vocab(model)
    batch = llama.llama_batch_init(batch_tokens, 0, 1)
    for i in range(batch_tokens):
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
    return Session(
        model=model,
        context=context,
        vocab=vocab,
        vocabulary=llama.llama_vocab_n_tokens(vocab),
        n_ctx=n_ctx,
        batch_tokens=batch_tokens,
        first_token=_first_token(vocab),
        batch=batch,
        load_seconds=time.perf_counter() - started,
    )


def tokenize(vocab: Any, text: str, *, special: bool) -> Tokens:
    """Token ids of `text`; with `special`, written-out special tokens count as such. Nothing is added in front."""
    data = text.encode()
    room = 4 * len(data) + 16  # a space alone may become three byte tokens
    tokens = np.empty(room, np.int32)
    pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
    count = llama.llama_tokenize(vocab, data, len(data), pointer, room, False, special)
    if count < 0:
        raise WorkerError("tokenizer-mismatch", "The model's tokenizer fails on plain text.")
    return tokens[:count].copy()


def _first_token(vocab: Any) -> int | None:
    """The token that this model expects at the start of every text, if any."""
    return int(llama.llama_vocab_bos(vocab)) if llama.llama_vocab_get_add_bos(vocab) else None


def _piece(vocab: Any, token: int) -> bytes:
    """The bytes that `token` stands for; empty for special tokens."""
    buffer = ctypes.create_string_buffer(512)
    size = llama.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, False)
    return buffer.raw[: max(0, size)]
