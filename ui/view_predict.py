"""The accuracy of the cost model for a person: one line per partition."""

from __future__ import annotations

from typing import Any


def show_accuracy(document: dict[str, Any]) -> None:
    print(f"{document['rows']} rows; left out: {document['left_out'] or 'none'}")
    print(f"{'metric':<12} {'framework':<12} {'device':<7} {'split':<13} {'rows':>5} {'error':>7} {'<30%':>6} "
          f"{'>2x':>6} {'cover':>6} {'width':>6}  best baseline's <30%")  # fmt: skip
    for part in document["partitions"]:
        name, best = max(part["baselines"].items(), key=lambda pair: pair[1]["within_30"])
        print(
            f"{part['metric']:<12} {part['framework']:<12} {part['device_kind']:<7} {part['split']:<13} "
            f"{part['n']:>5} {part['mdape']:>7.1%} {part['within_30']:>6.0%} {part['over_2x']:>6.0%} "
            f"{part['coverage']:>6.0%} {part['width']:>6.2f}  {best['within_30']:.0%} ({name})"
        )
