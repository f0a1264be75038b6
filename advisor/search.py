"""The walk over candidates: engines x backends x models x precisions, each judged, nothing computed twice.

A backend that cannot run is rejected once, before any model. A catalogue is searched coarse to fine: every model that
could fit at the backend's first precision, then the best few at all of its precisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from advisor import rank
from advisor.candidates import (
    Place,
    backend_facts,
    backends_for,
    model_level,
    options_for,
    plan_facts,
    precisions_for,
)
from advisor.change import change_of
from advisor.constraints import Constraints
from advisor.engines import Engine, default_threads, engines_of
from advisor.judging import Judged, Lost, judge
from advisor.memory import Budget, budget
from advisor.speed import CostModel
from advisor.walk import Facts, first_level
from knowledge.base import format_bytes
from knowledge.matrix import Backend, framework_named
from knowledge.records import ModelSpec, Precision
from knowledge.rules import RuleSet
from probes.profile import HardwareProfile

_FINE = 8  # models that are judged at every precision when a catalogue is searched
_FLOOR_MARGIN = 0.95  # a mixture never stores fewer bits than this share of its base type
_REJECTIONS_SHOWN = 60
_SHOWN_PER_RULE = 3

Rejection = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same during a search."""

    request: Constraints
    profile: HardwareProfile
    rules: RuleSet
    cost_model: CostModel

    @property
    def facts(self) -> Facts:
        return plan_facts(self.request, self.profile)

    def place(self, engine: Engine, row: Backend, facts: Facts) -> Place:
        usable = budget(self.profile, engine.pool, row.backend, engine.kind)
        level = first_level(self.rules, backend_facts(facts, engine, row, self.profile))
        return Place(engine, row, usable, level, self._cards(engine, row))

    def _cards(self, engine: Engine, row: Backend) -> tuple[Budget, ...]:
        if engine.kind != "gpu" or not framework_named(row.framework).offloads:
            return ()
        pools = [pool for card in engine.cards if (pool := self.profile.pool(card.pool))]
        return tuple(budget(self.profile, pool.id, row.backend, "gpu") for pool in pools if pool.kind == "vram")

    def searched(self, request: Constraints, models: Sequence[ModelSpec]) -> Search:
        """What a search for another request leaves."""
        return search(replace(self, request=request), models)

    def judge(self, place: Place, spec: ModelSpec, precisions: Sequence[Precision]) -> list[Judged | Lost]:
        """The model there at each of `precisions`; one rejection where it cannot run there at any."""
        level = model_level(place, spec, self.request)
        if level.rejected:
            return [Lost(place.backend, spec, level.rejected)]
        threads = default_threads(self.profile)
        return [
            judge(option, self.request, self.profile, self.cost_model, threads)
            for option in options_for(place, spec, level, precisions, self.request)
        ]


@dataclass(slots=True)
class Search:
    """What a walk leaves: the options that survived, those that lost, and the rejections of engines and backends."""

    survivors: list[Judged] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def add(self, found: Sequence[Judged | Lost]) -> None:
        for one in found:
            if isinstance(one, Judged):
                self.survivors.append(one)
            else:
                self.lost.append(one)


def search(setting: Setting, models: Sequence[ModelSpec]) -> Search:
    """Judge every option. An NPU that nothing serves is answered by what else can run, with the rejection kept."""
    request, profile = setting.request, setting.profile
    base = setting.facts
    engines = engines_of(profile)
    found = Search()
    wanted = [e for e in engines if request.target in ("auto", e.kind)]
    _search_engines(setting, wanted, base, models, found)
    if request.target == "npu" and not _served(setting, wanted, base):
        _search_engines(setting, [e for e in engines if e.kind != "npu"], base, models, found)
        for judged in found.survivors:
            judged.notices.append(f"Runs on the {judged.option.engine.kind.upper()}, not on the NPU.")
    elif request.target != "auto":
        for engine in engines:
            if engine.kind != request.target:
                text = f"--target {request.target} was asked for; this is the {engine.kind.upper()} ({engine.name})."
                found.rejections.append(
                    rejection("target.engine", text, "DESIGN: options", change="leave out --target")
                )
    if request.framework and not any(r.framework == request.framework for e in wanted for r in backends_for(e)):
        kinds = ", ".join(sorted({f"{e.kind.upper()} ({e.vendor})" for e in wanted})) or "anything here"
        text = f"{request.framework} has no backend for {kinds}."
        found.rejections.append(
            rejection("framework.no-backend", text, "the support matrix", framework=request.framework)
        )
    return found


def alternatives(setting: Setting, chosen: Judged, survivors: Sequence[Judged]) -> list[Judged]:
    """The same model on the same backend at every precision of its shortlist, whatever precision was asked for."""
    place, spec = chosen.option.place, chosen.option.spec
    if setting.request.precision is None:
        return [j for j in survivors if j.option.place is place and j.option.spec is spec]
    free = replace(setting, request=setting.request.model_copy(update={"precision": None}))
    place = free.place(place.engine, place.backend, free.facts)
    found = Search()
    found.add(free.judge(place, spec, precisions_for(place.backend, None)))
    return found.survivors


