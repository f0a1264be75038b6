"""ui, mcp and completion: the other faces: a web page, a server for coding agents, a shell that knows the options."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from knowledge.base import EXIT_STEP_FAILED, EXIT_TOOLCHAIN_MISSING, AdvisorError
from ui.command import Answer, Parser
from ui.web import UPLOAD_MIB

APP = Path(__file__).parent / "web" / "app.py"
_START_SECONDS = 60.0


def ui_options(parser: Parser) -> None:
    parser.value("--port", "N", "the port on 127.0.0.1 (default: 8501, or the next free one)")
    parser.flag("--no-browser", "do not open a browser")


def ui(arguments: argparse.Namespace) -> Answer:
    """Serve until the server ends. With --json the address is printed once the page answers."""
    if importlib.util.find_spec("streamlit") is None:
        hint = "install it with: pip install 'edge-advisor[ui]'"
        raise AdvisorError(
            "no-streamlit", "The web page needs streamlit, which is not installed.", hint, EXIT_TOOLCHAIN_MISSING
        )
    port = _port(arguments.port)
    server = subprocess.Popen(_command(port), env={**os.environ, "PYTHONSAFEPATH": "1"}, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _await(server, port)
    except BaseException:
        server.terminate()
        raise
    if not arguments.no_browser:
        import webbrowser

        webbrowser.open(url)

    def show() -> None:
        print(f"advisor is at {url}\nPress Ctrl-C to stop it. Runs that were started go on.")

    return Answer({"schema": "advisor.ui/1", "url": url, "pid": server.pid}, show, afterwards=lambda: _serve(server))


def mcp_options(parser: Parser) -> None:
    parser.epilog = "With --json it lists its tools and ends."


def mcp(arguments: argparse.Namespace) -> Answer:
    """Serve the tools over standard input and output until the agent leaves."""
    if importlib.util.find_spec("mcp") is None:
        hint = "install it with: pip install 'edge-advisor[mcp]'"
        raise AdvisorError("no-mcp", "The MCP server needs mcp, which is not installed.", hint, EXIT_TOOLCHAIN_MISSING)
    from ui.mcp_server import server

    made = server()
    if not arguments.json:
        made.run()
        return Answer({}, lambda: None)
    import asyncio

    tools = [{"name": tool.name, "description": tool.description} for tool in asyncio.run(made.list_tools())]
    return Answer({"schema": "advisor.mcp/1", "tools": tools}, lambda: None)


def completion_options(parser: Parser) -> None:
    parser.add_argument("shell", metavar="bash|zsh|fish", help="write its completion script to standard output")


def completion(arguments: argparse.Namespace) -> Answer:
    from ui.completion import SHELLS, script

    if arguments.shell not in SHELLS:
        hint = "write `advisor completion bash`, and load it with: source <(advisor completion bash)"
        raise AdvisorError("bad-option", f"advisor completion: {arguments.shell!r} is no shell it knows.", hint)
    text = script(arguments.shell)
    document = {"schema": "advisor.completion/1", "shell": arguments.shell, "script": text}
    return Answer(document, lambda: print(text, end=""))


def _command(port: int) -> list[str]:
    options = {
        "server.address": "127.0.0.1",
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": UPLOAD_MIB,
        "browser.gatherUsageStats": "false",
        "browser.serverAddress": "127.0.0.1",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "theme.light.primaryColor": "#1f5f9e",
        "theme.dark.primaryColor": "#6aa8e8",
    }
    return [sys.executable, "-m", "streamlit", "run", str(APP), *(f"--{key}={value}" for key, value in options.items())]


def _port(text: str | None) -> int:
    if text is None:
        return next((port for port in range(8501, 8600) if _is_free(port)), 0) or _none_free()
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise AdvisorError("bad-option", f"--port: {text!r} is no port.", "give --port a number from 1024 to 65535")
    if not _is_free(int(text)):
        hint = "give --port another number, or leave it out"
        raise AdvisorError("port-in-use", f"--port: another program uses port {text}.", hint)
    return int(text)


def _none_free() -> int:
    raise AdvisorError("port-in-use", "Ports 8501 to 8599 are all in use.", "name a free one with --port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _await(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the page answers; AdvisorError `ui-failed` when it does not."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with opener.open(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    hint = "what streamlit said is above; `advisor doctor` checks the installation"
    raise AdvisorError("ui-failed", "The web page did not start.", hint, EXIT_STEP_FAILED)


def _serve(server: subprocess.Popen[bytes]) -> None:
    """Stay until the server ends, or Ctrl-C ends both."""
    try:
        server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait(10)
