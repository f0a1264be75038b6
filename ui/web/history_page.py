"""What runs measured on this machine, next to what was predicted."""

from __future__ import annotations

import streamlit as st

from executors.history import list_history
from executors.plots import Interval, intervals
from executors.report_text import LABELS
from knowledge.base import AdvisorError
from ui.view_run import quantity
from ui.web.parts import note, picture, plain, show_error
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


def show() -> None:
    st.title("Predicted and measured", anchor=False)
    try:
        rows = list_history(here().fingerprint)
    except AdvisorError as error:
        show_error(error)
        return
    if not rows:
        st.info("Nothing was measured on this machine yet.")
        return
    metric = st.segmented_control("Metric", METRICS, format_func=LABELS.__getitem__, default=METRICS[0])
    chosen = [row for row in rows if row.metric == metric]
    judged = [row for row in chosen if row.low is not None and row.high is not None]
    inside = sum(row.low <= row.measured <= row.high for row in judged if row.low is not None and row.high is not None)
    if judged:
        st.metric("Inside the predicted 90 % interval", f"{inside} of {len(judged)}")
    if metric:
        picture(intervals([
            Interval(f"{row.model.rpartition('/')[2]} {row.precision}, {row.framework}", row.low, row.mid, row.high,
                     quantity(metric, row.measured), row.measured)
            for row in chosen[:40]
        ], LABELS[metric]))  # fmt: skip
    note(plain("Bands: predicted; dots: measured, green inside the band. These figures calibrate later plans."))
