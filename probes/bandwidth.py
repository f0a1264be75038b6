"""Measured memory bandwidth of this machine, with nothing but the C library: what decoding a model is bound by.

Decoding reads each weight once, so the figure that counts is a read: threads scan a buffer for a byte that is not in
it (`memchr`, which the C libraries have written with wide vector loads). A copy (`memmove`, read and written bytes both
counted, as STREAM does) is measured beside it. ctypes releases the GIL during a call, so threads add up.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from knowledge.base import MIB

_MAX_THREADS = 8
_MAX_BUFFER_BYTES = 128 * MIB
_CHUNK_BYTES = 4 * MIB
_READ_SECONDS = 0.07
_COPY_SECONDS = 0.04
# GB/s outside these is a fault of the measurement, not a memory.
_LOWEST, _HIGHEST = 1, 2000


@dataclass(frozen=True)
class Bandwidth:
    """GB/s (10^9 bytes). `copy_gbs` counts bytes read and written; None where it is implausible."""

    read_gbs: float
    copy_gbs: float | None
    threads: int
    buffer_bytes: int

    @property
    def source(self) -> str:
        return f"measured: memchr over {self.buffer_bytes // MIB} MiB in {self.threads} threads"


def measure_bandwidth(cores: int, available_bytes: int) -> Bandwidth | None:
    """Read and copy bandwidth with up to 8 threads, in at most 0.3 s; None where it can't be measured.

    The buffer is at most 128 MiB and a sixteenth of what is available; where the last-level cache is bigger than that
    (large servers) the figure is the cache's.
    """
    threads = max(1, min(_MAX_THREADS, cores))
    share = min(_MAX_BUFFER_BYTES, available_bytes // 16) // threads // _CHUNK_BYTES * _CHUNK_BYTES
    if share < 2 * _CHUNK_BYTES:
        return None
    try:
        libc = ctypes.CDLL("msvcrt" if os.name == "nt" else None)
        libc.memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
        libc.memchr.restype = ctypes.c_void_p
        buffers = [_buffer(share) for _ in range(threads)]
    except (OSError, AttributeError, ValueError, MemoryError):
        return None
    addresses = [ctypes.addressof(ctypes.c_char.from_buffer(buffer)) for buffer in buffers]
    chunks = share // _CHUNK_BYTES

    def fill(start: int) -> Callable[[int], int]:
        return lambda _: _done(ctypes.memset(start, 1, share), share)

    def read(start: int) -> Callable[[int], int]:
        def scan(step: int) -> int:
            libc.memchr(start + step % chunks * _CHUNK_BYTES, 0, _CHUNK_BYTES)
            return _CHUNK_BYTES

        return scan

    def copy(start: int) -> Callable[[int], int]:
        half = chunks // 2

        def move(step: int) -> int:
            offset = step % half * _CHUNK_BYTES
            ctypes.memmove(start + half * _CHUNK_BYTES + offset, start + offset, _CHUNK_BYTES)
            return 2 * _CHUNK_BYTES

        return move

    _together([fill(start) for start in addresses], seconds=0)
    read_gbs = _together([read(start) for start in addresses], _READ_SECONDS)
    copy_gbs = _together([copy(start) for start in addresses], _COPY_SECONDS)
    if not _LOWEST <= read_gbs <= _HIGHEST:
        return None
    return Bandwidth(read_gbs, copy_gbs if _LOWEST <= copy_gbs <= _HIGHEST else None, threads, share * threads)


def _buffer(size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _done(_: object, size: int) -> int:
    return size


def _together(works: list[Callable[[int], int]], seconds: float) -> float:
    """Run one thread per work, each repeating it for `seconds` (at least once); bytes in all, in GB/s."""
    barrier = threading.Barrier(len(works))
    moved = [0] * len(works)
    spans = [(0.0, 0.0)] * len(works)

    def run(index: int, work: Callable[[int], int]) -> None:
        barrier.wait()
        start = now = time.perf_counter()
        step = 0
        while step == 0 or now - start < seconds:
            moved[index] += work(step)
            step += 1
            now = time.perf_counter()
        spans[index] = (start, now)

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    span = max(end for _, end in spans) - min(start for start, _ in spans)
    return sum(moved) / span / 1e9 if span > 0 else 0.0
