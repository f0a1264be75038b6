"""probe and plan: see a machine, decide for it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge.base import (
    EXIT_INFEASIBLE,
    EXIT_NEEDS_INPUT,
    EXIT_OK,
    EXIT_STEP_FAILED,
    AdvisorError,
    advisor_home,
    exists,
    format_bytes,
    read_json,
    write_json,
)
from ui.command import Answer, Parser, to_json
from ui.plan_options import add_constraints, constraints_from

if TYPE_CHECKING:
    from advisor.calibration import Correction
    from advisor.constraints import Constraints
    from advisor.speed import CostModel
    from probes.profile import HardwareProfile

EXIT_OF_STATUS = {"ok": EXIT_OK, "needs_input": EXIT_NEEDS_INPUT, "infeasible": EXIT_INFEASIBLE}
DESCRIBING = ("ram_bytes", "vram_bytes", "chip", "device")


def probe_options(parser: Parser) -> None:
    parser.flag("--no-bench", "do not measure the memory's bandwidth (0.5 s)")
    parser.value("--save", "FILE", "also write the profile there, for `advisor plan --profile FILE`")


def probe(arguments: argparse.Namespace) -> Answer:
    from probes.probe import probe_machine

    target = _target(arguments.save, "--save", "advisor.hardware/1")
    document = probe_machine(bench=not arguments.no_bench).as_json()
    if target is not None:
        write_json(target, document)

    def show() -> None:
        from ui.view_info import show_profile

        show_profile(document, arguments.save)

    return Answer(document, show)


def plan_options(parser: Parser) -> None:
    add_constraints(parser)
    parser.value("--out", "FILE", "also write the plan there, for `advisor run FILE`")
    parser.flag("--explain", "show the path through the decision tree and every rejection")
    parser.value("--compare", "course", "also show what the course's tree would recommend, and why we depart")
    parser.flag("--schema", "print the JSON Schema of a plan and nothing else")


def plan(arguments: argparse.Namespace) -> Answer:
    if arguments.schema:
        return _schema()
    if arguments.compare not in (None, "course"):
        hint = "write --compare course"
        raise AdvisorError("bad-option", f"--compare: {arguments.compare!r} is nothing to compare with.", hint)
    constraints = constraints_from(arguments)
    target = _target(arguments.out, "--out", "advisor.plan/1")
    document = make_plan(constraints, compare=arguments.compare)
    if target is not None:
        write_json(target, document)

    def show() -> None:
        from ui.view_plan import show_plan

        show_plan(document, explain=arguments.explain, out=arguments.out)

    return Answer(document, show, EXIT_OF_STATUS[document["status"]])


def make_plan(
    constraints: Constraints, profile: HardwareProfile | None = None, *, compare: str | None = None
) -> dict[str, Any]:
    """The plan document: reads what the decision needs (model, and the machine unless it is given) and decides."""
    from advisor.contradictions import refuse_contradictions, refuse_other_use
    from advisor.decide import make_plan as decide
    from knowledge.store import find_model

    refuse_contradictions(constraints)

    model = find_model(constraints.model, offline=constraints.offline) if constraints.model is not None else None
    refuse_other_use(constraints, model)
    try:
        profile = profile or machine(constraints)
    except AdvisorError as error:
        if error.exit_code != EXIT_NEEDS_INPUT:
            raise
        from advisor.unclear import unclear_machine

        return unclear_machine(constraints, error)
    cost_model, troubles = _cost_model(profile)
    document = decide(constraints, profile, model, extra_rules=_site_rules(), cost_model=cost_model, compare=compare)
    document["warnings"] += troubles + _missing_weights(document)
    return document


def _missing_weights(document: dict[str, Any]) -> list[str]:
    """With --offline: that a run of the plan could not begin, where its weights are not on this machine."""
    if document["status"] != "ok" or not document["constraints"]["offline"]:
        return []
    from knowledge.hub import is_downloaded  # late: it costs 20 ms

    model, size = document["plan"]["model"], document["recommendations"][0]["disk"]["download_bytes"]
    source = document["plan"]["steps"][0]["settings"].get("source", {})
    if not size or is_downloaded(model, source.get("revision", "")):
        return []
    return [
        f"Offline: the weights of {model} ({format_bytes(size)}) are not on this machine and may not be downloaded: "
        f"`advisor run` would stop at its first step, with exit code {EXIT_STEP_FAILED}. Name a model that is here, or "
        "plan without --offline."
    ]


def _site_rules() -> tuple[Path, ...]:
    """The user's own rules, `rules/*.toml` under ADVISOR_HOME."""
    folder = advisor_home() / "rules"
    return (folder,) if exists(folder) else ()


