"""The files of a Hugging Face folder that a conversion reads: chosen, checked, copied and hashed in one reading.

Weights as safetensors, configuration and tokenizer: no pickles, no code, nothing that lies outside the folder or the
blobs of its hub cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from executors.folder import copy_file
from knowledge.base import MIB, AdvisorError, read_json
from knowledge.checkpoint import is_plain, plain_file, read_model_path, weight_files
from knowledge.pooling import read_pooling

MAX_TEXT_BYTES = 256 * MIB  # a tokenizer of 260,000 tokens has 34 MB
MAX_TEXTS = 200
_TEXTS = (".json", ".jinja", ".model", ".tiktoken", ".txt")


def checkpoint_files(folder: Path) -> list[Path]:
    """Configuration, tokenizer and weights of the checkpoint, without what a person keeps beside them. Raises
    AdvisorError as reading it for a plan does, and `remote-code` where its tokenizer is code of its own."""
    model = read_model_path(folder)
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.suffix in _TEXTS and is_plain(path.name) and (path.is_file() or path.is_symlink())
    )
    texts = [plain_file(folder, name) for name in names]
    if len(texts) > MAX_TEXTS or any(path.stat().st_size > MAX_TEXT_BYTES for path in texts):
        message = f"{folder.name} holds text files that no checkpoint has: too many, or too large."
        raise AdvisorError("bad-checkpoint", message, "name a folder with the model's own files alone")
    if "tokenizer_config.json" in names:
        about = read_json(folder / "tokenizer_config.json", "tokenizer configuration", limit_bytes=16 * MIB)
        if isinstance(about, dict) and "auto_map" in about:
            message = f"The tokenizer of {folder.name} is code of its own (auto_map), which is never run."
            raise AdvisorError("remote-code", message, "use a conversion of the model (GGUF)")
    if model.is_encoder:
        texts += [folder / name for name in read_pooling(folder).papers if "/" in name]
    return [*texts, *weight_files(folder)]


def copy_checkpoint(folder: Path, target: Path, on_fraction: Callable[[float], None]) -> dict[str, Any]:
    """Copy those files to the new folder `target`: `{"name", "bytes", "sha256"}`, the hash over names and hashes."""
    files = checkpoint_files(folder)
    sizes = [path.stat().st_size for path in files]
    total, done = sum(sizes) or 1, 0
    digest = hashlib.sha256()
    target.mkdir()
    for path, size in zip(files, sizes, strict=True):
        told = partial(_tell, on_fraction, done / total, size / total)
        name = path.relative_to(folder).as_posix()
        (target / name).parent.mkdir(exist_ok=True)
        sha256 = copy_file(path.resolve(), target / name, told)
        digest.update(f"{name}\n{sha256}\n".encode())
        done += size
    return {"name": folder.name, "bytes": done, "sha256": digest.hexdigest()}


def _tell(on_fraction: Callable[[float], None], before: float, share: float, fraction: float) -> None:
    on_fraction(before + share * fraction)
