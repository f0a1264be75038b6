"""A real browser on a page of `advisor ui`, for the browser tests and for benchmarks/page.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
FIRST = """
return [...document.querySelectorAll(arguments[0])].find(e => e.checkVisibility() && e.innerText.includes(arguments[1]))
"""


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """The address of a server of its own, whose data folder is `home`."""
    environment = {**os.environ, "ADVISOR_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ui.cli", "ui", "--no-browser", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True)
    assert server.stdout is not None
    lines = []
    for line in server.stdout:
        lines.append(line)
        if line == "}\n":
            break
    try:
        yield json.loads("".join(lines))["url"]
    finally:
        server.send_signal(2)
        server.wait(20)


def browser(folder: Path, width: int = 1280, height: int = 1000, *, dark: bool = False) -> Any:
    """A new browser whose profile and downloads lie in `folder`."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"--window-size={width},{height}", f"--user-data-dir={folder / f'profile-{time.time_ns()}'}"):
        options.add_argument(flag)
    if dark:
        options.add_argument("--blink-settings=preferredColorScheme=0")
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER or ""))


def wait_for(window: Any, selector: str, words: str = "", seconds: float = 30) -> Any:
    """The first visible element of the CSS `selector` that holds `words`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := window.execute_script(FIRST, selector, words)) is not None:
            return found
        time.sleep(0.1)
    text = window.execute_script("return document.body.innerText")
    raise AssertionError(f"{selector} with {words!r} did not appear; the page says: {text[:2000]}")


def click(window: Any, selector: str, words: str) -> None:
    window.execute_script("arguments[0].click()", wait_for(window, selector, words))
