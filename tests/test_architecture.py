"""What the house must stay like: floors, purity of the decision, a light start, files of a readable size."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("knowledge", "probes", "advisor", "executors", "ui")  # the lowest first
SOURCES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
WRITTEN = [
    path
    for folder in (*FLOORS, "tests", "scripts", "benchmarks", "docs", ".ci")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix not in (".pyc", ".gguf", ".png", ".gz", ".npz")
] + [path for path in sorted(ROOT.iterdir()) if path.suffix in (".md", ".toml") or path.name == "Makefile"]
HEAVY = {
    "torch", "transformers", "sklearn", "pandas", "numpy", "streamlit", "huggingface_hub", "llama_cpp", "openvino",
    "nncf", "olive", "onnxruntime", "mlx", "mlx_lm", "jinja2", "rich",
}  # fmt: skip
IMPURE = {
    "os", "io", "sys", "subprocess", "socket", "time", "datetime", "random", "secrets", "uuid", "shutil", "tempfile",
    "urllib", "http", "asyncio", "threading", "multiprocessing", "concurrent", "platform", "locale", "sqlite3", "glob",
    "psutil", "platformdirs", "rich", "jinja2", "logging",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "input", "read_text", "read_bytes", "write_text", "write_bytes", "write_json"}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").partition(".")[0])
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    above = set(FLOORS[floor + 1 :])
    assert not imports(path) & above


@pytest.mark.parametrize("path", sorted((ROOT / "executors" / "worker").glob("*.py")), ids=name_of)
def test_workers_import_nothing_of_ours(path: Path) -> None:
    assert not imports(path) & set(FLOORS)


@pytest.mark.parametrize("path", sorted((ROOT / "advisor").glob("*.py")), ids=name_of)
def test_the_decision_does_no_io_and_reads_no_clock(path: Path) -> None:
    assert not imports(path) & IMPURE
    called = {
        getattr(node.func, "id", getattr(node.func, "attr", ""))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
    }
    assert not called & IMPURE_CALLS


def test_plans_are_read_in_one_place_of_the_decision() -> None:
    """load_plan sits beside the types it checks: the one reading there is."""
    readers = [name_of(path) for path in (ROOT / "advisor").glob("*.py") if "read_json" in path.read_text("utf-8")]
    assert readers == ["advisor/plan.py"]


@pytest.mark.parametrize("path", [path for path in WRITTEN if path.suffix == ".py"], ids=name_of)
def test_files_have_a_readable_size(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_say_what_they_are_for(path: Path) -> None:
    assert path.stat().st_size == 0 or ast.get_docstring(parsed(path))


def test_no_file_names_a_path_of_a_machine() -> None:
    """Alice is nobody's machine: examples may use her folder."""
    private = re.compile(r"(?<![\w.-])/(?:root|work|home|Users)/(?!alice/)\w")
    named = [name_of(path) for path in WRITTEN if private.search(path.read_text(encoding="utf-8", errors="replace"))]
    assert not named


def loaded_by(*arguments: str, home: Path) -> set[str]:
    """The top-level modules in a fresh process after one command, which must not fail unexpectedly."""
    program = (
        "import json, sys; from ui.cli import main; code = main(sys.argv[1:]);"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={"ADVISOR_HOME": str(home), "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code in (0, 3, 4), done.stderr
    return set(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "--ram", "8GB", "--target", "npu", "--json"),
        ("plan", "--ram", "8GB", "--json"),
        ("plan", "{gguf}", "--ram", "8GB", "--json"),
        ("probe", "--no-bench", "--json"),
        ("knowledge", "models", "--json"),
        ("history", "--json"),
    ],
    ids=" ".join,
)
def test_light_commands_import_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path, small_gguf: Path) -> None:
    filled = [argument.format(gguf=small_gguf) for argument in arguments]
    assert not loaded_by(*filled, home=tmp_path) & HEAVY


def test_checklist_of_a_plan_imports_nothing_heavy(tmp_path: Path, small_gguf: Path) -> None:
    plan = tmp_path / "plan.json"
    loaded_by("plan", str(small_gguf), "--ram", "8GB", "--out", str(plan), "--json", home=tmp_path)
    assert not loaded_by("checklist", str(plan), "--json", home=tmp_path) & HEAVY


def test_commands_in_the_readme_exist() -> None:
    from ui.cli import COMMANDS

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        shown = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", (ROOT / name).read_text("utf-8"), re.DOTALL))
        assert set(re.findall(r"^\s*(?:\$ )?make ([a-z-]+)", shown, re.MULTILINE)) <= targets
        assert set(re.findall(r"(?:^|\$ |bin/)advisor ([a-z]+)", shown, re.MULTILINE)) <= set(COMMANDS)
