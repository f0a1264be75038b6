"""quickstart, run, checklist, check and history: do what a plan says, prove it, keep what was measured."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge.base import (
    EXIT_GATE_FAILED,
    EXIT_OK,
    EXIT_STEP_FAILED,
    AdvisorError,
    advisor_home,
    read_json,
)
from ui.command import Answer, Parser, to_json

if TYPE_CHECKING:
    from advisor.plan import Plan
    from probes.profile import HardwareProfile

EXIT_OF_RUN = {
    "passed": EXIT_OK,
    "failed": EXIT_GATE_FAILED,
    "inconclusive": EXIT_GATE_FAILED,
    "error": EXIT_STEP_FAILED,
}


def quickstart_options(parser: Parser) -> None:
    parser.value("--workdir", "DIR", "the run's folder (default: quickstart in the user's data folder)")


def quickstart(arguments: argparse.Namespace) -> Answer:
    """The embedded model with llama.cpp on the CPU: what `make quickstart` installed, on any machine."""
    run_dir = _folder(arguments.workdir, advisor_home() / "runs" / "quickstart", "--workdir")
    if (run_dir / "plan.json").is_file():
        from advisor.plan import load_plan

        return _run(load_plan(run_dir / "plan.json"), run_dir, escalate=True)
    from advisor.constraints import Constraints
    from advisor.plan import Plan
    from ui.verbs_plan import make_plan

    document = make_plan(Constraints(model="embedded", framework="llama.cpp", target="cpu"))
    return _run(Plan.model_validate(document), run_dir, escalate=True)


def run_options(parser: Parser) -> None:
    parser.add_argument("plan", metavar="PLAN.json|RUN_DIR", help="a plan, or the folder of a run to go on with")
    parser.value("--workdir", "DIR", "the run's folder (default: a new one in the user's data folder)")
    parser.flag("--escalate", "when a required gate does not pass, try the next rung of the plan's ladder")


def run(arguments: argparse.Namespace) -> Answer:
    from advisor.plan import load_plan

    source = Path(arguments.plan)
    if source.is_dir():
        if arguments.workdir is not None:
            hint = "leave out --workdir, or name the run's plan.json to start a new run"
            raise AdvisorError("bad-option", f"{source} is a run already and keeps its folder.", hint)
        if not (source / "plan.json").is_file():
            hint = "name a plan file or the folder of an advisor run"
            raise AdvisorError("not-a-run", f"{source} holds no run: it has no plan.json.", hint)
        return _run(load_plan(source / "plan.json"), source, escalate=arguments.escalate)
    plan = load_plan(source)
    return _run(plan, _folder(arguments.workdir, _new_folder(plan), "--workdir"), escalate=arguments.escalate)


def _run(plan: Plan, run_dir: Path, *, escalate: bool) -> Answer:
    from executors.runner import run_plan
    from probes.probe import probe_machine
    from ui.jobs import recorded
    from ui.progress import shown_progress

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end: as by Ctrl-C, workers and all
    with shown_progress() as shown, recorded(run_dir, shown) as listener:
        report = run_plan(plan, run_dir, machine=probe_machine(bench=False), escalate=escalate, on_event=listener)
    document = {**report, "run_dir": str(run_dir.resolve())}

    def show() -> None:
        from ui.view_run import show_report

        show_report(document)

    return Answer(document, show, EXIT_OF_RUN[report["status"]])


def _folder(named: str | None, default: Path, option: str) -> Path:
    if named is None:
        return default
    if not named.strip() or "\0" in named:
        raise AdvisorError("bad-option", f"{option} is empty.", f"give {option} a folder, or leave it out")
    return Path(named)


def _new_folder(plan: Plan) -> Path:
    from ui.jobs import new_name, runs_folder

    return runs_folder() / new_name(plan.plan.model if plan.plan else "plan")


def checklist_options(parser: Parser) -> None:
    parser.add_argument("plan", metavar="PLAN.json|RUN_DIR", help="a plan, or the folder of a run")
    parser.value("--format", "table|md|html|json", "how to print it (default: table)", dest="format")


def checklist(arguments: argparse.Namespace) -> Answer:
    shown_as = arguments.format or "table"
    if shown_as not in ("table", "md", "html", "json"):
        hint = "write --format md"
        raise AdvisorError("bad-option", f"--format: {shown_as!r} is not one of table, md, html, json.", hint)
    document = _checklist_of(Path(arguments.plan))

    def show() -> None:
        if shown_as == "json":
            print(to_json(document))
        elif shown_as == "md":
            from executors.check import checklist_markdown

            print(checklist_markdown(document), end="")
        elif shown_as == "html":
            from executors.report_html import render_checklist

            print(render_checklist(document))
        else:
            _show_checklist(document)

    return Answer(document, show)


def _checklist_of(source: Path) -> dict[str, Any]:
    """The checklist of a run as it was last checked, or that of a plan, with everything to do."""
    from advisor.plan import load_plan
    from executors.check import SCHEMA, checklist_document

    path = source / "plan.json" if source.is_dir() else source
    if source.is_dir() and (source / "checklist.json").is_file():
        document = read_json(source / "checklist.json", "checklist")
        if isinstance(document, dict) and document.get("schema") == SCHEMA:
            return document
    plan = load_plan(path)
    if plan.plan is None:
        raise AdvisorError("not-executable", f"{path} decides nothing yet.", "answer its question first")
    return checklist_document(plan.plan.checklist, {})


def check_options(parser: Parser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder of a finished run")


def check(arguments: argparse.Namespace) -> Answer:
    from executors.check import check_run, failed

    document = check_run(Path(arguments.run_dir))
    return Answer(document, lambda: _show_checklist(document), EXIT_GATE_FAILED if failed(document) else EXIT_OK)


def _show_checklist(document: dict[str, Any]) -> None:
    from ui.view_run import show_checklist

    show_checklist(document)


def history_options(parser: Parser) -> None:
    parser.add_argument("action", nargs="?", default="list", metavar="list|export|forget", help="default: list")
    parser.flag("--all", "every machine in the history, not this one alone")
    parser.value("--run", "RUN_ID", "with forget: only the figures of this run", dest="run_id")


def history(arguments: argparse.Namespace) -> Answer:
    from dataclasses import asdict

    from executors.history import export, forget, list_history
    from ui.verbs_plan import corrections

    if arguments.action not in ("list", "export", "forget"):
        hint = "write `advisor history`, `advisor history export` or `advisor history forget`"
        raise AdvisorError("bad-option", f"advisor history cannot {arguments.action!r}.", hint)
    if arguments.run_id is not None and arguments.action != "forget":
        raise AdvisorError("bad-option", "--run goes with `advisor history forget`.", "leave out --run")
    whole = arguments.all or arguments.run_id is not None
    profile = None if whole else _this_machine(bench=arguments.action == "list")
    fingerprint = profile.fingerprint if profile else None
    if arguments.action == "forget":
        count = forget(fingerprint=fingerprint, run_id=arguments.run_id)
        return Answer(
            {"schema": "advisor.history/1", "forgotten": count}, lambda: print(f"Forgot {count} measured figures.")
        )
    rows = [asdict(row) for row in list_history(fingerprint)]
    moved = [asdict(row) for row in corrections(profile)] if profile and arguments.action == "list" else []
    document = {"schema": "advisor.history/1", "fingerprint": fingerprint, "rows": rows, "calibration": moved}

    def show() -> None:
        if arguments.action == "export":
            print(export(fingerprint), end="")
        else:
            from ui.view_run import show_history

            show_history(rows, moved)

    return Answer(document, show)


def _this_machine(*, bench: bool) -> HardwareProfile:
    from probes.probe import probe_machine

    return probe_machine(bench=bench)
