"""Render a model's chat template, a program that came with a download: sandboxed, bounded in time, size, arithmetic and
memory.

jinja2 is imported here and nowhere else in a worker.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .protocol import WorkerError

MAX_TEMPLATE_CHARACTERS = 256 * 1024
MAX_OUTPUT_CHARACTERS = 64 * 1024
MAX_PRODUCT = 1_000_000
MAX_BYTES = 512 * 1024**2  # more than the worker has already
SECONDS = 2.0


def render(template: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    """The prompt that `template` makes of `messages`, ready for generation.

    Raises WorkerError `bad-template` for anything that a template can do wrong, `toolchain-missing` without jinja2.
    """
    try:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise WorkerError("toolchain-missing", "Chat templates need jinja2, which is not installed here.") from error

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**":
                raise ValueError("powers are not for templates")
            sizes = [len(side) if isinstance(side, str | list | tuple) else abs(side) for side in (left, right)]
            if sizes[0] * sizes[1] > MAX_PRODUCT:
                raise ValueError("a product is too large")
            return super().call_binop(context, operator, left, right)

    def refuse(message: str) -> None:
        raise ValueError(message)

    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise WorkerError("bad-template", "The chat template is too long.")
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    pieces, length = [], 0
    try:
        with _time_limit(), _memory_limit():
            program = sandbox.from_string(template, globals={"raise_exception": refuse})
            for piece in program.generate(messages=messages, add_generation_prompt=True, **variables):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_OUTPUT_CHARACTERS:
                    raise ValueError("the text is too long")
    except Exception as error:  # a template is foreign code: whatever it raises is the template's fault
        raise WorkerError("bad-template", f"The chat template fails: {type(error).__name__}: {error}"[:300]) from error
    return "".join(pieces)


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """TimeoutError after SECONDS, where there are alarms; elsewhere the parent's limit ends the worker."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise TimeoutError(f"not done after {SECONDS:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _memory_limit() -> Iterator[None]:
    """MemoryError beyond MAX_BYTES, where Linux counts addresses; elsewhere the parent's limit ends the worker."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
