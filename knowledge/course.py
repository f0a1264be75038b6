"""The course's own knowledge: what it recommends (`data/course.toml`), its claims with our verdict (`data/claims.csv`).

The course is "Edge AI for Beginners", module 4. Advisor decides by computing; this is what it is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast, get_args

from knowledge.tables import read_document, read_rows

Verdict = Literal["keep", "refine", "wrong", "outdated", "policy", "unverified"]


@dataclass(frozen=True, slots=True)
class Claim:
    """What the course says (in our words), and what we make of it.

    `verdict`: keep (as it is), refine (the direction holds, the figure is `ours`), wrong, outdated (was right once),
    policy (a choice, followed or departed from as `ours` says), unverified (no source found). `part` of module 4.
    """

    id: str
    part: str
    topic: str
    claim: str
    verdict: Verdict
    ours: str
    source: str


@cache
def load_claims() -> tuple[Claim, ...]:
    """Every claim, in the order of the course. ValueError where a verdict is none."""
    rows = read_rows("claims.csv")
    for row in rows:
        if row["verdict"] not in get_args(Verdict):
            raise ValueError(f"claims.csv: {row['id']}: verdict {row['verdict']!r}")
    return tuple(
        Claim(r["id"], r["part"], r["topic"], r["claim"], cast(Verdict, r["verdict"]), r["ours"], r["source"])
        for r in rows
    )


def claim_named(name: str) -> Claim:
    return next(claim for claim in load_claims() if claim.id == name)


@cache
def load_course() -> dict[str, list[dict[str, Any]]]:
    """The tables of course.toml by kind: tree, requirement, platform, preference, alignment, benchmark, gate, stage,
    deployment, diagnosis, checklist."""
    return read_document("course.toml")


def course_rows() -> list[dict[str, str]]:
    """Everything the course recommends as rows of words: `kind`, `name`, `says`, and the claim with its verdict."""
    rows = []
    for kind, tables in load_course().items():
        for table in (branch for t in tables for branch in t.get("branch", [t])):
            name = next(str(table[key]) for key in ("id", "symptom", "phase", "words", "framework") if key in table)
            said = {key: value for key, value in table.items() if key not in ("id", "claim", "when", "ours")}
            claim = claim_named(table["claim"])
            words = "; ".join(f"{key}: {_words(value)}" for key, value in said.items() if str(value) != name)
            rows.append({"kind": kind, "name": name, "says": words, "claim": claim.id, "verdict": claim.verdict})
    return rows


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
