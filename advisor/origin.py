"""What a run starts from: the packaged model, a local GGUF or checkpoint, or either of them on the hub."""

from __future__ import annotations

from typing import Any

from knowledge.records import ModelSpec

SOURCE, SOURCE_FOLDER = "work/source.gguf", "work/source"


def form_of(spec: ModelSpec) -> str:
    """What the weights at hand are: `embedded`, a `file` (GGUF) or a `folder` (a checkpoint), here or on the hub."""
    if spec.embedded:
        return "embedded"
    names = [spec.path] if spec.path else [file.path for file in spec.files]
    return "file" if len(names) == 1 and names[0].lower().endswith(".gguf") else "folder"


def source_of(spec: ModelSpec) -> dict[str, Any]:
    """The plan's `ModelSource`."""
    if spec.embedded:
        return {"kind": "embedded", "hf_id": spec.hf_id}
    if spec.path:
        return {"kind": form_of(spec), "path": spec.path, "hf_id": spec.hf_id, "file_bytes": spec.file_bytes}
    files = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in spec.files]
    about = {"revision": spec.revision, "files": files, "licence": spec.licence}
    return {"kind": "hub", "hf_id": spec.hf_id, **about}


def source_path(spec: ModelSpec) -> str:
    """Where the acquire step puts the model."""
    return SOURCE_FOLDER if form_of(spec) == "folder" else SOURCE


def hub_flags(spec: ModelSpec) -> list[str]:
    """Which file and commit of the hub, for the command that downloads it."""
    named = [spec.files[0].path] if form_of(spec) == "file" and not spec.path else []
    return [*named, *(["--revision", spec.revision] if spec.revision else [])]
