"""What the cost model's accuracy is when its settings, too, are chosen without the rows that judge them; and how far it
carries over to software and sources that it has not seen.

    python benchmarks/nested.py [--target decode|prompt|first|memory]      (needs the extra `learn`; minutes)

Nested: in every outer fold of whole chips, and of whole models, a candidate is chosen by cross-validation among the
rows outside the fold (by the same groups), fitted to all of them, and answers the fold. Next to it the shipped settings
on the same folds: where both agree, choosing has flattered nobody. Transfer: one runtime, then one source, left out
whole. Core rows (GPU or Apple silicon, one sequence, within the memory) stand beside all. Prints a table, then JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from advisor.cost_model import TARGET_OF
from executors.training.choices import DEFAULTS, Choices
from executors.training.dataset import Sample, folds_of, load_dataset, of_target
from executors.training.evaluate import is_core
from executors.training.fit import FOLDS, TARGETS, by_chip, by_model, fit_target, held_out

INNER_FOLDS = 3
LEAST_ROWS = 20  # of a runtime or source that is left out
Pairs = list[tuple[Sample, float]]  # a sample and the logarithm that was predicted for it
Group = Callable[[Sample], str]


def candidates(name: str) -> dict[str, Choices]:
    """The settings to choose from: the shipped ones, and each choice that matters taken back or changed."""
    shipped = DEFAULTS[name]
    found = {"shipped": shipped}
    others = {
        "boosted": replace(shipped, averaged=0.0),
        "averaged": replace(shipped, averaged=1.0),
        "measured alone": replace(shipped, crossings=0),
        "across generations": replace(shipped, shared_effect=0.35, reach=2.5, generation=1.5),
        "of every runtime": replace(shipped, least_rows=0),
    }
    return found | {label: choices for label, choices in others.items() if choices != shipped}


def own(samples: Sequence[Sample], name: str) -> list[Sample]:
    """Those whose metric is the target's: prompts and first tokens only lend each other their rows."""
    return [sample for sample in samples if TARGET_OF[sample.metric] == name]


def error(pairs: Pairs) -> float:
    return median(abs(sample.log - log) for sample, log in pairs)


def answered(seen: Sequence[Sample], asked: Sequence[Sample], name: str, choices: Choices) -> Pairs:
    target = fit_target(seen, name, choices)
    return [(sample, target.predict(sample.case, sample.metric)[0]) for sample in own(asked, name)]


def choose(seen: Sequence[Sample], name: str, group: Group) -> str:
    """The candidate with the least median error on what cross-validation within `seen` holds out."""
    errors = {}
    for label, choices in candidates(name).items():
        held = held_out(seen, name, "inner", group, choices, INNER_FOLDS)
        errors[label] = error([(h.sample, h.predicted) for h in held if TARGET_OF[h.sample.metric] == name])
    return min(errors, key=lambda label: (errors[label], label != "shipped"))


def nested(samples: Sequence[Sample], name: str, group: Group) -> tuple[Pairs, Pairs, Counter[str]]:
    """Every sample answered with chosen and with the shipped settings; what was chosen."""
    fold = folds_of(samples, group, FOLDS)
    chosen_pairs, shipped_pairs, chosen = [], [], Counter[str]()
    for index in range(FOLDS):
        seen = [s for s, f in zip(samples, fold, strict=True) if f != index]
        asked = [s for s, f in zip(samples, fold, strict=True) if f == index]
        label = choose(seen, name, group)
        chosen[label] += 1
        chosen_pairs += answered(seen, asked, name, candidates(name)[label])
        shipped_pairs += answered(seen, asked, name, DEFAULTS[name])
    return chosen_pairs, shipped_pairs, chosen


def left_out(samples: Sequence[Sample], name: str, group: Group) -> dict[str, Pairs]:
    """The rows of each group of LEAST_ROWS, answered by a model that has seen no row of it."""
    counts = Counter(group(sample) for sample in own(samples, name))
    found = {}
    for label in sorted(label for label, count in counts.items() if count >= LEAST_ROWS):
        seen = [sample for sample in samples if group(sample) != label]
        found[label] = answered(seen, [s for s in samples if group(s) == label], name, DEFAULTS[name])
    return found


def figures(pairs: Pairs) -> dict[str, float | int]:
    off = [log - sample.log for sample, log in pairs]
    # a speed is the inverse of the predicted seconds, so the sign of the logarithm turns with the metric
    signs = [-1 if sample.metric in ("decode_tps", "prefill_tps") else 1 for sample, _ in pairs]
    errors = [abs(math.exp(sign * one) - 1) for sign, one in zip(signs, off, strict=True)]
    return {
        "rows": len(pairs),
        "median_error": round(median(errors), 4),
        "within_30": round(sum(one <= 0.3 for one in errors) / len(errors), 4),
        "over_2x": round(sum(abs(one) > math.log(2) for one in off) / len(off), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    wanted = parser.parse_args().target
    every, rows = load_dataset().samples, []
    for name in (wanted,) if wanted else TARGETS:
        samples = of_target(every, name)
        parts: dict[str, Pairs] = {}
        for split, group in (("unseen chip", by_chip), ("unseen model", by_model)):
            parts[f"{split}, nested"], parts[f"{split}, shipped"], chosen = nested(samples, name, group)
            print(f"{name}, {split}: chosen " + ", ".join(f"{label} {count}x" for label, count in chosen.most_common()))
        parts |= {f"runtime {k} left out": v for k, v in left_out(samples, name, lambda s: s.case.runtime).items()}
        parts |= {f"source {k} left out": v for k, v in left_out(samples, name, lambda s: s.measurement.source).items()}
        for label, pairs in parts.items():
            for kind, some in (("all", pairs), ("core", [pair for pair in pairs if is_core(pair[0])])):
                if some:
                    rows.append({"target": name, "split": label, "kind": kind, **figures(some)})
                    f = rows[-1]
                    print(
                        f"{name:8}{label:48}{kind:5}{f['rows']:6}{f['median_error']:8.1%}"
                        f"{f['within_30']:8.1%}{f['over_2x']:8.1%}",
                        flush=True,
                    )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
