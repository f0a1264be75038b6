"""Other versions of packages beside those of an environment: kept in a folder of their own, found by who asks."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_wheels import pretend_installed, write_locks, write_wheel

from executors.toolchain import RECORD, install_toolchain, state, toolchain_folder
from executors.toolchain_lock import Beside, Recipe, find_recipe
from executors.worker import older
from executors.worker.protocol import WorkerError
from knowledge.base import AdvisorError
from knowledge.conversions import load_conversions

PLACE = "share/older"


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """An environment of tiny 1.0 with tiny 0.5 beside it; the wheels lie in `wheels`."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels, "tiny", "1.0", "answer = 'new'\n")
    write_wheel(wheels, "tiny-helper", "2.0", "answer = 42\n")
    write_wheel(wheels, "tiny", "0.5", "answer = 'old'\n")
    return replace(write_locks(tmp_path / "locks"), beside=Beside(PLACE, {"tiny": "0.5"}))


def test_both_versions_are_there_and_the_older_is_found_by_who_puts_it_first(
    recipe: Recipe, tmp_path: Path, advisor_home: Path
) -> None:
    assert install_toolchain(recipe, wheels=tmp_path / "wheels")["status"] == "ok"
    folder = toolchain_folder(recipe.framework)
    python = json.loads((folder / RECORD).read_text())["python"]
    code = "import sys; sys.path[:0] = sys.argv[1:]; import tiny; print(tiny.answer)"
    for first, answer in (([], "new"), ([str(folder / PLACE)], "old")):
        said = subprocess.run([python, "-c", code, *first], capture_output=True, text=True, check=True)
        assert said.stdout.strip() == answer


def test_an_environment_without_them_is_broken(recipe: Recipe, advisor_home: Path) -> None:
    pretend_installed(recipe)
    assert state(replace(recipe, beside=None))["status"] == "ok"
    assert (state(recipe)["status"], state(recipe)["text"]) == ("broken", "it lacks tiny 0.5")


def test_offline_without_them_is_one_sentence(recipe: Recipe, tmp_path: Path, advisor_home: Path) -> None:
    (tmp_path / "wheels" / "tiny-0.5-py3-none-any.whl").unlink()
    with pytest.raises(AdvisorError) as caught:
        install_toolchain(recipe, wheels=tmp_path / "wheels")
    assert "lacks tiny==0.5" in caught.value.message
    assert "pip download --no-deps --dest FOLDER tiny==0.5" in caught.value.hint
    assert not toolchain_folder(recipe.framework).exists()


def test_a_worker_of_an_environment_without_them_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(older, "FOLDER", tmp_path / "none")
    monkeypatch.setattr(sys, "path", list(sys.path))
    older.prefer_older({"op": "to_ir"})
    with pytest.raises(WorkerError) as caught:
        older.prefer_older({"op": "to_ir", "older": True})
    assert caught.value.code == "toolchain-missing"
    (tmp_path / "none").mkdir()
    older.prefer_older({"op": "to_ir", "older": True})
    assert sys.path[0] == str(tmp_path / "none")


def test_the_toolchains_whose_converters_need_it_keep_an_older_transformers() -> None:
    environments = {"openvino": "export", "olive": "olive"}
    needing = {environments[one.framework] for one in load_conversions().values() if one.how == "older"}
    assert needing == {"export", "olive"}
    for name in needing:
        recipe = find_recipe(name)
        assert recipe.beside is not None
        assert recipe.beside.place.endswith(older.FOLDER.name)
        assert recipe.beside.pins["transformers"].startswith("4.")
        assert recipe.pins["transformers"].startswith("5.")
