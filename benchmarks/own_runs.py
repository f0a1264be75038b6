"""How often what runs measured here lies inside what the cost model predicts for this machine.

    ADVISOR_HOME=HOME python benchmarks/own_runs.py

Reads the history of this machine, predicts every configuration anew, without its own measurements (leave one out) and
without any, and prints a line per figure and the share inside. Sizes and resident memory are judged against their
plan's own interval.
"""

from __future__ import annotations

import json

from advisor.calibration import Calibrated
from advisor.engines import default_threads, engines_of
from advisor.learned import Learned
from advisor.speed import Interval, Work
from executors.history import Measured, list_history
from knowledge.base import AdvisorError
from knowledge.models import find_model
from knowledge.precisions import resolve_precision
from knowledge.weights import weights
from probes.probe import probe_machine

SPEEDS = ("decode_tps", "prefill_tps")
OTHERS = ("artifact_bytes", "peak_rss_bytes", "ttft_ms", "quality_retention")


def main() -> None:
    profile = probe_machine()
    rows = [row for row in list_history(profile.fingerprint) if row.metric in (*SPEEDS, *OTHERS)]
    inside: dict[tuple[str, str], list[bool]] = {}
    for row in rows:
        answers = {"plan": Interval(row.low, row.mid, row.high, "")}
        if row.metric in SPEEDS:
            others = [r for r in rows if (r.model, r.precision) != (row.model, row.precision)]
            answers |= {
                "model": _predict(Learned(), row, profile),
                "calibrated": _predict(Calibrated(Learned(), others), row, profile),
            }
        for name, answer in answers.items():
            if answer.low is None or answer.high is None:
                continue
            held = answer.low <= row.measured <= answer.high
            inside.setdefault((row.metric, name), []).append(held)
            line = [
                row.framework,
                row.precision,
                row.metric,
                name,
                answer.low,
                answer.mid,
                answer.high,
                row.measured,
                held,
            ]
            print(json.dumps(line))
    for (metric, name), held in sorted(inside.items()):
        print(json.dumps({"metric": metric, "by": name, "rows": len(held), "inside": round(sum(held) / len(held), 3)}))


def _predict(model: Learned | Calibrated, row: Measured, profile) -> Interval:  # type: ignore[no-untyped-def]
    try:
        spec = find_model(row.model)
        sizes = weights(spec, resolve_precision(row.precision, row.framework)[0], backend=row.backend)
    except AdvisorError:
        return Interval(None, None, None, "")
    engine = engines_of(profile)[0]
    work = Work(
        spec, row.framework, row.backend, row.precision, sizes.tensor_bytes, 0.0, engine, default_threads(profile)
    )
    return model.decode_tps(work) if row.metric == "decode_tps" else model.prefill_tps(work)


if __name__ == "__main__":
    main()
