"""The questionnaire: widgets whose answers are the words of an `advisor plan` command.

Whatever the widgets hold is turned into the same words that a person would type and read by the same parser, so a wrong
answer gets the command line's sentence, shown beside the field that it is about. The answers live in the session under
the keys of DEFAULTS; fields that are out of sight keep theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import streamlit as st

from advisor.constraints import KvType, OsName, Priority, UseCase, VendorName
from knowledge.base import AdvisorError
from probes.profile import HardwareProfile
from ui.web.choices import device_names, local_models, model_names
from ui.web.parts import concerns, problem, uploaded_json

HERE, NAMED, DESCRIBED, SAVED = "This machine", "A device", "A description", "A saved profile"
ADVISE, CATALOGUE, HUB, FILE = "Recommend one", "Catalogue", "Hugging Face", "A file here"
UNSAID = "not said"
WEIGHTS = ("speed", "quality", "memory", "effort")
DEFAULTS: dict[str, Any] = {
    "machine": HERE, "device": None, "ram": "", "vram": "", "chip": "", "target": "auto", "vendor": UNSAID,
    "os": UNSAID, "profile": None,
    "source": ADVISE, "model": None, "hub": "", "file": None,
    "use_case": "chat", "priority": "balanced", "own_weights": False,
    "context": "", "concurrency": "", "min_decode_tps": "", "max_ttft_ms": "", "max_loss": "", "max_disk": "",
    "framework": UNSAID, "precision": "", "kv": UNSAID, "power": UNSAID,
    "commercial": False, "offline": False, "enterprise": False, "cross_platform": False, "tasks": False,
    **{f"weight_{name}": 5 for name in WEIGHTS},
}  # fmt: skip
TEXTS = {
    "context": "--context", "concurrency": "--concurrency", "min_decode_tps": "--min-decode-tps",
    "max_ttft_ms": "--max-ttft-ms", "max_loss": "--max-quality-loss", "max_disk": "--max-disk",
    "precision": "--precision",
}  # fmt: skip
MACHINE_OPTIONS = ("--device", "--chip", "--ram", "--vram", "--os", "--profile", "--target", "--vendor")
USE_OPTIONS = ("--use-case", "--priority", "--weights")
OTHER_OPTIONS = ("--framework", "--kv-cache", "--power")
OPTIONS = ("MODEL", *MACHINE_OPTIONS, *USE_OPTIONS, *OTHER_OPTIONS, *TEXTS.values())
FLAGS = ("commercial", "offline", "enterprise", "cross_platform", "tasks")
_LINK = re.compile(r"^https?://(?:www\.)?huggingface\.co/")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class Asked:
    """The words after `advisor plan`, and the machine where it is one that was probed or uploaded."""

    words: tuple[str, ...]
    profile: HardwareProfile | None


def keep_answers(prefix: str = "") -> None:
    """Give every answer its default and keep those whose widgets are not shown now. Call it first on each run."""
    for key, default in DEFAULTS.items():
        st.session_state[prefix + key] = st.session_state.get(prefix + key, default)


def asked(state: Mapping[str, Any], here: HardwareProfile | None) -> Asked:
    """What the answers in `state` say; AdvisorError for an answer that no command could be made of."""
    words, profile = _machine_words(state, here)
    words += _model_words(state)
    words += ["--use-case", state["use_case"], "--priority", state["priority"]]
    if state["own_weights"]:
        words += ["--weights", ",".join(f"{name}={state[f'weight_{name}']}" for name in WEIGHTS)]
    for key, option in TEXTS.items():
        words += [option, state[key].strip()] if state[key].strip() else []
    for key, option in (("framework", "--framework"), ("kv", "--kv-cache"), ("power", "--power")):
        words += [option, state[key]] if state[key] != UNSAID else []
    words += [f"--{key.replace('_', '-')}" for key in FLAGS if state[key]]
    return Asked(tuple(words), profile)


def _machine_words(state: Mapping[str, Any], here: HardwareProfile | None) -> tuple[list[str], HardwareProfile | None]:
    words: list[str] = []
    if state["target"] != "auto":
        words += ["--target", state["target"]]
    if state["vendor"] != UNSAID:
        words += ["--vendor", state["vendor"]]
    if state["machine"] == HERE:
        return words, here
    if state["machine"] == SAVED:
        if state["profile"] is None:
            raise AdvisorError(
                "unanswered", "--profile is empty.", "Upload a file saved by `advisor probe --save FILE`."
            )
        return words, state["profile"]
    if state["machine"] == NAMED:
        if not state["device"]:
            raise AdvisorError("unanswered", "--device is empty.", "Search for the device by its name.")
        words += ["--device", state["device"]]
    typed = {"ram": "--ram", "vram": "--vram", "chip": "--chip"}
    for key, option in typed.items():
        if state[key].strip() and not (state["machine"] == NAMED and key == "chip"):
            words += [option, state[key].strip()]
    if state["os"] != UNSAID:
        words += ["--os", state["os"]]
    if state["machine"] == DESCRIBED and not words:
        raise AdvisorError(
            "unanswered", "--ram is empty.", "Say how much memory the machine has, or name its processor."
        )
    return words, None


def _model_words(state: Mapping[str, Any]) -> list[str]:
    """MODEL. Text that a visitor types is a hub's name or nothing: a path could read what the page must not."""
    if state["source"] == CATALOGUE and state["model"]:
        return [state["model"]]
    if state["source"] == FILE and state["file"]:
        path = local_models().get(state["file"])
        return [str(path)] if path else []
    if state["source"] == HUB:
        name = "/".join(_LINK.sub("", state["hub"].strip()).split("/")[:2])
        if not _HUB_ID.fullmatch(name) or ".." in name:
            message = f"MODEL: {state['hub']!r} is no name or link of a model on Hugging Face."
            raise AdvisorError("bad-option", message, "write it like Qwen/Qwen2.5-0.5B-Instruct")
        return [name]
    return []


