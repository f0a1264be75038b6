"""Whether a converted model splits text into the tokens of its source: figures of two models compare only then.

Compared are ordinary text, where a difference is an error, and what tokenizers are known to disagree about (scripts,
combining marks, symbols), where it is told: llama.cpp, for one, does not normalize Unicode.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from executors.interpreters import interpreter_for
from executors.process import Watch, run_worker
from knowledge.base import EXIT_STEP_FAILED, EXIT_TOOLCHAIN_MISSING, AdvisorError

ORDINARY_CHARACTERS = 16_000
_VALIDATION_TEXT = Path(__file__).resolve().parent / "data" / "validation_text.txt"
# What tokenizers disagree about: digits, spaces, line ends, contractions, scripts, symbols, special tokens.
_TRAPS = (
    "In 1984, 3.14159 x 10^23 = 007; it's  we'll\tthey'RE\r\n\n   x  \n"
    "na\u00efve \u00fcber stra\u00dfe \u0416\u0443\u043a \u4f60\u597d\uff0c\u4e16\u754c \u0627\u0644\u0644\u063a\u0629 "
    "\U0001f600\U0001f469\u200d\U0001f4bb \u0663\u0664 \u00bd\u2163 e\u0301 \u00a0\u3000 "
    "def f(x):\n    return x**2  # {}[]<>|\\/~`@$%^&*\n<|im_start|>user\nHi<|im_end|>\n<|endoftext|>"
)

Ids = list[list[int]]  # of each of `texts`


def texts() -> list[str]:
    """Ordinary prose, code and dialogue; then what tokenizers disagree about."""
    return [_VALIDATION_TEXT.read_text(encoding="utf-8")[:ORDINARY_CHARACTERS], _TRAPS]


def model_ids(model: Path, framework: str, watch: Watch, *, worker: str = "", max_tokens: int = 0) -> Ids:
    """The tokens that `framework` makes of the texts with the vocabulary of `model`, nothing added in front.

    With `max_tokens`, by its `worker` for encoders: special tokens around them, and no more than that.
    """
    request = {"op": "token_ids", "model": str(model), "texts": texts(), "max_tokens": max_tokens}
    ids: Ids = _ask(request, framework, worker or framework, watch)
    return ids


def checkpoint_ids(folder: Path, framework: str, watch: Watch, *, max_tokens: int = 0) -> dict[str, Ids]:
    """The same of a Hugging Face folder by every reader that the interpreter of `framework` has (`tokenizers`,
    `transformers`); `max_tokens` as above."""
    request = {"op": "token_ids", "folder": str(folder), "texts": texts(), "max_tokens": max_tokens}
    ids: dict[str, Ids] = _ask(request, framework, "checkpoint", watch)
    return ids


def _ask(request: dict[str, Any], framework: str, worker: str, watch: Watch) -> Any:
    try:
        done = run_worker(interpreter_for(framework), worker, request, watch)
    except AdvisorError as error:
        if error.code != "toolchain-missing":
            raise
        hint = f"advisor toolchain install {framework}"
        raise AdvisorError(error.code, error.message, hint, EXIT_TOOLCHAIN_MISSING) from error
    return done.result["ids"]


def compared(source: Ids, made: Ids, what: str) -> dict[str, Any]:
    """`{"compared_tokens", "unusual_text_differs"}`; AdvisorError `tokenizer-mismatch` where ordinary text differs.

    `what` was made of the source: it is named in the error.
    """
    if (at := first_difference(source[:1], made[:1])) is not None:
        raise AdvisorError(
            "tokenizer-mismatch",
            f"{what} splits the test text otherwise than its source, from token {at}: no figure could compare them.",
            "the tokenizer of this model is not supported: start from another form of it",
            EXIT_STEP_FAILED,
        )
    return {"compared_tokens": sum(map(len, source)), "unusual_text_differs": source[1] != made[1]}


def first_difference(one: Ids, other: Ids) -> int | None:
    """The place of the first token that differs, over all texts; None where none does."""
    if one == other:
        return None
    pairs = list(zip(chain.from_iterable(one), chain.from_iterable(other), strict=False))
    return next((n for n, (a, b) in enumerate(pairs) if a != b), len(pairs))
