"""Measured truth: what runs on this machine measured, next to what was predicted, in `ADVISOR_HOME/history.sqlite3`.

Rows are only ever added, or removed by `forget`; a trigger refuses changes. They are keyed by the fingerprint of the
probed machine, and `calibration_rows` gives a machine its own rows alone: the caller reads them and hands them to the
decision, which does no I/O.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from knowledge.base import AdvisorError, advisor_home, exists

_BUSY_SECONDS = 5.0

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE measurements (
        run_id TEXT NOT NULL, time TEXT NOT NULL, fingerprint TEXT NOT NULL, model TEXT NOT NULL,
        framework TEXT NOT NULL, framework_version TEXT NOT NULL, backend TEXT NOT NULL, precision TEXT NOT NULL,
        metric TEXT NOT NULL, low REAL, mid REAL, high REAL, measured REAL NOT NULL,
        PRIMARY KEY (run_id, precision, metric)
    );
    CREATE INDEX measurements_by_machine ON measurements (fingerprint, time);
    CREATE TRIGGER measurements_are_final BEFORE UPDATE ON measurements
        BEGIN SELECT RAISE(ABORT, 'history is append-only'); END;
    """,
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One measured figure. `time` is UTC, ISO 8601; `low`, `mid`, `high` are the plan's prediction (None: it made none
    for this machine); units are the metric's (`decode_tps`, `ttft_ms`, `peak_rss_bytes`, ...)."""

    run_id: str
    time: str
    fingerprint: str
    model: str
    framework: str
    framework_version: str
    backend: str
    precision: str
    metric: str
    low: float | None
    mid: float | None
    high: float | None
    measured: float


_COLUMNS = tuple(field.name for field in fields(Measured))


def history_path() -> Path:
    return advisor_home() / "history.sqlite3"


def record_run(rows: Sequence[Measured]) -> str | None:
    """Add the figures of one run, once: recording it again changes nothing.

    None, or one sentence why the history could not be written: a run never fails for that.
    """
    marks = ", ".join("?" * len(_COLUMNS))
    try:
        with _open(create=True) as connection:
            connection.executemany(
                f"INSERT OR IGNORE INTO measurements ({', '.join(_COLUMNS)}) VALUES ({marks})",
                [tuple(asdict(row).values()) for row in rows],
            )
    except AdvisorError as error:
        return f"This run was not added to the history. {error.message}"
    return None


def list_history(fingerprint: str | None = None) -> list[Measured]:
    """All rows, or one machine's, oldest first. Empty without a history; AdvisorError `bad-history` if it is broken."""
    if not exists(history_path()):
        return []
    where, values = ("WHERE fingerprint = ?", (fingerprint,)) if fingerprint is not None else ("", ())
    with _open() as connection:
        cursor = connection.execute(
            f"SELECT {', '.join(_COLUMNS)} FROM measurements {where} ORDER BY time, run_id, precision, metric", values
        )
        return [Measured(*row) for row in cursor]


def calibration_rows(fingerprint: str) -> list[Measured]:
    """The rows of the machine with this fingerprint that have both a prediction and a measurement, oldest first."""
    rows = list_history(fingerprint) if fingerprint else []
    return [row for row in rows if row.mid is not None and row.mid > 0 and row.measured > 0]


def export(fingerprint: str | None = None) -> str:
    """The history as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(asdict(row).values() for row in list_history(fingerprint))
    return text.getvalue()


def forget(*, fingerprint: str | None = None, run_id: str | None = None) -> int:
    """Remove the rows of a machine or a run, or all rows where neither is named; how many there were."""
    if not exists(history_path()):
        return 0
    wanted = {"fingerprint": fingerprint, "run_id": run_id}
    named = {column: value for column, value in wanted.items() if value is not None}
    where = " AND ".join(f"{column} = ?" for column in named) or "1"
    with _open() as connection:
        return connection.execute(f"DELETE FROM measurements WHERE {where}", tuple(named.values())).rowcount


@contextmanager
def _open(*, create: bool = False) -> Iterator[sqlite3.Connection]:
    """One transaction on the migrated history; everything that can go wrong is one AdvisorError `bad-history`."""
    path = history_path()
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection)
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise AdvisorError(
            "bad-history",
            f"The history at {path} cannot be used: {error}.",
            "close other programs that use it, or move the file away to start anew",
        ) from error


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the tables up to date within the open transaction; sqlite3.DatabaseError if a newer advisor wrote them."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise sqlite3.DatabaseError("a newer advisor wrote it")
    for script in migrations[version:]:
        for statement in _statements(script):
            connection.execute(statement)
    if version < len(migrations):
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, each ending its line; `executescript` would commit the open transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