def show_questions(error: AdvisorError | None, look_again: Callable[[], None]) -> None:
    """All questions; `error` stands beside the field that it is about. `look_again` probes this machine anew."""
    show_machine(error, look_again=look_again)
    st.subheader("2. Which model?")
    st.radio("Model", [ADVISE, CATALOGUE, HUB, FILE], key="source", horizontal=True, label_visibility="collapsed")
    if st.session_state["source"] == CATALOGUE:
        st.selectbox("Model of the catalogue", model_names(), key="model", placeholder="Type to search")
    elif st.session_state["source"] == HUB:
        st.text_input("Name or link", key="hub", placeholder="Qwen/Qwen2.5-0.5B-Instruct")
    elif st.session_state["source"] == FILE:
        _file_question()
    problem(error, "MODEL")
    st.subheader("3. What is it for?")
    st.selectbox("Use", get_args(UseCase), key="use_case")
    st.selectbox("What counts most", get_args(Priority), key="priority")
    st.toggle("Weigh it myself", key="own_weights")
    if st.session_state["own_weights"]:
        for name in WEIGHTS:
            st.slider(name.capitalize(), 0, 10, key=f"weight_{name}")
    problem(error, *USE_OPTIONS)
    with st.expander("4. Limits, if you have any", expanded=_concerns_limits(error)):
        _limits(error)


def show_machine(
    error: AdvisorError | None,
    prefix: str = "",
    title: str = "1. Which machine?",
    look_again: Callable[[], None] | None = None,
) -> None:
    """The questions about the machine; `prefix` tells two of them on one page apart."""
    st.subheader(title)
    ways = [HERE, NAMED, DESCRIBED, SAVED]
    st.radio("Machine", ways, key=f"{prefix}machine", horizontal=True, label_visibility="collapsed")
    way = st.session_state[f"{prefix}machine"]
    if way == HERE and look_again is not None:
        st.button("Look at it again", help="probe this machine anew", on_click=look_again)
    if way == NAMED:
        st.selectbox(
            "Device or chip", device_names(), key=f"{prefix}device", placeholder="Raspberry Pi 5, MacBook, RTX ...",
            accept_new_options=True,
        )  # fmt: skip
    if way == DESCRIBED:
        st.text_input("Memory (RAM)", key=f"{prefix}ram", placeholder="16GB")
        st.text_input("Processor", key=f"{prefix}chip", placeholder="Core Ultra 7 258V (if you know it)")
        st.text_input(
            "Graphics card's memory", key=f"{prefix}vram", placeholder="none",
            help="or what a GPU may take of memory that it shares with the CPU",
        )  # fmt: skip
    if way == NAMED:
        st.text_input("Memory, if it is sold with several sizes", key=f"{prefix}ram", placeholder="as sold")
    if way in (NAMED, DESCRIBED):
        st.selectbox("Operating system", [UNSAID, *get_args(OsName)], key=f"{prefix}os")
    if way == SAVED:
        uploaded_json("Profile (JSON)", f"{prefix}profile", HardwareProfile.model_validate, "advisor.hardware/1")
    target = st.selectbox("Where shall it run?", ["auto", "cpu", "gpu", "npu"], key=f"{prefix}target")
    if target == "npu" or st.session_state[f"{prefix}vendor"] != UNSAID:
        st.selectbox("Vendor of the NPU, GPU or chip", [UNSAID, *get_args(VendorName)], key=f"{prefix}vendor")
    problem(error, *MACHINE_OPTIONS)


def _file_question() -> None:
    found = list(local_models())
    if found:
        st.selectbox("File or folder", found, key="file", placeholder="Choose a model")
    else:
        st.info("Put .gguf or .onnx files and model folders into the `models` folder of advisor's data folder.")


def _limits(error: AdvisorError | None) -> None:
    fields = (
        ("context", "Context, in tokens", "4096"),
        ("concurrency", "Requests at the same time", "1"),
        ("min_decode_tps", "At least so many tokens per second", ""),
        ("max_ttft_ms", "At most so many ms to the first token", ""),
        ("max_loss", "At most so much quality lost, in per cent", ""),
        ("max_disk", "At most so much disk", "20GB"),
        ("precision", "Only this precision", "Q4_K_M, int4 ..."),
    )
    for key, label, example in fields:
        st.text_input(label, key=key, placeholder=example)
        problem(error, TEXTS[key])
    from knowledge.matrix import load_frameworks

    st.selectbox("Only this framework", [UNSAID, *(row.name for row in load_frameworks())], key="framework")
    st.selectbox("KV cache", [UNSAID, *get_args(KvType)], key="kv")
    st.selectbox("Power", [UNSAID, "mains", "battery"], key="power")
    problem(error, *OTHER_OPTIONS)
    st.checkbox("Only licences that allow commercial use", key="commercial")
    st.checkbox("Nothing may be downloaded", key="offline")
    st.checkbox("For a company: support, licences, provenance", key="enterprise")
    st.checkbox("One artifact for several kinds of machine", key="cross_platform")
    st.checkbox("Put sixty questions to it in the run, too", key="tasks")


def _concerns_limits(error: AdvisorError | None) -> bool:
    return error is not None and concerns(error, *TEXTS.values(), *OTHER_OPTIONS)
