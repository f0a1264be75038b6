"""The first page: answer a few questions, see the plan at once, run it here."""

from __future__ import annotations

from typing import Any

import streamlit as st

from advisor.plan import Plan
from executors.history import history_path
from knowledge.base import AdvisorError
from probes.profile import HardwareProfile
from ui import jobs
from ui.command import Parser
from ui.plan_options import add_constraints, constraints_from
from ui.terminal import shell_line
from ui.verbs_plan import make_plan
from ui.web.parts import concerns, show_error, uploaded_json
from ui.web.questions import DEFAULTS, HERE, OPTIONS, Asked, asked, keep_answers, show_questions
from ui.web.results import STATE_OF_OPTION, show_answer, show_details, show_downloads

OPENED = "opened_plan"


def show() -> None:
    keep_answers()
    st.session_state.setdefault(OPENED, None)
    st.title("Which model, which framework, which precision?", anchor=False)
    plan, question, error = _decide()
    form, answer = st.columns([1, 2], gap="large")
    with form:
        show_questions(error, here.clear)
        with st.expander("Open a plan that was saved"):
            uploaded_json("Plan (JSON)", OPENED, _checked_plan, "advisor.plan/1")
            if st.session_state[OPENED] is not None:
                st.button("Back to my answers", on_click=_close)
    with answer:
        if plan is None:
            if error is not None and not concerns(error, *OPTIONS):
                show_error(error)
            st.info("The plan appears here as soon as the answers fit together.")
            return
        show_answer(plan, _answer)
        if plan["status"] == "ok":
            _offer_run(plan)
        show_details(plan)
        show_downloads(plan)
        if question is not None:
            with st.expander("The same from the command line"):
                st.code(shell_line(["advisor", "plan", *question.words]), language="bash", wrap_lines=True)


def _decide() -> tuple[dict[str, Any] | None, Asked | None, AdvisorError | None]:
    """The plan of the answers, the command they make, and what is wrong with them."""
    if st.session_state[OPENED] is not None:
        return st.session_state[OPENED], None, None
    try:
        state = {key: st.session_state[key] for key in DEFAULTS}
        question = asked(state, here() if state["machine"] == HERE else None)
        return plan_of(question), question, None
    except AdvisorError as error:
        return None, None, error


def plan_of(question: Asked) -> dict[str, Any]:
    """What `advisor plan` would answer; kept for the session, so that opening a tab decides nothing anew."""
    profile = question.profile.model_dump_json() if question.profile else ""
    known: dict[tuple[Any, ...], dict[str, Any]] = st.session_state.setdefault("plans", {})
    history = history_path()  # a run that has ended since moves the plan
    key = (question.words, profile, history.stat().st_mtime_ns if history.exists() else 0)
    if key not in known:
        if len(known) > 40:
            known.clear()
        parser = Parser("plan", "")
        add_constraints(parser)
        known[key] = make_plan(constraints_from(parser.parse(question.words)), question.profile)
    return known[key]


@st.cache_resource(show_spinner="Looking at this machine")
def here() -> HardwareProfile:
    """This machine, probed once for all sessions, until somebody asks to look again."""
    from probes.probe import probe_machine

    return probe_machine()


def _checked_plan(document: dict[str, Any]) -> dict[str, Any]:
    return Plan.model_validate(document).as_json()


def _close() -> None:
    st.session_state[OPENED] = None
    st.session_state["uploads"] = st.session_state.get("uploads", 0) + 1


def _answer(option: str, value: str) -> None:
    key = STATE_OF_OPTION.get(option)
    if key:
        st.session_state[key] = value


def _offer_run(plan: dict[str, Any]) -> None:
    work = plan["plan"]
    if any(step["settings"]["kind"] == "guide" for step in work["steps"]):
        st.info("This plan is made by hand, with the framework's own tools: the tab Steps has the commands.")
        return
    if st.button("Run it here", icon=":material/play_arrow:", type="primary"):
        try:
            name = jobs.start(Plan.model_validate(plan))
        except AdvisorError as error:
            show_error(error)
        else:
            st.session_state["watched"] = name
            st.switch_page(st.session_state["pages"]["runs"])
