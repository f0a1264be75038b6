"""A model of the Hugging Face hub, read without its weights: config.json and the headers, by ranged requests.

Contract: `hub_name` says whether a text names one; `hub_model` reads it. What was read is kept under ADVISOR_HOME/hub,
one folder per commit, each file written whole or not at all: so an interrupted reading goes on, a second one asks for
one small answer, and an offline one for nothing. A checkpoint's folder there is what `knowledge.checkpoint` reads, its
weight files cut after their headers. What the hub says is untrusted: sizes are bounded, file names stay in their
folder, pickles and models that need code of their own (`auto_map`) are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from knowledge.base import MIB, AdvisorError, advisor_home, read_json, write_json
from knowledge.checkpoint import MAX_CONFIG_BYTES, MAX_INDEX_BYTES, MAX_SHARDS, read_folder
from knowledge.gguf import read_gguf_header
from knowledge.gguf_model import model_of_file
from knowledge.hub_files import COMMIT, Growing, Reader, Repository, as_json, described, from_json
from knowledge.hub_http import HubClient, HubSettings, hub_settings
from knowledge.licences import commercial_use
from knowledge.models import catalogue_model, nearest_models, web_name
from knowledge.records import HubFile, ModelSpec

MAX_INFO_BYTES = 32 * MIB
MAX_CARD_BYTES = 64 * 1024

_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}\w)?"
_HUB_NAME = re.compile(
    rf"(?:hf:(?://)?)?(?P<id>{_NAME}/{_NAME})"
    r"(?:@(?P<revision>[\w./-]{1,120}))?(?::(?P<file>[\w./ +-]{1,200}))?/?",
    re.ASCII,
)
_WEIGHTS = re.compile(r"model(?:-\d{5}-of-\d{5})?\.safetensors", re.ASCII)
_INDEX = "model.safetensors.index.json"
# What a run needs of a checkpoint besides its weights.
_SMALL = re.compile(
    r"(?:config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|preprocessor_config"
    r"|processor_config|chat_template|1_Pooling/config|modules|sentence_bert_config|config_sentence_transformers"
    r"|model\.safetensors\.index)\.json|merges\.txt|vocab\.txt|chat_template\.jinja|[\w.-]{1,60}\.model|README\.md"
    r"|(?:LICEN[SC]E|NOTICE|USE_POLICY)(?:\.\w{2,4})?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class HubName:
    """What a person wrote: OWNER/NAME, perhaps @REVISION and :FILE (a .gguf file or its type)."""

    hf_id: str
    revision: str = ""
    file: str = ""


def hub_name(text: str) -> HubName | None:
    """The name of a hub model that `text` is: OWNER/NAME[@REVISION][:FILE], hf:... or its web address; else None."""
    match = _HUB_NAME.fullmatch(web_name(text.strip()))
    if not match or ".." in text or "--" in match["id"]:
        return None
    return HubName(match["id"], match["revision"] or "", match["file"] or "")


def hub_model(name: HubName, *, offline: bool = False) -> ModelSpec:
    """The model: asked of the hub, or of what is kept where that is all that may be used.

    Raises AdvisorError: `unknown-model`, `gated-model`, `unknown-revision`, `not-cached` (offline), `several-models`
    (a repository of GGUF files), `unsupported-model`, `bad-checkpoint`, `remote-code`, `bad-gguf` (exit 2);
    `hub-busy`, `bad-hub-answer` (exit 7).
    """
    settings = hub_settings(offline=offline)
    if settings.offline:
        return _kept_model(settings, name)
    client = HubClient(settings, name.hf_id)
    try:
        repository = read_repository(client, name.revision)
    except AdvisorError as error:
        raise _not_found(name, error) from error
    folder = _home(settings, name.hf_id) / repository.commit
    _write(folder / "advisor.json", as_json(repository))
    _write(folder.parent / f"{_slug(name.revision)}.ref", {"commit": repository.commit})
    return _model(Reader(client, repository, folder), name)


def read_repository(client: HubClient, revision: str = "") -> Repository:
    """What the hub lists of a revision (a commit, a branch; empty: main) of the client's repository."""
    return described(client, client.model_info(revision, limit=MAX_INFO_BYTES))


def checkpoint_parts(repository: Repository) -> tuple[HubFile, ...]:
    """The files of a checkpoint that a run needs, by their usual names; `unsupported-model` where it is none."""
    paths = [file.path for file in repository.files]
    if "config.json" not in paths or not any(_WEIGHTS.fullmatch(path) for path in paths):
        raise _unsupported(repository)
    return tuple(file for file in repository.files if _WEIGHTS.fullmatch(file.path) or _SMALL.fullmatch(file.path))


