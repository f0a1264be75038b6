"""Tokens of a source and of what was made of it: where they may differ, and where not."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from executors.tokens import compared, first_difference, texts
from executors.worker.checkpoint import token_ids
from executors.worker.protocol import WorkerError
from knowledge.base import EXIT_STEP_FAILED, AdvisorError

SOURCE = [[1, 2, 3], [7, 8]]


def test_equal_tokens_are_counted() -> None:
    assert compared(SOURCE, [list(ids) for ids in SOURCE], "It") == {
        "compared_tokens": 5,
        "unusual_text_differs": False,
    }


def test_a_difference_on_unusual_text_is_told() -> None:
    assert compared(SOURCE, [[1, 2, 3], [7, 9]], "It")["unusual_text_differs"] is True


@pytest.mark.parametrize(("made", "place"), [([1, 5, 3], 1), ([1, 2], 2), ([1, 2, 3, 4], 3), ([], 0)])
def test_a_difference_on_ordinary_text_is_an_error_with_its_place(made: list[int], place: int) -> None:
    with pytest.raises(AdvisorError) as caught:
        compared(SOURCE, [made, [7, 8]], "The GGUF")
    assert (caught.value.code, caught.value.exit_code) == ("tokenizer-mismatch", EXIT_STEP_FAILED)
    assert caught.value.message.startswith(
        f"The GGUF splits the test text otherwise than its source, from token {place}"
    )


def test_the_place_counts_over_all_texts() -> None:
    assert first_difference(SOURCE, [[1, 2, 3], [7, 9]]) == 4
    assert first_difference(SOURCE, SOURCE) is None


def test_the_texts_hold_what_tokenizers_disagree_about() -> None:
    ordinary, unusual = texts()
    assert len(ordinary) > 10_000
    assert all(part in unusual for part in ("\u0301", "\U0001f600", "\t", "<|im_end|>", "007"))


class NeedsMore:
    """A reader of transformers that lacks a package of its own."""

    @staticmethod
    def from_pretrained(folder: str, **options: object) -> None:
        raise ImportError("This tokenizer needs sentencepiece")


@pytest.mark.parametrize(
    ("transformers", "words"),
    [(SimpleNamespace(AutoTokenizer=NeedsMore), "needs sentencepiece"), (None, "has no tokenizer.json")],
    ids=["one that fails", "none"],
)
def test_a_folder_that_no_reader_reads_is_an_unsupported_tokenizer(
    transformers: object, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", SimpleNamespace(Tokenizer=None))
    monkeypatch.setitem(sys.modules, "transformers", transformers)
    with pytest.raises(WorkerError, match=words) as caught:
        token_ids({"folder": str(tmp_path), "texts": ["Hi"]})
    assert caught.value.code == "unsupported-tokenizer"
