"""Every test gets a user data folder of its own: the real one is never touched."""

import os
import tempfile
from pathlib import Path

import pytest
from house_gguf import House
from hypothesis import settings

F32, F16 = 0, 1

# What is read while modules are imported: no frameworks of whoever runs the tests.
os.environ["ADVISOR_HOME"] = str(Path(tempfile.gettempdir()) / "no-advisor-home")

# Shared machines stall for longer than hypothesis allows one example by default.
settings.register_profile("house", deadline=None)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def advisor_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "advisor-home"
    monkeypatch.setenv("ADVISOR_HOME", str(home))
    return home


@pytest.fixture
def small_gguf(tmp_path: Path) -> Path:
    """A small llama in F16, its weights a hole."""
    house = House()
    house.tensors = [(name, shape, F16 if len(shape) == 2 else F32) for name, shape, _ in house.tensors]
    return house.write(tmp_path / "small-llama-f16.gguf")
