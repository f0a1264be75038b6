"""The deployment checklist of a run, and the automatic checks behind its items.

A `ChecklistItem.check` of a plan names one of CHECKS: `artifact-hashes`, `artifact-header`, `gates-passed`,
`size-matches-prediction`, `performance-recorded`, `licence-recorded`, `model-card`, `manifest-complete`. Each looks at
the files as they are now, so that a byte changed since the run fails its item. No framework is needed.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from advisor.plan import ChecklistItem, Plan, load_plan
from executors.folder import PARTIAL, RunFolder, existing_folder, sha256_file, write_text
from executors.gates import evaluate
from executors.packaging import PAPERS, REWRITTEN
from executors.report import stored
from executors.report_md import code, escape
from knowledge.base import AdvisorError, format_bytes, read_json, write_json
from knowledge.matrix import load_frameworks

SCHEMA = "advisor.checklist/1"
MARKS = {"pass": "x", "fail": " ", "todo": " ", "unknown": " "}


@dataclass(slots=True)
class Evidence:
    """A finished run as it lies there now. `hash` reads each file once."""

    folder: RunFolder
    plan: Plan
    report: Mapping[str, Any]
    manifest: Mapping[str, str]
    hashes: dict[str, str]

    def hash(self, path: str) -> str:
        """The SHA-256 of a file of the run now; empty if it is gone."""
        if path not in self.hashes:
            file = self.folder.path(path)
            self.hashes[path] = sha256_file(file) if file.is_file() else ""
        return self.hashes[path]

    def files(self, top: str = "") -> list[str]:
        """The files and links that lie in the folder, or below `top`, now."""
        base = self.folder.path(top) if top else self.folder.root
        return sorted(self.folder.relative(path) for path in base.rglob("*") if path.is_symlink() or not path.is_dir())

    @property
    def models(self) -> list[Mapping[str, Any]]:
        """The artifact's files but for its card and its sums."""
        return [f for f in self.report["artifact"]["files"] if PurePosixPath(f["path"]).name not in PAPERS]


Verdict = tuple[str, str]  # status and evidence of an item


