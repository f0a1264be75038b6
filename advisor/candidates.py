"""From a machine and models to the options worth judging: engine x backend x model x precision, as facts for the rules.

Facts are flat dictionaries over the names of knowledge/rules/facts.toml, level by level: the request and the machine, a
backend on an engine, a model there, a precision. A backend or a model that cannot run is rejected once, at its level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from advisor.constraints import Constraints
from advisor.embedding import kind_of, memory_limit, precisions_of
from advisor.engines import Engine
from advisor.limits import cache_facts, place_facts
from advisor.memory import Budget
from advisor.origin import refused
from advisor.walk import Facts, Level
from knowledge.base import AdvisorError
from knowledge.chips import npu_kit
from knowledge.matrix import (
    Backend,
    Limit,
    architecture_served,
    framework_named,
    load_limits,
    rows_for,
    systems_of_backend,
)  # fmt: skip
from knowledge.native import is_native, native_precision
from knowledge.packing import DYNAMIC
from knowledge.precisions import overrides_of, resolve_precision, stored_precision, uses_imatrix
from knowledge.records import ModelSpec, Precision
from knowledge.serving import modalities, served
from knowledge.weights import undividable_row, weights
from probes.profile import HardwareProfile

DEFAULT_CONTEXT = 4096
_NO_LIMIT = Limit(None, None, None, frozenset({"f16", "q8_0", "q4_0"}))


@dataclass(frozen=True, slots=True)
class Place:
    """A backend on an engine, with what it may use of the engine's memory and the rules it takes. `cards` are the
    budgets of the cards that can share a model's layers, with main memory or without: empty where none can."""

    engine: Engine
    backend: Backend
    usable: Budget
    level: Level
    cards: tuple[Budget, ...] = ()

    @property
    def most_bytes(self) -> int:
        """What a model may take without main memory."""
        return max(self.usable.bytes, sum(card.bytes for card in self.cards))

    @property
    def limit(self) -> Limit:
        return load_limits().get((self.backend.framework, self.backend.backend), _NO_LIMIT)


