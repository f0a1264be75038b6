"""The decision: a request and a machine to the plan document (DESIGN section 3), ranked, explained, deterministic.

    plan rules -> engines x backends x models x precisions -> static rules -> memory -> fit rules -> speed, quality
        -> value rules -> scores, Pareto set, rank -> steps of the first

Pure: models, profile and history come in as values; a document of plain dictionaries comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from advisor import rank
from advisor.constraints import Constraints
from advisor.course import compare_with_course
from advisor.engines import default_threads, engines_of
from advisor.instead import better_instead, ways_instead
from advisor.judging import Judged
from advisor.learned import Learned
from advisor.outranked import outranked
from advisor.question import ask
from advisor.search import Rejection, Search, Setting, alternatives, nearest, rejection, rejections_shown, search
from advisor.speed import CostModel
from advisor.steps import make_work
from advisor.walk import first_of, with_effect
from knowledge.models import load_models
from knowledge.records import ModelSpec
from knowledge.rules import load_rules
from probes.profile import HardwareProfile

SCHEMA = "advisor.plan/1"


def make_plan(
    request: Constraints,
    profile: HardwareProfile,
    model: ModelSpec | None,
    *,
    extra_rules: tuple[Path, ...] = (),
    cost_model: CostModel | None = None,
    compare: str | None = None,
) -> dict[str, Any]:
    """The plan document for `request` on `profile`. `model` None: the catalogue is searched. `extra_rules` are folders
    of a site's own rules; `cost_model` is the seam for a calibrated one. `compare` "course" adds what the
    course would recommend."""
    setting = Setting(request, profile, load_rules(extra_rules), cost_model or Learned())
    taken_first = first_of(setting.rules.nodes["plan"], setting.facts)
    models = (model,) if model else load_models()
    head = {
        "hardware": profile.as_json(),
        "constraints": request.model_dump(mode="json"),
        "assumptions": [*profile.notes, *_assumptions(request, profile)],
        "warnings": [t.text for t in taken_first if t.rule.effect == "warn"],
    }
    trace = [taken.trace() for taken in taken_first]
    best, survivors, spec = None, [], model
    if taken := with_effect(taken_first, "ask"):
        question, fallback, rejected = ask(
            taken, setting, models, lambda r, p, m: search(replace(setting, request=r, profile=p), m)
        )
        chosen = rank.order(fallback, request, top=request.top)
        document = _document("needs_input", head, question, chosen, rejected, trace)
    elif taken := with_effect(taken_first, "stop"):
        rejected = [rejection(taken.rule.id, taken.text, taken.rule.source)]
        document = _document("infeasible", head, None, [], rejected, trace)
    else:
        found = search(setting, models)
        survivors = found.survivors
        chosen = rank.order(survivors, request, top=request.top)
        rejected = rejections_shown(found, request)
        if chosen:
            best, spec = chosen[0], chosen[0].option.spec
            trace += [taken.trace() for taken in best.path]
            others = alternatives(setting, best, survivors)
            work = make_work(best, others, request, default_threads(profile), setting.cost_model)
            document = _document("ok", head, None, chosen, rejected, trace, work=work)
            document["outranked"] = outranked(survivors, chosen)
            if model is not None and (better := better_instead(request, model, chosen, setting.searched)):
                document["instead"] = better
        else:
            document = _infeasible(setting, model, found, head, rejected, trace)
    if compare == "course":
        document["course"] = compare_with_course(request, profile, spec, best, survivors, rejected)
    return document


def _infeasible(
    setting: Setting,
    model: ModelSpec | None,
    found: Search,
    head: dict[str, Any],
    rejected: list[Rejection],
    trace: list[dict[str, str]],
) -> dict[str, Any]:
    """What came closest, and what can be done instead of the model that was asked for."""
    closest = nearest(found, setting.request)
    head = head | {"warnings": [*head["warnings"], *_closest_words(closest)]}
    document = _document("infeasible", head, None, [], rejected, trace, nearest=closest)
    if model is not None:
        document["instead"] = ways_instead(setting.request, setting.profile, model, found.lost, setting.searched)
    return document


def _closest_words(closest: Rejection | None) -> list[str]:
    if closest is None:
        return []
    where = f"{closest['model']} with {closest['framework']} on {closest['backend']} at {closest['precision']}"
    change = f" It would do {closest['change']}." if closest["change"] else ""
    return [f"Closest: {where}: {closest['text']}{change}"]


def _assumptions(request: Constraints, profile: HardwareProfile) -> list[str]:
    words = []
    if profile.os.family is None:
        words.append(
            "No --os given: the memory kept for the system is an assumption, and no backend is ruled out by the system."
        )
    if request.context is None:
        words.append("Context 4096 tokens (less where the model or the NPU has less); change it with --context.")
    if len({engine.generation for engine in engines_of(profile) if engine.kind == "gpu" and not engine.integrated}) > 1:
        words.append("A model is spread over cards of one generation only.")
    return words


def _document(
    status: str,
    head: dict[str, Any],
    question: dict[str, Any] | None,
    chosen: Sequence[Judged],
    rejected: list[Rejection],
    trace: list[dict[str, str]],
    *,
    nearest: Rejection | None = None,
    work: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
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
