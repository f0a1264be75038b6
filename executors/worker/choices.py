"""Multiple choice without generation: how likely a model finds each option after its question.

Framework-independent: a worker brings its tokenizer and an `Evaluate`. Logarithms are natural (nats).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import scoring
from .protocol import WorkerError, progress

Tokens = NDArray[np.int32]
Item = Mapping[str, Any]
Tokenize = Callable[[str], Tokens]
# (tokens, position, every): logits (rows, vocabulary) after every one of `tokens`, or after the last alone, valid until
# the next call. They stand at `position`, after what was evaluated before it; what stood from there on is forgotten.
Evaluate = Callable[[Tokens, int, bool], NDArray[np.float32]]


def answer(
    items: Sequence[Item], tokenize: Tokenize, evaluate: Evaluate, *, first_token: int | None, room: int
) -> dict[str, Any]:
    """`{"log_likelihoods": [[one per option], ...]}` of the request's `items`; see `score`, which is told of each."""
    found = []
    for number, item in enumerate(items):
        progress(number, len(items), "answering questions")
        found.append(score(item, tokenize, evaluate, first_token=first_token, room=room))
    return {"log_likelihoods": found}


def score(item: Item, tokenize: Tokenize, evaluate: Evaluate, *, first_token: int | None, room: int) -> list[float]:
    """The log-likelihood of each option of `{"prompt", "options"}` as the prompt's continuation.

    An option follows the prompt after a space. The tokens that all options share with the prompt are evaluated once.
    `room`: tokens that the context holds. Raises WorkerError `text-too-short` (the context does not hold the item),
    `tokenizer-mismatch` (an option makes no token) and `non-finite-logits`.
    """
    prompt = str(item["prompt"])
    alone = tokenize(prompt)
    texts = [tokenize(f"{prompt} {option}") for option in item["options"]]
    shared = min(_common(text, alone) for text in texts)
    endings = [text[shared:] for text in texts]
    if not shared or not all(map(len, endings)):
        raise WorkerError("tokenizer-mismatch", "The model's tokenizer makes nothing of plain text.")
    prefix = alone[:shared]
    if first_token is not None:
        prefix = np.concatenate([np.array([first_token], np.int32), prefix])
    if len(prefix) + max(map(len, endings)) > room:
        raise WorkerError("text-too-short", f"The context of {room} tokens does not hold a question.")
    first = _log_probabilities(evaluate(prefix, 0, False))[-1]
    found = []
    for ending in endings:
        value = float(first[ending[0]])
        if len(ending) > 1:
            rows = _log_probabilities(evaluate(ending[:-1], len(prefix), True))
            value += float(rows[np.arange(len(ending) - 1), ending[1:]].sum())
        found.append(value)
    return found


def _common(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    size = min(len(one), len(other))
    different = np.flatnonzero(one[:size] != other[:size])
    return int(different[0]) if len(different) else size


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    scoring.check_finite(logits)
    return scoring.log_softmax(logits)
