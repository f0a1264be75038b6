"""docs/adding-a-rule.md, followed to the letter: its entry loads, is clean, and its test holds."""

import re
from pathlib import Path
from typing import Any

from advisor.constraints import Constraints
from advisor.decide import make_plan
from knowledge.models import find_model
from knowledge.rule_lint import lint
from knowledge.rules import EFFECTS, STAGES, load_rules
from probes.declared import declared_profile

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "adding-a-rule.md").read_text(encoding="utf-8")
RULE, TEST = (re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)[0] for kind in ("toml", "python"))


def test_the_entry_loads_and_is_clean(tmp_path: Path) -> None:
    (tmp_path / "90-site.toml").write_text(RULE, encoding="utf-8")
    rules = load_rules((tmp_path,))
    assert "site.small-models" in {rule.id for rule in rules.rules()}
    assert not [problem for problem in lint(rules) if "site" in problem]


def test_its_test_holds(tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "RULE": RULE, "Constraints": Constraints, "make_plan": make_plan, "find_model": find_model,
        "declared_profile": declared_profile,
    }  # fmt: skip
    exec(TEST, names)
    names["test_our_site_allows_small_models_on_a_cpu"](tmp_path)


def test_the_page_names_every_stage_effect_and_operator() -> None:
    words = set(re.findall(r"[a-z_]+", PAGE))
    assert set(STAGES) <= words
    assert {effect for effects in EFFECTS.values() for effect in effects} <= words
    assert {"eq", "ne", "in", "not_in", "lt", "le", "gt", "ge", "contains", "known"} <= words