def _not_found(name: HubName, error: AdvisorError) -> AdvisorError:
    """With the names that might have been meant. A hub out of reach leaves a name that is not known here."""
    if error.code not in ("unknown-model", "hub-unreachable"):
        return error
    near = ", ".join(nearest_models(name.hf_id))
    if error.code == "unknown-model":
        return AdvisorError(error.code, error.message, f"{error.hint}; models of the catalogue like it: {near}")
    message = f"{name.hf_id} is not in the catalogue, and {error.message[0].lower()}{error.message[1:]}"
    return AdvisorError("unknown-model", message, f"{error.hint}; models of the catalogue like it: {near}")


# ---- what is kept


def _home(settings: HubSettings, hf_id: str) -> Path:
    return advisor_home() / "hub" / settings.host / hf_id.replace("/", "--")


def _slug(revision: str) -> str:
    return re.sub(r"[^\w.-]", "-", revision) or "main"


def _write(path: Path, document: dict[str, Any]) -> None:
    if not path.exists() or read_json(path, "hub record") != document:
        write_json(path, document)


def _kept_model(settings: HubSettings, name: HubName) -> ModelSpec:
    """Offline: what an earlier plan read, or Hugging Face's own cache if the whole model is in it."""
    home = _home(settings, name.hf_id)
    reference = home / f"{_slug(name.revision)}.ref"
    commit = name.revision if COMMIT.fullmatch(name.revision) else ""
    if not commit and reference.is_file():
        commit = str(read_json(reference, "hub record").get("commit", ""))
    if COMMIT.fullmatch(commit) and (home / commit / "advisor.json").is_file():
        repository = from_json(read_json(home / commit / "advisor.json", "hub record"))
        return _model(Reader(None, repository, home / commit), name)
    snapshot = cached_snapshot(settings, name.hf_id, name.revision)
    if snapshot is not None and (snapshot / "config.json").exists():
        found = read_folder(snapshot)
        return replace(found, hf_id=name.hf_id, name=name.hf_id.partition("/")[2], revision=snapshot.name)
    near = ", ".join(nearest_models(name.hf_id))
    raise AdvisorError(
        "not-cached",
        f"{name.hf_id} is neither in the catalogue nor in the cache, and nothing may be downloaded (offline).",
        f"plan it once with the network, or name a local folder or file; models of the catalogue like it: {near}",
    )


def cached_snapshot(settings: HubSettings, hf_id: str, revision: str) -> Path | None:
    """The folder of a revision (a commit, a branch; empty: main) in Hugging Face's own cache, if it is there."""
    home = settings.cache / f"models--{hf_id.replace('/', '--')}"
    commit = revision if COMMIT.fullmatch(revision) else ""
    reference = home / "refs" / (revision or "main")
    try:
        if not commit and reference.is_file():
            commit = reference.read_text(encoding="utf-8").strip()[:40]
        snapshot = home / "snapshots" / commit
        return snapshot if COMMIT.fullmatch(commit) and snapshot.is_dir() else None
    except (OSError, UnicodeDecodeError):
        return None


def is_downloaded(hf_id: str, revision: str = "") -> bool:
    """Whether Hugging Face's own cache has weights of the model."""
    snapshot = cached_snapshot(hub_settings(), hf_id, revision)
    return snapshot is not None and any(path.suffix in (".safetensors", ".gguf") for path in snapshot.rglob("*"))


# ---- from files to a model


def _model(reader: Reader, name: HubName) -> ModelSpec:
    paths = [file.path for file in reader.repository.files]
    ggufs = [path for path in paths if path.lower().endswith(".gguf") and "mmproj" not in path.lower()]
    whole = "config.json" in paths and ("model.safetensors" in paths or _INDEX in paths)
    if name.file or (ggufs and not whole):
        found, files = _gguf_model(reader, _chosen(reader, name, ggufs))
    elif whole:
        found, files = _checkpoint_model(reader, paths)
    else:
        raise _unsupported(reader.repository)
    repository = reader.repository
    sizes = sum(file.bytes for file in files)
    known = catalogue_model(repository.hf_id)
    licence = repository.licence if repository.licence != "unknown" else found.licence
    if known is not None and commercial_use(licence) == "unknown":
        licence = known.licence
    found = replace(
        found,
        name=known.name if known else repository.hf_id.partition("/")[2],
        hf_id=repository.hf_id,
        path="",
        revision=repository.commit,
        files=files,
        licence=licence,
        commercial_use=commercial_use(licence),
        source=f"{repository.hf_id} @{repository.commit[:8]}: {len(files)} files, {sizes} bytes",
    )
    if known is not None:
        found = replace(
            found, family=known.family, use_cases=known.use_cases, modality=known.modality,
            context=min(found.context, known.context), scores=known.scores, tower_params=known.tower_params,
            notes="; ".join(filter(None, (found.notes, known.notes))),
        )  # fmt: skip
    return found


