"""What runs where: the framework x backend x hardware x system table, backend limits, architectures, speed shares.

All rows are data with a source; this module only reads them and answers whether a row serves a machine. In the table
`any` matches everything, a leading `!` turns a list into an exclusion, generations match by prefix and `unknown` stands
for a generation that nobody named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from knowledge.tables import read_document, read_rows

Kind = Literal["text", "embedding"]  # of artifacts: a model that writes text, an encoder that makes vectors
Served = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Backend:
    """A row of backends.csv. `support` is supported, experimental, unsupported or, where advisor does not plan for the
    place, outside. `method` is what the backend's recipe does beyond plain rounding (as in quality.csv), `effort` 0
    (install and run) to 1 (a project of its own)."""

    framework: str
    backend: str
    engine: str
    vendors: frozenset[str]
    generations: tuple[str, ...]
    os: frozenset[str]
    arch: frozenset[str]
    support: str
    precisions: tuple[str, ...]
    method: str
    effort: float
    text: str
    source: str

    def serves_vendor(self, vendor: str) -> bool:
        return "any" in self.vendors or vendor in self.vendors

    def serves_os(self, family: str | None) -> bool:
        """Also where the system is not known, unless the row says what cannot run there."""
        if family is None:
            return self.support != "unsupported" or "any" in self.os
        return "any" in self.os or family in self.os

    def serves_arch(self, arch: str) -> bool:
        return arch in ("unknown", "other") or "any" in self.arch or arch in self.arch

    def serves_generation(self, generation: str) -> bool:
        names = self.generations
        if "any" in names:
            return True
        excluded = names[0].startswith("!")
        names = tuple(name.lstrip("!") for name in names)
        found = any(generation.startswith(name) for name in names) if generation else "unknown" in names
        return found is not excluded


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits of a backend; None: no limit of its own. `max_allocation_bytes` is the largest single buffer."""

    default_context: int | None
    max_context: int | None
    max_params_b: float | None
    kv_types: frozenset[str]
    max_concurrency: int | None = None
    max_allocation_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of the data-sheet bandwidth (decode) and dense FP16 rate (prefill) that software reaches, 0 to 1."""

    decode: tuple[float, float, float]
    prefill: tuple[float, float, float]
    token_overhead_ms: float
    source: str


@dataclass(frozen=True, slots=True)
class Framework:
    """A row of frameworks.toml.

    `executor`: advisor runs its plans, from a model of a kind in `starts_from` (as in advisor.plan.ModelSource).
    `reference`: the form of its 16-bit reference. `offloads`: a model may lie partly in a GPU's memory.
    `size_tolerance`: a predicted artifact size is right within this share. `hub_library` and `hub_tags` are what a
    model card says; `holds` are file names (with wildcards) that tell an artifact: all of them in a folder.
    `try_command` lets a finished artifact answer (`{file}`: its largest file). `embedding` is what is otherwise for an
    encoder, of which advisor makes `precisions`; empty where it makes none.
    """

    name: str
    artifact: str
    executor: bool
    python: str
    version: str
    licence: str
    words: str
    source: str
    imports: str = ""
    holds: tuple[str, ...] = ()
    starts_from: tuple[str, ...] = ()
    reference: str = ""
    offloads: bool = False
    size_tolerance: float = 0.02
    hub_library: str = ""
    hub_tags: tuple[str, ...] = ()
    try_text: str = ""
    try_command: str = ""
    precisions: tuple[str, ...] = ()
    embedding: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def of(self, kind: Kind) -> Framework:
        """The same for an artifact of a kind."""
        return replace(self, **self.embedding) if kind == "embedding" else self


def _number(text: str) -> float | None:
    return float(text) if text else None


@cache
def load_backends() -> tuple[Backend, ...]:
    return tuple(
        Backend(
            r["framework"], r["backend"], r["engine"], frozenset(r["vendors"].split("|")),
            tuple(r["generations"].split("|")), frozenset(r["os"].split("|")), frozenset(r["arch"].split("|")),
            r["support"], tuple(p for p in r["precisions"].split("|") if p), r["method"], float(r["effort"]), r["text"],
            r["source"],
        )
        for r in read_rows("backends.csv")
    )  # fmt: skip


@cache
def rows_for(engine: str, vendor: str, generation: str, os: str | None, arch: str) -> tuple[Backend, ...]:
    """The rows that speak about an engine (cpu, gpu, npu) of a machine, in file order.

    Of each framework's backend all rows that serve it; else the row that says why it cannot run; else the nearest row,
    which misses in as little as possible. Rows of places that advisor does not plan for (`outside`) never speak.
    """
    spoken: dict[tuple[str, str], list[tuple[int, Backend]]] = {}
    for row in load_backends():
        if row.engine != engine or row.support == "outside" or not row.serves_vendor(vendor):
            continue
        fits = (row.serves_generation(generation), row.serves_os(os), row.serves_arch(arch))
        spoken.setdefault((row.framework, row.backend), []).append((fits.count(True), row))
    chosen: set[int] = set()
    for rows in spoken.values():
        fitting = [row for fits, row in rows if fits == 3]
        chosen.update(map(id, [row for row in fitting if row.support != "unsupported"] or fitting or [_nearest(rows)]))
    return tuple(row for row in load_backends() if id(row) in chosen)


def _nearest(rows: list[tuple[int, Backend]]) -> Backend:
    positive = [(fits, row) for fits, row in rows if row.support != "unsupported"] or rows
    return max(positive, key=lambda found: found[0])[1]


@cache
def systems_of_backend(row: Backend) -> tuple[str, ...]:
    """The systems that the backend exists for, on the same kind of engine of any of the row's vendors."""
    same = (
        other
        for other in load_backends()
        if (other.framework, other.backend, other.engine) == (row.framework, row.backend, row.engine)
        and other.support in ("supported", "experimental")
        and (other.vendors & row.vendors or "any" in other.vendors)
    )
    return tuple(sorted({system for other in same for system in other.os}))


