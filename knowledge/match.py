"""Which chip a person, a driver or a product name means: tolerant matching of names against the knowledge base.

Contract: a name resolves to one chip, to several candidates, or to nothing with the nearest names. It never guesses
between chips that would be planned for differently: that is AdvisorError `ambiguous-device` (exit code 3). Candidates
that differ in nothing relevant resolve to the base part, with a note. A chip without a row of its own gets what its
family is known for, at the family's confidence.

How: names become lists of letter runs and digit runs ("RTX4090" and "RTX 4090" alike). Brand words are optional, every
other run is required. Stages, the first that answers wins: the whole name; all required runs and nothing foreign; a
part of a name; a name inside a longer text; a family pattern (before parts, where the text has no digit: "Lunar Lake").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from knowledge.base import EXIT_NEEDS_INPUT, AdvisorError, printable
from knowledge.chips import gpu_generation, load_chips, load_families, load_products, load_unserved, npu_generation
from knowledge.names import BRANDS, MODIFIERS, VENDORS, compact, letters, normalize, runs, split_memory, without_mac
from knowledge.records import Chip, ChipFamily, Confidence, Product

_MAX_CANDIDATES = 8
# Within this ratio two bandwidths or rates are the same to a plan: smaller than the prediction intervals.
_SAME_RATE = 1.15

_SERIES = {
    "intel": re.compile(r"^(?:intel )?(?:core )?(?:ultra )?(?:[ix]?[3579] )?"),
    "amd": re.compile(r"^(?:amd )?(?:ryzen )?(?:ai )?(?:max )?(?:plus )?(?:[3579] )?"),
}


@dataclass(frozen=True, slots=True)
class HardwareMatch:
    """What a name means. `product` is the board, laptop or phone it came by, if it did.

    `memory_gib` is the size written in the text. `confidence` is the match's own: the chip's row, or lower. `rank` is
    0 where the text is the chip's own name, 1 for an alias, 2 where the name also has a memory size.
    """

    chip: Chip
    product: Product | None = None
    memory_gib: float | None = None
    confidence: Confidence = "medium"
    notes: tuple[str, ...] = ()
    rank: int = 1


class _Key(NamedTuple):
    required: Counter[str]
    allowed: frozenset[str]
    memory_gib: float | None


class _Query(NamedTuple):
    text: str
    runs: Counter[str]
    memory_gib: float | None
    shown: str


def find_chip(text: str) -> Chip:
    """The chip that `text` names. Raises AdvisorError `unknown-chip` or `ambiguous-device`."""
    return match_hardware(text).chip


def match_hardware(text: str, *, memory_gib: float | None = None) -> HardwareMatch:
    """The chip (and product) that `text` names; `memory_gib` tells variants apart where the text does not.

    Raises AdvisorError `unknown-chip` (with the nearest names), `ambiguous-device` (with the candidates) or
    `unserved-device` (with why no framework runs there).
    """
    query = _parse(text)
    if not query.runs:
        raise AdvisorError("unknown-chip", f"{text!r} names no chip or device.", "name one, such as: Core Ultra 7 155H")
    _refuse_unserved(query)
    size = query.memory_gib if query.memory_gib is not None else memory_gib
    part, family = (_part_of_name, _family) if any(run.isdigit() for run in query.runs) else (_family, _part_of_name)
    for stage in (_whole_name, _all_required, _without_mac, part, _inside, family):
        found = stage(query)
        if found and size is None and all(match.rank > 1 for match in found):
            found = found + _part_of_name(query)
        if found:
            return replace(_choose(text, _by_memory(found, size), size), memory_gib=query.memory_gib)
    raise AdvisorError("unknown-chip", f"No chip or device called {text!r} is known.", _nearest_hint(query))


def _refuse_unserved(query: _Query) -> None:
    """What is understood and no machine to plan for: a console, a microcontroller, a mere kind of machine."""
    row = next((row for row in load_unserved() if row.pattern.search(query.text)), None)
    if row is None:
        return
    if row.ask:
        raise AdvisorError(
            "ambiguous-device", f"{query.shown!r} leaves the machine open. {row.text}", row.hint, EXIT_NEEDS_INPUT
        )
    raise AdvisorError("unserved-device", f"Nothing can be planned for {query.shown!r}: {row.text}.", row.hint)


def chips_named(text: str, *, memory_gib: float | None = None) -> tuple[Chip, ...]:
    """Every chip that a driver's or kernel's name can mean: several where the name is shared. Empty when unknown."""
    query = _parse(text)
    found = (_whole_name(query) or _all_required(query)) if query.runs else []
    narrowed = _by_memory(found, query.memory_gib if query.memory_gib is not None else memory_gib)
    return tuple(dict.fromkeys(match.chip for match in narrowed))


def family_of(text: str) -> ChipFamily | None:
    """The family whose pattern fits the name, or None."""
    clean = normalize(text)
    return next((family for family in load_families() if re.search(family.pattern, clean)), None)


def chip_by_family(text: str) -> Chip | None:
    """What the family of a name is known for, as a chip; None where no family's pattern fits."""
    family = family_of(text)
    return _like_all(family, text) if family else None


