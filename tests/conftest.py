"""Every test gets a user data folder of its own: the real one is never touched."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from house_checkpoint import LAB, checkpoint
from house_gguf import House
from hub_server import Hub, running
from hypothesis import settings

F32, F16 = 0, 1

# What is read while modules are imported: no frameworks of whoever runs the tests.
os.environ["ADVISOR_HOME"] = str(Path(tempfile.gettempdir()) / "no-advisor-home")
# No test asks the real hub; those about it start one of their own (hub_server.py).
os.environ["HF_HUB_OFFLINE"] = "1"

# In the background of a shell interrupts are ignored, and so they would be by the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a checkpoint in two files, and nothing of the user's own."""
    with running(Hub(repos={LAB: checkpoint(tmp_path)})) as server:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        monkeypatch.setattr("knowledge.hub_http.BACKOFF_SECONDS", 0.01)
        yield server
