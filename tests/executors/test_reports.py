"""Reports: what they say, that they stand alone, and that nobody's string becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fake_run import MACHINE, SIZE, FakeExecutor, fake_model, fake_plan
from hypothesis import given
from hypothesis import strategies as st

from executors import plots, report_html, report_md
from executors.packaging import artifact_name, model_card, package
from executors.runner import run_plan
from knowledge.base import printable
from knowledge.matrix import load_frameworks

MIX = "Q8_0+ffn_gate=Q5_0"
EVIL = '"><script>alert(1)</script>[x](javascript:alert(2))|`$(reboot)`\x1b[31m\u202e{{ 7*7 }}<img src=http://evil/x>'
VOID = {"meta", "link", "img", "br", "hr", "input", "line"}

# ggml docs/gguf.md, "Validating Above Naming Convention"
CONVENTION = re.compile(
    r"^(?P<BaseName>[A-Za-z0-9\s]*(?:(?:-(?:(?:[A-Za-z\s][A-Za-z0-9\s]*)|(?:[0-9\s]*)))*))-"
    r"(?:(?P<SizeLabel>(?:\d+x)?(?:\d+\.)?\d+[A-Za-z](?:-[A-Za-z]+(\d+\.)?\d+[A-Za-z]+)?)(?:-(?P<FineTune>[A-Za-z0-9\s-]+))?)?-"
    r"(?:(?P<Version>v\d+(?:\.\d+)*))(?:-(?P<Encoding>(?!LoRA|vocab)[\w_]+))?\.gguf$"
)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A passed report after a climb, and one whose plan and model hold hostile strings in every free text."""
    folder = tmp_path_factory.mktemp("reports")
    model = fake_model(folder / "model.gguf")
    executor = FakeExecutor(folder / "pids")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(folder / "home"))
        passed = run_plan(
            fake_plan(model, "Q8_0", (MIX,)), folder / "run", machine=MACHINE, escalate=True, executor=executor
        )
        plan = fake_plan(model, "Q8_0", (MIX,), model=EVIL, base_model=EVIL, licence=EVIL, reference_note=EVIL)
        assert plan.plan is not None
        plan.plan.ladder[0] = plan.plan.ladder[0].model_copy(update={"why": EVIL})
        machine = MACHINE.model_copy(update={"cpu": MACHINE.cpu.model_copy(update={"model": EVIL})})
        evil = run_plan(plan, folder / "evil", machine=machine, escalate=True, executor=executor)
        straight = run_plan(fake_plan(model, MIX, ("Q8_0", "Q5_0")), folder / "mix", machine=MACHINE, executor=executor)
    return {"passed": passed, "evil": evil, "straight": straight, "folder": folder}


def test_the_report_has_every_key_of_the_contract(documents: dict[str, Any]) -> None:
    report = documents["passed"]
    assert report["schema"] == "advisor.run/1"
    assert report.keys() >= {
        "status", "model", "framework", "backend", "precision", "reference", "artifact", "steps", "validation",
        "performance", "gates", "predicted_vs_measured", "environment", "next",
    }  # fmt: skip
    assert report["steps"][0].keys() >= {"id", "kind", "status", "seconds", "peak_rss_bytes", "attempts"}
    assert report["performance"]["artifact"]["decode_tps"].keys() == {"median", "iqr", "p95", "n"}
    assert report["gates"][0].keys() == {"id", "metric", "op", "value", "observed", "level", "result", "text"}
    assert all(not Path(file["path"]).is_absolute() for file in report["artifact"]["files"])


def test_predictions_are_the_plans_and_a_rung_has_its_own(documents: dict[str, Any]) -> None:
    lines = {line["metric"]: line for line in documents["passed"]["predicted_vs_measured"]}
    assert (lines["artifact_bytes"]["mid"], lines["artifact_bytes"]["within"]) == (SIZE, True)
    assert (lines["quality_retention"]["mid"], lines["quality_retention"]["within"]) == (0.98, None)
    assert (lines["decode_tps"]["mid"], lines["decode_tps"]["measured"]) == (None, pytest.approx(76.5))


def test_the_run_folder_is_not_named_in_the_report(documents: dict[str, Any]) -> None:
    assert str(documents["folder"]) not in json.dumps(documents["passed"])


def test_the_summary_tells_what_was_tried_and_why_it_was_not_kept(documents: dict[str, Any]) -> None:
    text = report_md.render(documents["passed"])
    assert "passed every required gate" in text
    assert "keeps 98.5 % of the quality" in text
    assert "Q8_0 was tried and not kept: 99.0 % of the quality in 53.0 % of the bytes (missed: memory)" in text


