"""Two machines side by side, for the same model and use as on the first page."""

from __future__ import annotations

import streamlit as st

from knowledge.base import AdvisorError
from ui.web.parts import note, plain, show_error
from ui.web.plan_page import here, plan_of
from ui.web.questions import DEFAULTS, HERE, NAMED, Asked, asked, keep_answers, show_machine
from ui.web.results import show_summary

SIDES = ("a_", "b_")


def show() -> None:
    keep_answers()
    for prefix in SIDES:
        st.session_state.setdefault(f"{prefix}machine", HERE if prefix == SIDES[0] else NAMED)
        keep_answers(prefix)
    st.title("Two machines side by side", anchor=False)
    note("Model, use and limits are those of the first page.")
    for prefix, column in zip(SIDES, st.columns(2, gap="large"), strict=True):
        with column:
            _side(prefix)


def _side(prefix: str) -> None:
    question, error = _asked(prefix)
    show_machine(error, prefix, f"Machine {prefix[0].upper()}")
    if question is None:
        return
    try:
        plan = plan_of(question)
    except AdvisorError as failure:
        show_error(failure)
        return
    if plan["recommendations"]:
        show_summary(plan)
    else:
        st.error("Nothing fits.")
    if plan["status"] == "needs_input":
        st.info(plain(plan["question"]["text"]))


def _asked(prefix: str) -> tuple[Asked | None, AdvisorError | None]:
    """The answers of the first page with this side's machine."""
    machine = ("machine", "device", "ram", "vram", "chip", "os", "target", "vendor", "profile")
    state = {key: st.session_state[key] for key in DEFAULTS} | {key: st.session_state[prefix + key] for key in machine}
    try:
        return asked(state, here() if state["machine"] == HERE else None), None
    except AdvisorError as error:
        return None, error
