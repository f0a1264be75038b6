"""The rule engine: rules are data, errors name file, rule and field, and the packaged tree is clean."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.base import AdvisorError
from knowledge.rule_lint import lint
from knowledge.rules import (
    Fact,
    RuleSet,
    compile_condition,
    describe,
    fill,
    fill_known,
    load_facts,
    load_rules,
    words_for,
)


def rule_file(folder: Path, text: str) -> tuple[Path, ...]:
    folder.mkdir(exist_ok=True)
    (folder / "90-site.toml").write_text(text, encoding="utf-8")
    return (folder,)


GOOD = """
stage = "static"
[[rule]]
id = "site.no-mlx"
when = { fact = "framework", value = "mlx" }
effect = "reject"
text = "{framework} is not allowed here."
source = "our policy"
"""


def test_packaged_rules_are_clean() -> None:
    assert lint(load_rules()) == []


def test_every_rule_has_words_and_a_source() -> None:
    for rule in load_rules().rules():
        assert rule.text.endswith((".", "?", ".'")) or rule.text.endswith("}."), rule.id
        assert rule.source


def test_a_dropped_in_rule_is_loaded(tmp_path: Path) -> None:
    rules = load_rules(rule_file(tmp_path / "r", GOOD))
    assert "site.no-mlx" in {rule.id for rule in rules.rules()}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('"framework"', '"colour"'), "undefined fact 'colour'"),
        (('effect = "reject"', 'effect = "explode"'), "effect 'explode'"),
        (('value = "mlx"', 'value = "tensorflow"'), "'tensorflow' is not a value of framework"),
        (('value = "mlx"', 'op = "like", value = "mlx"'), "unknown operator 'like'"),
        (('source = "our policy"', ""), "`source` is missing"),
        (('text = "{framework} is not allowed here."', ""), "`text` is missing"),
        (("{framework} is not allowed here.", "  "), "`text` is missing"),
        (('effect = "reject"', 'effect = "reject"\nchange = 7'), "`change` is a text or a list of texts"),
        (('effect = "reject"', 'effect = "reject"\nchange = ["at {colour}"]'), "undefined fact 'colour'"),
        (("{framework} is", "{colour} is"), "undefined fact 'colour'"),
        (('stage = "static"', 'stage = "later"'), "stage"),
        (("site.no-mlx", "memory.fits"), "the id stands in"),
        (('source = "our policy"', 'source = "our policy"\nwhy = "x"'), "unknown field 'why'"),
        (("[[rule]]", "[[rule"), "cannot be read"),
        (('effect = "reject"', 'effect = "prefer"\nweight = 7'), "`weight`"),
        (('{ fact = "framework", value = "mlx" }', "{ all = [] }"), "`all`"),
        (
            ('{ fact = "framework", value = "mlx" }', '{ fact = "params_b", op = "lt", value = "x" }'),
            "params_b is a number",
        ),
    ],
)
def test_an_error_names_file_and_field(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    with pytest.raises(AdvisorError) as caught:
        load_rules(rule_file(tmp_path / "r", GOOD.replace(*change)))
    assert caught.value.code == "bad-rule"
    assert "90-site.toml" in caught.value.message
    assert named in caught.value.message


def test_lint_finds_the_rule_that_is_never_taken(tmp_path: Path) -> None:
    text = GOOD.replace('id = "site.no-mlx"', 'id = "site.a"\nnode = "n"') + (
        '[[rule]]\nid = "site.b"\nnode = "n"\nwhen = { all = [{ fact = "framework", value = "mlx" }, '
        '{ fact = "engine", value = "gpu" }] }\neffect = "reject"\ntext = "x."\nsource = "s"\n'
    )
    assert any("site.b: never taken" in p for p in lint(load_rules(rule_file(tmp_path / "r", text))))


def test_lint_finds_rules_that_hold_at_once_with_different_effects(tmp_path: Path) -> None:
    text = GOOD.replace('id = "site.no-mlx"', 'id = "site.a"\nnode = "n"') + (
        '[[rule]]\nid = "site.b"\nnode = "n"\nwhen = { fact = "engine", value = "gpu" }\n'
        'effect = "warn"\ntext = "x."\nsource = "s"\n'
    )
    assert any("site.a and site.b" in p for p in lint(load_rules(rule_file(tmp_path / "r", text))))


def test_lint_finds_a_condition_that_never_holds(tmp_path: Path) -> None:
    text = GOOD.replace(
        '{ fact = "framework", value = "mlx" }',
        '{ all = [{ fact = "params_b", op = "lt", value = 1 }, { fact = "params_b", op = "gt", value = 2 }] }',
    )
    assert any("site.no-mlx: its condition never holds" in p for p in lint(load_rules(rule_file(tmp_path / "r", text))))


def test_lint_finds_a_fact_that_nothing_uses() -> None:
    rules = load_rules()
    idle = Fact("moon_phase", "number", (), "what nobody asks")
    assert lint(RuleSet({**rules.facts, "moon_phase": idle}, rules.nodes)) == [
        "facts.toml: moon_phase: no rule uses it"
    ]


def test_changes_with_unknown_facts_are_left_out() -> None:
    words = ("with {missing_bytes} more", "at --context {max_context}")
    assert fill_known(words, {"missing_bytes": 2**30, "max_context": None}) == "with 1.00 GiB more"
    assert (
        fill_known(words, {"missing_bytes": 2**30, "max_context": 4096}) == "with 1.00 GiB more, or at --context 4096"
    )
    assert fill_known(words, {}) == ""


@given(
    st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]),
    st.floats(-1e6, 1e6),
    st.one_of(st.none(), st.floats(-1e6, 1e6)),
)
def test_comparisons_with_the_unknown_are_false(op: str, value: float, fact: float | None) -> None:
    test = compile_condition({"fact": "params_b", "op": op, "value": value}, load_facts(), "t", set())
    plain: dict[str, Any] = {
        "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    }  # fmt: skip
    assert test({"params_b": fact}) is (fact is not None and plain[op](fact, value))


def test_not_and_any_combine() -> None:
    facts = load_facts()
    either = {"any": [{"fact": "engine", "value": "gpu"}, {"not": {"fact": "os", "value": "linux"}}]}
    test = compile_condition(either, facts, "t", set())
    assert test({"engine": "gpu", "os": "linux"})
    assert test({"engine": "cpu", "os": "windows"})
    assert not test({"engine": "cpu", "os": "linux"})
    assert describe(either) == "(engine = gpu or not os = linux)"


def test_words_carry_units() -> None:
    assert words_for("total_bytes", 3 * 2**30) == "3.00 GiB"
    assert words_for("missing_bytes", 5 * 2**20) == "5 MiB"
    assert (words_for("ttft_mid", 9_740.2), words_for("ttft_mid", 198_969.0)) == ("9,740 ms", "199 s")
    assert fill("{model} needs {total_bytes}", {"model": "X", "total_bytes": None}) == "X needs unknown"
