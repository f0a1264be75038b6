"""A worker that speaks the protocol and makes small files slowly: `python -I fake_worker.py FRAMEWORK`."""

import hashlib
import json
import os
import sys
import threading
import time
from pathlib import Path


def send(document):
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def end_with_parent():
    sys.stdin.read()
    os._exit(1)


request = json.loads(sys.stdin.readline())
threading.Thread(target=end_with_parent, daemon=True).start()
with Path(request["pids"]).open("a") as pids:
    pids.write(f"{os.getpid()}\n")
if request.get("fail"):
    send({"type": "error", "code": "fake-failure", "message": request["fail"]})
    sys.exit(1)
pieces = 5
if request.get("output"):
    seed = hashlib.sha256(Path(request["input"]).read_bytes() + request["type"].encode()).digest()
    with Path(request["output"]).open("wb") as out:
        out.write(b"GGUF")
        for number in range(pieces):
            out.write(seed * 64)
            out.flush()
            time.sleep(request["seconds"] / pieces)
            send({"type": "progress", "done": number + 1, "total": pieces, "text": "writing"})
else:
    time.sleep(request["seconds"])
send({"type": "metric", "name": "pieces", "value": pieces})
send({"type": "result", "result": {**request.get("answer", {}), "peak_rss_bytes": 1000}})