@cache
def load_limits() -> dict[tuple[str, str], Limit]:
    return {
        (r["framework"], r["backend"]): Limit(
            int(r["default_context"]) if r["default_context"] else None,
            int(r["max_context"]) if r["max_context"] else None,
            _number(r["max_params_b"]),
            frozenset(r["kv_types"].split("|")),
            int(r["max_concurrency"]) if r["max_concurrency"] else None,
            int(r["max_allocation_bytes"]) if r["max_allocation_bytes"] else None,
        )
        for r in read_rows("limits.csv")
    }


@cache
def load_efficiencies() -> dict[tuple[str, str], Efficiency]:
    def triple(r: dict[str, str], kind: str) -> tuple[float, float, float]:
        return float(r[f"{kind}_low"]), float(r[f"{kind}_mid"]), float(r[f"{kind}_high"])

    return {
        (r["framework"], r["backend"]): Efficiency(
            triple(r, "decode"), triple(r, "prefill"), float(r["token_overhead_ms"]), r["source"]
        )
        for r in read_rows("efficiency.csv")
    }


@cache
def core_rates(instruction_sets: frozenset[str]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(decode, prefill) bands in operations per second and core, of the best instruction set that the table knows."""
    rows = read_rows("core_rates.csv")
    row = next((r for r in rows if r["isa"] in instruction_sets), rows[-1])
    decode, prefill = (
        tuple(float(row[f"{kind}_{end}"]) * 1e9 for end in ("low", "mid", "high")) for kind in ("decode", "prefill")
    )
    return decode, prefill  # type: ignore[return-value]


@cache
def load_frameworks() -> tuple[Framework, ...]:
    return tuple(
        Framework(**_fields(row), embedding=_fields(row.get("embedding", {})))
        for row in read_document("frameworks.toml").values()
    )


def _fields(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items() if key != "embedding"}


def framework_named(name: str) -> Framework:
    return next(framework for framework in load_frameworks() if framework.name == name)


@cache
def _architectures() -> dict[str, dict[str, str]]:
    return {r["architecture"]: r for r in read_rows("architectures.csv")}


def architecture_served(architecture: str, framework: str, backend: str) -> Served:
    """Whether `framework` loads `architecture` (its GGUF or Hugging Face name) on `backend`, as far as is known.

    A column `framework/backend` (e.g. `openvino/openvino-npu`) speaks before the framework's own.
    """
    row = _architectures().get(architecture.lower().replace("_", ""))
    answer = (row.get(f"{framework}/{backend}") or row.get(framework)) if row else None
    return answer if answer in ("yes", "no") else "unknown"  # type: ignore[return-value]
