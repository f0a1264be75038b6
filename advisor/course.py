"""What the course's tree and matrix would recommend for the same request, next to ours, and why we depart.

The course decides by vendor, wish and size of the model; advisor by what runs, fits, and how fast and good it is. Why
we depart is read from our own decision: the rule that rejected the course's framework, or the axes on which it scored
less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from advisor.constraints import Constraints
from advisor.judging import Judged
from advisor.outranked import lags_behind
from knowledge.course import claim_named, load_course
from knowledge.records import ModelSpec
from probes.profile import HardwareProfile

Rejection = dict[str, Any]
_REASONS = 3


def compare_with_course(
    request: Constraints,
    profile: HardwareProfile,
    spec: ModelSpec | None,
    best: Judged | None,
    survivors: Sequence[Judged],
    rejected: Sequence[Rejection],
) -> dict[str, Any]:
    """The `course` part of the document: the branch taken, the matrix's row, whether we agree, and why not.

    `spec` is the model asked for or recommended; `best` our first recommendation, None where there is none.
    """
    branch = next(b for b in load_course()["tree"][0]["branch"] if _holds(b["when"], request, profile, spec))
    option = best.option if best else None
    agrees = option is not None and option.backend.framework == branch["framework"]
    ours = f"{option.backend.framework} on {option.backend.backend} at {option.precision.name}" if option else ""
    row = _platform(profile)
    return {
        "tree": {key: branch[key] for key in ("words", "framework", "recipe", "claim")},
        "matrix": row and {key: row[key] for key in ("words", "first", "second", "claim")},
        "ours": ours or "no recommendation",
        "agrees": agrees,
        "why": [] if agrees else _why(branch, best, survivors, rejected),
    }


def _holds(when: dict[str, Any], request: Constraints, profile: HardwareProfile, spec: ModelSpec | None) -> bool:
    """Whether every condition of a branch of the course's tree holds."""
    several = request.use_case in ("vision", "speech") or (
        spec is not None and bool({"vision", "speech"} & set(spec.use_cases))
    )
    tests: dict[str, Callable[[Any], bool]] = {
        "vendor": lambda value: value in vendors_of(profile),
        "enterprise": lambda value: request.enterprise is value,
        "multimodal": lambda value: several is value,
        "params_b_over": lambda value: spec is not None and spec.params_b > value,
    }
    return all(tests[key](value) for key, value in when.items())


def vendors_of(profile: HardwareProfile) -> tuple[str, ...]:
    """Whose platform the machine is: that of its graphics card, else of its processor."""
    cards = tuple(gpu.vendor for gpu in profile.gpus if gpu.kind == "discrete")
    return cards or (profile.cpu.vendor,)


def _platform(profile: HardwareProfile) -> dict[str, Any] | None:
    """The row of the course's platform matrix; it has none for AMD and for NPUs."""
    named = vendors_of(profile)[0]
    if named not in ("intel", "nvidia", "apple") and profile.cpu.arch in ("arm64", "armv7"):
        named = "arm-mobile" if profile.os.family in ("android", "ios") else "embedded-arm"
    return next((row for row in load_course()["platform"] if row["id"] == named), None)


def _why(
    branch: dict[str, Any], best: Judged | None, survivors: Sequence[Judged], rejected: Sequence[Rejection]
) -> list[dict[str, str]]:
    """At most a few reasons, each with its source: how the framework lost here, and what is wrong with the claim."""
    framework = branch["framework"]
    reasons = []
    theirs = [j for j in survivors if j.option.backend.framework == framework and j.scores]
    if best and theirs:
        rival = min(theirs, key=lambda j: (-j.scores["total"], j.key))
        reasons.append({"text": lags_behind(rival, best), "source": "the scores of this plan"})
    else:
        lost = [r for r in rejected if r["framework"] == framework][:_REASONS]
        reasons += [{"text": f"{framework}: {r['text']}", "source": f"rule {r['rule']}; {r['source']}"} for r in lost]
    claim = claim_named(branch["claim"])
    reasons.append({"text": f"The claim itself ({claim.verdict}): {claim.ours}.", "source": claim.source})
    return reasons
