"""The Hugging Face hub over HTTP, by huggingface_hub's client: bounded answers, timeouts, one sentence for a failure.

huggingface_hub (0.3 s to import, at the first request only) gives the session, the user's token and the headers; what
it does not do, bound what a server sends and go on where a killed download stopped, is done here. Nothing is requested
where `--offline`, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE says so.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from knowledge.base import EXIT_STEP_FAILED, EXIT_TOOLCHAIN_MISSING, AdvisorError, format_bytes, printable

DEFAULT_ENDPOINT = "https://huggingface.co"
ATTEMPTS = 3
BACKOFF_SECONDS = 0.5  # doubled at every attempt
CONNECT_SECONDS = 5.0
PATIENCE_SECONDS = 10.0  # a longer Retry-After is told instead of waited for
ANSWER_SECONDS = 120.0  # for one answer, however slowly it drips
_ERROR_BYTES = 4096
_CHUNK = 1 << 16
_TRUE = {"1", "ON", "YES", "TRUE"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Where the hub is and what may be asked of it. `cache` is Hugging Face's own folder of downloaded files."""

    endpoint: str
    cache: Path
    offline: bool
    timeout_seconds: float

    @property
    def host(self) -> str:
        """The endpoint as a folder name."""
        return re.sub(r"[^A-Za-z0-9.-]+", "-", urlsplit(self.endpoint).netloc)


