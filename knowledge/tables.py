"""The data files of the knowledge base, read: the one place that knows where they lie.

They lie in `data/`, and in the folders of the user's own frameworks, ADVISOR_HOME/frameworks/NAME/ (see
docs/adding-a-framework.md): a file there adds rows to the file of the same name here.
"""

from __future__ import annotations

import csv
import re
import tomllib
from pathlib import Path
from typing import Any

from knowledge.base import AdvisorError, advisor_home

DATA = Path(__file__).parent / "data"
_NAME = re.compile(r"[a-z][a-z0-9.-]{0,31}")


def extensions() -> dict[str, Path]:
    """The folders of the user's own frameworks, by the framework's name. Read anew each time."""
    try:
        folders = sorted(path for path in (advisor_home() / "frameworks").iterdir() if path.is_dir())
    except OSError:  # most users have none
        return {}
    return {path.name: path for path in folders if _NAME.fullmatch(path.name)}


def read_rows(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file of `data/`, then those of the user's frameworks.

    Raises AdvisorError `bad-knowledge` where a user's file has other columns.
    """
    columns, rows = _table(DATA / name)
    for path in _added(name):
        try:
            header, more = _table(path)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise _bad(path, f"it cannot be read ({error})") from error
        if header != columns or any(None in row or None in row.values() for row in more):
            raise _bad(path, f"its columns are not {', '.join(columns)}")
        rows += more
    return rows


def read_document(name: str) -> dict[str, Any]:
    """A TOML file of `data/` with the tables of the user's frameworks added. Not kept: the caller keeps what it makes
    of it. Raises AdvisorError `bad-knowledge` where a user's file is damaged or says what is said already."""
    document = tomllib.loads((DATA / name).read_text(encoding="utf-8"))
    for path in _added(name):
        try:
            more = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise _bad(path, f"it cannot be read ({error})") from error
        if taken := document.keys() & more.keys():
            raise _bad(path, f"{min(taken)} is described already")
        document |= more
    return document


def _added(name: str) -> list[Path]:
    return [path for folder in extensions().values() if (path := folder / name).is_file()]


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return list(reader.fieldnames or ()), rows


def _bad(path: Path, what: str) -> AdvisorError:
    hint = "mend that file, or remove the folder: docs/adding-a-framework.md says what belongs there"
    return AdvisorError("bad-knowledge", f"{path}: {what}.", hint)
