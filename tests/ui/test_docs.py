"""The documentation says what the program does."""

import csv
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ui.cli import COMMANDS, load

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```\w*\n(.*?)^```|^((?: {4}.*\n)+)", re.M | re.S)


def commands_of(page: str) -> list[str]:
    """The lines of code blocks, and the code spans, that call advisor or make; their continuations joined."""
    blocks = "\n".join(match[1] or textwrap.dedent(match[2]) for match in _BLOCK.finditer(page))
    lines = blocks.replace("\\\n", " ").splitlines() + re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page))
    return [line.strip().removeprefix("$ ") for line in lines if re.match(r"\s*(\$ )?(advisor|make) ", line)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(path.read_text(encoding="utf-8")):
        file, _, heading = link.partition("#")
        if "://" in link:
            continue
        target = path.parent / file if file else path
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            assert heading in [re.sub(r"[^\w -]", "", words.lower()).replace(" ", "-") for words in headings], link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_are_those_of_the_program(path: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    for line in commands_of(path.read_text(encoding="utf-8")):
        words = shlex.split(re.split(r" [|>] |\) ", line)[0], comments=True)
        if words[0] == "make":
            assert words[1] in targets, line
        else:
            assert words[1] in COMMANDS or words[1].startswith("-"), line
            known = load(words[1])[1].options() if words[1] in COMMANDS else words[1:]
            used = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
            assert set(used) <= {*known, "--help"}, line


def test_the_command_line_reference_is_current(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path[:0] = ['scripts', '.']; import cli_reference; print(cli_reference.reference(), end='')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), "run make docs"


def test_the_page_on_adding_a_precision_names_every_column_and_a_row_as_it_is() -> None:
    page = (ROOT / "docs" / "adding-a-precision.md").read_text(encoding="utf-8")
    lines = (ROOT / "knowledge" / "data" / "precisions.csv").read_text(encoding="utf-8").splitlines()
    columns = next(csv.reader(lines[:1]))
    table = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    assert [name for cell in table for name in re.findall(r"`(\w+)`", cell)] == columns
    shown = re.search(r"```csv\n(.+)\n```", page)
    assert shown is not None
    assert shown[1] in lines


def test_files_that_the_page_on_adding_a_precision_names_are_there() -> None:
    page = (ROOT / "docs" / "adding-a-precision.md").read_text(encoding="utf-8")
    data, tested = ROOT / "knowledge" / "data", ROOT / "tests" / "knowledge" / "data"
    for name in re.findall(r"`([\w/.-]+\.(?:csv|toml|py))`", page):
        assert any((folder / name).is_file() for folder in (ROOT, data, tested)), name


def test_a_precision_added_as_a_row_is_planned_with_its_size(tmp_path: Path) -> None:
    """The data change of the page: a row in a folder of one's own, and the program knows it."""
    folder = tmp_path / "frameworks" / "mlx"
    folder.mkdir(parents=True)
    header = (ROOT / "knowledge" / "data" / "precisions.csv").read_text(encoding="utf-8").splitlines()[0]
    row = "mlx,7bit-g64,7,7.5,mlx,64,no,affine,no,no,no,,q_bits=7 q_group_size=64 q_mode=affine,,a test"
    (folder / "precisions.csv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    program = "from knowledge.models import find_model; from knowledge.precisions import resolve_precision as r; "
    program += "from knowledge.weights import weights; "
    program += "print(weights(find_model('Llama-3.2-1B-Instruct'), r('7bit-g64', 'mlx')[0]).bits_per_weight)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={"ADVISOR_HOME": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 7.5 <= float(done.stdout) < 7.51
