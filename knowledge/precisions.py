"""Precisions of the four frameworks by their canonical names: `data/precisions.csv`, and the names made of them.

Besides the table's own names there are

- OpenVINO ratios (`int4-asym-g64-r0.8`: that share of the weights in 4 bits, the rest in 8) and backups
  (`int4-sym-g128-bint8-sym`, `-bnone`: what embedding, head and the rest are in);
- mixes (`Q8_0+ffn_gate=Q5_0`: the base, then what differs by a part of the tensors' names);
- llama.cpp types made with an importance matrix that they could do without (`Q4_K_M+imatrix`), and OpenVINO's 4 bits
  made by NNCF's `awq` or `scale-estimation` (`int4-asym-g64+awq`).
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from functools import lru_cache

from knowledge.base import AdvisorError, printable
from knowledge.ggml import ggml_types
from knowledge.records import ModelSpec, Precision, precision_class
from knowledge.tables import read_rows

_RATIO = re.compile(r"(?P<base>.+?)[-_ ]*r(?P<ratio>0?\.\d{1,3}|[01]|1\.0+)")
_BACKUP = re.compile(r"(?P<base>.+?)[-_ ]*b(?:ackup)?[-_ ]*(?P<backup>none|int8[-_ ]?sym)", re.IGNORECASE)
_OVERRIDE = re.compile(r"[a-z0-9_.]{1,48}")
_LIMIT = 120
_IMATRIX = "imatrix"
_METHODS = {_IMATRIX: "llama.cpp", "awq": "openvino", "scale-estimation": "openvino"}  # what a name may end in


@lru_cache(maxsize=1)
def load_precisions() -> tuple[Precision, ...]:
    """Every precision of the table, in its order: by framework, highest first."""
    return tuple(_precision(row) for row in read_rows("precisions.csv"))


def default_precision(framework: str) -> Precision:
    """The recipe that a framework's users start from."""
    return next(p for p in load_precisions() if p.framework == framework and p.default)


def resolve_precision(text: str, framework: str | None = None) -> list[Precision]:
    """The precisions that `text` names, at most one per framework; with `framework`, only that one's.

    Accepts any case and separators, the frameworks' own spellings, families (`int4`, `8bit`), ratios and mixes.
    Raises AdvisorError `unknown-precision` with the nearest names.
    """
    if len(text) <= _LIMIT:
        for resolve in (_mix, _plain, _with_ratio, _with_backup):
            found = [p for p in resolve(text.strip()) if framework in (None, p.framework)]
            if found:
                return found
    raise AdvisorError("unknown-precision", _unknown(text, framework), f"did you mean {_nearest(text, framework)}?")


def stored_precision(spec: ModelSpec) -> Precision:
    """The precision that a model which a framework's own tools have made is stored in: the table's, or one of its own
    name where the table has none (the file does not tell how its values were rounded)."""
    try:
        found = resolve_precision(spec.source_precision, spec.source_framework)
    except AdvisorError:
        found = []
    if found and found[0].name == spec.source_precision:
        return found[0]
    bits = 8 * sum(t.stored_bytes or 0 for t in spec.tensors) / max(1, spec.params)
    return Precision(
        framework=spec.source_framework,
        name=spec.source_precision,
        nominal_bits=spec.source_bits,
        bits=round(bits, 4),
        precision_class=precision_class(spec.source_bits),
        scheme=spec.source_framework,
        symmetric="asym" not in spec.source_precision,
        method="stored",
        note="as it is stored",
        source="read from the file",
    )


def overrides_of(precision: Precision) -> tuple[tuple[str, str], ...]:
    """What differs in a mix: (pattern, precision name) pairs, in the order in which they apply."""
    pairs = precision.settings.get("tensor_types", ())
    return tuple((str(pattern), str(kind)) for pattern, kind in pairs)  # type: ignore[attr-defined]


def uses_imatrix(precision: Precision) -> bool:
    """Whether an importance matrix goes into it: because its type needs one, or because the name says so."""
    return bool(precision.settings.get(_IMATRIX))


def method_of(precision: Precision) -> str:
    """The method that the name asks for, `awq` or `scale-estimation`; empty where it asks for none."""
    return str(precision.settings.get("made_by", ""))


def plain_name(precision: Precision) -> str:
    """The name without the method that it is to be made by."""
    name, _, last = precision.name.rpartition("+")
    return name if last in _METHODS else precision.name


def ratio_of(precision: Precision) -> float:
    """The share of the weights (embedding and head apart) that gets the low precision."""
    ratio = precision.settings.get("ratio", 1.0)
    return float(ratio) if isinstance(ratio, int | float | str) else 1.0


def _plain(text: str) -> list[Precision]:
    return [] if "+" in text else _index().get(_normal(text), [])


def _with_ratio(text: str) -> list[Precision]:
    match = _RATIO.fullmatch(text)
    if not match:
        return []
    ratio = float(match["ratio"])
    bases = [p for p in _plain(match["base"]) if p.framework == "openvino" and p.nominal_bits == 4]
    if not bases or not 0 < ratio <= 1:
        return []
    base = bases[0]
    if ratio == 1:
        return [base]
    bits = round(ratio * base.bits + (1 - ratio) * 8, 4)
    settings = {**base.settings, "ratio": ratio}
    return [replace(base, name=f"{base.name}-r{ratio:g}", bits=bits, settings=settings, default=False, aliases=())]


