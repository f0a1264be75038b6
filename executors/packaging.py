"""The artifact folder as users of its framework expect it, and the run's manifest.

`artifact/` holds the model, its card `README.md` and `SHA256SUMS`. A GGUF is named by the GGUF naming convention (ggml
docs/gguf.md), as is any other single file; the files of a model folder keep the names that their framework looks for.
Model files are linked from where the rung made them, not copied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from advisor.plan import Work
from executors.folder import LOCK, PARTIAL, RunFolder, link_or_copy, sha256_file, write_text
from executors.report_md import code, comparison, escape, gates, performance, quality
from executors.report_text import summary
from knowledge.base import printable, write_json
from knowledge.matrix import framework_named

MANIFEST_SCHEMA = "advisor.manifest/1"
PAPERS = ("README.md", "SHA256SUMS")  # what is added to the model's own files
REWRITTEN = ("manifest.json", "checklist.json", "checklist.md", LOCK)  # `advisor check` writes the checklist anew

# The identifiers of Hugging Face's `license` field for the licences of the catalogue; others go to `license_name`.
_HUB_LICENCES = {
    "apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "gemma", "llama2", "llama3",
    "llama3.1", "llama3.2", "llama3.3", "llama4", "openrail", "bigscience-openrail-m",
}  # fmt: skip
_PIPELINES = {"text": "text-generation", "embedding": "sentence-similarity"}
_SIZE_LABEL = re.compile(r"(\d+x)?(\d+\.)?\d+[KMBTQ]", re.IGNORECASE)
_VERSION = re.compile(r"v\d+(\.\d+)*")
_ENCODED = re.compile(r"[-.](I?Q\d\w*|B?F(16|32)|MXFP4|TQ\d_\d)$", re.IGNORECASE)


def artifact_name(work: Work, source_name: str, parameters: int, precision: str) -> str:
    """The name of an artifact that is one file: `<BaseName>-<SizeLabel>-<FineTune>-<Version>-<Encoding>.gguf`, or with
    the ending by which another framework's artifacts are recognized.

    The name is the base model's, else the source file's without its own encoding. A missing size label is made from the
    count of parameters and a missing version is `v1.0`, as the convention has it. A mix is encoded as its base type
    followed by what differs, every other character than letters and digits an underscore: `Q8_0+ffn_gate=Q5_0` becomes
    `Q8_0_ffn_gate_Q5_0`, which the convention's pattern accepts.
    """
    name = PurePosixPath(work.base_model).name or _ENCODED.sub("", source_name.removesuffix(".gguf")) or work.model
    parts = [part for part in re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:80].split("-") if part]
    if not any(_SIZE_LABEL.fullmatch(part) for part in parts):
        parts.append(_size_label(parameters))
    versions = [part for part in parts if _VERSION.fullmatch(part)] or ["v1.0"]
    parts = [part for part in parts if part not in versions]
    encoding = re.sub(r"[^A-Za-z0-9]+", "_", precision).strip("_")
    return "-".join([*parts, *versions[-1:], encoding]) + _ending(framework_named(work.framework).holds)


def _ending(holds: Sequence[str]) -> str:
    found = re.search(r"\.\w+$", holds[0]) if len(holds) == 1 else None
    return found[0] if found else ""


def _size_label(parameters: int) -> str:
    for scale, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M")):
        if parameters >= scale:
            return f"{parameters / scale:.3g}{letter}"
    return f"{max(1, round(parameters / 1000))}K"


def package(sources: Mapping[Path, str], name: str, card: str, out: Path, made: Path) -> dict[str, Any]:
    """Fill the new folder `out`: the model files (`sources`: path to SHA-256), their card, their sums.

    Where `made` is a file, it gets `name`; files of a folder keep their places in it.
    """
    sums = {}
    for path, sha256 in sources.items():
        final = name if path == made else path.relative_to(made).as_posix()
        (out / final).parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(path, out / final)
        sums[final] = sha256
    write_text(out / "README.md", card)
    sums["README.md"] = sha256_file(out / "README.md")
    write_text(out / "SHA256SUMS", "".join(f"{sha256}  {file}\n" for file, sha256 in sorted(sums.items())))
    return {"files": sorted(sums)}


def model_card(document: Mapping[str, Any]) -> str:
    """README.md of the artifact, from the report: what it was made from and how, and what was measured.

    The licence is the base model's where it is known, and said to be unknown where it is not.
    """
    base = document["base_model"]
    front: dict[str, Any] = {}
    if base:
        front |= {"base_model": printable(base), "base_model_relation": "quantized"}
    kind = document.get("kind", "text")
    framework = framework_named(document["framework"]).of(kind)
    front |= {"library_name": framework.hub_library, "pipeline_tag": _PIPELINES[kind]}
    front |= {**_licence(document["licence"]), "tags": list(framework.hub_tags)}
    source = document["source"]
    lines = [
        "---",
        *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()),
        "---",
        "",
        f"# {escape(document['model'])}, {escape(document['precision'])}",
        "",
        *(line for paragraph in summary(document) for line in (escape(paragraph), "")),
        "## How it was made",
        "",
        f"- Base model: {escape(base or 'unknown')}",
        f"- Made from: {code(source.get('name', 'unknown'))} (SHA-256 {code(source.get('sha256', 'unknown'))})",
        f"- Method: {escape(document['framework'])} quantization to {code(document['precision'])} with "
        f"{code(document['framework_version'])}",
        f"- Reference: {escape(document['reference']['precision'])}. {escape(document['reference']['note'])}".rstrip(),
        f"- Licence: {escape(document['licence'] or 'unknown: ask the publisher of the base model before using it')}",
        "",
        *quality(document),
        *performance(document),
        *gates(document),
        *comparison(document),
        f"Measured on {escape(document['environment'].get('cpu') or 'an unnamed CPU')}. "
        "Check the files with `sha256sum -c SHA256SUMS`.",
        "",
    ]
    return "\n".join(lines)


def _licence(licence: str) -> dict[str, str]:
    if not licence:
        return {}
    if licence.lower() in _HUB_LICENCES:
        return {"license": licence.lower()}
    return {"license": "other", "license_name": printable(licence)}


def write_manifest(folder: RunFolder, document: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """RUN/manifest.json: every file of the run with its SHA-256, the versions, the source and its licence.

    `known` are hashes of files that were computed when they were written; the others are read. Returns all hashes.
    """
    files = [path for path in sorted(folder.root.rglob("*")) if path.is_file() and not path.name.endswith(PARTIAL)]
    names = [name for name in map(folder.relative, files) if name not in REWRITTEN]
    hashes = {name: known.get(name) or sha256_file(folder.path(name)) for name in names}
    write_json(
        folder.path("manifest.json"),
        {
            "schema": MANIFEST_SCHEMA,
            "run_id": document["run_id"],
            "created": document["created"],
            "model": document["model"],
            "precision": document["precision"],
            "status": document["status"],
            "source": document["source"],
            "base_model": document["base_model"],
            "licence": document["licence"],
            "versions": {
                "advisor": document["environment"]["advisor"],
                "python": document["environment"]["python"],
                document["framework"]: document["framework_version"],
            },
            "files": [
                {"path": name, "bytes": folder.path(name).stat().st_size, "sha256": sha256}
                for name, sha256 in hashes.items()
            ],
        },
    )
    return hashes
