"""The main job in a real browser: from the first page to a finished run and a downloaded checklist.

`make screenshots` runs this with ADVISOR_SCREENSHOTS set, and the pictures of the README are those it takes.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, DRIVER, browser, click, serving, wait_for

pytestmark = pytest.mark.slow
UNNAMED = """
return [...document.querySelectorAll('button, input, textarea, [role=combobox], [role=slider]')]
  .filter(e => e.checkVisibility() && e.type !== 'file')
"""
FAINT = """
const lum = c => { const v = c.map(x => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4 });
  return .2126 * v[0] + .7152 * v[1] + .0722 * v[2] };
const rgba = s => { const m = s.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1] };
const over = (a, b) => [0, 1, 2].map(k => a[k] * a[3] + b[k] * (1 - a[3])).concat(1);
const ground = e => { const up = [];
  for (let x = e; x; x = x.parentElement) up.push(rgba(getComputedStyle(x).backgroundColor));
  return up.reverse().reduce((below, c) => over(c, below), [255, 255, 255, 1]) };
const seen = []; const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) { const e = walk.currentNode.parentElement, words = walk.currentNode.data.trim();
  if (!words || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
  if (e.closest('svg, style, script')) continue;
  if (getComputedStyle(e).fontFamily.includes('Material') || e.closest('[disabled]')) continue;
  let alpha = 1; for (let x = e; x; x = x.parentElement) alpha *= Number(getComputedStyle(x).opacity);
  const back = ground(e), ink = rgba(getComputedStyle(e).color); ink[3] *= alpha;
  const [a, b] = [lum(over(ink, back)), lum(back)].sort((p, q) => q - p);
  if ((a + .05) / (b + .05) < 4.5) seen.push(words.slice(0, 40) + ' ' + ((a + .05) / (b + .05)).toFixed(2)); }
return seen;
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The page of a server of its own."""
    pytest.importorskip("streamlit", reason="the extra `ui` is not installed")
    with serving(home) as url:
        yield url


@pytest.fixture
def open_page(tmp_path: Path) -> Iterator[Any]:
    """A function that opens an address in a new browser window; downloads go to `tmp_path`."""
    pytest.importorskip("selenium", reason="selenium is not installed")
    if not CHROMIUM or not DRIVER:
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    windows = []

    def opened(address: str, width: int = 1280, height: int = 1000, *, dark: bool = False) -> Any:
        windows.append(browser(tmp_path, width, height, dark=dark))
        windows[-1].get(address)
        return windows[-1]

    yield opened
    for window in windows:
        window.quit()


def take(window: Any, name: str) -> None:
    """Keep a picture of the window, where somebody asked for pictures."""
    if folder := os.environ.get("ADVISOR_SCREENSHOTS"):
        time.sleep(2)  # tables are drawn late
        window.save_screenshot(str(Path(folder) / f"{name}.png"))


def requested(window: Any) -> set[str]:
    """The hosts that the page asked for anything."""
    messages = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    urls = [call["request"]["url"] for call in sent if not call["documentURL"].startswith("chrome")]
    sockets = [m["params"]["url"] for m in messages if m["method"] == "Network.webSocketCreated"]
    return {urlsplit(url).netloc for url in urls + sockets if urlsplit(url).scheme not in ("data", "blob", "chrome")}


def choose_embedded(window: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    click(window, "label", "Catalogue")
    box = wait_for(window, "[data-testid=stSelectbox]", "Model of the catalogue").find_element("css selector", "input")
    box.send_keys("embedded", Keys.ENTER)
    wait_for(window, ".lead", "SmolLM2-135M")


def test_a_newcomer_gets_from_the_first_page_to_a_proven_artifact_and_its_checklist(
    address: str, open_page: Any, tmp_path: Path
) -> None:
    pytest.importorskip("llama_cpp", reason="the extra `llamacpp` is not installed")
    window = open_page(address)
    wait_for(window, ".lead")
    choose_embedded(window)
    take(window, "plan")
    click(window, "button", "Run it here")
    wait_for(window, "button", "Cancel")
    time.sleep(3)
    take(window, "running")
    here = window.current_url
    window.quit()

    window = open_page(here)  # the first tab was closed: the run goes on
    wait_for(window, "h3", "passed every required gate", seconds=400)
    take(window, "report")
    click(window, "[role=tab]", "Checklist")
    wait_for(window, "summary", "SHA-256")
    take(window, "checklist")
    click(window, "[role=tab]", "Files")
    click(window, "button", "Checklist")
    end = time.monotonic() + 20
    while not (downloaded := tmp_path / "checklist.md").exists() and time.monotonic() < end:
        time.sleep(0.2)
    text = downloaded.read_text(encoding="utf-8")
    assert all(f"## {phase}" in text for phase in ("Pre-deployment", "Deployment", "Post-deployment"))
    assert "- [x]" in text
    assert requested(window) <= {urlsplit(address).netloc}


def test_three_sessions_that_change_at_once_do_not_mix(address: str, open_page: Any) -> None:
    windows = {size: open_page(address) for size in (4, 8, 12)}

    def budget_of(size: int) -> float:
        """What the plan says of the memory after three changes, in GiB."""
        from selenium.webdriver.common.keys import Keys

        window = windows[size]
        click(window, "label", "A description")
        for ram in (64, 48, size):
            field = wait_for(window, "[data-testid=stTextInput]", "Memory (RAM)").find_element("css selector", "input")
            field.send_keys(Keys.CONTROL, "a")
            field.send_keys(f"{ram}GB", Keys.ENTER)
            time.sleep(1)
        end, usable = time.monotonic() + 30, float("inf")
        while usable >= 30 and time.monotonic() < end:  # the plans of the first two answers
            words = re.search(r" of ([\d.]+) GiB of memory", wait_for(window, ".lead").text)
            usable = float(words[1]) if words else usable
            time.sleep(0.2)
        return usable

    with ThreadPoolExecutor(len(windows)) as pool:
        four, eight, twelve = pool.map(budget_of, windows)
    assert four < 4 <= eight < 8 <= twelve < 12


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [420, 1280], ids=["phone", "wide"])
def test_every_control_has_a_name_and_every_word_can_be_read(
    address: str, open_page: Any, width: int, dark: bool
) -> None:
    for page in ("", "compare", "runs", "history"):
        window = open_page(f"{address}/{page}", width, 1400, dark=dark)
        wait_for(window, "h1")
        if page == "":
            wait_for(window, ".lead")
        time.sleep(1)
        nameless = [e.get_attribute("outerHTML")[:200] for e in window.execute_script(UNNAMED) if not e.accessible_name]
        assert not nameless, page
        assert window.execute_script(FAINT) == [], page
        sideways = window.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert sideways <= 0, page
        assert requested(window) <= {urlsplit(address).netloc}
        take(window, f"{page or 'plan'}-{'phone' if width < 600 else 'wide'}-{'dark' if dark else 'light'}")
        window.quit()
