"""The plan document for a machine whose description fits several, or leaves out what decides: a question, no plan."""

from __future__ import annotations

from typing import Any

from advisor.constraints import Constraints
from advisor.decide import SCHEMA
from knowledge.base import AdvisorError
from probes.profile import HardwareProfile

# Which option answers the question that a description leaves open, by the error's code.
_ANSWERED_BY = {"memory-unknown": "--vram"}


def unclear_machine(request: Constraints, error: AdvisorError) -> dict[str, Any]:
    """`needs_input` for an error that a person can resolve by saying more (its exit code is EXIT_NEEDS_INPUT)."""
    named = "--device" if request.device is not None else "--chip"
    question = {
        "id": error.code,
        "text": f"{error.message} {error.hint[:1].upper()}{error.hint[1:]}.",
        "answer_with": _ANSWERED_BY.get(error.code, named),
        "how_to_find_out": [],
        "options": [],
        "firm": "",
        "fallback": "",
        "source": "the description of the machine",
    }
    profile = HardwareProfile(origin="declared", device=request.device or "", chip=request.chip or "")
    described = " ".join(filter(None, (request.device, request.chip)))
    trace = {
        "node": "machine",
        "condition": "the description is of one machine",
        "value": described,
        "branch": error.code,
    }
    return {
        "schema": SCHEMA,
        "status": "needs_input",
        "question": question,
        "hardware": profile.as_json(),
        "constraints": request.model_dump(mode="json"),
        "assumptions": [],
        "warnings": [],
        "recommendations": [],
        "rejected": [],
        "nearest": None,
        "trace": [trace],
        "plan": None,
    }
