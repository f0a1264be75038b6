"""How far two models agree about texts: the direction of their vectors, and what they rank first. numpy alone.

Texts come in groups: a query, then the documents that answer it. Every query is put to the documents of all groups, so
those of the other groups are what has to be told apart. Figures are sums by group: what is drawn in a bootstrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

TOP = 10  # documents that a search shows


def agreement(sizes: Sequence[int], vectors: Vectors, reference: Vectors) -> dict[str, Any]:
    """Compare `vectors` with `reference`, both (texts, dimension) with rows of length 1; `sizes` texts in each group.

    `groups`: per group `[texts, cosine, centred cosine, rank correlation, top overlap, nDCG of the reference, nDCG]`,
    the cosines summed over its texts, the others those of its query. `cosine_min`: the text that fares worst.

    - cosine: of the two vectors of a text. Where all vectors of a model point one way, as those of many models do,
      even unrelated ones have a high one: so `centred` takes the mean of each side's vectors off before.
    - rank correlation: Spearman's, of the query's cosines to all documents.
    - top overlap: the share of the reference's first TOP documents that are among the model's first TOP.
    - nDCG: at TOP, of the documents of the query's own group, which the texts themselves say and no model does.
    """
    bounds = list(pairwise(np.cumsum([0, *sizes]).tolist()))
    queries = [start for start, _ in bounds]
    documents = np.setdiff1d(np.arange(len(vectors)), queries)
    owners = np.repeat(np.arange(len(sizes)), sizes)[documents]
    cosine = (vectors * reference).sum(axis=1)
    centred = (_centred(vectors) * _centred(reference)).sum(axis=1)
    found, wanted = (side[queries] @ side[documents].T for side in (vectors, reference))
    rows = []
    for number, (start, end) in enumerate(bounds):
        mine, theirs = found[number], wanted[number]
        relevant = owners == number
        rows.append(
            [
                end - start,
                float(cosine[start:end].sum()),
                float(centred[start:end].sum()),
                _spearman(mine, theirs),
                len(np.intersect1d(_first(mine), _first(theirs))) / min(TOP, len(documents)),
                _ndcg(theirs, relevant),
                _ndcg(mine, relevant),
            ]
        )
    return {"groups": rows, "cosine_min": float(cosine.min()), "documents": len(documents), "top": TOP}


def _centred(vectors: Vectors) -> NDArray[np.float64]:
    moved = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    result: NDArray[np.float64] = moved / np.where(length > 0, length, 1.0)
    return result


def _first(scores: Vectors) -> NDArray[np.int64]:
    order: NDArray[np.int64] = np.argsort(-scores, kind="stable")
    return order[:TOP]


def _spearman(one: Vectors, other: Vectors) -> float:
    """Rank correlation; 0 where one side ranks nothing (all equal)."""
    a, b = _ranks(one), _ranks(other)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size else 0.0


def _ranks(scores: Vectors) -> NDArray[np.float64]:
    """Ranks from 0, ties sharing their mean."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    result: NDArray[np.float64] = (ends - (counts + 1) / 2)[inverse]
    return result


def _ndcg(scores: Vectors, relevant: NDArray[np.bool_]) -> float:
    """Discounted gain of the relevant documents among the first TOP, over the best possible."""
    discounts = 1 / np.log2(np.arange(2, TOP + 2))
    gained = relevant[_first(scores)]
    best = float(discounts[: min(TOP, int(relevant.sum()))].sum())
    return float(discounts[: len(gained)] @ gained) / best if best else 0.0