def _with_backup(text: str) -> list[Precision]:
    match = _BACKUP.fullmatch(text)
    bases = [*_plain(match["base"]), *_with_ratio(match["base"])] if match else []
    bases = [p for p in bases if p.framework == "openvino" and p.nominal_bits == 4]
    if not match or not bases:
        return []
    backup = "none" if match["backup"].lower() == "none" else "int8_sym"
    base = bases[0]
    ratio = ratio_of(base)
    bits = round(base.bits + (1 - ratio) * 8, 4) if backup == "none" else base.bits
    name = f"{base.name}-b{backup.replace('_', '-')}"
    return [replace(base, name=name, bits=bits, settings={**base.settings, "backup_mode": backup}, default=False,
                    aliases=())]  # fmt: skip


def _mix(text: str) -> list[Precision]:
    base_text, *parts = text.split("+")
    if not parts:
        return []
    mixes = []
    method = _normal(parts[-1]).replace("scaleestimation", "scale-estimation")
    method = method if method in _METHODS else ""
    if method:
        parts.pop()
    for base in _plain(base_text) or _with_ratio(base_text):
        if method:
            most = 8 if method == _IMATRIX else 4
            if base.framework != _METHODS[method] or base.nominal_bits > most:
                continue
            base = _made_by(base, method)
        if not parts:
            mixes.append(base)
            continue
        pairs = [_override(part, base.framework) for part in parts]
        if base.framework not in ("llama.cpp", "openvino", "olive") or None in pairs:
            continue
        known = [pair for pair in pairs if pair is not None]
        plain, *suffix = base.name.split("+")
        name = "+".join([plain, *(f"{pattern}={kind}" for pattern, kind in known), *suffix])
        settings = {**base.settings, "tensor_types": [list(pair) for pair in known]}
        mixes.append(replace(base, name=name, settings=settings, method="mix", default=False, aliases=()))
    return mixes


def _made_by(base: Precision, method: str) -> Precision:
    """`base` made by `method`; itself where it always is made with an importance matrix."""
    if method == _IMATRIX and uses_imatrix(base):
        return base
    how = {_IMATRIX: True} if method == _IMATRIX else {"made_by": method}
    return replace(base, name=f"{base.name}+{method}", settings={**base.settings, **how}, default=False, aliases=())


def _override(part: str, framework: str) -> tuple[str, str] | None:
    pattern, _, kind = part.partition("=")
    pattern = pattern.strip()
    if not _OVERRIDE.fullmatch(pattern):
        return None
    if framework == "llama.cpp":
        name = kind.strip().upper()
        return (pattern, name) if name in ggml_types() else None
    found = [p.name for p in (*_plain(kind), *_with_ratio(kind)) if p.framework == framework]
    return (pattern, found[0]) if found else None


def _normal(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "", text.lower())


@lru_cache(maxsize=1)
def _index() -> dict[str, list[Precision]]:
    """Precisions by normalized name; an own name comes before another row's alias within a framework."""
    index: dict[str, list[Precision]] = {}
    for names in (lambda p: (p.name,), lambda p: p.aliases):
        for precision in load_precisions():
            for name in names(precision):
                rows = index.setdefault(_normal(name), [])
                if all(row.framework != precision.framework for row in rows):
                    rows.append(precision)
    order = list(dict.fromkeys(precision.framework for precision in load_precisions()))
    for rows in index.values():
        rows.sort(key=lambda precision: order.index(precision.framework))
    return index


def _unknown(text: str, framework: str | None) -> str:
    shown = printable(text, 60)
    others = {p.framework for resolve in (_plain, _with_ratio) for p in resolve(text[:_LIMIT])}
    if framework and others:
        return f"{framework} has no precision {shown!r}: it is one of {', '.join(sorted(others))}."
    return f"There is no precision {shown!r}" + (f" for {framework}." if framework else ".")


def _nearest(text: str, framework: str | None, count: int = 3) -> str:
    key = _normal(text[:_LIMIT])
    names = [p.name for p in load_precisions() if framework in (None, p.framework)]
    names = list(dict.fromkeys(names))
    names.sort(key=lambda name: -difflib.SequenceMatcher(None, key, _normal(name), autojunk=False).ratio())
    return ", ".join(names[:count])


def _precision(row: dict[str, str]) -> Precision:
    nominal_bits = int(row["nominal_bits"])
    return Precision(
        framework=row["framework"],
        name=row["name"],
        nominal_bits=nominal_bits,
        bits=float(row["bits"]),
        precision_class=precision_class(nominal_bits),
        scheme=row["scheme"],
        group_size=int(row["group_size"]),
        symmetric=row["symmetric"] == "yes",
        method=row["method"],
        needs_imatrix=row["needs_imatrix"] == "yes",
        native_only=row["native_only"] == "yes",
        default=row["default"] == "yes",
        aliases=tuple(row["aliases"].split()),
        settings={key: _value(value) for key, value in (pair.split("=", 1) for pair in row["settings"].split())}
        | ({_IMATRIX: True} if row["needs_imatrix"] == "yes" else {}),
        note=row["note"],
        source=row["source"],
    )


def _value(text: str) -> object:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
