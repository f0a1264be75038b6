"""A plan on the page: the answer in a sentence, then why, what else, what was ruled out, and what is not known.

Everything shown is read from the plan document; a choice that a visitor makes here becomes an answer of the form.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import streamlit as st

from executors.plots import Interval, Point, intervals, memory_bar, pareto
from knowledge.base import format_bytes
from knowledge.rule_graph import graph_of
from knowledge.rules import load_rules, words_for
from ui.command import to_json
from ui.terminal import duration, interval, share, shell_line
from ui.web.parts import note, picture, plain, safe, table
from ui.web.tree import tree_html

Document = dict[str, Any]
PARTS = (("Weights", "weights_bytes"), ("KV cache", "kv_bytes"), ("Runtime", "overhead_bytes"))
STATE_OF_OPTION = {"--vendor": "vendor", "--device": "device", "--chip": "chip", "--ram": "ram", "--os": "os"}


def show_answer(plan: Document, answer: Callable[[str, str], None]) -> None:
    """What to do, or what to say first; `answer(option, value)` takes the answer to the plan's question."""
    if plan["status"] == "needs_input":
        _show_question(plan, answer)
    elif plan["status"] == "infeasible":
        _show_infeasible(plan)
    if plan["recommendations"]:
        show_summary(plan)


def show_details(plan: Document) -> None:
    """Why, what else there is, what was ruled out, what to do, and what is not known."""
    if plan["recommendations"]:
        why, speed, others, out, steps = st.tabs(["Why", "Speed", "Alternatives", "Ruled out", "Steps"])
        with why:
            _show_why(plan)
        with speed:
            _show_speed(plan["recommendations"])
        with others:
            _show_alternatives(plan["recommendations"])
        with out:
            _show_rejected(plan["rejected"], plan.get("rejected_count") or len(plan["rejected"]))
        with steps:
            _show_steps(plan)
    elif plan["rejected"]:
        _show_rejected(plan["rejected"], plan.get("rejected_count") or len(plan["rejected"]))
    _show_unknown(plan)


def show_summary(plan: Document) -> None:
    """The first recommendation: the sentence, the figures, the memory bar."""
    best = plan["recommendations"][0]
    st.html(f'<p class="lead">{sentence(best)}</p>')
    with st.container(horizontal=True):
        need, budget = (_size(best["memory"][key]) for key in ("total_bytes", "budget_bytes"))
        st.metric("Memory", need, f"of {budget}", **_NEUTRAL)
        st.metric("Decode", _middle(best["decode_tps"], "tok/s"), _range(best["decode_tps"]), **_NEUTRAL)
        wait = {key: value and value / 1000 for key, value in best["ttft_ms"].items() if key in ("low", "mid", "high")}
        st.metric("First token", _middle(wait, "s"), _range(wait), **_NEUTRAL)
        kept = best["quality"]["retention"]
        st.metric("Quality kept", share(kept["mid"]), f"{share(kept['low'])} to {share(kept['high'])}", **_NEUTRAL)
    picture(memory_picture(best["memory"]))
    for words in best["warnings"]:
        st.warning(plain(words), icon=":material/info:")
    for way in plan.get("instead", ()):
        st.info(f"Better here: {plain(way['text'])}", icon=":material/speed:")


_NEUTRAL: dict[str, Any] = {"delta_color": "off", "delta_arrow": "off"}


def sentence(best: Document) -> str:
    """The recommendation as one HTML sentence."""
    backend = best["backend"].removeprefix(best["framework"] + "-").upper()
    used = f"{_size(best['memory']['total_bytes'])} of {_size(best['memory']['budget_bytes'])}"
    speed = interval(best["decode_tps"], "tok/s")
    pace = f"about {safe(speed)}" if best["decode_tps"]["mid"] is not None else "at a speed nobody has measured"
    return (
        f"Run <b>{safe(best['model'])}</b> as <b>{safe(best['precision'])}</b> with <b>{safe(best['framework'])}</b> "
        f"on the {safe(backend)}: {used} of memory, {pace}, "
        f"{share(best['quality']['retention']['mid'])} of the 16-bit model's quality."
    )


def memory_picture(memory: Document) -> str:
    parts = [(label, memory[key], _size(memory[key])) for label, key in PARTS]
    return memory_bar(parts, memory["budget_bytes"], f"{_size(memory['budget_bytes'])} ({memory['pool']})")


def _size(size: int) -> str:
    """Bytes as the plan's own reasons write them, so that one figure reads the same everywhere."""
    return words_for("size_bytes", size)


def _middle(band: Document, unit: str) -> str:
    return "unknown" if band["mid"] is None else interval({**band, "low": band["mid"], "high": band["mid"]}, unit)


def _range(band: Document) -> str:
    return "name the chip" if band["mid"] is None else interval(band).partition(" (")[2].rstrip(")") or "exact"


def _show_why(plan: Document) -> None:
    best = plan["recommendations"][0]
    for reason in best["reasons"]:
        st.markdown(f"- {plain(reason['text'])} :gray[{plain(reason['rule'])}]")
    st.markdown("**The path through the decision tree**")
    note("Lit: what holds for the recommendation. The others open to say why not.")
    st.html(tree_html(graph_of(load_rules()), plan))
    quality = best["quality"]
    note(f"Quality: {plain(quality['metric'])}; {plain(quality['basis'])}, {plain(quality['source'])}")
    if best["memory"].get("parts"):
        with st.expander("Memory, part by part"):
            table(
                [
                    {"part": p["name"], "size": format_bytes(p["bytes"]), "from": p["source"]}
                    for p in best["memory"]["parts"]
                ]
            )


