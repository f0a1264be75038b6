"""Isolated environments, made for real from tiny wheels of the test's own: whole, damaged, killed, refused."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_wheels import FRAMEWORK, write_locks, write_wheel

from executors.folder import RunFolder, locked
from executors.interpreters import MODULES, interpreter_for
from executors.toolchain import (
    RECORD,
    check_toolchain,
    install_toolchain,
    installed_version,
    state,
    toolchain_folder,
)
from executors.toolchain_lock import LOCKS, Recipe, find_recipe, package_of, read_pins, recipes
from knowledge.base import EXIT_BAD_INPUT, EXIT_TOOLCHAIN_MISSING, AdvisorError
from knowledge.matrix import load_frameworks
from probes.system import find_toolchains

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "tiny", "1.0", "import tiny_helper\n")
    write_wheel(folder, "tiny-helper", "2.0", "answer = 42\n")
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return write_locks(tmp_path / "locks")


@pytest.fixture(scope="module")
def made(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A home with the whole environment, made once, and what was told meanwhile."""
    base, told = tmp_path_factory.mktemp("made"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADVISOR_HOME", str(base / "home"))
        found = write_locks(base / "locks")
        install_toolchain(found, wheels=wheels, on_event=lambda event: told.append(str(event["text"])))
    return base / "home", told


@pytest.fixture
def home(made: tuple[Path, list[str]], advisor_home: Path) -> Path:
    """A copy of the whole environment, as this test's own home."""
    shutil.copytree(made[0], advisor_home, symlinks=True)
    record = toolchain_folder(FRAMEWORK) / RECORD
    document = json.loads(record.read_text())
    document["python"] = document["python"].replace(str(made[0]), str(advisor_home))
    record.write_text(json.dumps(document))
    return advisor_home


def refused(recipe: Recipe, **options: Any) -> AdvisorError:
    with pytest.raises(AdvisorError) as caught:
        install_toolchain(recipe, **options)
    return caught.value


def packages_of(home: Path) -> Path:
    return next((home / "toolchains" / FRAMEWORK).glob("lib/python*/site-packages"))


# ---- what ships


@pytest.mark.parametrize("name", [row.name for row in load_frameworks()])
def test_every_framework_has_a_lock_of_the_version_that_is_known(name: str) -> None:
    recipe = find_recipe(name)
    row = next(row for row in load_frameworks() if row.name == name)
    assert recipe.version == row.version
    assert recipe.pins[row.python].startswith(row.version)


def test_workers_can_ask_for_every_toolchain_by_its_name() -> None:
    assert set(recipes()) == set(MODULES)
    assert all(one.download_bytes < one.disk_bytes and one.temporary_bytes and one.source for one in recipes().values())


def test_the_toolchain_that_only_exports_is_no_framework_of_the_profile(home: Path) -> None:
    record = toolchain_folder("export") / RECORD
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"framework": "export", "version": "1", "python": "/nowhere", "packages": {}}))
    toolchains, notes = find_toolchains()
    assert "export" not in [one.framework for one in toolchains]
    assert not notes


