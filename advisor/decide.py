"""The decision: a request and a machine to the plan document (DESIGN section 3), ranked, explained, deterministic.

    plan rules -> engines x backends x models x precisions -> static rules -> memory -> fit rules -> speed, quality
        -> value rules -> scores, Pareto set, rank -> steps of the first

Pure: models, profile and history come in as values; a document of plain dictionaries comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advisor import rank
from advisor.candidates import backend_facts, backends_for, options_for, plan_facts, precisions_for
from advisor.constraints import Constraints
from advisor.engines import Engine, default_threads, engines_of
from advisor.evaluate import Judged, Walk, judge
from advisor.memory import Budget, budget
from advisor.question import ask
from advisor.speed import CostModel, Roofline
from advisor.steps import make_work
from knowledge.base import format_bytes
from knowledge.matrix import Backend
from knowledge.models import load_models
from knowledge.records import ModelSpec, Precision
from knowledge.rules import RuleSet, load_rules
from probes.profile import HardwareProfile

SCHEMA = "advisor.plan/1"
_REJECTIONS_SHOWN = 60
_SHOWN_PER_RULE = 3
_FLOOR_MARGIN = 0.95  # a mix never stores fewer bits than this share of its base type
_FINE = 8  # models that are judged at every precision when the catalogue is searched


@dataclass(slots=True)
class Search:
    """What a walk over the candidates leaves: the options that survived and that lost, and the rejections of whole engines and backends."""

    survivors: list[Judged] = field(default_factory=list)
    lost: list[Judged] = field(default_factory=list)
    rejections: list[dict[str, Any]] = field(default_factory=list)


def make_plan(
    request: Constraints,
    profile: HardwareProfile,
    model: ModelSpec | None,
    *,
    history: Sequence[Any] = (),
    rules: RuleSet | None = None,
    extra_rules: tuple[Path, ...] = (),
    cost_model: CostModel | None = None,
) -> dict[str, Any]:
    """The plan document for `request` on `profile`. `model` None: the catalogue is searched. `history` holds this
    machine's own measurements (the calibration seam)."""
    rules = rules or load_rules(extra_rules)
    cost_model = cost_model or Roofline()
    facts = plan_facts(request, profile)
    walk = Walk(rules, "plan", facts)
    models = (model,) if model else tuple(load_models())
    head = {
        "hardware": profile.as_json(),
        "constraints": request.model_dump(mode="json"),
        "assumptions": [*profile.notes, *_assumptions(request, profile)],
        "warnings": walk.texts("warn"),
    }
    trace = [taken.trace() for taken in walk.taken]
    if taken := walk.first("ask"):
        question, fallback, rejected = ask(
            taken, request, profile, models, lambda r, p, m: _search(r, p, m, rules, cost_model)
        )
        chosen = [*rank.order(fallback, request, top=request.top)]
        return _document("needs_input", head, question, chosen, rejected, trace, None)
    if taken := walk.first("stop"):
        rejected = [{"rule": taken.rule.id, "text": taken.text, "source": taken.rule.source}]
        return _document("infeasible", head, None, [], rejected, trace, None)
    found = _search(request, profile, models, rules, cost_model)
    chosen = rank.order(found.survivors, request, top=request.top)
    if not chosen:
        head["warnings"] = [*head["warnings"], *_nearest_words(found)]
        return _document("infeasible", head, None, [], _rejected(found), trace, None, _nearest(found))
    trace += [taken.trace() for taken in chosen[0].taken]
    work = make_work(
        chosen[0],
        [j for j in found.survivors if j.option.spec is chosen[0].option.spec],
        request,
        default_threads(profile),
    )
    return _document("ok", head, None, chosen, _rejected(found), trace, work)


