"""`predict --batch`: rows of a CSV file in, the same rows with low, mid, high, basis and note out (DESIGN section 4).

Rows are answered one by one: whatever is odd in a cell is told in the row's note. Only a file that is no table at all
is an error.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advisor.case import METRICS
from advisor.learned import load_predictor, words_of
from advisor.workload import case_of_row
from knowledge.base import MIB, AdvisorError, atomic_write, file_error, printable
from knowledge.measurements import COLUMNS

_ADDED = ("low", "mid", "high", "basis", "note")
_LIMIT_BYTES = 256 * MIB
_NEEDED = ("model", "params_b", "file_size_gib")
_METRIC_WORDS = (
    ("ttft", "ttft_ms"), ("first", "ttft_ms"), ("mem", "peak_mem_gb"), ("prefill", "prefill_tps"),
    ("prompt", "prefill_tps"), ("pp", "prefill_tps"), ("decode", "decode_tps"), ("gen", "decode_tps"),
    ("tg", "decode_tps"),
)  # fmt: skip


def predict_file(source: Path, target: Path) -> dict[str, Any]:
    """Answer every row of `source` into `target`; how many, and which notes were made.

    Raises AdvisorError `unreadable` or `bad-data` where nothing can be read, and those of writing.
    """
    header, rows, troubles = _read(source)
    predictor = load_predictor()
    notes: Counter[str] = Counter()
    answered = 0
    columns = [name for name in header if name not in _ADDED]
    with atomic_write(target) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *_ADDED])
        count = 0
        for row in rows:
            count += 1
            low, mid, high, basis, said = _answer(predictor, row)
            said = [*troubles, *said]
            answered += bool(mid)
            notes.update(said)
            writer.writerow([*(row.get(name) or "" for name in columns), low, mid, high, basis, "; ".join(said)])
    return {
        "schema": "advisor.predict/1", "rows": count, "answered": answered, "out": str(target),
        "notes": dict(notes.most_common(20)),
    }  # fmt: skip


def _answer(predictor: Any, row: dict[str, str]) -> tuple[str, str, str, str, list[str]]:
    metric, said = _metric(row)
    case, notes = case_of_row(row)
    said += notes
    if case is None:
        return "", "", "", "", said
    estimate = predictor.estimate(case, metric)
    values = (estimate.low, estimate.mid, estimate.high)
    if not all(map(math.isfinite, values)):
        return "", "", "", "", [*said, "the figures given are beyond what can be computed"]
    low, mid, high = (f"{value:.6g}" for value in values)
    return low, mid, high, words_of(estimate), said


def _metric(row: dict[str, str]) -> tuple[str, list[str]]:
    written = (row.get("metric") or "").strip().lower()
    if written in METRICS:
        return written, []
    guess = next((metric for word, metric in _METRIC_WORDS if word in written), None)
    if guess:
        return guess, [f"metric understood as {guess}"]
    what = f"metric {printable(written, 40)!r} is not known" if written else "no metric given"
    return "decode_tps", [f"{what}, decode_tps predicted"]


def _read(path: Path) -> tuple[list[str], Iterator[dict[str, str]], list[str]]:
    """The header, the rows, and what is to be noted of the file itself."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except FileNotFoundError as error:
        raise AdvisorError("not-found", f"There is no file {path}.", "check the path") from error
    except OSError as error:
        raise file_error(error, path) from error
    if len(data) > _LIMIT_BYTES:
        raise AdvisorError("bad-data", f"{path} is larger than {_LIMIT_BYTES // MIB} MiB.", "split the file")
    text, troubles = _decode(data)
    lines = io.StringIO(text.replace("\0", "\N{REPLACEMENT CHARACTER}"), newline="")
    reader = csv.reader(lines, delimiter=_delimiter(text), strict=False)
    csv.field_size_limit(16 * MIB)
    try:
        header = [cell.strip().lstrip("\N{ZERO WIDTH NO-BREAK SPACE}") for cell in next(reader, [])]
    except csv.Error:
        header = []
    names = [cell.lower().replace(" ", "_") for cell in header]
    if not any(name in names for name in _NEEDED):
        hint = f"the first line names the columns: {', '.join(COLUMNS)}"
        raise AdvisorError("bad-data", f"{path} has none of the columns {', '.join(_NEEDED)}.", hint)
    if missing := [name for name in COLUMNS if name not in names]:
        troubles.append(f"columns missing: {', '.join(missing)}")
    return names, _rows(reader, names), troubles


def _rows(reader: Any, names: list[str]) -> Iterator[dict[str, str]]:
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield {}
            continue
        if cells:
            yield dict(zip(names, cells, strict=False))


def _decode(data: bytes) -> tuple[str, list[str]]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace"), ["read as UTF-16"]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", errors="replace"), ["not all of the file is UTF-8"]


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t|", key=first.count)