def hub_settings(*, offline: bool = False) -> HubSettings:
    """As the environment says it now, by huggingface_hub's own variables; AdvisorError `bad-endpoint`."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or DEFAULT_ENDPOINT
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AdvisorError("bad-endpoint", f"HF_ENDPOINT is {endpoint!r}, no web address.", "write it as https://HOST")
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub"
    forbidden = any(os.environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    seconds = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "")
    timeout = float(seconds) if re.fullmatch(r"\d{1,4}(\.\d+)?", seconds) and float(seconds) else 10.0
    return HubSettings(endpoint, Path(os.path.expandvars(cache)).expanduser(), offline or forbidden, timeout)


class _Transient(Exception):
    """A failure that another attempt may mend; `wait_seconds` None: the usual backoff."""

    def __init__(self, error: AdvisorError, wait_seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.wait_seconds = error, wait_seconds


class HubClient:
    """Requests to one endpoint about one repository, `hf_id`. Made where a request is certain: it imports."""

    def __init__(self, settings: HubSettings, hf_id: str) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nothing about the user is told
        try:
            from huggingface_hub.utils import build_hf_headers, get_session
        except ImportError as error:
            message, hint = "huggingface_hub is not installed.", "install advisor again: pip install edge-advisor"
            raise AdvisorError("toolchain-missing", message, hint, EXIT_TOOLCHAIN_MISSING) from error
        self.settings, self.hf_id = settings, hf_id
        self._session = get_session()
        self._headers = {**build_hf_headers(library_name="edge-advisor"), "accept-encoding": "identity"}
        library = sys.modules[type(self._session).__module__.partition(".")[0]]  # httpx, or httpx2 in newer versions
        seconds = settings.timeout_seconds
        self._timeout = library.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
        self._failures: tuple[type[Exception], ...] = (
            library.HTTPError,
            library.InvalidURL,
            library.StreamError,
            OSError,
        )

    def model_info(self, revision: str, *, limit: int) -> Any:
        """The hub's JSON about the repository, files with their sizes and hashes; at most `limit` bytes."""
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        url = f"{self.settings.endpoint}/api/models/{self.hf_id}{at}?blobs=true"
        body = self._again(lambda: self._whole(url, limit))
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self.bad_answer("its answer is no JSON") from error

    def read(self, revision: str, path: str, start: int, stop: int) -> tuple[bytes, int]:
        """Bytes `start` to `stop` of a file, fewer where it ends before, and the size of the whole file."""
        return self._again(lambda: self._range(self.file_url(revision, path), path, start, stop))

    @contextmanager
    def stream(self, revision: str, path: str, start: int, size: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """The chunks of a file of `size` bytes, and from which byte on: `start`, or 0 where the hub sends it whole.

        One attempt: the caller keeps what it got. Raises AdvisorError.
        """
        try:
            with self._open(self.file_url(revision, path), {"range": f"bytes={start}-"}) as answer:
                begin, total = self._span(answer, path)
                if begin not in (0, start) or total != size:
                    raise self.bad_answer(f"{path} is of {total} bytes from {begin} on, not of {size} from {start} on")
                yield begin, self._chunks(answer, float("inf"))
        except _Transient as error:
            raise error.error from error

    def file_url(self, revision: str, path: str) -> str:
        return f"{self.settings.endpoint}/{self.hf_id}/resolve/{quote(revision, safe='')}/{quote(path)}"

    def bad_answer(self, what: str) -> AdvisorError:
        message = f"{self.settings.endpoint} does not answer for {self.hf_id} as a Hugging Face hub does: {what}."
        return AdvisorError("bad-hub-answer", message, "check HF_ENDPOINT, and try again later", EXIT_STEP_FAILED)

    # ---- one request

    def _again(self, ask: Callable[[], _T]) -> _T:
        """`ask`, up to ATTEMPTS times where waiting helps and is short."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return ask()
            except _Transient as failure:
                wait = (
                    failure.wait_seconds if failure.wait_seconds is not None else BACKOFF_SECONDS * 2 ** (attempt - 1)
                )
                if attempt == ATTEMPTS or wait > PATIENCE_SECONDS:
                    raise failure.error from failure
                time.sleep(wait)
        raise AssertionError

    def _whole(self, url: str, limit: int) -> bytes:
        with self._open(url, {}) as answer:
            return self._taken(answer, limit, f"it sends more than {format_bytes(limit)}")

    def _range(self, url: str, path: str, start: int, stop: int) -> tuple[bytes, int]:
        with self._open(url, {"range": f"bytes={start}-{stop - 1}"}) as answer:
            begin, total = self._span(answer, path)
            if begin > start or (begin and begin != start):
                raise self.bad_answer(f"it sends another part of {path} than was asked for")
            wanted = min(stop, total) - begin
            body = b""
            for chunk in self._chunks(answer, time.monotonic() + ANSWER_SECONDS):
                body += chunk
                if len(body) >= wanted:
                    break
            if len(body) < wanted:
                raise _Transient(self._unreachable(f"{path} broke off after {len(body)} bytes"))
            return body[start - begin : wanted], total

    def _span(self, answer: Any, path: str) -> tuple[int, int]:
        """Where the answer begins in the file, and how long the file is."""
        if answer.status_code == 206:
            span = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", answer.headers.get("content-range", ""))
            if not span:
                raise self.bad_answer(f"a part of {path} comes without saying which")
            return int(span[1]), int(span[2])
        length = answer.headers.get("content-length", "")
        if not re.fullmatch(r"\d{1,18}", length):
            raise self.bad_answer(f"it does not say how long {path} is")
        return 0, int(length)

    @contextmanager
    def _open(self, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """The successful answer to a GET. Raises `_Transient` or AdvisorError."""
        try:
            with self._session.stream(
                "GET", url, headers={**self._headers, **headers}, timeout=self._timeout
            ) as answer:
                if answer.status_code not in (200, 206):
                    raise self._refusal(answer)
                yield answer
        except self._failures as error:
            raise _Transient(self._unreachable(str(error) or type(error).__name__), PATIENCE_SECONDS + 1) from error

    def _taken(self, answer: Any, limit: int, too_long: str) -> bytes:
        body = bytearray()
        for chunk in self._chunks(answer, time.monotonic() + ANSWER_SECONDS):
            body += chunk
            if len(body) > limit:
                raise self.bad_answer(too_long)
        return bytes(body)

    def _chunks(self, answer: Any, deadline: float) -> Iterator[bytes]:
        for chunk in answer.iter_bytes(_CHUNK):
            yield chunk
            if time.monotonic() > deadline:
                raise _Transient(self._unreachable(f"no whole answer within {ANSWER_SECONDS:.0f} s"))

    # ---- failures

    def _unreachable(self, why: str) -> AdvisorError:
        message = f"{self.settings.endpoint} could not be reached for {self.hf_id}: {printable(why, 160).rstrip('.')}."
        hint = (
            "check the network and HF_ENDPOINT and try again: what was read is kept; --offline uses only what is here"
        )
        return AdvisorError("hub-unreachable", message, hint, EXIT_STEP_FAILED)

    def _refusal(self, answer: Any) -> Exception:
        """What a status other than success means."""
        status, code = answer.status_code, answer.headers.get("x-error-code", "")
        where = f"{self.settings.endpoint}/{self.hf_id}"
        if status == 429 or status >= 500:
            return self._busy(status, answer.headers.get("retry-after", ""))
        if code == "RevisionNotFound":
            message = f"{self.hf_id} has no such revision."
            return AdvisorError("unknown-revision", message, f"{where}/commits/main lists them")
        if code == "EntryNotFound":
            return self.bad_answer("it lists a file that it does not have")
        token = "authorization" in self._headers
        if status == 404 or code == "RepoNotFound":
            message = f"There is no model {self.hf_id} at {self.settings.endpoint}, or it is private."
            hint = "check its name" + ("" if token else "; for a private one set HF_TOKEN to a token of yours")
            return AdvisorError("unknown-model", message, hint)
        if status in (401, 403):
            what = "the token that is set has no access to it" if token else "no token is set"
            why = "is gated: it is given to those who accepted its publisher's terms" if code else "may not be read"
            hint = f"accept the terms at {where}, then set HF_TOKEN to a token of yours (or run: hf auth login)"
            return AdvisorError("gated-model", f"{self.hf_id} {why} (status {status}), and {what}.", hint)
        return self.bad_answer(f"status {status}")

    def _busy(self, status: int, retry_after: str) -> _Transient:
        wait = float(retry_after) if re.fullmatch(r"\d{1,6}", retry_after) else None
        what = "limits how often it is asked" if status == 429 else f"fails (status {status})"
        message = f"{self.settings.endpoint} {what}, asked for {self.hf_id}."
        hint = f"try again {f'in {wait:.0f} s' if wait else 'later'}: what was read is kept"
        hint += "; with HF_TOKEN set the limit is higher" if status == 429 else ""
        return _Transient(AdvisorError("hub-busy", message, hint, EXIT_STEP_FAILED), wait)