def test_the_summary_tells_what_the_untried_precisions_would_have_given(documents: dict[str, Any]) -> None:
    text = report_md.render(documents["straight"])
    assert "It is expected to pass both gates." in text
    assert "Q8_0 99.0 % of the quality in 53.0 % of the bytes (would miss memory)" in text
    assert "Q5_0 90.0 % of the quality in 39.0 % of the bytes (would miss quality)" in text


def widths(svg: str) -> list[float]:
    return [float(width) for width in re.findall(r'<rect [^>]*? width="([\d.]+)"', svg)]


def test_the_memory_bar_adds_up(documents: dict[str, Any]) -> None:
    memory = documents["straight"]["memory"]
    stacked = widths(report_html.memory_plot(documents["straight"]))[:3]
    whole = max(memory["total_bytes"], memory["measured_peak_rss_bytes"])
    assert sum(stacked) == pytest.approx(plots.WIDTH * memory["total_bytes"] / whole, abs=0.2)


def test_every_mark_of_a_plot_lies_on_its_scale(documents: dict[str, Any]) -> None:
    rows = report_html.predictions(documents["straight"])
    for name in ("File size", "Decode", "Quality retention"):
        assert any(name in row for row in rows)
    for svg in (*rows, report_html.quality_plot(documents["straight"])):
        places = [float(x) for x in re.findall(r' (?:x|x1|x2|cx)="([-\d.]+)"', svg)]
        assert all(0 <= place <= plots.WIDTH for place in places)


def test_plots_escape_what_they_are_given() -> None:
    evil = "<script>alert(1)</script>\x1b[31m\"'&"
    drawn = [
        plots.memory_bar([(evil, 1, evil)], 2, evil, 1),
        plots.intervals([plots.Interval(evil, 1, 2, 3, evil, 2)], evil),
        plots.pareto([plots.Point(evil, 1, 1, 1, True), plots.Point("b", 2, 0.5, 3, False)], evil, evil, evil),
        plots.bars([plots.Bar(evil, 0.5, evil, True)], 0.95, evil),
    ]
    for svg in drawn:
        assert "<script" not in svg
        assert "\x1b" not in svg
        assert ElementTree.fromstring(svg).tag.endswith("svg")


@given(st.lists(st.tuples(*[st.floats(0, 1e9)] * 3), min_size=1, max_size=12))
def test_a_pareto_plot_of_any_figures_is_drawn(figures: list[tuple[float, float, float]]) -> None:
    points = [plots.Point(str(n), x, y, area + 1, n % 2 == 0) for n, (x, y, area) in enumerate(figures)]
    svg = plots.pareto(points, "x", "y", "area")
    assert ElementTree.fromstring(svg) is not None
    assert "nan" not in svg


