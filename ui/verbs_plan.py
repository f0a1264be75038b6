"""probe and plan: see a machine, decide for it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge.base import EXIT_INFEASIBLE, EXIT_NEEDS_INPUT, EXIT_OK, AdvisorError, read_json, write_json
from ui.command import Answer, Parser
from ui.plan_options import add_constraints, constraints_from

if TYPE_CHECKING:
    from advisor.constraints import Constraints
    from advisor.plan import Plan
    from knowledge.records import ModelSpec
    from probes.profile import HardwareProfile

EXIT_OF_STATUS = {"ok": EXIT_OK, "needs_input": EXIT_NEEDS_INPUT, "infeasible": EXIT_INFEASIBLE}
# Any of these describes another machine, of which nothing is then probed. So does --os where it names another system.
DESCRIBING = ("ram_bytes", "vram_bytes", "chip", "device", "profile")


def probe_options(parser: Parser) -> None:
    parser.flag("--no-bench", "do not measure the memory's bandwidth (0.5 s)")
    parser.value("--save", "FILE", "also write the profile there, for `advisor plan --profile FILE`")


def probe(arguments: argparse.Namespace) -> Answer:
    from probes import probe_machine

    document = probe_machine(bench=not arguments.no_bench).as_json()
    if arguments.save is not None:
        _write(document, arguments.save, "--save")

    def show() -> None:
        from ui.view_info import show_profile

        show_profile(document, arguments.save)

    return Answer(document, show)


def plan_options(parser: Parser) -> None:
    add_constraints(parser)
    parser.value("--out", "FILE", "also write the plan there, for `advisor run FILE`")
    parser.flag("--explain", "show the path through the decision tree and every rejection")
    parser.flag("--schema", "print the JSON Schema of a plan and nothing else")


def plan(arguments: argparse.Namespace) -> Answer:
    if arguments.schema:
        return _schema()
    made = make_plan(constraints_from(arguments))
    document = made.as_json()
    if arguments.out is not None:
        _write(document, arguments.out, "--out")

    def show() -> None:
        from ui.view_plan import show_plan

        show_plan(document, explain=arguments.explain, out=arguments.out)

    return Answer(document, show, EXIT_OF_STATUS[made.status])


def make_plan(constraints: Constraints) -> Plan:
    """Read what the decision needs (machine, model, history) and decide."""
    from advisor.decide import make_plan as decide

    profile = machine(constraints)
    return decide(constraints, profile, model_of(constraints), history=measured_here(profile))


def machine(constraints: Constraints) -> HardwareProfile:
    """The machine to plan for: this one, or the described one, into which nothing of this one leaks."""
    if describes_another(constraints):
        from probes.declared import declared_profile

        return declared_profile(constraints)
    from probes import probe_machine

    return probe_machine()


def describes_another(constraints: Constraints) -> bool:
    here = {"win32": "windows", "darwin": "macos"}.get(sys.platform, sys.platform)
    return constraints.os not in (None, here) or any(getattr(constraints, field) is not None for field in DESCRIBING)


def model_of(constraints: Constraints) -> ModelSpec | None:
    if constraints.model is None:
        return None
    from knowledge.store import find_model

    return find_model(constraints.model)


def measured_here(profile: HardwareProfile) -> Any:
    """What runs measured on this probed machine; another machine has no history here."""
    if profile.origin != "probed" or not profile.fingerprint:
        return ()
    from executors.history import calibration_rows

    return calibration_rows(profile.fingerprint)


def _schema() -> Answer:
    from advisor.plan import Plan

    schema = Plan.model_json_schema(mode="serialization")

    def show() -> None:
        from ui.cli import to_json

        print(to_json(schema))

    return Answer(schema, show)


def _write(document: dict[str, Any], name: str, option: str) -> None:
    """Write a document of ours; an earlier one of the same kind is replaced, any other file is not."""
    path = Path(name)
    if path.exists():
        try:
            same = read_json(path, "file").get("schema") == document["schema"]
        except (AdvisorError, AttributeError):
            same = False
        if not same:
            raise AdvisorError("exists", f"{option}: {name} exists and is something else.", "name a new file")
    write_json(path, document)