@dataclass(frozen=True, slots=True)
class Option:
    """One way to run one model, with the facts known before it is sized and the rules that they take."""

    place: Place
    spec: ModelSpec
    precision: Precision
    context: int
    level: Level

    @property
    def facts(self) -> Facts:
        return self.level.facts

    @property
    def engine(self) -> Engine:
        return self.place.engine

    @property
    def backend(self) -> Backend:
        return self.place.backend

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells options apart, and breaks ties."""
        return self.spec.name, self.backend.framework, self.backend.backend, self.precision.name


def plan_facts(request: Constraints, profile: HardwareProfile) -> Facts:
    """The facts of the plan stage: the request and the machine."""
    npu = profile.npus[0] if profile.npus else None
    kit = npu_kit(npu.vendor, npu.generation) if npu else None
    return {
        "target": request.target,
        "origin": profile.origin,
        "os": profile.os.family,
        "npu_present": bool(npu),
        "npu_vendor": npu.vendor if npu else None,
        "npu_generation": (npu.generation or None) if npu else None,
        "npu_state": npu.state if npu else None,
        "npu_kit": f"{kit.kit} ({kit.text})" if kit else None,
        "gpu_vendor": profile.gpus[0].vendor if profile.gpus else None,
        "gpu_absent": not profile.gpus and (profile.origin != "declared" or _is_board(profile)),
        "main_memory_known": profile.main_memory is not None,
        "memory_known": profile.main_memory is not None or bool(profile.memory),
        "use_case": request.use_case,
        "priority": request.priority,
        "power": request.power or profile.os.power,
        "enterprise": request.enterprise,
        "cross_platform": request.cross_platform,
        "commercial": request.commercial,
        "offline": request.offline,
        "model_given": request.model is not None,
        "asked_framework": request.framework,
        "asked_precision": request.precision,
        "asked_context": request.context,
        "kv_cache": request.kv_cache,
        "concurrency": request.concurrency,
        "max_disk_bytes": request.max_disk_bytes,
        "min_decode_tps": request.min_decode_tps,
        "max_ttft_ms": request.max_ttft_ms,
        "retention_needed": None if request.max_quality_loss_pct is None else 1 - request.max_quality_loss_pct / 100,
    }


def _is_board(profile: HardwareProfile) -> bool:
    """One chip with one memory: no card can be in it."""
    return profile.main_memory is not None and profile.main_memory.kind == "unified"


def backends_for(engine: Engine) -> tuple[Backend, ...]:
    """The rows of the matrix that speak about this engine where it sits."""
    return rows_for(engine.kind, engine.vendor, engine.generation, engine.os, engine.arch)


def backend_facts(base: Facts, engine: Engine, row: Backend, profile: HardwareProfile) -> Facts:
    """Plan facts plus what a backend and an engine say without a model."""
    arch = profile.cpu.arch
    x86 = arch == "x86_64" and bool(profile.cpu.instruction_sets)
    isa = profile.cpu.instruction_sets
    return base | {
        "framework": row.framework,
        "backend": row.backend,
        "engine": engine.kind,
        "engine_vendor": engine.vendor,
        "engine_name": engine.name,
        "engine_generation": engine.generation or None,
        "support": row.support,
        "support_text": row.text.replace("{engine_vendor}", engine.vendor),
        "os_served": row.serves_os(base["os"]),
        "backend_os": ", ".join(systems_of_backend(row)),
        "arch_served": row.serves_arch(arch),
        "generation_served": row.serves_generation(engine.generation),
        "cpu_has_avx2": "avx2" in isa if x86 else None,
        "cpu_has_sse42": "sse4_2" in isa or "avx" in isa if x86 else None,
        **place_facts(engine, row, profile),
    }


def context_for(spec: ModelSpec, limit: Limit, asked: int | None) -> int:
    """The context to plan for: as asked, else 4096 or less where the model or the backend has less."""
    if asked is not None:
        return asked
    return min(
        c for c in (DEFAULT_CONTEXT, spec.context or DEFAULT_CONTEXT, limit.default_context or DEFAULT_CONTEXT) if c
    )


def precisions_for(row: Backend, asked: str | None) -> tuple[Precision, ...]:
    """The precisions to try on a backend: the asked one if the framework has it, else the backend's shortlist."""
    if asked is None:
        return _precisions(row.precisions, row.framework)
    wanted = _precision(asked, row.framework)
    if wanted is None:
        return ()
    exact = wanted.name.lower() == asked.strip().lower()
    if not exact and row.engine != "cpu":  # a family such as int4: the backend's own recipe of it
        same = [p for p in precisions_for(row, None) if p.nominal_bits == wanted.nominal_bits]
        if same:
            return tuple(same[:1])
    return (wanted,)


def _precisions(names: Sequence[str], framework: str) -> tuple[Precision, ...]:
    """Those of `names` that the framework has."""
    return tuple(found for name in names if (found := _precision(name, framework)))


@lru_cache(maxsize=512)
def _precision(name: str, framework: str) -> Precision | None:
    try:
        found = resolve_precision(name, framework)
    except AdvisorError as error:
        if error.code != "unknown-precision":
            raise
        return None
    return found[0] if found else None