class Page(HTMLParser):
    """Tags, attributes and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", ["passed", "evil"])
def test_the_page_stands_alone_and_is_well_formed(name: str, documents: dict[str, Any]) -> None:
    page = Page(report_html.render(documents[name]))
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a"} & set(page.tags)
    assert not [
        name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "srcset", "action")
    ]
    style = re.search(r"<style>(.*?)</style>", report_html.render(documents[name]), re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|//", style[1])


def test_the_page_is_for_phones_printers_and_the_dark(documents: dict[str, Any]) -> None:
    text = report_html.render(documents["passed"])
    for needed in (
        'name="viewport"',
        "@media print",
        "prefers-color-scheme: dark",
        "<svg",
        "Decode",
        "Test CPU",
        "--escalate",
    ):
        assert (needed in text) != (needed == "--escalate"), needed


def test_hostile_strings_are_text_in_every_rendering(documents: dict[str, Any]) -> None:
    page, markdown, card = (render(documents["evil"]) for render in (report_html.render, report_md.render, model_card))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for text in (page, markdown, card):
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "49" not in re.findall(r"7\*7|\b49\b(?!\.)", text)
    body = card.split("---\n", 2)[2]
    for text in (markdown, body):
        prose = re.sub(r"`[^`\n]*`", "", text)
        assert "<script" not in prose
        assert "<img" not in prose
        assert "](javascript" not in prose.replace("\\]", "")


def test_hostile_strings_stay_in_their_field_of_the_cards_front_matter(documents: dict[str, Any]) -> None:
    front = model_card(documents["evil"]).split("---\n")[1].splitlines()
    fields = dict(line.split(": ", 1) for line in front)
    assert json.loads(fields["license"]) == "other"
    assert json.loads(fields["license_name"]) == printable(EVIL)
    assert json.loads(fields["base_model"]) == printable(EVIL)


@given(st.text(max_size=200))
def test_escaped_markdown_stays_on_its_line_and_holds_no_markup(text: str) -> None:
    escaped = report_md.escape(text)
    assert len(escaped.splitlines()) <= 1
    assert not re.search(r"(?<!\\)[`*\[\]|<@~#]", escaped.replace("&#64;", "").replace("\\\\", ""))
    assert report_md.code(text).count("`") == 2


@pytest.mark.parametrize(
    ("base", "source", "parameters", "precision", "name"),
    [
        ("", "SmolLM2-135M-Instruct.Q4_1.gguf", 134515008, "Q8_0", "SmolLM2-135M-Instruct-v1.0-Q8_0.gguf"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "x.gguf", 0, MIX, "SmolLM2-135M-Instruct-v1.0-Q8_0_ffn_gate_Q5_0.gguf"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "", 0, "Q4_K_M", "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf"),
        ("", "mymodel-f16.gguf", 1_235_814_400, "Q4_K_M", "mymodel-1.24B-v1.0-Q4_K_M.gguf"),
        ("", "../../evil name$(x).gguf", 8 * 10**9, "Q5_0", "evil-name-x-8B-v1.0-Q5_0.gguf"),
    ],
)  # fmt: skip
def test_the_artifact_is_named_by_the_gguf_convention(
    base: str, source: str, parameters: int, precision: str, name: str, tmp_path: Path
) -> None:
    work = fake_plan(fake_model(tmp_path / "m.gguf"), base_model=base).plan
    assert work is not None
    assert artifact_name(work, source, parameters, precision) == name
    assert CONVENTION.match(name)


@pytest.mark.parametrize(
    ("holds", "ending"), [('["*.tflite"]', ".tflite"), ('["model.*"]', ""), ('["model.json", "*.bin"]', "")]
)
def test_a_file_of_another_framework_has_that_frameworks_ending(
    holds: str, ending: str, advisor_home: Path, tmp_path: Path
) -> None:
    own = advisor_home / "frameworks/fake/frameworks.toml"
    own.parent.mkdir(parents=True)
    text = Path(__file__).with_name("fake_framework").joinpath("frameworks.toml").read_text()
    own.write_text(re.sub(r"holds = .*", f"holds = {holds}", text))
    work = fake_plan(fake_model(tmp_path / "m.gguf"), framework="fake", base_model="o/Tiny-1M").plan
    assert work is not None
    load_frameworks.cache_clear()
    try:
        assert artifact_name(work, "", 0, "int8") == f"Tiny-1M-v1.0-int8{ending}"
    finally:
        load_frameworks.cache_clear()


def test_a_single_file_of_a_folder_keeps_its_name(tmp_path: Path) -> None:
    for made in (tmp_path / "model.gguf", tmp_path / "folder/model.tflite"):
        made.parent.mkdir(exist_ok=True)
        made.write_text("weights")
    package({tmp_path / "model.gguf": "0"}, "Tiny.gguf", "card", tmp_path / "one", tmp_path / "model.gguf")
    package({tmp_path / "folder/model.tflite": "0"}, "Tiny", "card", tmp_path / "two", tmp_path / "folder")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"Tiny.gguf", "README.md", "SHA256SUMS"}
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"model.tflite", "README.md", "SHA256SUMS"}


def test_an_unknown_licence_is_said_and_never_invented(documents: dict[str, Any]) -> None:
    card = model_card({**documents["passed"], "licence": ""})
    assert "\nlicense" not in card
    assert "Licence: unknown" in card
    assert '\nlicense: "apache-2.0"' in model_card(documents["passed"])


def test_groups_of_tensors_are_ranked_by_what_a_saved_byte_costs(documents: dict[str, Any]) -> None:
    measured = [
        {"group": group, "tensor_bytes": size, "kl_divergence": nats}
        for group, size, nats in [("", 1000, 0.004), ("attn_v", 900, 0.024), ("ffn_gate", 500, 0.010)]
    ]
    found = {"base": "Q8_0", "lower": "Q5_0", "tokens": 1024, "measured": measured, "mix": {"groups": ["ffn_gate"]}}
    page = report_html.render({**documents["passed"], "sensitivity": found})
    assert page.index("ffn_gate, lowered</text>") < page.index("attn_v</text>")
    drawn = widths(report_html.sensitivity_plot({"sensitivity": found}))
    assert drawn == pytest.approx([plots.WIDTH * (0.006 / 500) / (0.020 / 100), plots.WIDTH], abs=0.1)
    text = report_md.render({**documents["passed"], "sensitivity": found})
    assert "| `ffn_gate` | 0.0060 | 500 B | yes |" in text
    assert "Sensitivity" not in report_html.render(documents["passed"])