@pytest.mark.parametrize("extra", ["llamacpp", "openvino", "olive", "mlx"])
def test_a_lock_agrees_with_the_extra_of_the_same_framework(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    pins = find_recipe({"llamacpp": "llama.cpp"}.get(extra, extra)).pins
    exact = [line.split("==") for line in project[extra] if "==" in line and ";" not in line]
    assert exact
    assert all(pins.get(name, version) == version for name, version in exact)


def test_locks_hold_pins_alone_and_name_no_place() -> None:
    for path in LOCKS.glob("*.lock.txt"):
        text = path.read_text("utf-8")
        assert not re.search(r"://|@|--", text), path.name
        assert text.count("==") >= len(read_pins(text)) > 4


def test_torch_is_the_build_without_cuda_on_linux() -> None:
    for path in LOCKS.glob("*.lock.txt"):
        pins = read_pins(path.read_text("utf-8"), "linux")
        assert pins.get("torch", "+cpu").endswith("+cpu")
        assert not [name for name in pins if name.startswith(("nvidia", "triton"))]
    assert "mlx-cpu" not in read_pins((LOCKS / "mlx.lock.txt").read_text("utf-8"), "darwin")


def test_the_build_of_llama_cpp_names_a_file_that_is_there() -> None:
    arguments = find_recipe("llama.cpp").build["CMAKE_ARGS"]
    include = re.search(r"CMAKE_PROJECT_INCLUDE=(\S+)", arguments)
    assert include is not None
    assert Path(include[1]).is_file()


@pytest.mark.parametrize("line", ["tiny", "tiny>=1", "tiny==1 extra", "-r other.txt", "tiny @ file.whl"])
def test_a_lock_line_that_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a pin"):
        read_pins(line)


@pytest.mark.parametrize(
    ("file", "package"),
    [
        ("llama_cpp_python-0.3.36.tar.gz", ("llama-cpp-python", "0.3.36")),
        ("torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl", ("torch", "2.13.0+cpu")),
        ("openvino-2026.4.1-21938-cp311-cp311-manylinux2014_x86_64.whl", ("openvino", "2026.4.1")),
        ("notes.txt", ("", "")),
    ],
)
def test_a_file_name_tells_the_package(file: str, package: tuple[str, str]) -> None:
    assert package_of(file) == package


# ---- an environment that was made


def test_a_whole_environment_is_used_by_workers_and_seen_by_the_probes(home: Path, recipe: Recipe) -> None:
    python = interpreter_for(FRAMEWORK)
    assert python.is_relative_to(home)
    done = subprocess.run([python, "-I", "-c", "import tiny_helper; print(tiny_helper.answer)"], capture_output=True)
    assert done.stdout.strip() == b"42"
    toolchains, notes = find_toolchains()
    assert [(one.framework, one.version, one.kind) for one in toolchains if one.kind == "isolated"] == [
        (FRAMEWORK, "1.0", "isolated")
    ]
    assert not notes
    assert installed_version(FRAMEWORK, recipe.lock.parent) == "1.0"
    assert check_toolchain(recipe)["status"] == "ok"


def test_sizes_and_time_are_told_before_anything_is_made(made: tuple[Path, list[str]]) -> None:
    first = made[1][0]
    assert "2 packages" in first
    assert "19.1 MiB on disk" in first
    assert "min" in first
    assert [line[:5] for line in made[1] if line.startswith("[")] == ["[1/3]", "[2/3]", "[3/3]"]
    assert (made[0] / "toolchains" / f"{FRAMEWORK}.log").read_text().count("Successfully installed") == 1


def test_a_whole_environment_leaves_nothing_unfinished(made: tuple[Path, list[str]]) -> None:
    folder = made[0] / "toolchains"
    assert not list(folder.glob("*.partial"))
    assert not (folder / FRAMEWORK / "tmp").exists()


def test_installing_again_does_nothing(home: Path, recipe: Recipe, wheels: Path) -> None:
    record = toolchain_folder(FRAMEWORK) / RECORD
    before = record.stat().st_mtime_ns
    told: list[str] = []
    found = install_toolchain(recipe, wheels=wheels, on_event=lambda event: told.append(str(event["text"])))
    assert (found["status"], told) == ("ok", [f"{FRAMEWORK} is installed and sound"])
    assert record.stat().st_mtime_ns == before


def test_a_package_of_another_version_is_found_and_named(home: Path, recipe: Recipe) -> None:
    metadata = packages_of(home) / "tiny_helper-2.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 2.0", "Version: 2.1"))
    found = check_toolchain(recipe)
    assert (found["status"], found["text"]) == ("broken", "tiny-helper is 2.1 and 2.0 is pinned")
    assert found["hint"] == f"advisor toolchain install {FRAMEWORK}"


def test_a_lock_that_moved_on_makes_the_environment_old(home: Path, recipe: Recipe) -> None:
    newer = replace(recipe, pins={**recipe.pins, "tiny": "1.1", "other": "1"})
    assert state(newer)["text"] == "tiny is 1.0 and 1.1 is pinned (and 1 more)"


def test_a_lost_file_is_found(home: Path, recipe: Recipe) -> None:
    (packages_of(home) / "tiny_helper.py").unlink()
    found = check_toolchain(recipe)
    assert found["status"] == "broken"
    assert "tiny_helper.py" in found["text"]


def test_a_framework_that_does_not_load_is_found(home: Path, recipe: Recipe) -> None:
    (packages_of(home) / "tiny.py").write_text("raise OSError('built for another CPU')\n")
    found = check_toolchain(recipe)
    assert found["status"] == "broken"
    assert "built for another CPU" in found["text"]


def test_a_lost_interpreter_is_found(home: Path, recipe: Recipe) -> None:
    Path(state(recipe)["python"]).unlink()
    assert "interpreter is gone" in check_toolchain(recipe)["text"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"python": 1}', '{"python": "/x", "packages": 3}'])
def test_a_damaged_record_is_a_broken_toolchain(home: Path, recipe: Recipe, content: str) -> None:
    (toolchain_folder(FRAMEWORK) / RECORD).write_text(content)
    assert state(recipe)["status"] == "broken"


@pytest.mark.slow
def test_a_broken_environment_is_repaired_by_installing_again(home: Path, recipe: Recipe, wheels: Path) -> None:
    (packages_of(home) / "tiny_helper.py").unlink()
    assert install_toolchain(recipe, wheels=wheels)["status"] == check_toolchain(recipe)["status"] == "ok"


# ---- what is refused


def test_a_folder_without_the_wheels_is_refused_before_anything_is_made(
    recipe: Recipe, tmp_path: Path, advisor_home: Path
) -> None:
    write_wheel(tmp_path, "tiny", "1.0", "")
    error = refused(recipe, wheels=tmp_path)
    assert (error.code, error.exit_code) == ("no-wheels", EXIT_TOOLCHAIN_MISSING)
    assert "tiny-helper==2.0" in error.message
    assert not advisor_home.exists()
    assert refused(recipe, wheels=tmp_path / "nowhere").code == "no-wheels"


