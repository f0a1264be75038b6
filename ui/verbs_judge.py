"""validate and report: judge an artifact that is there already, put runs side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from knowledge.base import EXIT_GATE_FAILED, EXIT_OK, AdvisorError
from ui.command import Answer, Parser

MEMORY_SHARE = 0.95  # of this machine's memory that a worker may hold


def validate_options(parser: Parser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT", help="a model file or folder, or the folder of a run")
    parser.value("--reference", "REF", "its 16-bit version for the same framework, or `embedded`", required=True)
    parser.value("--workdir", "DIR", "where logs and validation.json go (default: a new one in the user's data folder)")


def validate(arguments: argparse.Namespace) -> Answer:
    from advisor.engines import default_threads
    from executors.validate import new_workdir
    from executors.validate import validate as judged
    from probes.probe import probe_machine
    from ui.progress import shown_progress

    for option, given in (("ARTIFACT", arguments.artifact), ("--reference", arguments.reference)):
        if not given.strip() or "\0" in given:
            raise AdvisorError("bad-option", f"{option} is empty.", "name a model file or folder")
    workdir = new_workdir(arguments.artifact) if arguments.workdir is None else Path(arguments.workdir)
    if arguments.workdir is not None and (not arguments.workdir.strip() or workdir.is_file()):
        raise AdvisorError("bad-option", f"--workdir: {arguments.workdir!r} is no folder.", "name a folder")
    machine = probe_machine(bench=False)
    memory = machine.main_memory
    with shown_progress() as listener:
        document = judged(
            arguments.artifact,
            arguments.reference,
            workdir,
            threads=default_threads(machine) or 1,
            rss_limit_bytes=int(MEMORY_SHARE * (memory.limit_bytes or memory.total_bytes)) if memory else None,
            on_event=listener,
        )

    def show() -> None:
        from ui.view_judge import show_validation

        show_validation(document)

    return Answer(document, show, EXIT_OK if document["status"] == "passed" else EXIT_GATE_FAILED)


def report_options(parser: Parser) -> None:
    parser.add_argument("action", metavar="compare", help="what to do with the reports")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of finished runs")
    parser.flag("--markdown", "print it as Markdown, for a pull request")


def report(arguments: argparse.Namespace) -> Answer:
    from executors.compare import compare_runs, markdown

    if arguments.action != "compare":
        hint = "write `advisor report compare RUN...`"
        raise AdvisorError("bad-option", f"advisor report cannot {arguments.action!r}.", hint)
    document = compare_runs([Path(run) for run in arguments.runs])

    def show() -> None:
        if arguments.markdown:
            print(markdown(document), end="")
        else:
            from ui.view_judge import show_comparison

            show_comparison(document)

    return Answer(document, show)
