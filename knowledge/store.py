"""One door to every model: the packaged one, a local file or folder, or a name of the catalogue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from knowledge import models
from knowledge.records import ModelSpec

_FILE_ENDINGS = (".gguf", ".safetensors", ".onnx", ".xml", ".bin", ".pt", ".pth", ".txt", ".json")


def find_model(text: str) -> ModelSpec:
    """The model that a person names: `embedded`, a path, or a catalogue name.

    A path is what exists on disk, or looks like one (`./x`, `/x`, `~/x`, or ends like a model file). Raises the
    AdvisorErrors of `read_model_path` and of `knowledge.models.find_model`.
    """
    name = text.strip()
    if name.lower() == models.EMBEDDED:
        return embedded_model()
    if _is_path(name):
        from knowledge.checkpoint import read_model_path  # late: a catalogue name reads no file

        return read_model_path(Path(name).expanduser().absolute())
    return models.find_model(name)


def embedded_model() -> ModelSpec:
    """The packaged SmolLM2-135M-Instruct, with the tensors of its file where it is installed."""
    spec = models.embedded_model()
    if not spec.path:
        return spec
    from knowledge.gguf import model_from_gguf

    found = model_from_gguf(Path(spec.path))
    return replace(spec, tensors=found.tensors, header_bytes=found.header_bytes, params=found.params)


def _is_path(name: str) -> bool:
    if name.startswith(("/", "./", "../", "~", ".\\", "\\")) or name in (".", ".."):
        return True
    if name.lower().endswith(_FILE_ENDINGS):
        return True
    try:
        return "\0" not in name and Path(name).exists()
    except (OSError, ValueError, RuntimeError):  # too long for the file system, or a loop of links
        return False