@pytest.mark.slow
def test_a_damaged_wheel_leaves_no_environment(recipe: Recipe, wheels: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(wheels, tmp_path / "damaged")
    (folder / "tiny-1.0-py3-none-any.whl").write_bytes(b"not a wheel")
    error = refused(recipe, wheels=folder)
    assert (error.exit_code, "tiny" in error.message) == (EXIT_TOOLCHAIN_MISSING, True)
    assert state(recipe)["status"] == "missing"


def test_an_environment_that_needs_more_disk_than_there_is_is_refused(recipe: Recipe, wheels: Path) -> None:
    error = refused(replace(recipe, disk_bytes=10**18), wheels=wheels)
    assert (error.code, error.exit_code) == ("disk-full", EXIT_TOOLCHAIN_MISSING)
    assert "free" in error.message


def test_a_python_that_the_lock_is_not_for_is_refused(recipe: Recipe) -> None:
    error = refused(replace(recipe, pythons=("3.9", "3.10")))
    assert (error.code, error.exit_code) == ("wrong-python", EXIT_TOOLCHAIN_MISSING)
    assert "3.9 or 3.10" in error.message


def test_a_home_that_cannot_be_written_is_refused(
    recipe: Recipe, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADVISOR_HOME", str(tmp_path / "file"))
    assert refused(recipe, wheels=wheels).exit_code == EXIT_BAD_INPUT


def test_a_second_installation_waits_for_nobody(recipe: Recipe, wheels: Path, advisor_home: Path) -> None:
    folder = advisor_home / "toolchains"
    folder.mkdir(parents=True)
    with locked(RunFolder(folder)):
        assert refused(recipe, wheels=wheels).code == "run-in-progress"


def test_an_unknown_framework_is_refused() -> None:
    with pytest.raises(AdvisorError) as caught:
        find_recipe("../x")
    assert all(name in caught.value.hint for name in recipes())


# ---- killed


def start_installing(recipe: Recipe, wheels: Path) -> subprocess.Popen[bytes]:
    program = (
        "import sys; from pathlib import Path; from executors.toolchain import install_toolchain;"
        "from executors.toolchain_lock import find_recipe;"
        "install_toolchain(find_recipe(sys.argv[1], Path(sys.argv[2])), wheels=Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", program, recipe.framework, str(recipe.lock.parent), str(wheels)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


def users_of(folder: Path) -> list[str]:
    """Processes whose command line names `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


def killed_after(seconds: float, recipe: Recipe, wheels: Path) -> None:
    partial = toolchain_folder(FRAMEWORK).with_name(f"{FRAMEWORK}.partial")
    process = start_installing(recipe, wheels)
    deadline = time.monotonic() + 30
    while not partial.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while (left := users_of(partial)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_installation_leaves_no_process_and_goes_on(recipe: Recipe, wheels: Path, advisor_home: Path) -> None:
    killed_after(0.3, recipe, wheels)
    found = state(recipe)
    assert (found["status"], found["hint"]) == ("broken", f"advisor toolchain install {FRAMEWORK}")
    assert "half-installed" in found["text"]
    with pytest.raises(AdvisorError):
        interpreter_for(FRAMEWORK)
    assert install_toolchain(recipe, wheels=wheels)["status"] == "ok"
    assert not list((advisor_home / "toolchains").glob("*.partial"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_20_kills_never_leave_an_environment_that_is_taken_for_whole(recipe: Recipe, wheels: Path) -> None:
    for number in range(20):
        killed_after(number * 0.4, recipe, wheels)
        found = state(recipe)
        if found["status"] == "ok":
            assert check_toolchain(recipe)["status"] == "ok"
            shutil.rmtree(toolchain_folder(FRAMEWORK))
    assert install_toolchain(recipe, wheels=wheels)["status"] == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [1, 8, 19])
def test_a_disk_that_fills_up_meanwhile_is_one_sentence(
    recipe: Recipe, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.call(mount, stderr=subprocess.DEVNULL):
        pytest.skip("a small file system needs the right to mount one")
    large = shutil.copytree(wheels, tmp_path / "large")
    write_wheel(large, "tiny", "1.0", "import tiny_helper\n" + "#" * 10**7)
    try:
        monkeypatch.setenv("ADVISOR_HOME", str(small / "home"))
        error = refused(replace(recipe, disk_bytes=1000), wheels=large)
        assert error.exit_code == EXIT_TOOLCHAIN_MISSING
        assert error.code == "disk-full"
        assert state(recipe)["status"] == "missing"
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.slow
def test_the_openvino_environment_installs_and_loads(advisor_home: Path) -> None:
    found = install_toolchain(find_recipe("openvino"))
    assert found["status"] == "ok"
    folder = toolchain_folder("openvino")
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    assert used == pytest.approx(find_recipe("openvino").disk_bytes, rel=0.2)
    python = interpreter_for("openvino")
    program = "import openvino, importlib.util as u; print(openvino.Core().available_devices, u.find_spec('torch'))"
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert "CPU" in done.stdout
    assert done.stdout.strip().endswith("None")
