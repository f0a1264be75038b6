"""Encoders as artifacts: which plans advisor runs, the recipes of their steps, the gates that judge them.

Gates: quality is what the vectors and the order that they rank in keep (executors.embedding_tiers), at least 95 %.
Memory is counted in the same unit as of language models, tensor bytes over 2 bytes per parameter; 8 bits are a half of
that and cannot be less, since the scales of the rows come on top and norms and biases stay in 32 bits. So the limit is
.55 and not .5, a tenth above the half: 27.5 % of the 32 bits that encoders are published in. Nothing is decoded.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from knowledge.matrix import Kind, architecture_served, framework_named
from knowledge.records import ModelSpec
from knowledge.tables import read_document

TEXT_MEMORY_RATIO, MEMORY_RATIO = 0.5, 0.55  # of language models, of encoders
COSINE = 0.99  # mean, of 8-bit weights: below it a search over many documents begins to return others
TOP_OVERLAP = 0.9
METRIC = "agreement of vectors and rankings, the least of centred cosine, rank correlation and nDCG ratio"


def kind_of(spec: ModelSpec, framework: str, backend: str) -> Kind:
    """`embedding` where advisor makes and judges the artifact of an encoder, `text` for all other plans."""
    made = spec.is_encoder and not spec.source_framework and backend == "cpu" and framework_named(framework).embedding
    known = architecture_served(spec.architecture, framework, backend) == "yes"
    return "embedding" if made and known else "text"


@cache
def recipes(kind: Kind) -> dict[str, list[dict[str, Any]]]:
    """The steps of a kind of artifact, by framework."""
    return read_document("recipes_embedding.toml" if kind == "embedding" else "recipes.toml")


def precisions_of(spec: ModelSpec, framework: str, backend: str) -> tuple[str, ...]:
    """The precisions that advisor makes of an encoder; empty where it makes none, or where it is no encoder."""
    return framework_named(framework).of("embedding").precisions if kind_of(spec, framework, backend) != "text" else ()


def memory_limit(spec: ModelSpec) -> float:
    """What the memory gate of this model's artifacts allows."""
    return MEMORY_RATIO if spec.is_encoder else TEXT_MEMORY_RATIO


def quality_gates(retention: float) -> list[dict[str, Any]]:
    """What the artifact of an encoder is judged by, whoever made it."""
    reference = "full-precision reference"
    rows = (
        ("integrity", "integrity", "==", 1, "required", "the folder holds what was planned"),
        ("smoke", "smoke", "==", 1, "required", "it loads and tells texts apart"),
        ("quality", "quality_retention", ">=", retention, "required", METRIC),
        ("memory", "memory_ratio", "<=", MEMORY_RATIO, "required",
         "tensor bytes over 2 bytes per parameter: 8 bits, and a tenth of that for scales and norms"),
        ("cosine", "cosine_similarity", ">=", COSINE, "advisory", "mean over the texts"),
        ("top-overlap", "top_overlap", ">=", TOP_OVERLAP, "advisory", "the same documents among the first ten"),
    )  # fmt: skip
    keys = ("id", "metric", "op", "value", "level", "text")
    return [{**dict(zip(keys, row, strict=True)), "against": reference} for row in rows]
