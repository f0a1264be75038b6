"""What `advisor knowledge frameworks|devices|precisions NAME` adds to a row: where it runs, where it cannot, what it
takes and keeps, and who says so."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from knowledge.chips import npu_kit
from knowledge.matrix import Backend, load_backends, load_limits
from knowledge.models import find_model
from knowledge.precisions import plain_name, resolve_precision
from knowledge.quality import load_quality
from knowledge.records import Precision
from knowledge.requirements import load_requirements, requirements_for
from knowledge.shapes import groups_of
from knowledge.weights import weights

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


SHOWN_ON = "Llama-3.1-8B-Instruct"  # the model that bits by role are shown on


def precision_rows(name: str) -> list[Row]:
    """The precisions that `name` means, one per framework, each with its bits by tensor role on an 8B model
    (`bits_by_role`), the backends that try it (`backends`) and what it was found to keep (`evidence`).

    Raises AdvisorError `unknown-precision`.
    """
    return [_precision_row(precision) for precision in resolve_precision(name)]


def _precision_row(precision: Precision) -> Row:
    spec = find_model(SHOWN_ON)
    elements: dict[str, int] = {}
    for group in groups_of(spec):
        elements[group.role] = elements.get(group.role, 0) + group.elements
    found = weights(spec, precision, backend="cpu" if precision.framework != "olive" else "cuda")
    family = "openvino" if precision.scheme == "openvino" else precision.framework
    kept = [row for row in load_quality() if row.framework == family and row.precision == plain_name(precision)]
    row = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(precision).items()}
    return row | {
        "bits_by_role": {
            role: round(8 * size / elements[role], 4) for role, size in found.by_role.items() if role in elements
        },
        "bits_by_role_of": SHOWN_ON,
        "backends": list(
            dict.fromkeys(
                f"{b.framework} {b.backend}"
                for b in load_backends()
                if b.framework == precision.framework and precision.name in b.precisions
            )
        ),
        "evidence": [asdict(row) for row in kept],
    }


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
