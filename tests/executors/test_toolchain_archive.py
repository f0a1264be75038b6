"""What a toolchain takes out of a source archive: the named files of the pinned archive, and nothing else."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tiny_wheels import pretend_installed, write_locks, write_wheel

from executors.toolchain import install_toolchain, installed_version, state, toolchain_folder
from executors.toolchain_lock import Archive, Recipe, find_recipe
from executors.worker import toolchain as worker
from executors.worker.protocol import WorkerError
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError

FILES = {
    "some_tool-1.2/vendor/tool/convert.py": b"print('converted')\n",
    "some_tool-1.2/vendor/tool/parts/one.py": b"one = 1\n",
    "some_tool-1.2/vendor/tool/secret.py": b"not asked for\n",
    "some_tool-1.2/vendor/tool/parts/../../../../../escaped.py": b"no\n",
    "some_tool-1.2/setup.py": b"raise SystemExit\n",
}
LINK = "some_tool-1.2/vendor/tool/parts/link.py"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An archive in the folder `wheels`, with a link, a file that climbs out, and more than is asked for."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "some_tool-1.2.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, content in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo(LINK)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Archive("some-tool", "1.2", sha256, "vendor/tool", ("convert.py", "parts/"), "share/tool")


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "progress", lambda *words: None)


def extract(archive: Archive, tmp_path: Path) -> dict[str, Any]:
    request = asdict(archive) | {"place": str(tmp_path / "env" / archive.place), "temporary": str(tmp_path)}
    return worker.extract(request | {"wheels": str(tmp_path / "wheels")})


def test_only_the_named_files_are_kept(archive: Archive, tmp_path: Path) -> None:
    assert extract(archive, tmp_path) == {"files": 2}
    found = {path.relative_to(tmp_path / "env").as_posix() for path in (tmp_path / "env").rglob("*.py")}
    assert found == {"share/tool/convert.py", "share/tool/parts/one.py"}
    assert not list(tmp_path.rglob("escaped.py"))


def test_another_archive_of_that_name_is_refused(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(WorkerError) as caught:
        extract(replace(archive, sha256="0" * 64), tmp_path)
    assert caught.value.code == "wrong-archive"
    assert not (tmp_path / "env").exists()


def test_a_folder_without_the_archive_is_refused(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(WorkerError) as caught:
        extract(replace(archive, version="1.3"), tmp_path)
    assert caught.value.code == "no-wheels"


def test_an_archive_that_grows_without_end_is_refused(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_ARCHIVED_BYTES", 20)
    with pytest.raises(WorkerError) as caught:
        extract(archive, tmp_path)
    assert caught.value.code == "wrong-archive"


def test_llama_cpp_s_converter_is_of_the_version_that_runs() -> None:
    kept = find_recipe("export").archive
    assert kept is not None
    assert kept.version == find_recipe("llama.cpp").version
    assert "convert_hf_to_gguf.py" in kept.members


# ---- a whole environment


@pytest.fixture
def recipe(archive: Archive, tmp_path: Path) -> Recipe:
    write_wheel(tmp_path / "wheels", "tiny", "1.0", "import tiny_helper\n")
    write_wheel(tmp_path / "wheels", "tiny-helper", "2.0", "answer = 42\n")
    return replace(write_locks(tmp_path / "locks"), archive=archive)


def test_an_environment_without_its_archive_is_broken(recipe: Recipe, advisor_home: Path) -> None:
    pretend_installed(recipe)
    assert state(replace(recipe, archive=None))["status"] == "ok"
    assert state(recipe)["text"] == "it lacks convert.py"


def test_an_environment_of_other_versions_is_not_run(recipe: Recipe, advisor_home: Path) -> None:
    pretend_installed(recipe, packages={"tiny": "0.9", "tiny-helper": "2.0"}, version="0.9")
    with pytest.raises(AdvisorError) as caught:
        installed_version(recipe.framework, recipe.lock.parent)
    assert (caught.value.code, caught.value.exit_code) == ("other-version", EXIT_TOOLCHAIN_MISSING)
    assert "tiny is 0.9 and 1.0 is pinned" in caught.value.message
    pretend_installed(recipe, version="0.9")
    assert installed_version(recipe.framework, recipe.lock.parent) == "0.9"


def test_offline_without_the_archive_is_one_sentence_before_anything_is_made(
    recipe: Recipe, tmp_path: Path, advisor_home: Path
) -> None:
    (tmp_path / "wheels" / "some_tool-1.2.tar.gz").unlink()
    with pytest.raises(AdvisorError) as caught:
        install_toolchain(recipe, wheels=tmp_path / "wheels")
    assert (caught.value.code, caught.value.exit_code) == ("no-wheels", EXIT_TOOLCHAIN_MISSING)
    assert "the source archive of some-tool==1.2" in caught.value.message
    assert "--no-binary some-tool" in caught.value.hint
    assert not toolchain_folder(recipe.framework).exists()


@pytest.mark.slow
def test_a_whole_environment_holds_the_files(recipe: Recipe, tmp_path: Path, advisor_home: Path) -> None:
    found = install_toolchain(recipe, wheels=tmp_path / "wheels")
    assert found["status"] == "ok"
    assert (toolchain_folder(recipe.framework) / "share/tool/parts/one.py").read_text() == "one = 1\n"
