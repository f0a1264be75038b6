"""What runs measured on this machine, next to what was predicted, and how that moves later predictions."""

from __future__ import annotations

from dataclasses import asdict

import streamlit as st

from executors.history import Measured, list_history
from executors.plots import Interval, intervals
from executors.report_text import LABELS, interval, quantity
from knowledge.base import AdvisorError
from ui.verbs_plan import corrections
from ui.view_run import correction_words
from ui.web.parts import note, picture, plain, show_error, table
from ui.web.plan_page import here

METRICS = (
    "decode_tps",
    "prefill_tps",
    "ttft_ms",
    "peak_rss_bytes",
    "artifact_bytes",
    "quality_retention",
    "sentences_per_second",
)
LATEST = 40


def show() -> None:
    st.title("Predicted and measured", anchor=False)
    try:
        rows, moved = list_history(here().fingerprint), corrections(here())
    except AdvisorError as error:
        show_error(error)
        return
    if not rows:
        st.info("Nothing was measured on this machine yet. Make a plan and choose *Run it here*.")
        return
    metric = st.segmented_control("Metric", METRICS, format_func=LABELS.__getitem__, default=METRICS[0])
    if metric:
        _show_metric(metric, [row for row in rows if row.metric == metric])
    st.subheader("What this does to later plans", anchor=False)
    note("A configuration measured here is answered by its own median. The others of its framework are moved:")
    for correction in moved:
        st.markdown(f"- {plain(correction_words(asdict(correction)))}")
    if not moved:
        note("No speed was both predicted and measured here, so nothing is moved.")


def _show_metric(metric: str, rows: list[Measured]) -> None:
    within = [row.low <= row.measured <= row.high for row in rows if row.low is not None and row.high is not None]
    if within:
        st.metric("Inside the predicted 90 % interval", f"{sum(within)} of {len(within)}")
    latest = rows[: -LATEST - 1 : -1]
    picture(intervals([
        Interval(_name(row), row.low, row.mid, row.high, quantity(metric, row.measured), row.measured)
        for row in latest
    ], LABELS[metric]))  # fmt: skip
    note("Band: predicted; line: the most likely figure; dot: measured, green inside the band. The latest first.")
    table([
        {"when (UTC)": row.time[:16].replace("T", " "), "what": _name(row), "predicted": quantity(metric, row.mid),
         "interval": interval(metric, row.low, row.high), "measured": quantity(metric, row.measured)}
        for row in latest
    ])  # fmt: skip


def _name(row: Measured) -> str:
    return f"{row.model.rpartition('/')[2]} {row.precision}, {row.framework} {row.framework_version}"
