"""The MCP server of `advisor mcp`: probe, plan, check and report for coding agents, over standard input and output.

Each tool answers with the document that the command of its name prints with --json. A plan is kept as a file and
returned without what only people look at, so that it fits an agent's context; running it stays a command of its own
(`advisor run FILE`), because it takes minutes and writes gigabytes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge.base import AdvisorError, advisor_home, write_json

if TYPE_CHECKING:
    from mcp.server import MCPServer

Document = dict[str, Any]
INSTRUCTIONS = (
    "advisor decides which framework, precision and model suit an edge device, and says why and what it does not know. "
    "Call plan first; answer its question if its status is needs_input; run the plan it names with `advisor run FILE "
    "--escalate`; then read report and check for the run's folder."
)
_REJECTED = 20


def server() -> MCPServer:
    """The server with its four tools; needs the extra `mcp`."""
    from mcp.server import MCPServer

    made = MCPServer("advisor", instructions=INSTRUCTIONS)
    for tool in (probe, plan, check, report):
        made.add_tool(tool, structured_output=False)
    return made


def probe() -> Document:
    """What this machine is: CPU, memory, GPUs, NPUs, disk, frameworks; each with source and confidence."""
    return _answer("probe", "--no-bench")


def plan(model: str = "", options: dict[str, str | bool] | None = None) -> Document:
    """The best framework, precision and model for a device. `options` are those of `advisor plan` without dashes,
    for example {"ram": "8GB", "target": "npu", "vendor": "intel", "context": "8192", "commercial": true}; without
    ram, device, chip or profile the plan is for this machine. `saved` in the answer is the file to run."""
    return _short(_answer("plan", *([model] if model else []), *_words(options or {})))


def check(run_dir: str) -> Document:
    """Verify the checklist of a finished run anew: hashes, gates, licence, papers."""
    return _answer("check", run_dir)


def report(run_dir: str) -> Document:
    """What a run measured: gates, quality against the 16-bit reference, speed, memory, predicted next to measured."""
    from executors.folder import existing_folder, resuming
    from executors.report import stored

    with _told():
        found = stored(existing_folder(Path(run_dir)))
        if found is None:
            hint = f"go on with it by: {resuming(run_dir)}"
            raise AdvisorError("not-finished", f"{run_dir} holds no finished run.", hint)
        return found


def _answer(*words: str) -> Document:
    from ui.cli import answer_to

    with _told():
        return answer_to([*words, "--json"]).document


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """An error as the agent's library tells it: our sentence and hint."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except AdvisorError as error:
        raise ToolError(f"{error.message} Hint: {error.hint}.") from error


def _words(options: dict[str, str | bool]) -> list[str]:
    """`options` as the words that a person would type; what is wrong in them, the parser says."""
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-').lstrip('-')}"
        if value is True:
            words.append(option)
        elif value is not False:
            words.append(f"{option}={value}")
    return words


def _short(document: Document) -> Document:
    """A plan without hardware, trace and most rejections, and with `saved`, the file of the whole one."""
    digest = hashlib.sha256(repr(document).encode()).hexdigest()[:16]
    path = advisor_home() / "plans" / f"{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    kept = {key: value for key, value in document.items() if key not in ("hardware", "trace", "plan", "rejected")}
    return {**kept, "rejected": document["rejected"][:_REJECTED], "saved": str(path)}
