"""What a run starts from: the packaged model, a local GGUF or checkpoint, or either of them on the hub."""

from __future__ import annotations

from typing import Any

from knowledge.conversions import refusal
from knowledge.records import ModelSpec

SOURCE, SOURCE_FOLDER = "work/source.gguf", "work/source"
UNPACKED = "work/checkpoint"  # a GGUF as the folder of 16-bit weights that converters of other frameworks take
UNPACK = (  # transformers' own reader, as Python for `python -c`: the file is its first argument
    "import os, subprocess, sys, transformers as t; folder, name = os.path.split(os.path.abspath(sys.argv[1])); "
    f'[x.from_pretrained(folder, gguf_file=name).save_pretrained("{UNPACKED}") '
    "for x in (t.AutoModelForCausalLM, t.AutoTokenizer)]"
)


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


def places_of(spec: ModelSpec) -> dict[str, str]:
    """The words of commands for where a person has the model: never what its metadata calls it."""
    gguf = form_of(spec) != "folder"
    name = spec.hf_id or spec.name
    there = f"{SOURCE_FOLDER}/{spec.files[0].path}" if spec.files else SOURCE
    file = spec.path or (there if gguf else "")
    return {
        "id": name,
        "path": spec.path,
        "file": file,
        "checkpoint": UNPACKED if gguf else SOURCE_FOLDER,
        "model": UNPACKED if gguf else spec.path or name,
        "unpack": UNPACK,
    }


def is_by_hand(recipe: dict[str, Any], spec: ModelSpec) -> bool:
    """Whether a person cannot go without the step of `recipe`: tools fetch checkpoints by themselves, but neither a
    GGUF nor what is made already, and of these frameworks' converters none reads a GGUF."""
    if recipe["kind"] == "acquire":
        return not spec.path and (form_of(spec) == "file" or bool(spec.source_framework))
    return form_of(spec) != "folder" and "local_command" in recipe


def refused(spec: ModelSpec, framework: str) -> str:
    """Why advisor's tools cannot convert the model for `framework`; empty where they can, or need not."""
    if spec.source_framework or (framework == "llama.cpp" and form_of(spec) != "folder"):
        return ""
    return refusal(spec.architecture, framework) or refusal(spec.modality, framework)


def hub_flags(spec: ModelSpec) -> list[str]:
    """Which file and commit of the hub, for the command that downloads it."""
    named = [spec.files[0].path] if form_of(spec) == "file" and not spec.path else []
    return [*named, *(["--revision", spec.revision] if spec.revision else [])]
