"""What `advisor knowledge frameworks|devices NAME` adds to a row: where it runs, where it cannot, and who says so."""

from __future__ import annotations

from typing import Any

from knowledge.chips import npu_kit
from knowledge.matrix import Backend, load_backends, load_limits
from knowledge.requirements import load_requirements, requirements_for

Row = dict[str, Any]
ANY = "any"


def framework_places(name: str) -> list[Row]:
    """Every row of the support matrix about a framework, with what it needs and what it is limited to."""
    return [_place(row) | _needs(row) for row in load_backends() if row.framework == name]


def device_places(name: str) -> tuple[list[Row], list[str]]:
    """What runs on each engine of the device or chip of that name, with evidence, and the notes on how it was read.

    Raises what `probes.declared.declared_profile` raises of a name.
    """
    from advisor.candidates import backends_for
    from advisor.engines import engines_of
    from probes.declared import declared_profile

    profile = declared_profile(device=name)
    places: list[Row] = []
    for engine in engines_of(profile):
        for row in backends_for(engine):
            loads = (
                row.serves_generation(engine.generation) and row.serves_os(engine.os) and row.serves_arch(engine.arch)
            )
            needed = requirements_for(row.framework, row.backend, engine.generation, engine.os)
            support = row.support if loads else "unsupported"
            text = row.text if loads else f"not on {engine.os or 'this system'} or not for this part"
            place = _place(row) | {"support": support, "text": text.replace("{engine_vendor}", engine.vendor)}
            on = f"{engine.kind.upper()} {engine.generation}".strip()
            needs = [] if support == "unsupported" else [need.text for need in needed]
            places.append({"on": on, **place, "needs": needs})
    notes = list(profile.notes)
    for npu in profile.npus:
        kit = npu_kit(npu.vendor, npu.generation)
        served = any(p["support"] != "unsupported" and p["on"].startswith("NPU") for p in places)
        if kit and not served:
            notes.append(f"the NPU is served by {kit.kit}: {kit.text} ({kit.source})")
    return places, notes


def _place(row: Backend) -> Row:
    limit = load_limits().get((row.framework, row.backend))
    return {
        "framework": row.framework,
        "backend": row.backend,
        "engine": row.engine,
        "vendors": sorted(row.vendors),
        "generations": list(row.generations),
        "os": sorted(row.os),
        "arch": sorted(row.arch),
        "support": row.support,
        "precisions": list(row.precisions),
        "max_context": limit.max_context if limit else None,
        "max_params_b": limit.max_params_b if limit else None,
        "kv_cache": sorted(limit.kv_types) if limit else [],
        "text": row.text,
        "source": row.source,
    }


def _needs(row: Backend) -> Row:
    spoken = (
        need
        for need in load_requirements()
        if need.backend == row.backend
        and (row.framework in need.frameworks or ANY in need.frameworks)
        and (need.os == ANY or need.os in row.os)
    )
    return {"needs": [need.text for need in spoken] if row.support in ("supported", "experimental") else []}
