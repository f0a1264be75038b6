"""The settings of each target's training, and those that are shipped."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Choices:
    """What is chosen by cross-validation (docs/cost-model.md lists what was tried).

    `effects` is how much of the engines' effects counts. The forest is boosted trees (`trees` to `least_leaf`) and, by
    the share `averaged`, randomized ones whose mean counts (`averaged_trees`, `averaged_leaf`, and `columns`, the share
    of the features that a split may choose from). `crossings` is how many unmeasured cases these learn from, too
    (executors.training.crossing), which together weigh `crossed_weight` times what the measured ones do.
    Of runtimes with fewer rows than `least_rows`, and of the groups `alone` (advisor.cost_model.group_of), nothing is
    learned: physics alone answers for them.
    """

    effects: float = 1.0
    shared_effect: float = 0.3
    own_effect: float = 0.12
    reach: float = 1.0
    generation: float = 0.7
    rounds: int = 2
    trees: int = 60
    leaves: int = 8
    learning_rate: float = 0.12
    least_leaf: int = 9
    averaged: float = 0.5
    averaged_trees: int = 24
    averaged_leaf: int = 4
    columns: float = 0.5
    crossings: int = 0
    crossed_weight: float = 1.0
    crossed_gamma: float = 0.03
    least_rows: int = 0
    alone: tuple[str, ...] = ()


_AVERAGED = Choices(effects=0.5, averaged=1.0)
DEFAULTS = {
    "decode": Choices(
        shared_effect=0.5, reach=20.0, generation=9.0, averaged=0.7, averaged_leaf=3, columns=0.8,
        crossings=2000, crossed_gamma=0.004,
    ),
    "prompt": replace(
        _AVERAGED, shared_effect=0.45, generation=4.0, averaged_trees=40, columns=0.7, crossings=3000, least_rows=100,
        alone=("llama.cpp apple",),
    ),
    "first": replace(
        _AVERAGED, averaged_trees=120, averaged_leaf=2, columns=0.7,
        crossings=3000, crossed_weight=0.8, crossed_gamma=0.06,
    ),
    "memory": Choices(
        effects=0.5, trees=160, leaves=15, learning_rate=0.08, least_leaf=5, averaged_trees=60, averaged_leaf=2,
        columns=1.0, least_rows=100,
    ),
}  # fmt: skip
