"""Which framework an artifact belongs to, by the files it holds: data of knowledge/data/frameworks.toml."""

from __future__ import annotations

import fnmatch
import hashlib
from dataclasses import dataclass
from pathlib import Path

from executors.folder import sha256_file
from knowledge.base import AdvisorError, file_error
from knowledge.matrix import Framework, Kind, load_frameworks

MAX_FILES = 10_000
_TEXT: Kind = "text"
_EMBEDDING: Kind = "embedding"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model on disk: `path` is what its framework opens, a file or a folder."""

    framework: str
    form: str
    path: Path
    kind: Kind = "text"


def recognize(text: str | Path) -> Artifact:
    """The artifact at a path that a person names: a model file or folder, or the folder of an advisor run.

    Raises AdvisorError `not-found`, `unknown-artifact` (with the forms that there are), `several-models`.
    """
    path = Path(text).expanduser()
    try:
        path = path.resolve(strict=True)
        if (path / "plan.json").is_file() and (path / "artifact").is_dir():
            path = path / "artifact"
        names = _names(path)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise file_error(error, path) from error
        raise AdvisorError("not-found", f"There is no model at {text}.", "check the path") from error
    encoders = [(row.of("embedding"), _EMBEDDING) for row in load_frameworks() if row.embedding]
    for row, kind in (*encoders, *((row, _TEXT) for row in load_frameworks())):
        if all(fnmatch.filter(names, pattern) for pattern in row.holds):
            return Artifact(row.name, row.artifact, _opened(row, path, names), kind)
    forms = ", ".join(f"{row.artifact} ({' and '.join(row.holds)})" for row in load_frameworks())
    raise AdvisorError("unknown-artifact", f"{path} is no model that advisor knows.", f"it knows: {forms}")


def digest(artifact: Artifact) -> str:
    """The SHA-256 of a model file; of a folder, that of its files' names and hashes."""
    if artifact.path.is_file():
        return sha256_file(artifact.path)
    lines = [
        f"{sha256_file(path)}  {path.relative_to(artifact.path).as_posix()}\n" for path in _files_below(artifact.path)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def size(artifact: Artifact) -> int:
    """Bytes of all files of the artifact."""
    if artifact.path.is_file():
        return artifact.path.stat().st_size
    return sum(path.stat().st_size for path in _files_below(artifact.path))


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())[:MAX_FILES]


def _names(path: Path) -> list[str]:
    """The file's own name, or those of the folder's files."""
    if path.is_dir():
        return [child.name for child in sorted(path.iterdir())[:MAX_FILES] if child.is_file()]
    return [path.name] if path.is_file() else []


def _opened(row: Framework, path: Path, names: list[str]) -> Path:
    """What the framework opens: the folder, or the one file in it where a single file is the whole model."""
    if path.is_file() or len(row.holds) > 1:
        return path
    found = fnmatch.filter(names, row.holds[0])
    if len(found) > 1:
        message = f"{path} holds {len(found)} models: {found[0]}, {found[1]}{', ...' if len(found) > 2 else ''}."
        raise AdvisorError("several-models", message, "name one of the files")
    return path / found[0]
