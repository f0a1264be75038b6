"""What the pages share: errors beside their field, uploads, pictures, words that a model cannot turn into markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from typing import Any

import streamlit as st
from pydantic import ValidationError

from knowledge.base import AdvisorError, printable
from ui.web import UPLOAD_MIB

_ABOUT = {"unknown-precision": "--precision", "unknown-model": "MODEL"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:^=])")
STYLE = """
<style>
:root { --one: #2f6fb0; --two: #5d9bd5; --three: #9dc3e6; --four: #8a93a0;
  --good: #2e9e4f; --bad: #d9483b; --line: #8a93a0; }
.lead { font-size: 1.25rem; line-height: 1.5; } .lead b { white-space: nowrap; }
.path { list-style: none; margin: 0; padding: 0; } .path li { border-left: 3px solid var(--one); margin: 0 0 0 .5rem;
  padding: .15rem 0 .55rem 1rem; position: relative; } .path li::before { content: ""; position: absolute; left: -.5rem;
  top: .5rem; width: .75rem; height: .75rem; border-radius: 50%; background: var(--one); }
.path li.off { border-left-style: dashed; opacity: .75; } .path li.off::before { background: var(--four); }
.path ul { list-style: none; margin: .3rem 0 .4rem; padding: 0; display: flex; flex-wrap: wrap; gap: .35rem; }
.path ul li { border: 0; margin: 0; padding: 0; } .path ul li::before { display: none; }
.path summary { list-style: none; } .path summary span { border-radius: .8rem; padding: .05rem .7rem; cursor: pointer;
  border: 1px solid var(--four); } .path .lit > details > summary span { background: #1f5f9e; color: #fff; border: 0; }
.path .lost > details > summary span { border-color: var(--bad); } .path details p { margin: .3rem 0 .3rem 1rem; }
.soft { font-size: .9rem; }
.plot { overflow-x: auto; margin-bottom: .6rem; } [data-testid=stMainBlockContainer] { padding-top: 4rem; }
[data-testid=stBaseButton-primary] { background: #1f5f9e; border-color: #1f5f9e; }
h1 { font-size: clamp(1.7rem, 4vw, 2.5rem) !important; }
</style>
"""


def safe(text: Any, limit: int = 600) -> str:
    """`text` as words in HTML."""
    return escape(printable(str(text), limit))


def plain(text: Any, limit: int = 600) -> str:
    """`text` as words in Streamlit's Markdown, whatever signs it holds."""
    return _MARKDOWN.sub(r"\\\1", printable(str(text), limit))


def concerns(error: AdvisorError, *options: str) -> bool:
    """Whether the error is about one of `options`: its sentence begins with one, or its code is of one."""
    about = _ABOUT.get(error.code) or error.message.partition(":")[0].partition(" ")[0]
    return about in options


def problem(error: AdvisorError | None, *options: str) -> None:
    """The error, here if it is about one of `options`."""
    if error is not None and concerns(error, *options):
        show_error(error)


def show_error(error: AdvisorError) -> None:
    if error.code == "unanswered":
        st.info(plain(error.hint), icon=":material/edit:")
        return
    st.error(f"{plain(error.message)}  \n{plain(error.hint)}", icon=":material/error:")


def note(words: str) -> None:
    """A line of small print, of words that are safe already; darker than Streamlit's captions, to be read by all."""
    st.markdown(f":small[:gray[{words}]]")


def table(rows: list[dict[str, str]]) -> None:
    """A table of words; its cells are Markdown to Streamlit, where `>= 95 %` would be a quotation."""
    st.table([{column: plain(words) for column, words in row.items()} for row in rows])


def picture(svg: str) -> None:
    st.markdown(f'<div class="plot">{svg}</div>', unsafe_allow_html=True)


def uploaded_json(label: str, key: str, read: Callable[[Any], Any], schema: str) -> None:
    """An upload that becomes `st.session_state[key]`; a refused one says why and changes nothing else."""
    widget = f"{key}_file{st.session_state.get('uploads', 0)}"  # a new number empties it
    file = st.file_uploader(label, type=["json"], key=widget, max_upload_size=UPLOAD_MIB)
    if file is None:
        return
    try:
        found = _read_json(file.getvalue(), read, schema)
    except AdvisorError as error:
        show_error(error)
        return
    if found != st.session_state[key]:
        st.session_state[key] = found
        st.rerun()


def _read_json(data: bytes, read: Callable[[Any], Any], schema: str) -> Any:
    """The document that `data` holds; AdvisorError `bad-upload` for anything else."""
    hint = f"upload a file whose schema is {schema}"
    if len(data) > UPLOAD_MIB * 2**20:
        raise AdvisorError("bad-upload", f"The file is larger than {UPLOAD_MIB} MiB.", hint)
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("schema") != schema:
            raise AdvisorError("bad-upload", f"The file is no {schema} document.", hint)
        return read(document)
    except (ValueError, RecursionError) as error:
        reason = "it does not fit the schema" if isinstance(error, ValidationError) else "it is not JSON"
        raise AdvisorError("bad-upload", f"The file cannot be read: {reason}.", hint) from error
