"""Runs: live progress, log, cancel, resume; the report, the checklist, the papers to download."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from executors.plots import Bar, Interval, bars, intervals
from executors.report_html import in_short
from executors.report_text import LABELS, OPERATORS, interval, quantity, summary
from knowledge.base import AdvisorError
from ui import jobs
from ui.terminal import duration, shell_path
from ui.web.parts import note, picture, plain, show_error, table

Document = dict[str, Any]
GOOD, BAD, OPEN, UNSURE = (
    ":green[:material/check_circle:]", ":red[:material/cancel:]", ":material/radio_button_unchecked:",
    ":orange[:material/help:]",
)  # fmt: skip
PAUSED = ":material/pause_circle:"
ICONS = {
    "running": ":material/hourglass_top:", "passed": GOOD, "failed": BAD, "inconclusive": UNSURE, "error": BAD,
    "interrupted": PAUSED, "stopped": PAUSED,
}  # fmt: skip
WORDS = {
    "running": "running", "passed": "passed every required gate", "failed": "failed a required gate",
    "inconclusive": "could not be judged", "error": "stopped at a failed step",
    "interrupted": "was interrupted; finished steps are kept", "stopped": "is not running; finished steps are kept",
}  # fmt: skip
MARKS = {"pass": GOOD, "fail": BAD, "todo": OPEN, "unknown": UNSURE}


def show() -> None:
    st.title("Runs", anchor=False)
    names = [run.name for run in jobs.list_runs()]
    if not names:
        st.info("No run yet. Make a plan and choose *Run it here*.")
        return
    wanted = st.session_state.pop("watched", None) or st.query_params.get("run")
    name = st.selectbox("Run", names, index=names.index(wanted) if wanted in names else 0)
    st.query_params["run"] = name
    try:
        if jobs.read(name).state == "running":
            st.fragment(_watch, run_every=1.0)(name)
        else:
            _show_ended(jobs.read(name))
    except AdvisorError as error:
        show_error(error)


def _watch(name: str) -> None:
    """A run at work, looked at again every second; the whole page when it ends."""
    run = jobs.read(name)
    if run.state != "running":
        st.rerun(scope="app")
    now = run.progress
    st.subheader(f"{ICONS['running']} {plain(run.plan['plan']['model'])} as {plain(run.plan['plan']['precision'])}")
    steps = now.get("steps", [])
    if now.get("title"):
        share = now.get("share")
        done = (now["index"] - 1 + (share or 0)) / max(now["total"], 1)
        took = duration(max(0.0, time.time() - now["since"]))
        expected = now.get("estimate_seconds")
        took += f" of about {duration(expected)}" if expected is not None else ""
        st.progress(min(1.0, done), f"{now['index']} of {now['total']}: {plain(now['title'])}, {took}")
        if now.get("text"):
            note(plain(now["text"]))
    else:
        st.progress(0.0, "starting")
    _show_steps(steps)
    st.button("Cancel", on_click=jobs.cancel, args=(name,), icon=":material/stop:")
    _show_log(name)


def _show_steps(steps: list[Document]) -> None:
    marks = {"done": GOOD, "cached": GOOD, "failed": BAD, "skipped": OPEN}
    for step in steps:
        took = f" :gray[{duration(step['seconds'])}]" if step.get("seconds") else ""
        st.markdown(f"{marks.get(step['state'], '')} {plain(step['title'])}{took}")


def _show_log(name: str) -> None:
    with st.expander("Log"):
        st.code(jobs.log(name) or "nothing yet", language=None, wrap_lines=True)


def _show_ended(run: jobs.Run) -> None:
    st.subheader(f"{ICONS[run.state]} This run {WORDS[run.state]}.")
    if run.state in ("stopped", "interrupted", "error", "inconclusive"):
        st.button("Go on", on_click=jobs.resume, args=(run.name,), icon=":material/play_arrow:")
    if run.report is None:
        _show_log(run.name)
        return
    with st.container(horizontal=True, gap="large"):
        for what, much in in_short(run.report):
            st.metric(what, much, width="content")
    verdict, *more = summary(run.report)
    st.markdown(plain(verdict, 4000))
    for paragraph in more:
        note(plain(paragraph, 4000))
    report, checks, files = st.tabs(["Report", "Checklist", "Files"])
    with report:
        _show_report(run.report)
        _show_log(run.name)
    with checks:
        _show_checklist(run)
    with files:
        _show_files(run)


def _show_report(report: Document) -> None:
    gates = [
        {"gate": LABELS[g["metric"]], "level": g["level"],
         "limit": f"{OPERATORS[g['op']]} {quantity(g['metric'], g['value'])}",
         "observed": quantity(g["metric"], g["observed"]), "result": g["result"]}
        for g in report["gates"]
    ]  # fmt: skip
    if gates:
        st.markdown("**Gates**")
        table(gates)
    rungs = [rung for rung in report.get("rungs", []) if rung["quality_retention"] is not None]
    limit = next((g["value"] for g in report["gates"] if g["metric"] == "quality_retention"), None)
    if rungs and limit is not None:
        st.markdown("**Quality kept, by rung**")
        rows = [
            Bar(r["precision"], r["quality_retention"], quantity("quality_retention", r["quality_retention"]),
                r["quality_retention"] >= limit)
            for r in rungs
        ]  # fmt: skip
        picture(bars(rows, limit, f"gate: {quantity('quality_retention', limit)}"))
    st.markdown("**Predicted and measured**")
    for row in report["predicted_vs_measured"]:
        predicted = interval(row["metric"], row["low"], row["high"])
        text = f"predicted {predicted}, measured {quantity(row['metric'], row['measured'])}"
        line = Interval(LABELS[row["metric"]], row["low"], row["mid"], row["high"], text, row["measured"], strong=True)
        picture(intervals([line], "", from_zero=False))
    note("Band: predicted; line: the most likely figure; dot: measured, green inside the band. Each has its own scale.")


def _show_checklist(run: jobs.Run) -> None:
    from executors.check import check_run

    document = check_run(run.folder)
    for phase in ("pre-deployment", "deployment", "post-deployment"):
        items = [item for item in document["items"] if item["phase"] == phase]
        if items:
            st.markdown(f"**{phase.capitalize()}**")
        for item in items:
            with st.expander(f"{MARKS[item['status']]} {plain(item['text'])}"):
                for label, key in (("Evidence", "evidence"), ("Why", "why"), ("How", "how")):
                    if item[key]:
                        st.markdown(f"{label}: {plain(item[key])}")
                if item["command"]:
                    st.code(
                        item["command"].replace("RUN_DIR", shell_path(run.folder)), language="bash", wrap_lines=True
                    )


def _show_files(run: jobs.Run) -> None:
    papers = (
        ("Report (HTML)", "report.html", "text/html"),
        ("Report (Markdown)", "report.md", "text/markdown"),
        ("Report (JSON)", "report.json", "application/json"),
        ("Checklist", "checklist.md", "text/markdown"),
        ("Plan", "plan.json", "application/json"),
    )
    for label, relative, kind in papers:
        if data := jobs.paper(run.name, relative):
            st.download_button(label, data, relative, kind, key=relative, icon=":material/download:")
    note(plain(f"Everything lies in {run.folder}"))