def _served(setting: Setting, engines: Sequence[Engine], base: Facts) -> bool:
    """Whether some backend of the matrix serves one of `engines` on this system, whatever the model."""
    free = base | {"asked_framework": None}
    return any(
        setting.place(engine, row, free).level.rejected is None for engine in engines for row in backends_for(engine)
    )


def _search_engines(
    setting: Setting, engines: Sequence[Engine], base: Facts, models: Sequence[ModelSpec], found: Search
) -> None:
    for engine in engines:
        for row in backends_for(engine):
            place = setting.place(engine, row, base)
            precisions = precisions_for(row, setting.request.precision)
            if taken := place.level.rejected:
                rule = taken.rule
                found.rejections.append(
                    rejection(rule.id, taken.text, rule.source, row.framework, row.backend, change=taken.change())
                )
            elif not precisions:
                text = f"{row.framework} on {row.backend} has no precision {setting.request.precision}."
                found.rejections.append(
                    rejection("precision.asked", text, "the precision table", row.framework, row.backend)
                )
            else:
                _search_place(setting, place, precisions, models, found)


def _search_place(
    setting: Setting, place: Place, precisions: Sequence[Precision], models: Sequence[ModelSpec], found: Search
) -> None:
    if len(models) <= _FINE:
        for spec in models:
            found.add(setting.judge(place, spec, precisions))
        return
    possible, told = _possible(models, precisions, place)
    found.rejections += told
    first = [one for spec in possible for one in setting.judge(place, spec, precisions[:1])]
    found.add(first)
    alive = [one for one in first if isinstance(one, Judged)]
    rank.score(alive, setting.request)
    best = [j.option.spec for j in sorted(alive, key=lambda j: (-j.scores["total"], j.key))[:_FINE]]
    for spec in best or [one.spec for one in first if isinstance(one, Lost) and one.option]:
        found.add(setting.judge(place, spec, precisions[1:]))


def _possible(
    models: Sequence[ModelSpec], precisions: Sequence[Precision], place: Place
) -> tuple[list[ModelSpec], list[Rejection]]:
    """The models whose weights alone could fit at the fewest bits, and one rejection for all the others."""
    row, room = place.backend, place.most_bytes
    pools = "+".join(card.pool for card in place.cards) or place.usable.pool
    fewest = min(precisions, key=lambda p: p.bits)
    floor = {spec: spec.params * fewest.bits / 8 * _FLOOR_MARGIN for spec in models}
    large = [spec for spec in models if floor[spec] > room]
    if not large:
        return list(models), []
    least = min(large, key=lambda spec: (floor[spec], spec.name))
    from_size = f"{least.params_b:.3g} billion parameters"
    many = f"1 model of {from_size} needs" if len(large) == 1 else f"{len(large)} models from {from_size} on need"
    text = (
        f"{many} more than the "
        f"{format_bytes(room)} usable in {pools}, even at {fewest.name} (the smallest, {least.name}: "
        f"{format_bytes(floor[least])} of weights at least)."
    )
    change = f"with at least {format_bytes(int(floor[least]) - room)} more memory"
    told = rejection("memory.fits", text, "weights alone, from below", row.framework, row.backend, change=change)
    return [spec for spec in models if floor[spec] <= room], [told]


def rejection(
    rule: str,
    text: str,
    source: str,
    framework: str | None = None,
    backend: str | None = None,
    model: str | None = None,
    precision: str | None = None,
    change: str = "",
) -> Rejection:
    """A row of the document's `rejected`."""
    parts = {"framework": framework, "backend": backend, "precision": precision, "model": model}
    return {**parts, "rule": rule, "text": text, "source": source, "change": change}


def _lost_row(lost: Lost, request: Constraints) -> Rejection:
    taken, row = lost.taken, lost.backend
    precision = lost.option.precision.name if lost.option else None
    return rejection(
        taken.rule.id, taken.text, taken.rule.source, row.framework, row.backend, lost.spec.name, precision,
        change_of(lost, request),
    )  # fmt: skip


def rejections_shown(found: Search, request: Constraints) -> list[Rejection]:
    """A readable selection: the backends that cannot run, then at most a few options per framework, backend and rule,
    those that came closest first."""
    kept = list({(r["framework"], r["backend"], r["text"]): r for r in found.rejections}.values())
    seen: dict[tuple[str, ...], int] = {}
    for lost in sorted(found.lost, key=lambda j: (j.shortfall, j.key)):
        key = (lost.backend.framework, lost.backend.backend, lost.taken.rule.id)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= _SHOWN_PER_RULE and len(kept) < _REJECTIONS_SHOWN:
            kept.append(_lost_row(lost, request))
    return kept


def nearest(found: Search, request: Constraints) -> Rejection | None:
    """What came closest of all that was sized: the option that misses its budget by least, then the fastest."""
    sized = [lost for lost in found.lost if lost.size]
    if not sized:
        return None
    return _lost_row(min(sized, key=lambda j: (j.shortfall, -(j.decode_tps or 0.0), j.key)), request)
