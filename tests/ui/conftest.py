"""Calling the command as a person or a program does."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ui.cli import main

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """The command in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> Result:
        code = main(arguments)
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def start(tmp_path: Path, advisor_home: Path) -> Callable[..., Result]:
    """The command as a process of its own, with extra environment variables."""

    def run(*arguments: str, **environment: str) -> Result:
        command = [sys.executable, "-m", "ui.cli", *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "ADVISOR_HOME": str(advisor_home), **environment}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        return Result(done.returncode, done.stdout, done.stderr)

    return run
