"""Decision trees fitted by scikit-learn, as advisor.cost_model evaluates them: boosted ones, averaged ones, or both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

from advisor.cost_model import Node, Trees
from executors.training.choices import Choices
from executors.training.crossing import smooth_fit

Array = Any  # numpy arrays of floats: their stubs tell shapes apart that do not matter here

_DIGITS, _DIGITS_OF_DRAWN = 7, 5  # of thresholds: randomized trees draw theirs between the values that were seen


def fit_forest(
    rows: Array, goal: Array, weight: Array, crossed: Array | None, increasing: Sequence[int], choices: Choices
) -> tuple[Trees, Array]:
    """Boosted and randomized trees by their shares, as one forest; and its predictions on `rows`.

    The randomized ones learn from the rows `crossed` too, whose goals a smooth fit tells (executors.training.crossing).
    """
    constraints = [1 if index in increasing else 0 for index in range(rows.shape[1])]
    parts: list[tuple[Trees, float]] = []
    learned = np.zeros(len(rows))
    if choices.averaged < 1:
        share = 1 - choices.averaged
        model = boosted(
            rows, np.clip(goal, -1.2, 1.2), weight, constraints, max_iter=choices.trees,
            max_leaf_nodes=choices.leaves, learning_rate=choices.learning_rate, min_samples_leaf=choices.least_leaf,
        )  # fmt: skip
        parts.append((export_trees(model), share))
        learned += share * model.predict(rows)
    if choices.averaged > 0:
        averaged = ExtraTreesRegressor(
            choices.averaged_trees, min_samples_leaf=choices.averaged_leaf, max_features=choices.columns,
            random_state=0, monotonic_cst=constraints, n_jobs=-1,
        )  # fmt: skip
        averaged.fit(*_with_crossed(rows, goal, weight, crossed, choices))
        parts.append((export_averaged(averaged), choices.averaged))
        learned += choices.averaged * averaged.predict(rows)
    return _mixed(parts), learned


def _with_crossed(
    rows: Array, goal: Array, weight: Array, crossed: Array | None, choices: Choices
) -> tuple[Array, Array, Array]:
    """All rows, their goals and weights."""
    if crossed is None:
        return rows, goal, weight
    told = smooth_fit(rows, goal, weight, choices.crossed_gamma)(crossed)
    each = np.full(len(crossed), choices.crossed_weight * weight.sum() / len(crossed))
    return np.concatenate([rows, crossed]), np.concatenate([goal, told]), np.concatenate([weight, each])


def boosted(
    rows: Array, goal: Array, weight: Array, constraints: Sequence[int], **settings: Any
) -> HistGradientBoostingRegressor:
    model = HistGradientBoostingRegressor(
        max_features=0.4, l2_regularization=3.0, max_bins=48, early_stopping=False, random_state=0,
        monotonic_cst=list(constraints), **settings,
    )  # fmt: skip
    return model.fit(rows, goal, sample_weight=weight)


def export_trees(model: HistGradientBoostingRegressor) -> Trees:
    """The trees of a fitted scikit-learn model as advisor.cost_model evaluates them."""

    def node_of(nodes: Any, index: int) -> Node:
        node = nodes[index]
        if node["is_leaf"]:
            return float(node["value"])
        low, high = node_of(nodes, int(node["left"])), node_of(nodes, int(node["right"]))
        return [int(node["feature_idx"]), _short(float(node["num_threshold"]), _DIGITS), low, high]

    trees = tuple(node_of(predictor.nodes, 0) for (predictor,) in model._predictors)
    return _rounded(Trees(float(np.ravel(model._baseline_prediction)[0]), trees), 1.0)


def export_averaged(model: ExtraTreesRegressor) -> Trees:
    """The same of trees whose mean counts: each leaf holds its part of the mean."""

    def node_of(tree: Any, index: int) -> Node:
        low = int(tree.children_left[index])
        if low < 0:
            return float(tree.value[index].item())
        high = int(tree.children_right[index])
        threshold = _short(float(tree.threshold[index]), _DIGITS_OF_DRAWN)
        return [int(tree.feature[index]), threshold, node_of(tree, low), node_of(tree, high)]

    trees = tuple(node_of(one.tree_, 0) for one in model.estimators_)
    return _rounded(Trees(0.0, trees), 1 / len(trees))


def _mixed(parts: Sequence[tuple[Trees, float]]) -> Trees:
    """The sum of forests, each times its share."""
    scaled = [_rounded(trees, share) for trees, share in parts]
    return Trees(round(sum(one.base for one in scaled), 6), tuple(tree for one in scaled for tree in one.trees))


def _rounded(trees: Trees, share: float) -> Trees:
    """`trees` times `share`, with digits that are worth keeping."""

    def node(one: Node) -> Node:
        if not isinstance(one, list):
            return round(one * share, 6)
        column, threshold, low, high = one
        return [column, threshold, node(low), node(high)]

    return Trees(round(trees.base * share, 6), tuple(map(node, trees.trees)))


def _short(threshold: float, digits: int) -> float:
    """Fewer digits, never less: a threshold may be a value that was seen, which belongs to the first branch."""
    if threshold == 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(abs(threshold))) - digits + 1)
    short = float(f"{math.ceil(threshold / step) * step:.{digits}g}")
    return short if short >= threshold else threshold
