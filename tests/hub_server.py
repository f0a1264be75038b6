"""A small Hugging Face hub on this machine: its API, its `resolve` addresses with ranges, its redirect to another host
for large files, its headers; and its bad days, one request after the other."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_FROM = 4096  # bytes from which a file is kept in the large file storage


@dataclass
class Repo:
    """`files` by path; `gated` lets only `token` read files; `info` overrides what the API says."""

    files: dict[str, bytes]
    card: dict[str, Any] = field(default_factory=dict)
    gated: bool = False
    token: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        return _commit(*(self.files[name] for name in sorted(self.files)))


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path contains `path`: a status, garbage, a silence, or an
    answer that ends after `cut` bytes of its body."""

    path: str
    times: int = 1_000_000
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    seconds: float = 0.0
    drip: float = 0.0  # seconds between 64 KiB pieces


@dataclass
class Hub:
    """`requests` are those answered: method, path, range, token, host."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    ranges: bool = True
    sizes: bool = True

    def asked(self, part: str) -> list[dict[str, str]]:
        return [request for request in self.requests if part in request["path"]]


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        self.hub.requests.append({
            "method": self.command, "path": path, "range": self.headers.get("range", ""), "token": token,
            "host": self.headers.get("host", ""),
        })  # fmt: skip
        fault = next((f for f in self.hub.faults if f.path in path and f.times > 0), None)
        if fault is not None:
            fault.times -= 1
            time.sleep(fault.seconds)
            if fault.status:
                self._send(fault.status, fault.headers, b"a bad day")
                return
            if fault.body is not None:
                self._send(200, fault.headers, fault.body)
                return
        if path.startswith("/cdn/"):
            digest = path.rpartition("/")[2]
            found = (b for r in self.hub.repos.values() for b in r.files.values() if _sha256(b) == digest)
            self._file(next(found), {"etag": f'"{digest}"'}, fault)
        elif path.startswith("/api/models/"):
            self._api(*re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path).groups())  # type: ignore
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups(), token, fault)
        else:
            self._send(404, {}, b"")

    def _api(self, hf_id: str, revision: str | None) -> None:
        repo = self.hub.repos.get(hf_id)
        if repo is None:
            self._send(401, {"x-error-code": "RepoNotFound", "x-error-message": "Repository not found"}, b"{}")
        elif revision not in (None, "main", repo.commit):
            self._send(404, {"x-error-code": "RevisionNotFound"}, b"{}")
        else:
            siblings = [self._sibling(name, body) for name, body in repo.files.items()]
            document = {
                "id": hf_id, "sha": repo.commit, "gated": "manual" if repo.gated else False, "private": False,
                "tags": ["transformers"], "cardData": repo.card, "siblings": siblings, **repo.info,
            }  # fmt: skip
            self._send(200, {"content-type": "application/json"}, json.dumps(document).encode())

    def _sibling(self, name: str, body: bytes) -> dict[str, Any]:
        if not self.hub.sizes:
            return {"rfilename": name}
        large = {"sha256": _sha256(body), "size": len(body), "pointerSize": 134}
        extra = {"lfs": large, "xetHash": _sha256(body[::-1])} if len(body) >= LFS_FROM else {}
        return {"rfilename": name, "size": len(body), "blobId": _git_sha1(body), **extra}

    def _resolve(self, hf_id: str, revision: str, name: str, token: str, fault: Fault | None = None) -> None:
        repo = self.hub.repos[hf_id]
        if repo.gated and token != repo.token:
            self._send(403 if token else 401, {"x-error-code": "GatedRepo"}, b"Access to this model is restricted.")
            return
        if revision not in ("main", repo.commit) or name not in repo.files:
            self._send(404, {"x-error-code": "EntryNotFound"}, b"Entry not found")
            return
        body = repo.files[name]
        about = {"x-repo-commit": repo.commit}
        if len(body) < LFS_FROM:
            self._file(body, {**about, "etag": f'"{_git_sha1(body)}"'}, fault)
            return
        # Large files lie on another host, which must not see the token.
        there = f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{_sha256(body)}"
        headers = {
            **about, "location": there, "x-linked-size": str(len(body)), "x-linked-etag": f'"{_sha256(body)}"',
            "x-xet-hash": _sha256(body[::-1]), "link": f'<{self.hub.url}/api/xet>; rel="xet-auth"',
        }  # fmt: skip
        self._send(302, headers, b"")

    def _file(self, body: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")) if self.hub.ranges else None
        if span is None:
            self._send(200, headers, body, fault)
            return
        begin, end = int(span[1]), min(int(span[2] or len(body) - 1), len(body) - 1)
        if begin > end:
            self._send(416, {"content-range": f"bytes */{len(body)}"}, b"")
            return
        whole = {**headers, "content-range": f"bytes {begin}-{end}/{len(body)}", "accept-ranges": "bytes"}
        self._send(206, whole, body[begin : end + 1], fault)

    def _send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = fault.cut if fault is not None and fault.cut is not None else len(body)
        try:
            for start in range(0, min(cut, len(body)), 1 << 16):
                self.wfile.write(body[start : min(start + (1 << 16), cut)])
                if fault is not None and fault.drip:
                    self.wfile.flush()
                    time.sleep(fault.drip)
        except OSError:  # the other side has heard enough
            self.close_connection = True
        if cut < len(body):
            self.close_connection = True


@lru_cache(maxsize=256)
def _commit(*bodies: bytes) -> str:
    return hashlib.sha1(b"".join(bodies)).hexdigest()


@lru_cache(maxsize=256)
def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@lru_cache(maxsize=256)
def _git_sha1(body: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