def _parse(text: str) -> _Query:
    clean, memory_gib = split_memory(normalize(text))
    return _Query(clean, Counter(runs(clean)), memory_gib, printable(" ".join(text.split()), 80))


@cache
def _keys(chip: Chip) -> tuple[_Key, ...]:
    """How the chip may be named: one key per plain name (lspci and device-tree strings only count as a whole)."""
    names = (chip.name, *chip.aliases)
    allowed = frozenset(run for name in names for run in runs(normalize(name))) | {chip.vendor}
    keys = []
    for name in names:
        plain = re.sub(r"\((?!R\)|TM\)|\d+-core).*?\)", " ", name)
        if re.search(r"[\[:,_]| / |/\d", plain):
            continue
        shown, memory_gib = split_memory(normalize(plain))
        series = _SERIES.get(chip.vendor) if chip.kind in ("cpu", "igpu") else None
        if series:
            shown = series.sub("", shown + " ", count=1)
        required = Counter(run for run in runs(shown) if run not in BRANDS)
        if chip.kind == "npu" and all(run.isdigit() for run in required):
            continue
        if required:
            keys.append(_Key(required, allowed, memory_gib))
    return tuple(keys)


@cache
def _product_keys(product: Product) -> tuple[_Key, ...]:
    names = (product.name, *product.aliases)
    words = frozenset(run for name in names for run in runs(normalize(name)))
    counted = (Counter(run for run in runs(normalize(name)) if run not in BRANDS) for name in names)
    return tuple(_Key(required, words, None) for required in counted if required)


def _candidates(query: _Query) -> Iterator[Chip]:
    """Chips whose text holds the query's longest digit run (or longest word): the others cannot match."""
    anchor = max(query.runs, key=lambda run: (run.isdigit(), len(run)))
    for chip in load_chips():
        if anchor in chip.name.casefold() or any(anchor in alias.casefold() for alias in chip.aliases):
            yield chip


def _as_matches(products: Iterable[Product]) -> list[HardwareMatch]:
    by_name = {chip.name: chip for chip in load_chips()}
    return [
        HardwareMatch(by_name[name], product, confidence=product.confidence)
        for product in products
        for name in product.chips
    ]


def _from_row(chip: Chip, rank: int, *notes: str) -> HardwareMatch:
    return HardwareMatch(chip, confidence=chip.confidence, notes=notes, rank=rank)


def _by_rank(matches: Iterable[HardwareMatch]) -> list[HardwareMatch]:
    return sorted(matches, key=lambda match: match.rank)


def _whole_name(query: _Query) -> list[HardwareMatch]:
    wanted = letters(query.text)
    products = [p for p in load_products() if any(compact(name) == wanted for name in (p.name, *p.aliases))]
    if products:
        return _as_matches(products)
    found = []
    for chip in _candidates(query):
        for name in (chip.name, *chip.aliases):
            bare, memory_gib = split_memory(normalize(name))
            if letters(bare) == wanted:
                found.append(_from_row(chip, 2 if memory_gib else int(name != chip.name)))
                break
    return _by_rank(found)


def _all_required(query: _Query) -> list[HardwareMatch]:
    found = []
    for chip in _candidates(query):
        fitting = [key for key in _keys(chip) if key.required <= query.runs and query.runs.keys() <= key.allowed]
        if fitting:
            own = fitting[0] is _keys(chip)[0]
            found.append(_from_row(chip, 2 if all(key.memory_gib for key in fitting) else int(not own)))
    products = (
        product
        for product in load_products()
        if any(key.required <= query.runs and query.runs.keys() <= key.allowed for key in _product_keys(product))
    )
    return _by_rank(found) or _as_matches(products)


def _without_mac(query: _Query) -> list[HardwareMatch]:
    """The chip in the name of a Mac that has no row: "MacBook Pro 16 M3 Max"."""
    text = without_mac(query.text)
    return _all_required(query._replace(text=text, runs=Counter(runs(text)))) if text else []


def _part_of_name(query: _Query) -> list[HardwareMatch]:
    wanted = Counter({run: count for run, count in query.runs.items() if run not in BRANDS})
    if sum(map(len, wanted)) < 2:
        return []

    def fits(keys: tuple[_Key, ...]) -> bool:
        return any(wanted <= key.required and query.runs.keys() <= key.allowed for key in keys)

    products = [product for product in load_products() if fits(_product_keys(product))]
    chips = [chip for chip in _candidates(query) if fits(_keys(chip))]
    return [*_as_matches(products), *(_from_row(chip, 1, f"understood as {chip.name}") for chip in chips)]


