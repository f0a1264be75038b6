"""What can be done where the model that was asked for cannot run: without what was insisted on, fewer bits, a relative;
and where it is slow or loses much, a relative that does neither.

Every way is a search of its own with one thing different, so that what is offered really runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from advisor import rank
from advisor.candidates import Option
from advisor.constraints import Constraints
from advisor.judging import Judged, Lost
from advisor.memory import budget
from knowledge.base import format_bytes
from knowledge.models import load_models
from knowledge.precisions import load_precisions
from knowledge.records import ModelSpec
from probes.profile import HardwareProfile

if TYPE_CHECKING:
    from advisor.search import Search

SearchFor = Callable[[Constraints, Sequence[ModelSpec]], "Search"]
_INSISTED = {
    "precision": None, "framework": None, "target": "auto", "max_quality_loss_pct": None, "min_decode_tps": None,
    "max_ttft_ms": None, "max_disk_bytes": None, "commercial": False,
}  # fmt: skip
_OPTIONS = {"max_quality_loss_pct": "--max-quality-loss", "max_disk_bytes": "--max-disk"}
_RELATIVES_TRIED = 3
_SMALLER = 0.8  # of the parameters: what has more of them is as large, and as slow
_SHORTCOMINGS = ("speed.slow", "gate.quality-penalty")  # the rules that say so
_EMPTY = {"available_bytes": None, "limit_bytes": None, "gpu_limit_bytes": None}
_USUAL_CONTEXTS = (4096, 2048)
_USUAL_GIB = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768, 1024)


def ways_instead(
    request: Constraints, profile: HardwareProfile, model: ModelSpec, lost: Sequence[Lost], search: SearchFor
) -> list[dict[str, Any]]:
    """The document's `instead`: each way with `change` (what differs), `text`, and the recommendation in short."""
    sized = [one for one in lost if one.size]
    found: list[dict[str, Any]] = []

    def tries(change: str, different: Constraints, other: ModelSpec = model, *, sound: bool = False) -> bool:
        survivors = search(different, (other,)).survivors
        best = rank.order([j for j in survivors if not (sound and _ultra_low(j.option))], different, top=1)
        if best:
            found.append(_way(change, rank.recommendation(1, best[0])))
        return bool(best)

    insisted = {field: free for field, free in _INSISTED.items() if getattr(request, field) != free}
    for field, free in insisted.items():
        tries(_without([field]), request.model_copy(update={field: free}))
    for context in _shorter_contexts(request, lost):
        if tries(f"with --context {context}", request.model_copy(update={"context": context})):
            break
    if request.precision is None and sized and (fewer := _fewest_bits(sized)):
        tries(f"with --precision {fewer}", request.model_copy(update={"precision": fewer}))
    relatives = _relatives(model, sized)
    any(tries(f"a smaller model of the family, {other.name}", request, other, sound=True) for other in relatives)
    if not found and (asked := [*insisted, *(["context"] if request.context else [])]):
        free_request = request.model_copy(update=insisted | {"context": None})
        words = _without(asked)
        tries(words, free_request) or any(
            tries(f"{words}, a smaller model of the family, {other.name}", free_request, other) for other in relatives
        )
    return [*found, *_more_memory(profile, sized)]


def better_instead(
    request: Constraints, model: ModelSpec, shown: Sequence[Judged], search: SearchFor
) -> list[dict[str, Any]]:
    """The largest smaller model of the family that is neither slow nor loses much, where all that is `shown` of `model`
    is or does."""
    if not all(_falls_short(judged) for judged in shown):
        return []
    for other in _relatives(model, ()):
        best = rank.order([j for j in search(request, (other,)).survivors if not _falls_short(j)], request, top=1)
        if best:
            return [_way(f"a smaller model of the family, {other.name}", rank.recommendation(1, best[0]))]
    return []


def _falls_short(judged: Judged) -> bool:
    return any(taken.rule.id in _SHORTCOMINGS for taken in judged.taken)


def _without(fields: Sequence[str]) -> str:
    return "without " + " and ".join(_OPTIONS.get(field, "--" + field.replace("_", "-")) for field in fields)