def _search(
    request: Constraints, profile: HardwareProfile, models: Sequence[ModelSpec], rules: RuleSet, cost_model: CostModel
) -> Search:
    """Judge every option. An NPU that nothing serves is answered by what else can run, with the rejection kept."""
    base = plan_facts(request, profile)
    engines = engines_of(profile)
    search = Search()
    wanted = [e for e in engines if request.target in ("auto", e.kind)]
    _judge_engines(wanted, base, request, profile, models, rules, cost_model, search)
    if request.target == "npu" and not _served(wanted, base, profile, rules):
        others = [e for e in engines if e.kind != "npu"]
        _judge_engines(others, base, request, profile, models, rules, cost_model, search)
        for judged in search.survivors:
            judged.notices.append(f"Runs on the {judged.option.engine.kind.upper()}, not on the NPU.")
    elif request.target != "auto":
        for engine in engines:
            if engine.kind != request.target:
                text = f"--target {request.target} was asked for; this is the {engine.kind.upper()} ({engine.name})."
                search.rejections.append(
                    _rejection("target.engine", text, "DESIGN: options", change="leave out --target")
                )
    if request.framework and not any(r.framework == request.framework for e in wanted for r in backends_for(e)):
        kinds = ", ".join(sorted({f"{e.kind.upper()} ({e.vendor})" for e in wanted})) or "anything here"
        text = f"{request.framework} has no backend for {kinds}."
        search.rejections.append(
            _rejection("framework.no-backend", text, "the support matrix", framework=request.framework)
        )
    return search


def _served(engines: Sequence[Engine], base: dict[str, Any], profile: HardwareProfile, rules: RuleSet) -> bool:
    """Whether some backend of the matrix serves one of `engines` on this system, whatever the model."""
    free = base | {"asked_framework": None}
    return any(
        Walk(rules, "static", backend_facts(free, engine, row, profile)).first("reject") is None
        for engine in engines
        for row in backends_for(engine)
    )


def _judge_engines(
    engines: Sequence[Engine],
    base: dict[str, Any],
    request: Constraints,
    profile: HardwareProfile,
    models: Sequence[ModelSpec],
    rules: RuleSet,
    cost_model: CostModel,
    search: Search,
) -> None:
    threads = default_threads(profile)
    for engine in engines:
        for row in backends_for(engine):
            facts = backend_facts(base, engine, row, profile)
            if taken := Walk(rules, "static", facts).first("reject"):
                search.rejections.append(
                    _rejection(
                        taken.rule.id, taken.text, taken.rule.source, row.framework, row.backend, change=taken.change
                    )
                )
                continue
            precisions = precisions_for(row, request.precision)
            if not precisions:
                text = f"{row.framework} on {row.backend} has no precision {request.precision}."
                search.rejections.append(
                    _rejection("precision.asked", text, "the precision table", row.framework, row.backend)
                )

            def weigh(specs: Sequence[ModelSpec], some: Sequence[Precision]) -> list[Judged]:
                options = (o for spec in specs for o in options_for(facts, engine, row, spec, some, request))  # noqa: B023
                return [judge(option, request, profile, rules, cost_model, threads) for option in options]

            if len(models) <= _FINE:
                found = weigh(models, precisions)
            else:
                possible, told = _possible(
                    models, precisions, budget(profile, engine.pool, row.backend, engine.kind), row
                )
                search.rejections += told
                found = _coarse_to_fine(possible, precisions, request, weigh)
            search.survivors += [j for j in found if j.rejected is None]
            search.lost += [j for j in found if j.rejected is not None]


def _possible(
    models: Sequence[ModelSpec], precisions: Sequence[Precision], usable: Budget, row: Backend
) -> tuple[list[ModelSpec], list[dict[str, Any]]]:
    """The models whose weights alone could fit at the fewest bits, and one rejection for all the others."""
    fewest = min(precisions, key=lambda p: p.bits)
    floor = {spec: spec.params * fewest.bits / 8 * _FLOOR_MARGIN for spec in models}
    large = [spec for spec in models if floor[spec] > usable.bytes]
    if not large:
        return list(models), []
    least = min(large, key=lambda spec: (floor[spec], spec.name))
    text = (
        f"{len(large)} models from {least.params_b:.3g} billion parameters on need more than the {format_bytes(usable.bytes)} "
        f"usable in {usable.pool}, even at {fewest.name} (the smallest, {least.name}: {format_bytes(floor[least])} of weights at least)."
    )
    told = _rejection(
        "memory.fits",
        text,
        "weights alone, from below",
        row.framework,
        row.backend,
        change="a machine with more memory",
    )
    return [spec for spec in models if floor[spec] <= usable.bytes], [told]


