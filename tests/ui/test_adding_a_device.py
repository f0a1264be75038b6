"""docs/adding-a-device.md says what the program does: its columns, its rows, its commands."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "knowledge" / "data"
PAGE = (ROOT / "docs" / "adding-a-device.md").read_text(encoding="utf-8")
CHIPS, PRODUCTS = ((DATA / name).read_text(encoding="utf-8").splitlines() for name in ("chips.csv", "devices.csv"))
CHIP_ROW, PRODUCT_ROW = re.findall(r"```csv\n(.+)\n```", PAGE)


def test_the_page_names_every_column_and_rows_as_they_are() -> None:
    cells = [line.split(" | ")[0] for line in PAGE.splitlines() if line.startswith("| `")]
    assert [name for cell in cells for name in re.findall(r"`(\w+)`", cell)] == next(csv.reader(CHIPS[:1]))
    assert CHIP_ROW in CHIPS
    assert PRODUCT_ROW in PRODUCTS
    assert all(f"`{name}`" in PAGE for name in next(csv.reader(PRODUCTS[:1])))


def test_the_files_that_the_page_names_are_there() -> None:
    for name in re.findall(r"`((?:[\w-]+/)*\w+\.(?:csv|py))`", PAGE):
        assert name.startswith("ADVISOR_HOME/") or any(
            (folder / name).is_file() for folder in (ROOT, DATA, ROOT / "tests" / "knowledge")
        ), name


def advisor(home: Path, line: str) -> subprocess.CompletedProcess[str]:
    program = "import sys, ui.cli; sys.exit(ui.cli.main())"
    words = shlex.split(line.partition("#")[0])[1:]
    environment = {"ADVISOR_HOME": str(home), "PATH": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *words],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


def test_the_commands_of_the_page_work(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for line in PAGE.splitlines() if line.startswith("advisor ")]
    assert len(lines) >= 6
    for line in lines:
        done = call(*shlex.split(line.partition("#")[0])[1:])
        assert done.code == 0, (line, done.err)


def test_a_device_added_as_rows_is_planned_for(tmp_path: Path) -> None:
    folder = tmp_path / "frameworks" / "mine"
    folder.mkdir(parents=True)
    chip = CHIP_ROW.replace("Apple A15 Bionic,", "House Chip 7,").replace("A15|A15 Bionic|iPhone14,2|iPhone14,5", "HC7")
    product = PRODUCT_ROW.replace("Orange Pi 5 Plus", "House Board").replace("Rockchip RK3588/RK3588S", "House Chip 7")
    (folder / "chips.csv").write_text(f"{CHIPS[0]}\n{chip}\n", encoding="utf-8")
    (folder / "devices.csv").write_text(f"{PRODUCTS[0]}\n{product}\n", encoding="utf-8")
    done = advisor(tmp_path, 'advisor plan --device "house board 4GB" --os ios --json')
    assert done.returncode == 0, done.stderr
    assert '"chip": "House Chip 7"' in done.stdout