def _checkpoint_model(reader: Reader, paths: list[str]) -> tuple[ModelSpec, tuple[HubFile, ...]]:
    reader.keep("config.json", MAX_CONFIG_BYTES)
    if "README.md" in paths:
        reader.keep("README.md", MAX_CARD_BYTES, cut=True)
    shards = ["model.safetensors"]
    if _INDEX in paths:
        index = read_json(reader.keep(_INDEX, MAX_INDEX_BYTES), "index of weights", limit_bytes=MAX_INDEX_BYTES)
        mapping = index.get("weight_map") if isinstance(index, dict) else None
        names = set(mapping.values()) if isinstance(mapping, dict) and _texts(mapping.values()) else set()
        if not names or len(names) > MAX_SHARDS or not names <= set(paths):
            raise reader.bad("its index names weights that it does not have")
        shards = sorted(names)
    for shard in shards:
        if "/" in shard:
            raise reader.bad(f"its index names {shard}, which is no plain file")
        reader.keep_header(shard)
    sizes = {shard: reader.size(shard) for shard in shards}
    files = tuple(
        replace(file, bytes=sizes.get(file.path, file.bytes))
        for file in reader.repository.files
        if file.path in sizes or _SMALL.fullmatch(file.path)
    )
    try:
        return read_folder(reader.folder, sizes), files
    except AdvisorError as error:  # it names the folder by its commit
        raise AdvisorError(
            error.code, error.message.replace(reader.folder.name, reader.repository.hf_id), error.hint, error.exit_code
        ) from error


def _texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _unsupported(repository: Repository) -> AdvisorError:
    endings = {PurePosixPath(file.path).suffix.lower() for file in repository.files}
    if endings & {".bin", ".pt", ".pth", ".ckpt"}:
        what, hint = "its weights are PyTorch pickles, which are never loaded", "look for a safetensors or GGUF copy"
    elif ".xml" in endings:
        what, hint = "it is an OpenVINO model", "download it and name its folder"
    elif ".onnx" in endings:
        what, hint = "it is an ONNX model", "download it and name the .onnx file"
    elif ".safetensors" in endings:
        what, hint = "it has no config.json with a model.safetensors", "it may be an adapter: name its base model"
    else:
        what, hint = "it holds no weights", "name a repository with safetensors or GGUF files"
    return AdvisorError("unsupported-model", f"{repository.hf_id} cannot be planned: {what}.", hint)


# ---- repositories of GGUF files


def _chosen(reader: Reader, name: HubName, ggufs: list[str]) -> str:
    """The file that was named, by its name or its type; the only one; the only 16-bit one. `several-models`."""
    plain = [path for path in ggufs if not re.search(r"-\d{5}-of-\d{5}\.gguf$", path)]
    wanted = name.file.lower()
    if wanted:
        exact = [path for path in plain if wanted in (path.lower(), PurePosixPath(path).name.lower())]
        typed = [path for path in plain if re.search(rf"(?:^|[-._/]){re.escape(wanted)}\.gguf$", path.lower())]
        candidates = exact or typed
    else:
        full = [path for path in plain if re.search(r"(?:^|[-._/])b?f16\.gguf$", path.lower())]
        candidates = plain if len(plain) == 1 else full[:1]
    if len(candidates) == 1:
        return candidates[0]
    shown = ", ".join(sorted(PurePosixPath(path).name for path in plain)[:12])
    if not plain:
        what = "only parts of split models, which must be merged first" if ggufs else "no GGUF files"
        raise AdvisorError("unsupported-model", f"{name.hf_id} holds {what}.", "name another repository")
    raise AdvisorError(
        "several-models",
        f"{name.hf_id} holds {len(plain)} GGUF files: {shown}{', ...' if len(plain) > 12 else ''}.",
        f"name one: {name.hf_id}:{PurePosixPath(sorted(plain)[0]).name}",
    )


def _gguf_model(reader: Reader, path: str) -> tuple[ModelSpec, tuple[HubFile, ...]]:
    size = reader.size(path)
    kept = reader.folder / f"{path.replace('/', '--')}.head"
    with Growing(reader, path, kept, size) as handle:
        header = read_gguf_header(cast(BinaryIO, handle), Path(PurePosixPath(path).name), size)
    if header.metadata.get("split.count", 1) not in (0, 1):
        raise AdvisorError("unsupported-model", f"{path} is a part of a split model.", "name a whole one")
    listed = reader.repository.file(path)
    return model_of_file(header), (replace(listed or HubFile(path, size), bytes=size),)