def model_level(place: Place, spec: ModelSpec, request: Constraints) -> Level:
    """What `spec` adds to a place."""
    row, limit = place.backend, place.limit
    uses = request.use_case in spec.use_cases or (
        request.use_case in ("chat", "rag", "agent") and "chat" in spec.use_cases
    )
    return place.level.deeper(
        {
            "model": spec.name,
            "params_b": spec.params_b,
            "mixture_of_experts": spec.is_moe,
            "modality": spec.modality,
            "modality_served": served(spec.modality, row.framework)[0],
            "served_with": served(spec.modality, row.framework)[1] or None,
            "measure": modalities()[spec.modality].measure,
            "encoder": spec.is_encoder,
            "executed": kind_of(spec, row.framework, row.backend) == "embedding" if spec.is_encoder else None,
            "encoder_made": next(iter(precisions_of(spec, row.framework, row.backend)), None),
            "memory_limit": memory_limit(spec),
            "architecture": spec.architecture,
            "architecture_served": architecture_served(spec.architecture, row.framework, row.backend),
            "made_for": spec.use_cases[0] if spec.use_cases else None,
            "serves_use_case": uses or request.model is not None,
            "licence": spec.licence or None,
            "commercial_use": spec.commercial_use,
            "model_context": spec.context or None,
            "model_layers": spec.layers,
            "offloadable_layers": spec.layers + 1,
            "max_context": limit.max_context,
            "max_params_b": limit.max_params_b,
            "max_concurrency": limit.max_concurrency,
            "max_allocation_bytes": limit.max_allocation_bytes,
            **cache_facts(spec, row.framework, request),
            "kv_served": None if request.kv_cache is None else request.kv_cache in limit.kv_types,
            "source_precision": spec.source_precision,
            "source_quantized": _source_bits(spec) < 16,
            "source_framework": spec.source_framework or None,
            "source_runs": spec.source_framework == row.framework if spec.source_framework else None,
            "embedded": spec.embedded,
            "unconverted": refused(spec, row.framework) or None,
            "native_served": native_precision(spec.source_precision, row.framework) is not None,
        }
    )


def options_for(
    place: Place, spec: ModelSpec, level: Level, precisions: Sequence[Precision], request: Constraints
) -> Iterator[Option]:
    """`spec` at each of `precisions`, with the static facts filled; `level` is the model's there."""
    context = context_for(spec, place.limit, request.context)
    if spec.source_framework and (place.backend.framework != spec.source_framework or not request.precision):
        precisions = (stored_precision(spec),)
    elif not request.precision and (own := precisions_of(spec, place.backend.framework, place.backend.backend)):
        precisions = _precisions(own, place.backend.framework)
    elif not request.precision and spec.is_encoder:
        made = framework_named(place.backend.framework).of("embedding").precisions
        precisions = (*_precisions(made, place.backend.framework), *precisions)
    elif not request.precision and (native := native_precision(spec.source_precision, place.backend.framework)):
        precisions = (native, *precisions)
    for precision in precisions:
        facts = _precision_facts(spec, precision)
        if own := precisions_of(spec, place.backend.framework, place.backend.backend):
            facts = facts | {"encoder_precision": precision.name in own}
        yield Option(place, spec, precision, context, level.deeper(facts))


@lru_cache(maxsize=8192)
def _precision_facts(spec: ModelSpec, precision: Precision) -> Facts:
    """What a precision means for a model, wherever it runs."""
    mix = bool(overrides_of(precision))
    nominal = weights(spec, precision).nominal_bits if mix else precision.nominal_bits
    row = undividable_row(spec, precision)
    return {
        "precision": precision.name,
        "precision_class": precision.precision_class,
        "nominal_bits": nominal,
        "is_mix": mix,
        "symmetric": precision.symmetric,
        "group_size": precision.group_size or None,
        "undivided_tensor": f"{row[0]} ({row[1]} wide)" if row else None,
        "for_encoders": precision.method == DYNAMIC,
        "needs_imatrix": precision.needs_imatrix,
        "uses_imatrix": uses_imatrix(precision),
        "native_only": precision.native_only and not is_native(spec, precision),
        "upscales": nominal > _source_bits(spec),
        "same_as_source": precision.name.upper() == spec.source_precision.upper() or is_native(spec, precision),
    }


@lru_cache(maxsize=512)
def _source_bits(spec: ModelSpec) -> int:
    if spec.source_framework:
        return spec.source_bits
    name = spec.source_precision.upper()
    if name in ("F16", "BF16", "F32", "FLOAT16", "BFLOAT16", "FLOAT32", ""):
        return 16
    precision = native_precision(name, "llama.cpp") or _precision(name, "llama.cpp")
    return precision.nominal_bits if precision else 16
