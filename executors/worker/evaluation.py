"""Smoke test and scoring, the same code over any framework's model: what a worker module has to bring is `Model`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import scoring
from .protocol import Request, WorkerError, progress

Tokens = NDArray[np.int32]
Logits = NDArray[np.float32]

MAX_TEXT_BYTES = 8 * 1024**2
MAX_ANSWER_CHARACTERS = 2000
MAX_REPETITION = 20


class Model(Protocol):
    """A loaded model with a context of `n_ctx` tokens that evaluates at most `batch_tokens` tokens at once."""

    n_ctx: int
    batch_tokens: int
    vocabulary: int
    first_token: int | None  # what this model expects at the start of every text, if anything

    def tokenize(self, text: str, *, special: bool) -> Tokens:
        """Token ids of `text`, nothing added in front; with `special`, written-out special tokens count as such."""

    def detokenize(self, tokens: list[int]) -> str:
        """The text that `tokens` stand for."""

    def ends(self, token: int) -> bool:
        """Whether `token` ends an answer."""

    def clear(self) -> None:
        """Forget all tokens."""

    def feed(self, tokens: Tokens, position: int, *, every: bool) -> Logits:
        """Evaluate at most `batch_tokens` tokens at `position`: logits after every token, or only after the last one,
        (rows, vocabulary), valid until the next call."""


def prefill(model: Model, tokens: Tokens) -> Logits:
    """Evaluate a prompt from position 0 in batches; the logits after its last token."""
    logits = np.empty((0, 0), np.float32)
    for start in range(0, len(tokens), model.batch_tokens):
        logits = model.feed(tokens[start : start + model.batch_tokens], start, every=False)
    return logits


def feed_all(model: Model, tokens: Tokens, position: int, *, every: bool) -> Logits:
    """Evaluate `tokens`, which follow `position` others, in batches: the logits after each, or after the last one.

    The logits are the caller's own.
    """
    size = model.batch_tokens
    rows = [model.feed(tokens[at : at + size], position + at, every=every).copy() for at in range(0, len(tokens), size)]
    return np.concatenate(rows) if every else rows[-1]


def teacher_forced(model: Model, tokens: Tokens, window: int) -> Iterator[tuple[Logits, Tokens]]:
    """Logits for `tokens[1:]`, each predicted from what precedes it in its window of `window` tokens.

    A window begins with the model's own first token where it has one, else with the token before the window, and
    everything before it is forgotten. Yields `(logits, targets)`, the logits valid until the next step.
    """
    for start in range(1, len(tokens), window):
        targets = tokens[start : start + window]
        inputs = tokens[start - 1 : start - 1 + len(targets)].copy()
        if model.first_token is not None:
            inputs[0] = model.first_token
        model.clear()
        for at in range(0, len(targets), model.batch_tokens):
            here = slice(at, at + model.batch_tokens)
            yield model.feed(inputs[here], at, every=True), targets[here]
            progress(min(start - 1 + here.stop, len(tokens) - 1), len(tokens) - 1, "scoring")


def answer(model: Model, prompt: str, *, special: bool, room: int) -> dict[str, Any]:
    """Answer `prompt` greedily with at most `room` tokens: `{"prompt", "text", "tokens", "longest_repetition"}`.

    Raises WorkerError `non-finite-logits` and `tokenizer-mismatch`.
    """
    tokens = model.tokenize(prompt, special=special)[: model.n_ctx - room]
    if model.first_token is not None and not (len(tokens) and tokens[0] == model.first_token):
        tokens = np.concatenate([np.array([model.first_token], np.int32), tokens])[: model.n_ctx - room]
    if not len(tokens):
        raise WorkerError("tokenizer-mismatch", "The model's tokenizer makes nothing of plain text.")
    model.clear()
    logits = prefill(model, tokens)
    made: list[int] = []
    run, longest = 0, 0
    while True:
        scoring.check_finite(logits)
        token = int(logits[-1].argmax())
        if model.ends(token):
            break
        run = run + 1 if made and token == made[-1] else 1
        longest = max(longest, run)
        made.append(token)
        if len(made) >= room or longest > MAX_REPETITION:
            break
        logits = model.feed(np.array([token], np.int32), len(tokens) + len(made) - 1, every=False)
    words = model.detokenize(made)[:MAX_ANSWER_CHARACTERS]
    return {
        "prompt": prompt[:MAX_ANSWER_CHARACTERS],
        "text": words,
        "tokens": len(made),
        "longest_repetition": longest,
    }


def score(model: Model, request: Request) -> dict[str, Any]:
    """Teacher forcing on the file `text`; see scoring for the store.

    `mode` "reference" writes the folder `store`: `blocks` blocks of `block_tokens` scored tokens, in windows of as many
    blocks as fit `n_ctx` (fewer blocks when the text is short). `mode` "compare" scores the same tokens in the same
    windows. The tokenizers are compared before anything is computed. Raises `tokenizer-mismatch`, `text-too-short`.
    """
    text = read_text(request)
    tokens = model.tokenize(text, special=False)
    store = Path(request["store"])
    if request["mode"] == "reference":
        block_tokens = int(request["block_tokens"])
        window = (model.n_ctx - 1) // block_tokens * block_tokens
        blocks = min(int(request["blocks"]), (len(tokens) - 1) // block_tokens)
        if blocks < 1 or window < 1 or blocks * block_tokens > scoring.MAX_ROWS:
            raise WorkerError("text-too-short", "The text or the context does not hold one block.")
        tokens = tokens[: blocks * block_tokens + 1]
        about = {
            "rows": blocks * block_tokens,
            "vocabulary": model.vocabulary,
            "block_tokens": block_tokens,
            "context": window + 1,
            "first_token": model.first_token,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        return scoring.write_reference(teacher_forced(model, tokens, window), store, tokens, about)
    index = scoring.read_index(store)
    expected = scoring.read_tokens(store, index)
    _check_tokenizer(model, tokens, expected, index)
    if model.n_ctx < index["context"]:
        raise WorkerError("tokenizer-mismatch", "The model's context is shorter than the reference's.")
    return scoring.compare(teacher_forced(model, expected, index["context"] - 1), store, index)


def read_text(request: Request) -> str:
    """The file `text` of a request, at most MAX_TEXT_BYTES of it."""
    with Path(request["text"]).open("rb") as file:
        return file.read(MAX_TEXT_BYTES).decode("utf-8")


def _check_tokenizer(model: Model, tokens: Tokens, expected: Tokens, index: dict[str, Any]) -> None:
    if model.vocabulary != index["vocabulary"]:
        message = f"The artifact has {model.vocabulary} tokens and the reference has {index['vocabulary']}."
        raise WorkerError("tokenizer-mismatch", message)
    if model.first_token != index["first_token"]:
        raise WorkerError("tokenizer-mismatch", "The artifact begins a text otherwise than the reference.")
    if not np.array_equal(tokens[: len(expected)], expected):
        raise WorkerError("tokenizer-mismatch", "The artifact splits the text into other tokens than the reference.")
