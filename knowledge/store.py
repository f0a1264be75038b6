"""One door to every model: the packaged one, a local file or folder, a name of the catalogue, a model of the hub."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from knowledge import models
from knowledge.records import ModelSpec

_HUB_LIKE = re.compile(r"(?:hf:)?[A-Za-z0-9][\w.:/-]*/[\w]", re.ASCII)
_FILE_ENDINGS = (".gguf", ".safetensors", ".onnx", ".xml", ".bin", ".pt", ".pth", ".txt", ".json")


def find_model(text: str, *, offline: bool = False) -> ModelSpec:
    """The model that a person names: `embedded`, a path, a catalogue name, or a model of the Hugging Face hub.

    A path is what exists on disk, or looks like one (`./x`, `/x`, `~/x`, or ends like a model file). OWNER/NAME is
    asked of the hub where the catalogue has no such id; with @REVISION, :FILE or `hf:` before it always. A web address
    of the hub means the same as the name in it.
    Raises the AdvisorErrors of `read_model_path`, `knowledge.models.find_model` and `knowledge.hub.hub_model`.
    """
    name = text.strip() if _exists(text.strip()) else models.web_name(text.strip())
    if name.lower() == models.EMBEDDED:
        return embedded_model()
    plain = ":" not in name and "@" not in name
    known = plain and (_is_path(name) or models.catalogue_model(name) is not None)
    if _HUB_LIKE.match(name) and not known and not _exists(name):
        from knowledge.hub import hub_model, hub_name  # late: it costs 20 ms, and 0.3 s where the hub is asked

        if asked := hub_name(name):
            return hub_model(asked, offline=offline)
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
    return name.lower().endswith(_FILE_ENDINGS) or _exists(name)


def _exists(name: str) -> bool:
    try:
        return "\0" not in name and Path(name).exists()
    except (OSError, ValueError, RuntimeError):  # too long for the file system, or a loop of links
        return False
