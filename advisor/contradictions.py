"""Statements of a request that exclude each other whatever the machine: refused before anything is planned.

What the parts of a machine exclude (a chip and a system, two sizes) is refused where the machine is described, in
probes.declared; what merely cannot run there is a rejection with its reason, in the plan.
"""

from __future__ import annotations

from advisor.constraints import Constraints
from knowledge.base import AdvisorError
from knowledge.matrix import load_backends
from knowledge.precisions import resolve_precision
from knowledge.records import ModelSpec
from knowledge.serving import modalities

_WRITING = ("chat", "code", "reasoning", "agent")


def refuse_contradictions(request: Constraints) -> None:
    """AdvisorError `contradiction` where two options exclude each other: its message names both."""
    if request.framework is None:
        return
    systems = _systems_of(request.framework)
    if request.os is not None and request.os not in systems:
        raise AdvisorError(
            "contradiction",
            f"--framework {request.framework} and --os {request.os} exclude each other.",
            f"{request.framework} runs on {', '.join(systems)}; leave out one of the two",
        )
    if request.precision is not None:
        _refuse_foreign_precision(request.framework, request.precision)


def refuse_other_use(request: Constraints, model: ModelSpec | None) -> None:
    """AdvisorError `contradiction` where the use that was asked for is none of the named model's kind: what makes
    vectors or transcripts cannot answer, what reads text alone sees and hears nothing, and what writes text makes no
    vectors that anything could be found with."""
    if model is None or "use_case" not in request.model_fields_set:
        return
    modality, use = modalities()[model.modality], request.use_case
    if use == "embedding" and modality.writes:
        hint = "name an embedding model; advisor plan --use-case embedding recommends some"
    elif use in _WRITING and model.modality not in ("text", "image-text"):
        own = f"say --use-case {modality.use_case}, or " if modality.use_case else ""
        hint = f"{own}name a model that writes text"
    elif use in ("vision", "speech") and modality.use_case != use:
        hint = f"name a model for it; advisor plan --use-case {use} recommends some"
    else:
        return
    message = f"--use-case {use} and {model.name} exclude each other: it {modality.words}."
    raise AdvisorError("contradiction", message, hint)


def _systems_of(framework: str) -> list[str]:
    rows = (row for row in load_backends() if row.framework == framework)
    return sorted({system for row in rows if row.support in ("supported", "experimental") for system in row.os})


def _refuse_foreign_precision(framework: str, precision: str) -> None:
    try:
        resolve_precision(precision, framework)
    except AdvisorError as error:
        raise AdvisorError(
            "contradiction",
            f"--framework {framework} and --precision {precision} exclude each other. {error.message}",
            error.hint,
        ) from error
