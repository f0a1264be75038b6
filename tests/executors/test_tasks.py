"""The question set and what two models' answers to it come to."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from executors.tasks import load_questions, mcnemar, prompt_of, summarize
from executors.validation import judge
from executors.worker import choices
from executors.worker.protocol import WorkerError

QUESTIONS = load_questions()
VOCABULARY = 128


def answers(wrong: int) -> list[list[float]]:
    """Log-likelihoods of a model that gets all but the first `wrong` questions right."""
    return [
        [-1.0 if (n == question["answer"]) is (number >= wrong) else -99.0 for n in range(4)]
        for number, question in enumerate(QUESTIONS)
    ]


def test_questions_are_sixty_with_four_different_options_and_one_answer() -> None:
    assert len(QUESTIONS) == 60
    assert len({question["id"] for question in QUESTIONS}) == 60
    assert len({prompt_of(question) for question in QUESTIONS}) == 60
    for question in QUESTIONS:
        assert len(set(question["options"])) == 4
        assert question["answer"] in range(4)
    assert set(Counter(question["kind"] for question in QUESTIONS)) == {
        "facts", "arithmetic", "commonsense", "reading", "code",
    }  # fmt: skip


def test_no_place_of_the_right_option_is_favoured() -> None:
    places = Counter(question["answer"] for question in QUESTIONS)
    assert max(places.values()) <= 0.4 * len(QUESTIONS)


def test_equal_answers_are_full_retention_and_still_inconclusive() -> None:
    found = summarize(answers(20), answers(20))
    assert found["retention"]["value"] == 1
    assert found["agreement"] == 1
    assert found["p_value"] == 1
    assert judge(">=", 0.95, found["retention"]["low95"], found["retention"]["high95"]) == "inconclusive"


def test_a_model_that_knows_nothing_any_more_fails() -> None:
    found = summarize(answers(10), answers(55))
    assert found["accuracy"]["reference"] == pytest.approx(50 / 60)
    assert found["retention"]["value"] == pytest.approx(5 / 50)
    assert found["retention_above_chance"] < 0
    assert found["discordant"] == {"reference_only": 45, "artifact_only": 0}
    assert judge(">=", 0.95, found["retention"]["low95"], found["retention"]["high95"]) == "fail"


def test_a_reference_that_knows_nothing_gives_no_retention() -> None:
    found = summarize(answers(60), answers(30))
    assert found["retention"] == {"value": None, "low95": None, "high95": None}
    assert found["retention_above_chance"] is None


def test_the_likeliest_option_per_byte_is_chosen() -> None:
    question = next(q for q in QUESTIONS if len({len(o) for o in q["options"]}) > 1)
    lengths = [len(option.encode()) for option in question["options"]]
    per_byte = [-2.0] * 4
    per_byte[question["answer"]] = -1.0
    rows = answers(0)
    rows[QUESTIONS.index(question)] = [value * length for value, length in zip(per_byte, lengths, strict=True)]
    assert summarize(rows, rows)["accuracy"]["reference"] == 1


@pytest.mark.parametrize(("lost", "won", "p"), [(0, 0, 1), (1, 0, 1), (5, 0, 1 / 16), (10, 0, 2**-9), (4, 4, 1)])
def test_mcnemar_by_hand(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == mcnemar(won, lost) == pytest.approx(p)


@given(st.integers(0, 60), st.integers(0, 60))
def test_bounds_hold_the_value_and_kinds_add_up(one: int, other: int) -> None:
    found = summarize(answers(one), answers(other))
    if one < 60:
        assert found["retention"]["low95"] <= found["retention"]["value"] <= found["retention"]["high95"]
    assert sum(kind["reference"] for kind in found["kinds"].values()) == 60 - one
    assert sum(kind["questions"] for kind in found["kinds"].values()) == 60


# ---- the worker's side: a model that prefers letters by their code


def spelled(text: str) -> NDArray[np.int32]:
    return np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int32)


class Letters:
    """Logits grow with the code of the token; remembers what stands before, as a cache does."""

    def __init__(self) -> None:
        self.past: list[int] = []
        self.evaluated = 0

    def evaluate(self, tokens: NDArray[np.int32], position: int, every: bool) -> NDArray[np.float32]:
        assert position <= len(self.past)
        self.past = [*self.past[:position], *map(int, tokens)]
        self.evaluated += len(tokens)
        rows = np.tile(np.arange(VOCABULARY, dtype=np.float32) / 10, (len(tokens), 1))
        return rows if every else rows[-1:]


def test_a_log_likelihood_is_the_sum_over_the_options_own_tokens() -> None:
    logits = np.arange(VOCABULARY) / 10
    normalizer = math.log(np.exp(logits).sum())
    found = choices.score({"prompt": "Q", "options": ["ab", "z"]}, spelled, Letters().evaluate, first_token=1, room=64)
    expected = [sum(logits[ord(c)] - normalizer for c in f" {option}") for option in ("ab", "z")]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_prompt_is_evaluated_once_for_all_its_options() -> None:
    model = Letters()
    item: dict[str, Any] = {"prompt": "x" * 50, "options": ["a", "b", "c", "d"]}
    choices.score(item, spelled, model.evaluate, first_token=None, room=64)
    assert model.evaluated == 50 + 4


def test_a_question_that_the_context_does_not_hold_is_refused() -> None:
    with pytest.raises(WorkerError) as refused:
        choices.score(
            {"prompt": "x" * 50, "options": ["a", "b"]}, spelled, Letters().evaluate, first_token=None, room=50
        )
    assert refused.value.code == "text-too-short"


def test_logits_that_are_no_numbers_are_refused() -> None:
    def broken(tokens: NDArray[np.int32], position: int, every: bool) -> NDArray[np.float32]:
        return np.full((len(tokens), VOCABULARY), np.nan, np.float32)

    with pytest.raises(WorkerError) as refused:
        choices.score({"prompt": "x", "options": ["a", "b"]}, spelled, broken, first_token=None, room=50)
    assert refused.value.code == "non-finite-logits"
