"""Installed toolchains, the disk, and the parts of a system that are read as files."""

import json
import sys
from pathlib import Path

import pytest

from probes.reader import LiveReader, ReplayReader
from probes.system import find_toolchains, read_disk, read_system


def describe(home: Path, name: str, text: str) -> None:
    folder = home / "toolchains" / name
    folder.mkdir(parents=True)
    (folder / "toolchain.json").write_text(text, encoding="utf-8")


def test_isolated_toolchains_are_found_by_their_description(advisor_home: Path) -> None:
    described = {"framework": "openvino", "version": "2026.4.1", "python": "/opt/ov/bin/python", "more": 1}
    describe(advisor_home, "openvino", json.dumps(described))
    found, notes = find_toolchains()
    isolated = [toolchain for toolchain in found if toolchain.kind == "isolated"]
    assert [(t.framework, t.version, t.python) for t in isolated] == [("openvino", "2026.4.1", "/opt/ov/bin/python")]
    assert notes == ()


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", '{"framework": "unheard-of", "python": "x"}', '{"framework": "mlx"}', "{" * 9999]
)
def test_a_broken_description_is_left_out_and_said(advisor_home: Path, text: str) -> None:
    describe(advisor_home, "broken", text)
    found, notes = find_toolchains()
    assert not [toolchain for toolchain in found if toolchain.kind == "isolated"]
    assert "broken" in notes[0]


def test_nothing_is_imported_to_find_a_framework(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mlx_lm").mkdir()
    (tmp_path / "mlx_lm" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    found, _ = find_toolchains()
    assert "mlx" in [toolchain.framework for toolchain in found if toolchain.kind == "current"]
    assert "mlx_lm" not in sys.modules


def test_the_disk_of_a_folder_that_is_not_there_yet_is_its_parents(tmp_path: Path) -> None:
    disk, _ = read_disk(LiveReader(), tmp_path / "not" / "yet")
    assert disk.total_bytes
    assert disk.free_bytes is not None
    assert disk.path.endswith("yet")


def test_a_fat_file_system_is_warned_about(tmp_path: Path) -> None:
    class Stick(ReplayReader):
        def disk(self, path: str) -> tuple[int, int] | None:
            return 8 * 2**30, 2**30

    mounts = f"27 1 254:0 / / rw - ext4 /dev/a rw\n40 27 0:1 / {tmp_path} rw - vfat /dev/b rw\n"
    disk, notes = read_disk(Stick({"files": {"/proc/self/mountinfo": mounts}}), tmp_path)
    assert disk.filesystem == "vfat"
    assert "4 GiB" in notes[0]


@pytest.mark.parametrize(
    ("supplies", "power"),
    [
        ({"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery", "BAT0/status": "Discharging"}, "mains"),
        ({"AC/type": "Mains", "AC/online": "0"}, "battery"),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging"}, "battery"),
        ({"BAT0/type": "Battery", "BAT0/status": "Full"}, "mains"),
        ({"hid-mouse/type": "Battery", "hid-mouse/scope": "Device", "hid-mouse/status": "Discharging"}, None),
        ({}, None),
    ],
)
def test_power_supply(supplies: dict[str, str], power: str | None) -> None:
    files = {f"/sys/class/power_supply/{name}": text + "\n" for name, text in supplies.items()}
    assert read_system(ReplayReader({"files": files})).os.power == power


def test_a_recording_names_nobody() -> None:
    reader = LiveReader()
    reader.inputs["files"] = {
        "/proc/self/mountinfo": "27 1 254:0 / / rw - ext4 /dev/a rw\n40 27 0:1 / /home/alice/usb rw - vfat /dev/b rw\n",
        "/proc/cpuinfo": "processor\t: 0\nSerial\t\t: 10000000fe69593\n",
    }
    text = json.dumps(reader.recorded())
    assert "alice" not in text
    assert "fe69593" not in text
    assert "ext4" in text
