"""The faces for shells and coding agents: completion scripts, the MCP server, and the commands that serve."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from knowledge.base import AdvisorError
from ui.cli import COMMANDS, answer_to
from ui.completion import SHELLS, script, vocabulary


def complete(line: str) -> list[str]:
    """What bash offers at the end of `line`."""
    words = line.split(" ")
    asked = f"{script('bash')}\nCOMP_WORDS=({' '.join(w or chr(39) * 2 for w in words)}); COMP_CWORD={len(words) - 1}\n"
    asked += '_advisor; printf "%s\\n" "${COMPREPLY[@]}"'
    return subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_options_and_values() -> None:
    assert complete("advisor kn") == ["knowledge"]
    assert complete("advisor plan --tar") == ["--target"]
    assert complete("advisor plan --target ") == ["auto", "cpu", "gpu", "npu"]
    assert "rules" in complete("advisor knowledge ")
    assert complete("advisor toolchain in") == ["install"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_long_option_is_in_the_script(shell: str) -> None:
    text = script(shell)
    words = vocabulary()
    assert set(words) == set(COMMANDS)
    for option in (option for options in words.values() for option in options if option.startswith("--")):
        assert (option if shell != "fish" else f"-l {option[2:]}") in text


def test_an_unknown_shell_is_refused() -> None:
    with pytest.raises(AdvisorError) as refused:
        answer_to(["completion", "cmd.exe"])
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("port", ["80", "0", "x", "65536", "-1", "8501.5"])
def test_a_port_that_is_none_is_refused_before_anything_is_served(port: str) -> None:
    with pytest.raises(AdvisorError) as refused:
        answer_to(["ui", f"--port={port}", "--no-browser"])
    assert refused.value.exit_code in (2, 6)


@pytest.mark.slow
def test_an_agent_plans_asks_again_and_is_told_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    answers = asyncio.run(_session())
    assert answers["tools"] == {"probe", "plan", "check", "report"}
    asked = json.loads(answers["asked"])
    assert asked["status"] == "needs_input"
    assert asked["question"]["answer_with"] == "--vendor"
    told = json.loads(answers["told"])
    assert told["status"] == "ok"
    assert told["recommendations"][0]["framework"] == "openvino"
    saved = json.loads(Path(told["saved"]).read_text(encoding="utf-8"))
    assert saved["plan"]["steps"]
    assert "--context" in answers["wrong"]
    assert "Traceback" not in answers["wrong"]
    assert "no run" in answers["missing"]


async def _session() -> dict[str, Any]:
    """A conversation with the real server by the SDK's own client."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    command = StdioServerParameters(command=sys.executable, args=["-m", "ui.cli", "mcp"], env=dict(os.environ))
    async with stdio_client(command) as (reader, writer), ClientSession(reader, writer) as session:
        await session.initialize()
        tools = await session.list_tools()
        npu = {"ram": "8GB", "target": "npu"}
        calls = {
            "asked": ("plan", {"options": npu}),
            "told": ("plan", {"options": {**npu, "vendor": "intel"}}),
            "wrong": ("plan", {"options": {"context": "0"}}),
            "missing": ("report", {"run_dir": "nowhere"}),
        }
        texts = {name: (await session.call_tool(*call)).content[0].text for name, call in calls.items()}
        return {"tools": {tool.name for tool in tools.tools}, **texts}
