"""The history: append-only, per machine, migrated, and never a reason for a run to fail."""

from __future__ import annotations

import csv
import io
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from executors import history
from executors.history import Measured, calibration_rows, export, forget, list_history, migrate, record_run
from knowledge.base import AdvisorError

ROW = Measured(
    "run-1", "2026-11-23T10:00:00Z", "machine-1", "Tiny", "llama.cpp", "1", "cpu", "Q8_0", "decode_tps", 40, 50, 60, 55
)


def test_what_was_recorded_is_listed_for_its_machine_alone() -> None:
    other = replace(ROW, run_id="run-2", fingerprint="machine-2")
    assert record_run([ROW]) is None
    assert record_run([other]) is None
    assert list_history("machine-1") == [ROW]
    assert list_history() == [ROW, other]
    assert list_history("machine-3") == []


def test_recording_a_run_again_changes_nothing() -> None:
    record_run([ROW])
    record_run([replace(ROW, measured=99.0)])
    assert list_history() == [ROW]


def test_rows_cannot_be_changed() -> None:
    record_run([ROW])
    connection = sqlite3.connect(history.history_path())
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute("UPDATE measurements SET measured = 1")
    connection.close()


@pytest.mark.parametrize(
    "row", [replace(ROW, mid=None), replace(ROW, mid=0.0), replace(ROW, measured=0.0), replace(ROW, fingerprint="")]
)
def test_only_pairs_of_a_probed_machine_calibrate(row: Measured) -> None:
    record_run([row])
    assert calibration_rows("machine-1") == []
    assert calibration_rows("") == []


def test_a_pair_calibrates_its_own_machine() -> None:
    record_run([ROW])
    assert calibration_rows("machine-1") == [ROW]
    assert calibration_rows("machine-2") == []


def test_forgetting_removes_what_was_named() -> None:
    rows = [replace(ROW, run_id=f"run-{n}", fingerprint=f"machine-{n % 2}") for n in range(6)]
    record_run(rows)
    assert forget(run_id="run-0") == 1
    assert forget(fingerprint="machine-1") == 3
    assert [row.run_id for row in list_history()] == ["run-2", "run-4"]
    assert forget() == 2
    assert list_history() == []


def test_the_export_is_csv_with_a_header() -> None:
    record_run([replace(ROW, model='a "model", with commas')])
    (row,) = csv.DictReader(io.StringIO(export()))
    assert row["model"] == 'a "model", with commas'
    assert float(row["measured"]) == 55


def test_without_a_history_there_is_nothing_and_no_file(advisor_home: Path) -> None:
    assert list_history() == []
    assert forget() == 0
    assert not advisor_home.exists()


def test_migrations_run_once_and_keep_the_rows() -> None:
    record_run([ROW])
    connection = sqlite3.connect(history.history_path(), isolation_level=None)
    later = (
        *history.MIGRATIONS,
        "ALTER TABLE measurements ADD COLUMN note TEXT NOT NULL DEFAULT '';\nCREATE TABLE t (x);",
    )
    for _ in range(2):
        migrate(connection, later)
    assert connection.execute("SELECT run_id, note FROM measurements").fetchall() == [("run-1", "")]
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_history_of_a_newer_advisor_is_left_alone() -> None:
    record_run([ROW])
    connection = sqlite3.connect(history.history_path(), isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    warning = record_run([replace(ROW, run_id="run-2")])
    assert warning is not None
    assert "newer advisor" in warning
    with pytest.raises(AdvisorError, match="newer advisor"):
        list_history()


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_history_is_one_sentence(content: bytes, advisor_home: Path) -> None:
    advisor_home.mkdir()
    history.history_path().write_bytes(content)
    assert "cannot be used" in (record_run([ROW]) or "")
    with pytest.raises(AdvisorError, match="cannot be used") as broken:
        list_history()
    assert broken.value.exit_code == 2
    assert history.history_path().read_bytes() == content


def test_a_locked_history_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    record_run([ROW])
    monkeypatch.setattr(history, "_BUSY_SECONDS", 0.1)
    connection = sqlite3.connect(history.history_path(), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    warning = record_run([replace(ROW, run_id="run-2")])
    connection.close()
    assert warning is not None
    assert "locked" in warning
    assert list_history() == [ROW]


def test_a_home_that_is_a_file_is_one_sentence(advisor_home: Path) -> None:
    advisor_home.write_text("mine")
    assert "cannot be used" in (record_run([ROW]) or "")
    assert advisor_home.read_text() == "mine"


def test_writers_at_the_same_time_lose_nothing() -> None:
    script = (
        "import sys\nfrom dataclasses import replace\nfrom test_history import ROW, record_run\n"
        "for n in range(20): assert record_run([replace(ROW, run_id=f'{sys.argv[1]}-{n}')]) is None"
    )
    folder = str(Path(__file__).parent)
    writers = [subprocess.Popen([sys.executable, "-c", script, str(n)], cwd=folder) for n in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(list_history()) == 60
