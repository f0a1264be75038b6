"""Whether measurements of a machine make its other predictions better: replayed on published machines.

    python benchmarks/calibration.py            (needs the extra `learn`; about a minute)

Every engine with eight or more configurations plays the local machine: the model is trained without its chip, then sees
1, 2, 3 or 5 of its configurations (drawn 20 times, seeded) through advisor.calibration, and answers the others. Prints
the median error of those before and after, for the shrinkage that advisor.calibration uses and for none.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from advisor.calibration import shrunk
from executors.training.choices import DEFAULTS
from executors.training.dataset import load_dataset, of_target
from executors.training.fit import HeldOut, by_chip, held_out

DRAWS, LEAST = 20, 8


def replay(errors: Sequence[HeldOut], seen: int, shrinking: bool) -> tuple[float, float]:
    """Median absolute error (of the ratio) without and with `seen` local configurations."""
    machines = defaultdict(list)
    for error in errors:
        case = error.sample.case
        machines[(case.chip, case.backend, case.runtime, error.sample.metric)].append(error)
    before, after = [], []
    for key, found in sorted(machines.items()):
        if len(found) < LEAST:
            continue
        chance = random.Random(repr(key))
        for _ in range(DRAWS):
            chosen = chance.sample(range(len(found)), seen)
            off = [found[i].sample.log - found[i].predicted for i in chosen]
            shift = shrunk(off) if shrinking else median(off)
            others = [e for i, e in enumerate(found) if i not in chosen]
            before.append(median(abs(math.expm1(e.predicted - e.sample.log)) for e in others))
            after.append(median(abs(math.expm1(e.predicted + shift - e.sample.log)) for e in others))
    return sum(before) / len(before), sum(after) / len(after)


def main() -> None:
    samples = load_dataset().samples
    for target in ("decode", "prompt"):
        errors = held_out(of_target(samples, target), target, "unseen chip", by_chip, DEFAULTS[target])
        for seen in (1, 2, 3, 5):
            before, after = replay(errors, seen, True)
            _, plain = replay(errors, seen, False)
            row = {"target": target, "configurations": seen, "before": before, "shrunk": after, "unshrunk": plain}
            print(json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}))


if __name__ == "__main__":
    main()
