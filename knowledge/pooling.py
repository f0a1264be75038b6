"""How the vectors of a text's tokens become one: what a folder in the layout of sentence-transformers says.

modules.json lists a Transformer, a Pooling and perhaps a Normalize module; the Pooling module's own config.json says
which tokens count. Nothing of it is code, and nothing is guessed: an encoder whose folder does not say it is no
embedding model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from knowledge.base import MIB, AdvisorError, printable, read_json
from knowledge.checkpoint import module_file, plain_file

MODULES = "modules.json"
LENGTH = "sentence_bert_config.json"
CONFIG = "config.json"
MAX_MODULES = 8
MAX_TOKENS = 2**16
_FOLDER = re.compile(r"\d{1,2}_[A-Za-z]{1,40}")
_MODES = {"mean_tokens": "mean", "cls_token": "cls", "mean": "mean", "cls": "cls"}


@dataclass(frozen=True, slots=True)
class Pooling:
    """`mode`: the mean over all tokens, or the first one (`cls`). `max_tokens`: what is longer is cut. `dimension`:
    numbers in a vector. `papers`: the files that say so, by their paths in the folder."""

    mode: Literal["mean", "cls"]
    normalize: bool
    max_tokens: int
    dimension: int
    papers: tuple[str, ...]


def is_sentence_model(folder: Path) -> bool:
    """Whether a folder is laid out as an embedding model."""
    return (folder / MODULES).is_file()


def read_pooling(folder: Path) -> Pooling:
    """What the folder says; AdvisorError `bad-checkpoint` where it says nothing, or something that is not served."""
    if not is_sentence_model(folder):
        raise _bad(folder, f"it holds no {MODULES}: how its token vectors become one is not said")
    kinds = _kinds(folder)
    if "Pooling" not in kinds:
        raise _bad(folder, f"its {MODULES} names no pooling: how its token vectors become one is not said")
    others = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if others:
        raise _bad(folder, f"it has the module {printable(others[0], 40)}, which the converters leave out")
    place = f"{kinds['Pooling']}/{CONFIG}"
    if not kinds["Pooling"] or not (folder / place).is_file():
        raise _bad(folder, f"it holds no {place}: how its token vectors become one is not said")
    said = _read(folder, place)
    mode = _mode(folder, said)
    dimension = said.get("word_embedding_dimension", said.get("embedding_dimension"))
    papers = [MODULES, place]
    limit = _count(_read(folder, CONFIG).get("max_position_embeddings"), MAX_TOKENS) or 512
    if (folder / LENGTH).is_file():
        papers.append(LENGTH)
        limit = min(limit, _count(_read(folder, LENGTH).get("max_seq_length"), MAX_TOKENS) or limit)
    width = _count(dimension, MAX_TOKENS)
    if not width or limit < 4:
        raise _bad(
            folder, f"{place} does not say how many numbers a vector has" if not width else f"{LENGTH} is absurd"
        )
    return Pooling(mode, "Normalize" in kinds, limit, width, tuple(papers))


def _kinds(folder: Path) -> dict[str, str]:
    """The kinds of the modules, such as `Pooling`, and the folder of each."""
    modules = read_json(plain_file(folder, MODULES), "list of modules", limit_bytes=MIB)
    rows = modules if isinstance(modules, list) else []
    kinds: dict[str, str] = {}
    for row in rows:
        kind, path = (row.get("type"), row.get("path")) if isinstance(row, dict) else (None, None)
        named = isinstance(kind, str) and isinstance(path, str) and (path == "" or _FOLDER.fullmatch(path))
        if not named or len(rows) > MAX_MODULES:
            raise _bad(folder, f"its {MODULES} is not a list of modules")
        kinds[str(kind).rpartition(".")[2]] = str(path)
    return kinds


def _mode(folder: Path, said: dict[str, Any]) -> Literal["mean", "cls"]:
    """The one way of pooling that is switched on, as older or as newer versions write it."""
    chosen = [
        name.removeprefix("pooling_mode_") for name, on in said.items() if name.startswith("pooling_mode_") and on
    ]
    chosen += [str(said["pooling_mode"])] if "pooling_mode" in said else []
    modes = [_MODES.get(name, "") for name in chosen]
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    words = " and ".join(printable(name, 40) for name in chosen[:4]) or "nothing"
    raise _bad(folder, f"it pools by {words}: only the mean over the tokens and the first token are served")


def _read(folder: Path, name: str) -> dict[str, Any]:
    module, _, file = name.rpartition("/")
    path = module_file(folder, module, file) if module else plain_file(folder, file)
    document = read_json(path, "configuration", limit_bytes=MIB)
    if not isinstance(document, dict):
        raise _bad(folder, f"{name} holds no JSON object")
    return document


def _count(value: Any, most: int) -> int:
    """A positive number, or 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most else 0


def _bad(folder: Path, what: str, hint: str = "") -> AdvisorError:
    hint = hint or "name a folder in the layout of sentence-transformers, with modules.json and 1_Pooling/config.json"
    return AdvisorError("bad-checkpoint", f"{folder.name}: {what}.", hint)
