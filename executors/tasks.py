"""The tasks tier: our own small question set, put to reference and artifact alike (DESIGN section 5).

A model answers with the option that it finds likeliest per byte. The design is paired: only questions that one model
gets right and the other wrong (the discordant ones) tell the two apart, and with few of them nothing is claimed. Sixty
questions find damage; they cannot prove that 95 % of an ability were kept, and the bounds say so.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from executors.process import Watch, WorkerResult
from executors.validation import ask, verdict
from knowledge.base import AdvisorError, read_json, write_json

QUESTIONS = Path(__file__).parent / "data" / "questions.jsonl"
ANSWERS_SCHEMA = "advisor.answers/1"
TAIL = 0.025  # of each of the two bounds that a retention's 95 % bound is made of
CONTEXT = 512

Answers = list[list[float]]


@lru_cache(maxsize=1)
def load_questions() -> tuple[dict[str, Any], ...]:
    """Every question: `id`, `kind`, maybe `passage`, `question`, four `options`, `answer` (the right one's index)."""
    return tuple(json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines())


def prompt_of(question: dict[str, Any]) -> str:
    """The words that the options continue."""
    passage = f"{question['passage']}\n" if "passage" in question else ""
    return f"{passage}Question: {question['question']}\nAnswer:"


def tasks(
    artifact: Path,
    reference: Path,
    *,
    framework: str,
    store: Path | None = None,
    threads: int,
    watch: Watch,
    **options: Any,
) -> dict[str, Any]:
    """Tier 4: `summarize` of both models' answers with `status`, `seconds` and `peak_rss_bytes` (the artifact's).

    `store`: a folder that keeps the reference's answers, read where they are there. Fails as the smoke test does.
    """

    def put(model: Path) -> WorkerResult:
        return _ask(model, framework, threads, watch, options)

    try:
        expected = _reference_answers(reference, store, put)
        done = put(artifact)
    except AdvisorError as error:
        return verdict(error)
    found = summarize(expected, done.result["log_likelihoods"])
    return {"status": "pass", **found, "seconds": done.seconds, "peak_rss_bytes": done.peak_rss_bytes}


def summarize(reference: Answers, artifact: Answers) -> dict[str, Any]:
    """What the log-likelihoods of the options (per question, in the question set's order) come to.

    `accuracy` of both; `agreement`: the share of questions with the same choice; `retention`: the artifact's accuracy
    over the reference's, `retention_above_chance` the same with chance (one in four) taken off both. `discordant`
    counts the questions that only one model gets right, `p_value` is McNemar's exact one (two-sided), `kinds` counts
    right answers. `low95` and `high95` are one-sided 95 % bounds, exact and conservative.
    """
    questions = load_questions()
    picked = [[_choice(q, row) for q, row in zip(questions, rows, strict=True)] for rows in (reference, artifact)]
    right = [[c == q["answer"] for q, c in zip(questions, choices, strict=True)] for choices in picked]
    count = len(questions)
    kept, hits = (sum(side) for side in right)
    lost = sum(one and not other for one, other in zip(*right, strict=True))
    won = sum(other and not one for one, other in zip(*right, strict=True))
    chance = sum(1 / len(question["options"]) for question in questions)
    low, high = _bounds(lost, won, kept, count)
    kinds = dict.fromkeys(question["kind"] for question in questions)
    return {
        "questions": count,
        "accuracy": {"reference": kept / count, "artifact": hits / count, "stderr": _stderr(lost, won, count)},
        "agreement": sum(one == other for one, other in zip(*picked, strict=True)) / count,
        "retention": {"value": hits / kept if kept else None, "low95": low, "high95": high},
        "retention_above_chance": (hits - chance) / (kept - chance) if kept > chance else None,
        "discordant": {"reference_only": lost, "artifact_only": won},
        "p_value": mcnemar(lost, won),
        "kinds": {kind: _right_of(kind, questions, right) for kind in kinds},
        "method": "likeliest option per byte; exact bounds on discordant pairs",
    }


def mcnemar(lost: int, won: int) -> float:
    """McNemar's exact two-sided p-value: how likely so uneven a split of the discordant pairs is by chance alone."""
    n = lost + won
    tail = sum(math.comb(n, k) for k in range(min(lost, won) + 1)) * 0.5**n
    return min(1.0, 2 * tail)


def _choice(question: dict[str, Any], log_likelihoods: Sequence[float]) -> int:
    per_byte = [
        value / len(option.encode()) for value, option in zip(log_likelihoods, question["options"], strict=True)
    ]
    return max(range(len(per_byte)), key=per_byte.__getitem__)


def _right_of(kind: str, questions: Sequence[dict[str, Any]], right: list[list[bool]]) -> dict[str, int]:
    of_kind = [number for number, question in enumerate(questions) if question["kind"] == kind]
    reference, artifact = (sum(side[number] for number in of_kind) for side in right)
    return {"questions": len(of_kind), "reference": reference, "artifact": artifact}


def _stderr(lost: int, won: int, count: int) -> float:
    """Of the difference of the two accuracies, paired."""
    return math.sqrt(max(0.0, (lost + won) - (won - lost) ** 2 / count)) / count


def _bounds(lost: int, won: int, kept: int, count: int) -> tuple[float | None, float | None]:
    """Of the retention 1 + (won - lost) / kept: each count at the bound that an exact binomial interval gives it."""
    if not kept:
        return None, None
    low = 1 + count * (_low(won, count) - _high(lost, count)) / kept
    high = 1 + count * (_high(won, count) - _low(lost, count)) / kept
    return max(0.0, low), max(0.0, high)


def _high(k: int, n: int) -> float:
    """Clopper and Pearson's upper bound at TAIL of a share of which `k` of `n` were seen."""
    return 1.0 if k == n else _solve(lambda p: _at_most(k, n, p) - TAIL)


def _low(k: int, n: int) -> float:
    return 0.0 if k == 0 else _solve(lambda p: _at_most(k - 1, n, p) - (1 - TAIL))


def _at_most(k: int, n: int, p: float) -> float:
    """The probability of `k` or fewer of `n`."""
    return math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def _solve(falling: Callable[[float], float]) -> float:
    """Where a falling function of a share is zero."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return low


def _ask(model: Path, framework: str, threads: int, watch: Watch, options: dict[str, Any]) -> WorkerResult:
    items = [{"prompt": prompt_of(question), "options": question["options"]} for question in load_questions()]
    request = {"op": "choices", "model": str(model), "n_ctx": CONTEXT, "threads": threads, "items": items, **options}
    return ask(request, watch, framework=framework)


def _reference_answers(reference: Path, store: Path | None, put: Callable[[Path], WorkerResult]) -> Answers:
    """The reference's answers, from the store where it has those to this very question set."""
    path = store / "answers.json" if store else None
    questions = hashlib.sha256(QUESTIONS.read_bytes()).hexdigest()
    if path is not None and path.is_file():
        kept = read_json(path, "stored answers")
        if isinstance(kept, dict) and (kept.get("schema"), kept.get("questions")) == (ANSWERS_SCHEMA, questions):
            answers: Answers = kept["log_likelihoods"]
            return answers
    found: Answers = put(reference).result["log_likelihoods"]
    if path is not None:
        write_json(path, {"schema": ANSWERS_SCHEMA, "questions": questions, "log_likelihoods": found})
    return found
