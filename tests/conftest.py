"""Every test gets a user data folder of its own: the real one is never touched."""

from pathlib import Path

import pytest
from gguf_files import write_gguf


@pytest.fixture(autouse=True)
def advisor_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "advisor-home"
    monkeypatch.setenv("ADVISOR_HOME", str(home))
    return home


@pytest.fixture
def small_gguf(tmp_path: Path) -> Path:
    """A llama-type GGUF of 4 layers in F16, its weights a hole."""
    return write_gguf(tmp_path / "small-llama-f16.gguf")