def check_run(run_dir: Path, known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Check every automatic item of the run's checklist anew; write and return `advisor.checklist/1`.

    `known` are hashes that were computed a moment ago, at the end of a run; without them every file is read. The caller
    exits with 5 if an item failed. Raises AdvisorError `not-a-run` where there is no run.
    """
    folder = existing_folder(run_dir)
    plan = load_plan(folder.path("plan.json"))
    items = plan.plan.checklist if plan.plan else []
    run = _evidence(folder, plan, dict(known or {}))
    document = checklist_document(items, {item.id: _verdict(item, run) for item in items if item.kind == "automatic"})
    write_json(folder.path("checklist.json"), document)
    write_text(folder.path("checklist.md"), checklist_markdown(document))
    return document


def failed(document: Mapping[str, Any]) -> bool:
    """Whether an automatic item of the checklist failed."""
    return any(item["kind"] == "automatic" and item["status"] == "fail" for item in document["items"])


def checklist_document(items: Sequence[ChecklistItem], verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """`advisor.checklist/1`. Items without a verdict are to do."""
    return {
        "schema": SCHEMA,
        "items": [
            {
                "id": item.id,
                "phase": item.phase,
                "text": item.text,
                "why": item.why,
                "how": item.how,
                "kind": item.kind,
                "command": item.command,
                "status": verdicts.get(item.id, ("todo", ""))[0],
                "evidence": verdicts.get(item.id, ("todo", ""))[1],
            }
            for item in items
        ],
    }


PHASES = ("pre-deployment", "deployment", "post-deployment")
DETAILS = (("Evidence", "evidence"), ("Why", "why"), ("How", "how"))


def checklist_markdown(document: Mapping[str, Any]) -> str:
    """The checklist as Markdown task lists by phase, every string escaped."""
    lines = ["# Deployment checklist", "", "RUN_DIR is the run's folder.", ""]
    for phase in PHASES:
        items = [item for item in document["items"] if item["phase"] == phase]
        if items:
            lines += [f"## {phase.capitalize()}", ""]
        for item in items:
            lines.append(f"- [{MARKS[item['status']]}] **{escape(item['text'])}**{_status_note(item)}")
            lines += [f"  - {name}: {escape(item[key])}" for name, key in DETAILS if item[key]]
            if item["command"]:
                lines.append(f"  - {code(item['command'])}")
        lines += [""] if items else []
    return "\n".join(lines)


def _status_note(item: Mapping[str, Any]) -> str:
    return f" ({item['status']})" if item["kind"] == "automatic" else ""


def _evidence(folder: RunFolder, plan: Plan, hashes: dict[str, str]) -> Evidence | None:
    """None while the run is not finished."""
    report = stored(folder)
    if report is None:
        return None
    try:
        manifest = {
            file["path"]: file["sha256"] for file in read_json(folder.path("manifest.json"), "manifest")["files"]
        }
    except (AdvisorError, KeyError, TypeError):
        manifest = {}
    return Evidence(folder, plan, report, manifest, hashes)


def _verdict(item: ChecklistItem, run: Evidence | None) -> Verdict:
    if run is None:
        return "fail", "the run is not finished"
    check = CHECKS.get(item.check or "")
    if check is None:
        return "unknown", f"this version of advisor has no check {item.check}"
    try:
        return check(run)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration):
        return "fail", "the report is damaged"
    except OSError as error:
        return "fail", f"{Path(str(error.filename)).name} cannot be read: {error.strerror}"
    except AdvisorError as error:
        return "fail", error.message


def _artifact_hashes(run: Evidence) -> Verdict:
    recorded = {file["path"]: file["sha256"] for file in run.report["artifact"]["files"]}
    changed = [path for path, sha256 in recorded.items() if run.hash(path) != sha256]
    foreign = [path for path in run.files("artifact") if path not in recorded]
    if changed or foreign or not recorded:
        return "fail", f"{(changed or foreign or ['artifact/'])[0]} is not what the run made"
    return "pass", f"{len(recorded)} files have the SHA-256 that was recorded"


def _artifact_header(run: Evidence) -> Verdict:
    forms = [fnmatch.filter([file["path"] for file in run.models], pattern) for pattern in _HEADERS]
    found = next(((names[0], read) for names, read in zip(forms, _HEADERS.values(), strict=True) if names), None)
    if found is None:
        return _held(run)
    path, read = found
    return read(run, run.folder.path(path))


def _held(run: Evidence) -> Verdict:
    """For a form that is not read here: whether every file is there by which its framework's artifacts are known."""
    names = [PurePosixPath(file["path"]).name for file in run.models]
    row = next((row for row in load_frameworks() if row.name == run.report["framework"]), None)
    row = row and row.of(run.report.get("kind", "text"))
    if row is None or not names or not all(fnmatch.filter(names, pattern) for pattern in row.holds):
        return "fail", "the artifact holds no model"
    return "pass", f"{len(names)} files, those of a {row.artifact} among them"


def _gguf_header(run: Evidence, path: Path) -> Verdict:
    from knowledge.gguf import read_gguf  # with the model records: 10 ms that the other checks do not need

    tensors = read_gguf(path).tensors
    recorded = run.report["validation"]["integrity"].get("parameters")
    found = sum(tensor.elements for tensor in tensors)
    if recorded and found != recorded:
        return "fail", f"{path.name} holds {found} parameters, not {recorded}"
    return "pass", f"{len(tensors)} tensors, all within the file"


def _ir_header(_: Evidence, path: Path) -> Verdict:
    from knowledge.ir import read_ir  # an XML parser that the other checks do not need

    return "pass", f"{read_ir(path.parent).constants} constants, all within the weight file"


_HEADERS: dict[str, Callable[[Evidence, Path], Verdict]] = {
    "*.gguf": _gguf_header,
    "*/openvino_model.xml": _ir_header,
}


def _gates_passed(run: Evidence) -> Verdict:
    """The plan's gates on the recorded figures, judged again: an edited verdict does not help."""
    assert run.plan.plan is not None
    results = evaluate(run.plan.plan.gates, run.report["validation"], run.report["performance"])
    required = [result for result in results if result.level == "required"]
    missed = next((result for result in required if result.result != "pass"), None)
    if missed is not None or not required:
        return "fail", missed.text if missed else "the plan requires no gate"
    quality = next((result.text for result in required if result.metric == "quality_retention"), "")
    return "pass", f"{len(required)} required gates passed. {quality}".strip()


def _size(run: Evidence) -> Verdict:
    line = next(line for line in run.report["predicted_vs_measured"] if line["metric"] == "artifact_bytes")
    size = sum(run.folder.path(file["path"]).stat().st_size for file in run.models)
    if not line["mid"]:
        return "unknown", "the plan predicted no size"
    off = size / line["mid"] - 1
    text = f"{format_bytes(size)}, {100 * off:+.2f} % of the prediction"
    return ("pass" if line["low"] <= size <= line["high"] else "fail"), text


def _performance(run: Evidence) -> Verdict:
    timed = run.report["performance"].get("artifact") or {}
    if texts := timed.get("sentences_per_second"):
        return "pass", f"{texts['median']:.1f} texts/s, median of {texts['n']}"
    if not (decode := timed.get("decode_tps")):
        return "unknown", "speed was not measured on this machine"
    return "pass", f"decode {decode['median']:.1f} tokens/s, median of {decode['n']}"


def _licence(run: Evidence) -> Verdict:
    licence = run.report["licence"]
    if not licence:
        return "fail", "the base model's licence is not known"
    recorded = "\nlicense:" in _card(run)
    return ("pass", f"{licence}, in the model card") if recorded else ("fail", "the model card names no licence")


def _model_card(run: Evidence) -> Verdict:
    card = _card(run)
    if "## How it was made" not in card or not card.startswith("---\n"):
        return "fail", "artifact/README.md is missing or no model card"
    if run.report["base_model"] and "\nbase_model_relation:" not in card:
        return "fail", "artifact/README.md does not name the base model"
    return "pass", "artifact/README.md"


def _card(run: Evidence) -> str:
    path = run.folder.path("artifact/README.md")
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _manifest(run: Evidence) -> Verdict:
    here = [path for path in run.files() if path not in REWRITTEN and not path.endswith(PARTIAL)]
    unknown = [path for path in here if path not in run.manifest]
    changed = [path for path, sha256 in run.manifest.items() if run.hash(path) != sha256]
    if unknown or changed or not run.manifest:
        return "fail", f"{(changed or unknown or ['manifest.json'])[0]} is not what the manifest says"
    return "pass", f"{len(run.manifest)} files have the SHA-256 of the manifest"


CHECKS: dict[str, Callable[[Evidence], Verdict]] = {
    "artifact-hashes": _artifact_hashes,
    "artifact-header": _artifact_header,
    "gates-passed": _gates_passed,
    "size-matches-prediction": _size,
    "performance-recorded": _performance,
    "licence-recorded": _licence,
    "model-card": _model_card,
    "manifest-complete": _manifest,
}
