"""What a run leaves behind once its gates are judged: reports, checklist, manifest, and a line in the history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executors import history, packaging, report_html, report_md
from executors.check import check_run
from executors.folder import RunFolder, write_text
from executors.history import Measured
from knowledge.base import write_json
from probes.profile import HardwareProfile

REPORTS = ("report.json", "report.md", "report.html")
LEFT_BEHIND = (*REPORTS, "checklist.json", "checklist.md", "manifest.json")


def is_closed(folder: RunFolder) -> bool:
    """Whether everything that `close` writes is there."""
    return all(folder.path(name).is_file() for name in LEFT_BEHIND)


def write_reports(folder: RunFolder, document: Mapping[str, Any]) -> None:
    """The report as Markdown, HTML and JSON. JSON comes last: where it is, the others are."""
    write_text(folder.path("report.md"), report_md.render(document))
    write_text(folder.path("report.html"), report_html.render(document))
    write_json(folder.path("report.json"), document)


def close(
    folder: RunFolder, document: Mapping[str, Any], outputs: Mapping[str, Mapping[str, str]], machine: HardwareProfile
) -> list[str]:
    """Write all of LEFT_BEHIND and record the run's figures; sentences on what could not be recorded.

    `outputs` are the hashes that the steps know already.
    """
    write_reports(folder, document)
    known = {path: sha256 for files in outputs.values() for path, sha256 in files.items()}
    check_run(folder.root, packaging.write_manifest(folder, document, known))
    warning = history.record_run(measured_rows(document, machine))
    return [warning] if warning else []


def measured_rows(document: Mapping[str, Any], machine: HardwareProfile) -> list[Measured]:
    """The history's rows of a report. A prediction made for another machine is no prediction for this one."""
    environment = document["environment"]
    if not machine.fingerprint or machine.fingerprint != environment["fingerprint"]:
        return []
    here = environment["planned_for_this_machine"]
    return [
        Measured(
            run_id=document["run_id"],
            time=document["created"],
            fingerprint=machine.fingerprint,
            model=document["model"],
            framework=document["framework"],
            framework_version=document["framework_version"],
            backend=document["backend"],
            precision=document["precision"],
            metric=line["metric"],
            low=line["low"] if here else None,
            mid=line["mid"] if here else None,
            high=line["high"] if here else None,
            measured=line["measured"],
        )
        for line in document["predicted_vs_measured"]
        if line["measured"] is not None
    ]