def _cost_model(profile: HardwareProfile) -> tuple[CostModel, list[str]]:
    """The learned model, corrected by what runs measured on this very machine; and why not, where the history is
    broken."""
    from advisor.learned import Learned

    if profile.origin != "probed" or not profile.fingerprint:
        return Learned(), []
    from advisor.calibration import Calibrated
    from executors.history import calibration_rows

    try:
        return Calibrated(Learned(), calibration_rows(profile.fingerprint)), []
    except AdvisorError as error:
        return Learned(), [f"This machine's own measurements were left out. {error.message}"]


def corrections(profile: HardwareProfile) -> list[Correction]:
    """How this machine's history moves its predictions; empty where there is none. AdvisorError if it is broken."""
    from advisor.calibration import Calibrated
    from advisor.learned import Learned
    from executors.history import calibration_rows

    return Calibrated(Learned(), calibration_rows(profile.fingerprint)).corrections(profile)


def machine(constraints: Constraints) -> HardwareProfile:
    """The machine to plan for: this one, or the described one, into which nothing of this one leaks.

    `--ram`, `--vram`, `--chip`, `--device` and `--profile` describe another machine, and so does `--os` where it names
    another system than this one's. `--vendor` and `--target` alone do not: they say what to look at in this one.
    """
    if constraints.profile is not None:
        return _profile_from_file(constraints, constraints.profile)
    if describes_another(constraints):
        from probes.declared import declared_profile

        fields = ("ram_bytes", "vram_bytes", "chip", "device", "vendor", "os", "target", "power")
        return declared_profile(**{field: getattr(constraints, field) for field in fields})
    from probes.probe import probe_machine

    return probe_machine()


def describes_another(constraints: Constraints) -> bool:
    here = {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    return constraints.os not in (None, here) or any(getattr(constraints, field) is not None for field in DESCRIBING)


def _profile_from_file(constraints: Constraints, name: str) -> HardwareProfile:
    """The saved profile. It says all of its machine: options that say some of it too are refused."""
    from probes.profile import load_profile

    profile = load_profile(Path(name))
    said = [f"--{field.removesuffix('_bytes')}" for field in DESCRIBING if getattr(constraints, field) is not None]
    if constraints.os not in (None, profile.os.family):
        said.append("--os")
    if said:
        hint = f"leave out {' and '.join(said)}, or describe the machine without --profile"
        raise AdvisorError("contradiction", f"--profile already says what {said[0]} says.", hint)
    return profile


def _schema() -> Answer:
    from advisor.plan import Plan

    schema = Plan.model_json_schema(mode="serialization")

    return Answer(schema, lambda: print(to_json(schema)))


def _target(name: str | None, option: str, schema: str) -> Path | None:
    """Where to write a document of `schema`; an earlier one of the same kind is replaced, any other file is not."""
    if name is None:
        return None
    if not name.strip() or "\0" in name:
        raise AdvisorError("bad-option", f"{option} is empty.", f"give {option} a file name, or leave it out")
    path = Path(name)
    if path.exists():
        try:
            same = read_json(path, "file").get("schema") == schema
        except (AdvisorError, AttributeError):
            same = False
        if not same:
            raise AdvisorError("exists", f"{option}: {name} exists and is something else.", "name a new file")
    return path