def _shorter_contexts(request: Constraints, lost: Sequence[Lost]) -> list[int]:
    """Shorter contexts worth a try: the limits that rejections named, then the usual ones."""
    if request.context is None:
        return []
    limits = {one.taken.facts.get(name) for one in lost for name in ("max_context", "model_context")}
    return sorted({c for c in {*limits, *_USUAL_CONTEXTS} if c and c < request.context}, reverse=True)


def _fewest_bits(sized: Sequence[Lost]) -> str | None:
    """The precision with most bits, below those tried, of the frameworks that came as far as memory and need no
    importance matrix; None where the weights alone are too large at any."""
    tried = {one.option.precision.name for one in sized if one.option}
    frameworks = {one.backend.framework for one in sized}
    spec, room = sized[0].spec, max(one.size.budget.bytes for one in sized if one.size)
    smaller = [
        p
        for p in load_precisions()
        if p.framework in frameworks
        and p.name not in tried
        and not p.needs_imatrix
        and not p.native_only
        and p.bits * spec.params / 8 < room
    ]
    return max(smaller, key=lambda p: (p.bits, p.name)).name if smaller else None


def _relatives(model: ModelSpec, sized: Sequence[Lost]) -> list[ModelSpec]:
    """Smaller models of the same family for the same uses, the largest that could fit first."""
    room = max((one.size.budget.bytes for one in sized if one.size), default=2**60)
    uses = set(model.use_cases)
    smaller = [
        m
        for m in load_models()
        if m.family and m.family == model.family and m.params < _SMALLER * model.params and uses & set(m.use_cases)
    ]
    possible = [m for m in smaller if m.params * 0.5 < room]  # 4 bits per weight
    return sorted(possible, key=lambda m: (-m.params, m.name))[:_RELATIVES_TRIED]


def _more_memory(profile: HardwareProfile, sized: Sequence[Lost]) -> list[dict[str, Any]]:
    """The smallest usual memory in which the option that came closest would fit."""
    sound = [one for one in sized if one.option and not _ultra_low(one.option)]
    nearest = min(sound or sized, key=lambda one: (one.shortfall, one.key), default=None)
    if nearest is None or not nearest.shortfall or nearest.option is None or nearest.size is None:
        return []
    option, need = nearest.option, nearest.size.need.total_bytes
    pool = profile.pool(option.engine.pool)
    if pool is None:
        return []
    for gib in _USUAL_GIB:
        larger = pool.model_copy(update=_EMPTY | {"total_bytes": gib * 2**30})
        machine = profile.model_copy(update={"memory": (larger,)})
        if need <= budget(machine, pool.id, option.backend.backend, option.engine.kind).bytes:
            change = f"on a machine with {gib} GB of {'graphics ' if pool.kind == 'vram' else ''}memory"
            runs = f"{option.spec.name} at {option.precision.name} with {option.backend.framework} fits"
            text = f"{change[:1].upper()}{change[1:]}: {runs}, {format_bytes(need)} needed."
            return [{"change": change, "text": text, "recommendation": None}]
    return []


def _ultra_low(option: Option) -> bool:
    return option.precision.precision_class == "ultra-low"


def _pace(decode: dict[str, Any]) -> str:
    if decode["mid"] is None:
        return ""
    return f", {decode['mid']:.3g} tok/s ({decode['low']:.3g} to {decode['high']:.3g})"


def _way(change: str, best: dict[str, Any]) -> dict[str, Any]:
    memory, engine = best["memory"], best["backend"].removeprefix(best["framework"] + "-")
    text = (
        f"{change[:1].upper()}{change[1:]}: {best['model']} at {best['precision']} with {best['framework']} on "
        f"{engine}, {format_bytes(memory['total_bytes'])} of {format_bytes(memory['budget_bytes'])}"
        f"{_pace(best['decode_tps'])}."
    )
    keys = ("model", "params_b", "framework", "backend", "precision", "nominal_bits", "precision_class", "warnings")
    short = {key: best[key] for key in keys} | {"total_bytes": memory["total_bytes"]}
    return {"change": change, "text": text, "recommendation": short}