def _show_speed(rows: list[Document]) -> None:
    for title, key, unit in (("Decode, tok/s", "decode_tps", "tok/s"), ("Prefill, tok/s", "prefill_tps", "tok/s"),
                             ("Time to first token, ms", "ttft_ms", "ms")):  # fmt: skip
        st.markdown(f"**{title}**")
        picture(intervals([
            Interval(_name(row), row[key]["low"], row[key]["mid"], row[key]["high"], interval(row[key], unit),
                     strong=row["rank"] == 1)
            for row in rows
        ], unit))  # fmt: skip
        note(plain(rows[0][key].get("basis") or ""))
    note("Bars: 90 % intervals. Lines: the most likely figure.")


def _show_alternatives(rows: list[Document]) -> None:
    points = [
        Point(_name(row), row["decode_tps"]["mid"], 100 * row["quality"]["retention"]["mid"],
              row["memory"]["total_bytes"], row["pareto"], row["rank"] == 1)
        for row in rows
        if row["decode_tps"]["mid"] is not None and row["quality"]["retention"]["mid"] is not None
    ]  # fmt: skip
    if len(points) > 1:
        picture(pareto(points, "decode, tok/s", "quality kept, %", "disc: memory"))
        note("Green: recommended. Blue: nothing else here is better in every respect.")
    for row in rows:
        with st.container(border=True):
            st.html(f"<b>{row['rank']}.</b> {sentence(row)}")
            note(" · ".join(plain(reason["text"]) for reason in row["reasons"][:3]))


def _name(row: Document) -> str:
    return f"{row['model'].rpartition('/')[2]} {row['precision']}, {row['framework']} on {row['backend']}"


def _show_rejected(rows: list[Document], total: int) -> None:
    st.markdown(f"{total:,} options were ruled out. Choose a rule to see what it did and what would have to change.")
    rules: dict[str, list[Document]] = {}
    for row in rows:
        rules.setdefault(row["rule"], []).append(row)
    for rule, group in sorted(rules.items(), key=lambda pair: -len(pair[1])):
        with st.expander(f"**{len(group)}** · {plain(group[0]['text'], 110)} :gray[{plain(rule)}]"):
            for row in group[:40]:
                what = " ".join(str(row[key]) for key in ("model", "framework", "backend", "precision") if row.get(key))
                change = f"  \n*It would do {plain(row['change'])}.*" if row.get("change") else ""
                source = f" :gray[{plain(row['source'])}]" if row.get("source") else ""
                st.markdown(f"- **{plain(what) or 'everything'}**: {plain(row['text'])}{source}{change}")


def _show_steps(plan: Document) -> None:
    work = plan.get("plan")
    if not work:
        st.info("There is nothing to do yet.")
        return
    for step in work["steps"]:
        takes = step["estimate"]["seconds"]
        note = f" :gray[about {duration(takes)}]" if takes is not None else ""
        st.markdown(f"**{plain(step.get('title') or step['id'])}**{note}")
        if step["command"]:
            st.code(shell_line(step["command"]), language="bash", wrap_lines=True)


def _show_question(plan: Document, answer: Callable[[str, str], None]) -> None:
    question = plan["question"]
    st.subheader(plain(question["text"]), anchor=False)
    option = question["answer_with"]
    for row in question["options"]:
        value = row.get("vendor") or row.get("value") or row["label"]
        with st.container(border=True):
            st.button(plain(row["label"]), key=f"answer-{value}", on_click=answer, args=(option, value))
            best = row.get("recommendation")
            if best:
                note(plain(f"{best['model']} as {best['precision']} with {best['framework']} on {best['backend']}"))
            elif "recommendation" in row:
                note("nothing fits")
    if question["how_to_find_out"]:
        with st.expander("How to find out"):
            for way in question["how_to_find_out"]:
                note(plain(way["os"]))
                st.code(way["command"], language=None)
    if question.get("firm"):
        st.info(plain(question["firm"]))
    if plan["recommendations"] and question.get("fallback"):
        st.markdown(f"**{plain(question['fallback'])}**")


def _show_infeasible(plan: Document) -> None:
    st.error("Nothing fits.", icon=":material/block:")
    if nearest := plan.get("nearest"):
        st.markdown(
            f"Nearest: **{plain(nearest['model'])}** as {plain(nearest['precision'])} with "
            f"{plain(nearest['framework'])} on {plain(nearest['backend'])}. {plain(nearest['text'])}"
        )
        if nearest["change"]:
            st.markdown(f"It would do {plain(nearest['change'])}.")


def _show_unknown(plan: Document) -> None:
    lines = [*plan.get("warnings", ()), *plan.get("assumptions", ())]
    if lines:
        with st.expander(f"What is not known, and was assumed ({len(lines)})"):
            for words in lines:
                st.markdown(f"- {plain(words)}")


def show_downloads(plan: Document) -> None:
    with st.container(horizontal=True):
        st.download_button("Plan", to_json(plan), "plan.json", "application/json", icon=":material/download:")
        profile = json.dumps(plan["hardware"], indent=1) if plan.get("hardware") else None
        if profile:
            st.download_button("Profile", profile, "profile.json", "application/json", icon=":material/download:")
        if plan.get("plan"):
            st.download_button(
                "Checklist", checklist(plan), "checklist.md", "text/markdown", icon=":material/download:"
            )


def checklist(plan: Document) -> str:
    """The plan's checklist as Markdown, everything still to do."""
    from advisor.plan import Plan
    from executors.check import checklist_document, checklist_markdown

    work = Plan.model_validate(plan).plan
    return checklist_markdown(checklist_document(work.checklist if work else [], {}))