def _coarse_to_fine(
    models: Sequence[ModelSpec],
    precisions: Sequence[Precision],
    request: Constraints,
    weigh: Callable[[Sequence[ModelSpec], Sequence[Precision]], list[Judged]],
) -> list[Judged]:
    """Judge a catalogue: every model at the backend's first precision, the best few at all of them. Where none
    survives the first precision, all are tried at the others."""
    coarse = weigh(models, precisions[:1])
    alive = [j for j in coarse if j.rejected is None]
    rank.score(alive, request)
    best = [j.option.spec for j in sorted(alive, key=lambda j: (-j.scores["total"], j.key))[:_FINE]]
    return coarse + weigh(best or models, precisions[1:])


def _rejection(
    rule: str,
    text: str,
    source: str,
    framework: str | None = None,
    backend: str | None = None,
    model: str | None = None,
    precision: str | None = None,
    change: str = "",
) -> dict[str, Any]:
    return {
        "framework": framework, "backend": backend, "precision": precision, "model": model,
        "rule": rule, "text": text, "source": source, "change": change,
    }  # fmt: skip


def _rejected(search: Search) -> list[dict[str, Any]]:
    """A readable selection: the backends that cannot run, then at most a few options per framework, backend and rule,
    those that came closest first."""
    kept = list({(r["framework"], r["backend"], r["text"]): r for r in search.rejections}.values())
    seen: dict[tuple[str, ...], int] = {}
    for judged in sorted(search.lost, key=lambda j: (j.shortfall, j.key)):
        taken, option = judged.rejected, judged.option
        assert taken
        key = (option.backend.framework, option.backend.backend, taken.rule.id)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= _SHOWN_PER_RULE and len(kept) < _REJECTIONS_SHOWN:
            kept.append(
                _rejection(
                    taken.rule.id,
                    taken.text,
                    taken.rule.source,
                    option.backend.framework,
                    option.backend.backend,
                    option.spec.name,
                    option.precision.name,
                    taken.change,
                )  # fmt: skip
            )
    return kept


def _nearest(found: Search) -> dict[str, Any] | None:
    """What came closest of all that was sized: the option that misses its budget by least, then the fastest."""
    sized = [j for j in found.lost if j.need is not None]
    if not sized:
        return None
    judged = min(sized, key=lambda j: (j.shortfall, -(j.decode.mid or 0.0), j.key))
    assert judged.rejected is not None
    return {
        "model": judged.option.spec.name,
        "framework": judged.option.backend.framework,
        "backend": judged.option.backend.backend,
        "precision": judged.option.precision.name,
        "rule": judged.rejected.rule.id,
        "text": judged.rejected.text,
        "change": judged.rejected.change,
    }


def _nearest_words(found: Search) -> list[str]:
    nearest = _nearest(found)
    if nearest is None:
        return []
    words = f"Closest: {nearest['model']} with {nearest['framework']} on {nearest['backend']} at {nearest['precision']}: {nearest['text']}"
    return [words + (f" It would do {nearest['change']}." if nearest["change"] else "")]


def _assumptions(request: Constraints, profile: HardwareProfile) -> list[str]:
    words = []
    if request.ram_bytes or request.vram_bytes:
        words.append("Declared memory is read in binary units: 8GB is 8 GiB, as it is sold.")
    if profile.os.family is None:
        words.append(
            "No --os given: the memory kept for the system is an assumption, and no backend is ruled out by the system."
        )
    if request.context is None:
        words.append("Context 4096 tokens (less where the model or the NPU has less); change it with --context.")
    return words


def _document(
    status: str,
    head: dict[str, Any],
    question: dict[str, Any] | None,
    chosen: Sequence[Judged],
    rejected: list[dict[str, Any]],
    trace: list[dict[str, str]],
    work: dict[str, Any] | None,
    nearest: dict[str, Any] | None = None,
) -> dict[str, Any]:
    document = {
        "schema": SCHEMA,
        "status": status,
        "question": question,
        **head,
        "recommendations": [rank.recommendation(i, judged) for i, judged in enumerate(chosen, 1)],
        "rejected": rejected,
        "nearest": nearest,
        "trace": trace,
        "plan": work,
    }
    return document