def _family(query: _Query) -> list[HardwareMatch]:
    family = family_of(query.text)
    if family is None or VENDORS & query.runs.keys() - {family.vendor}:
        return []
    note = f"no data sheet for this part: what is known of {family.family} is used"
    return [HardwareMatch(_like_all(family, query.shown), confidence=family.confidence, notes=(note,), rank=0)]


def _like_all(family: ChipFamily, name: str) -> Chip:
    return Chip(
        name=name, vendor=family.vendor, kind=family.kind, bandwidth_gbs=family.bandwidth_gbs,
        fp16_tflops=family.fp16_tflops, int8_tops=family.int8_tops, npu_tops=None, memory_gib=(), cores="",
        isa=family.isa, generation=family.generation, unified_memory=family.kind not in ("gpu", "cpu"), tdp_w=None,
        confidence=family.confidence, source=family.source, usual_cores=family.usual_cores,
    )  # fmt: skip


def _inside(query: _Query) -> list[HardwareMatch]:
    """Chips whose required runs all occur in a longer text, unless what is left over makes another product of it."""
    found: list[tuple[int, HardwareMatch]] = []
    for chip in load_chips():
        foreign = MODIFIERS | BRANDS if chip.kind == "gpu" else (MODIFIERS | BRANDS) - {"laptop"}
        for key in _keys(chip):
            size = sum(map(len, key.required))
            left = query.runs.keys() - key.allowed
            if size >= 4 and key.required <= query.runs and not left & foreign and not _glued(query, key):
                found.append((size, _from_row(chip, 1, f"understood as {chip.name}")))
                break
    longest = max((size for size, _ in found), default=0)
    return [match for size, match in found if size == longest]


def _glued(query: _Query, key: _Key) -> bool:
    """True when a matched run is only a piece of a word that goes on ("5600" in "5600G")."""
    words = (runs(word) for word in query.text.split())
    return any(any(run in key.required for run in runs) and not key.allowed.issuperset(runs) for runs in words)


def _by_memory(found: list[HardwareMatch], memory_gib: float | None) -> list[HardwareMatch]:
    """The candidates that are fitted with `memory_gib`, if any is; otherwise all."""
    if memory_gib is None or len(found) < 2:
        return found
    return [match for match in found if memory_gib in match.chip.memory_gib] or found


def _choose(text: str, found: list[HardwareMatch], memory_gib: float | None) -> HardwareMatch:
    base = found[0]
    others = [match for match in found[1:] if match.chip != base.chip]
    if not others:
        return base
    one_product = base.product is not None and all(match.product == base.product for match in others)
    own_name = base.rank == 0 and all(match.rank > 0 for match in others)
    if one_product or own_name or all(_same_to_a_plan(base.chip, other.chip) for other in others):
        shared = ", ".join(dict.fromkeys(match.chip.name for match in others[:_MAX_CANDIDATES]))
        note = f"{base.chip.name} is taken; the same name is also used for {shared}"
        return replace(base, notes=(*base.notes, note), confidence="low" if base.confidence == "low" else "medium")
    names = list(dict.fromkeys(match.product.name if match.product else match.chip.name for match in found))
    more = f" and {len(names) - _MAX_CANDIDATES} more" if len(names) > _MAX_CANDIDATES else ""
    size_hint = " or give its memory size with --ram or --vram" if memory_gib is None else ""
    message = f"{text!r} can mean {', '.join(names[:_MAX_CANDIDATES])}{more}."
    raise AdvisorError("ambiguous-device", message, f"name one of them{size_hint}", EXIT_NEEDS_INPUT)


def _same_to_a_plan(one: Chip, other: Chip) -> bool:
    return (
        (one.vendor, one.kind) == (other.vendor, other.kind)
        and npu_generation(one) == npu_generation(other)
        and gpu_generation(one) == gpu_generation(other)
        and set(one.memory_gib) == set(other.memory_gib)
        and _close(one.bandwidth_gbs, other.bandwidth_gbs)
        and _close(one.fp16_tflops, other.fp16_tflops)
    )


def _close(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return max(one, other) <= _SAME_RATE * min(one, other)


def _nearest_hint(query: _Query) -> str:
    import difflib  # imported late: only an unknown name needs it

    shown: dict[str, str] = {}
    for name in _all_names():
        shown.setdefault(compact(name), name)
    near = difflib.get_close_matches(letters(query.text), shown, n=4, cutoff=0.55)
    advice = "describe the machine instead: --vendor, --ram, --vram"
    names = list(dict.fromkeys(shown[key] for key in near))
    return f"did you mean {', '.join(names)}? Or {advice}" if names else advice


def _all_names() -> Iterable[str]:
    yield from (chip.name for chip in load_chips())
    yield from (product.name for product in load_products())
