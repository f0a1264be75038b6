"""How fast the web page is in a real browser: its first paint, and its answers. Prints a table, then JSON.

    python benchmarks/page.py [--runs 3]            (needs the extras `ui` and `browser`, and Debian's Chromium)

Each run starts a server of its own. `first paint`: from opening the address to the first words drawn, by the browser's
own clock. `first plan`: to the recommendation for this machine. Each for the first visitor, who waits for imports and
the probe, and for the second. `answer`: from Enter in the field for the memory to the changed plan, which is decided
anew each time; the median of 12. `three at once`: the same while two more sessions change theirs. The load that is
printed is that of the last minute, these browsers included: figures for a note, never a test.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / "ui")]
from browser import browser, click, serving, wait_for  # noqa: E402

PAINT = "return performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
BUDGETS = {"first paint, first visitor": 3.0, "first paint, second visitor": 3.0, "answer": 0.5, "three at once": 0.5}
WATCH = """
const lead = () => document.querySelector('.lead')?.innerText, before = lead(); window.took = null;
let start = null;
document.addEventListener('keydown', e => { if (e.key === 'Enter') start = performance.now() }, {capture: true});
const watch = new MutationObserver(() => { if (start && lead() && lead() !== before) {
  watch.disconnect(); window.took = (performance.now() - start) / 1000; } });
watch.observe(document.body, {subtree: true, childList: true, characterData: true});
"""


def opened(address: str, folder: Path) -> tuple[Any, float, float]:
    """A window with the plan, the seconds to its first paint, and those to the plan."""
    window = browser(folder)
    start = time.perf_counter()
    window.get(address)
    wait_for(window, ".lead", seconds=60)
    plan = time.perf_counter() - start
    return window, window.execute_script(PAINT), plan


def answers(window: Any, sizes: Iterable[int]) -> list[float]:
    """The seconds from Enter in the field for the memory to the changed plan, for each of `sizes` in GB."""
    from selenium.webdriver.common.keys import Keys

    found = []
    for size in sizes:
        field = wait_for(window, "[data-testid=stTextInput]", "Memory (RAM)").find_element("css selector", "input")
        window.execute_script(WATCH)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(f"{size}GB", Keys.ENTER)
        end = time.monotonic() + 60
        while (took := window.execute_script("return window.took")) is None and time.monotonic() < end:
            time.sleep(0.05)
        found.append(took)
        time.sleep(0.5)
    return found


def once(folder: Path) -> dict[str, float]:
    with serving(folder) as address:
        windows = []
        try:
            first, paint, plan = opened(address, folder)
            windows.append(first)
            second, paint_again, plan_again = opened(address, folder)
            windows += [second, opened(address, folder)[0]]
            for window in windows:
                click(window, "label", "A description")
            answers(first, [10])  # the first answer imports what reads descriptions
            alone = answers(first, range(12, 24))
            others = [threading.Thread(target=answers, args=(w, range(24, 54))) for w in windows[1:]]
            for thread in others:
                thread.start()
            together = answers(first, range(24, 36))
            for thread in others:
                thread.join()
        finally:
            for window in windows:
                window.quit()
    return {
        "first paint, first visitor": paint, "first plan, first visitor": plan,
        "first paint, second visitor": paint_again, "first plan, second visitor": plan_again,
        "answer": median(alone), "three at once": median(together), "load of the machine": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    runs = []
    for _ in range(parser.parse_args().runs):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            runs.append(once(Path(folder)))
    results = {name: [round(run[name], 3) for run in runs] for name in runs[0]}
    print(f"{'what':28} {'median s':>9} {'budget':>7}  runs")
    for name, found in results.items():
        print(f"{name:28} {median(found):9.3f} {BUDGETS.get(name, '-'):>7}  {found}")
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
