"""advisor toolchain and what doctor says of it, through the command."""

import json
from pathlib import Path

import pytest

NAMES = ["llama.cpp", "openvino", "olive", "mlx", "export"]


def test_every_framework_is_listed_with_its_size_and_time(call) -> None:
    document = call("toolchain", "list", "--json").document
    assert document["schema"] == "advisor.toolchains/1"
    assert [one["framework"] for one in document["toolchains"]] == NAMES
    for one in document["toolchains"]:
        assert one["status"] == "missing"
        assert min(one["download_bytes"], one["disk_bytes"], one["seconds"], one["packages"]) > 0
        assert Path(one["lock"]).is_file()
    shown = call("toolchain", "list")
    assert "not installed" in shown.out
    assert "advisor toolchain install openvino" in shown.out


def test_a_missing_toolchain_is_exit_6_only_when_it_is_named(call) -> None:
    assert call("toolchain", "check", "--json").code == 0
    named = call("toolchain", "check", "mlx", "--json")
    assert named.code == 6
    assert [(one["framework"], one["status"]) for one in named.document["toolchains"]] == [("mlx", "missing")]


def test_a_half_installed_toolchain_is_told_by_check_and_doctor(call, advisor_home: Path) -> None:
    (advisor_home / "toolchains" / "openvino.partial").mkdir(parents=True)
    checked = call("toolchain", "check", "--json")
    assert checked.code == 6
    assert "half-installed" in checked.document["toolchains"][1]["text"]
    found = {check["id"]: check for check in call("doctor", "--json").document["checks"]}
    assert found["toolchain-openvino"]["status"] == "warn"
    assert found["toolchain-openvino"]["hint"] == "advisor toolchain install openvino"
    assert "toolchain-mlx" not in found


def test_a_toolchain_of_another_version_is_told(call, advisor_home: Path) -> None:
    folder = advisor_home / "toolchains" / "openvino"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("")
    record = {"framework": "openvino", "python": str(folder / "bin" / "python"), "packages": {"openvino": "2025.1.0"}}
    (folder / "toolchain.json").write_text(json.dumps(record))
    result = call("toolchain", "check", "openvino", "--json")
    assert result.code == 6
    assert "is pinned" in result.document["toolchains"][0]["text"]


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["instal"], 2, "install"),
        (["install"], 2, "openvino"),
        (["install", "tensorflow"], 2, "openvino"),
        (["install", "../openvino"], 2, "openvino"),
        (["list", "--offline", "wheels"], 2, "install"),
        (["install", "openvino", "--offline", ""], 2, "folder"),
        (["install", "openvino", "--offline", "nowhere"], 6, "pip wheel"),
    ],
)
def test_bad_toolchain_commands_say_what_to_do(call, arguments: list[str], code: int, word: str, advisor_home) -> None:
    result = call("toolchain", *arguments, "--json")
    assert result.code == code
    assert word in result.document["error"]["hint"]
    assert not advisor_home.exists()


def test_a_folder_that_lacks_wheels_is_exit_6_and_names_one(call, tmp_path: Path) -> None:
    (tmp_path / "numpy-2.4.6-cp311-cp311-linux_x86_64.whl").write_bytes(b"")
    result = call("toolchain", "install", "openvino", "--offline", str(tmp_path), "--json")
    assert result.code == 6
    assert result.document["error"]["code"] == "no-wheels"
    assert "lacks" in result.document["error"]["message"]
