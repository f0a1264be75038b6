"""How long a plan takes once the knowledge is loaded: many devices times many models, in one process.

    python benchmarks/plans.py [PLANS]

Plans for PLANS pairs (10,000 unless said) of a chip or product and a catalogue model, spread evenly over both, and
prints one JSON document: seconds by the clock and of the processor, milliseconds per plan, how they ended, and the peak
resident memory. The bar is 10,000 plans in 60 s. Every document is made in full, as `advisor plan --json` prints it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator

from advisor.constraints import Constraints
from advisor.decide import make_plan
from knowledge.base import AdvisorError
from knowledge.chips import load_chips, load_products
from knowledge.models import load_models
from knowledge.records import ModelSpec
from probes.declared import declared_profile
from probes.profile import HardwareProfile

LIMIT_SECONDS = 60.0
RAM_BYTES = (4 << 30, 8 << 30, 16 << 30, 32 << 30)


def machines() -> list[tuple[Constraints, HardwareProfile]]:
    """Every chip and product of the knowledge base that can be described with a usual memory."""
    described = [{"chip": chip.name} for chip in load_chips()] + [{"device": p.name} for p in load_products()]
    found: list[tuple[Constraints, HardwareProfile]] = []
    for number, words in enumerate(described):
        ram = RAM_BYTES[number % len(RAM_BYTES)]
        for ram_bytes in (ram, None):
            try:
                profile = declared_profile(ram_bytes=ram_bytes, **words)
            except AdvisorError:  # a board that does not come with so much memory, or a part of no machine
                continue
            found.append((Constraints.model_validate({"ram_bytes": ram_bytes, **words}), profile))
            break
    return found


def pairs(count: int) -> Iterator[tuple[Constraints, HardwareProfile, ModelSpec]]:
    """`count` different pairs, spread over all machines and all models."""
    known, models = machines(), load_models()
    step = max(1, len(known) * len(models) // count)
    for number in range(count):
        machine, model = divmod(number * step % (len(known) * len(models)), len(models))
        request, profile = known[machine]
        spec = models[model]
        yield request.model_copy(update={"model": spec.name}), profile, spec


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    work = list(pairs(count))
    ended: Counter[str] = Counter()
    start, busy = time.perf_counter(), time.process_time()
    for request, profile, spec in work:
        ended[make_plan(request, profile, spec)["status"]] += 1
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    document = {
        "plans": count,
        "machines": len({id(profile) for _, profile, _ in work}),
        "models": len({spec.name for *_, spec in work}),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(busy, 1),
        "cpu_ms_per_plan": round(1e3 * busy / count, 2),
        "ended": dict(ended),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    print(json.dumps(document))
    return 0 if seconds / count <= LIMIT_SECONDS / 10_000 else 1


if __name__ == "__main__":
    sys.exit(main())
