"""What runtimes and systems need besides the model: `data/overheads.csv` and `data/reserves.toml`, typed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from knowledge.tables import read_document, read_rows


@dataclass(frozen=True, slots=True)
class Overhead:
    """A runtime's needs on a kind of engine. `place` is cpu, gpu (memory of its own), unified or npu, or else
    `cpu-encoder`: an encoder on a CPU.

    `footprint_bytes` is the process without a model; `activation_bytes` the width of an activation; `ubatch` how many
    tokens are computed at once; `allocated` whether buffers count in full even where nothing was written to them;
    `repack_types` are the ggml types that the kernels keep a rearranged copy of, `*` all weights, `layers` the matrices
    of an encoder's layers, `half-layers` half of them; `cache_grows` whether the key-value cache takes memory as tokens
    come and not for the whole context at once; `widens` whether 16-bit weights are computed with in 32 bits and kept
    so, beside their rearranged copy; `prompt_logits` whether the logits of every token of a prompt are kept, and not
    those of the last one alone.
    """

    framework: str
    place: str
    footprint_bytes: int
    activation_bytes: int
    ubatch: int
    allocated: bool
    repack_types: tuple[str, ...]
    cache_grows: bool
    source: str
    widens: bool = False
    prompt_logits: bool = False


@dataclass(frozen=True, slots=True)
class Reserve:
    """Memory kept for a system: `max(floor_bytes, share * total)`."""

    os: str
    floor_bytes: int
    share: float
    source: str


@dataclass(frozen=True, slots=True)
class Graphics:
    """What stays free of a GPU's own memory, with the source."""

    nvidia_margin_bytes: int
    nvidia_margin_source: str
    small_margin_share: float


@dataclass(frozen=True, slots=True)
class Lend:
    """The share of a main memory above `above_bytes` that a GPU without memory of its own may take, and how a person
    lends it more (`{mib}` and `{gib}` stand for sizes; empty where no way is known). Empty `vendor` or `os`: any."""

    vendor: str
    os: str
    above_bytes: int
    share: float
    source: str
    more: str
    more_source: str


@lru_cache(maxsize=1)
def overheads() -> dict[tuple[str, str], Overhead]:
    """Needs by (framework, place)."""
    rows = [
        Overhead(
            row["framework"],
            row["place"],
            int(row["footprint_bytes"]),
            int(row["activation_bytes"]),
            int(row["ubatch"]),
            row["allocated"] == "yes",
            tuple(row["repack_types"].split()),
            row["cache_grows"] == "yes",
            row["source"],
            row.get("widens") == "yes",
            row.get("prompt_logits") == "yes",
        )
        for row in read_rows("overheads.csv")
    ]
    return {(row.framework, row.place): row for row in rows}


@lru_cache(maxsize=1)
def reserves() -> tuple[dict[str, Reserve], Graphics, tuple[Lend, ...]]:
    """Reserves by system (`raspberry-pi` and `unknown` among them), and what GPUs may use."""
    document = read_document("reserves.toml")
    systems = {row["os"]: Reserve(**row) for row in document["system"]}
    return systems, Graphics(**document["graphics"]), tuple(Lend(**row) for row in document["lend"])
