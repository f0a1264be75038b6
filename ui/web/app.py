"""The script that Streamlit runs: four pages over one session."""

from pathlib import Path

import streamlit as st

from ui.web import compare_page, history_page, plan_page, runs_page
from ui.web.parts import STYLE

st.set_page_config(page_title="advisor", page_icon=str(Path(__file__).parent / "icon.svg"), layout="wide")
st.html(STYLE)
pages = {
    "plan": st.Page(plan_page.show, title="Plan", icon=":material/explore:", default=True),
    "runs": st.Page(runs_page.show, title="Runs", url_path="runs", icon=":material/play_circle:"),
    "compare": st.Page(compare_page.show, title="Compare", url_path="compare", icon=":material/compare:"),
    "history": st.Page(history_page.show, title="History", url_path="history", icon=":material/monitoring:"),
}
st.session_state["pages"] = pages
st.navigation(list(pages.values()), position="top").run()
