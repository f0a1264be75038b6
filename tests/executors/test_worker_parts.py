"""The parts of a worker that need no framework: what it may import, chat templates, scales."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executors.worker import scales, template
from executors.worker.protocol import WorkerError
from knowledge.ggml import ggml_types

WORKER = Path(__file__).resolve().parents[2] / "executors" / "worker"
MESSAGES = [{"role": "user", "content": "Hello <b>"}]


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scales, "progress", lambda done, total, text: None)


@pytest.mark.parametrize("path", sorted(WORKER.glob("*.py")), ids=lambda path: path.name)
def test_a_worker_imports_only_what_an_isolated_environment_has(path: Path) -> None:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).split(".")[0])
    frameworks = {
        "llama_cpp",
        "openvino",
        "openvino_genai",
        "nncf",
        "olive",
        "onnx",
        "onnxruntime",
        "onnxruntime_genai",
    }
    frameworks |= {"mlx", "mlx_lm", "tokenizers", "transformers", "optimum", "convert_hf_to_gguf"}
    assert names - sys.stdlib_module_names <= {"numpy", "jinja2"} | frameworks


def test_telemetry_that_is_sent_on_import_is_off_before_anything_is_imported(tmp_path: Path) -> None:
    """OpenVINO's stops at CI=true and at no other word; an own worker sees what every worker's framework sees."""
    own = tmp_path / "own.py"
    own.write_text("import os\nOPERATIONS = {'say': lambda request: {'ci': os.environ.get('CI')}}\n")
    command = [sys.executable, "-I", str(WORKER), "own", str(own)]
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"op": "say"}\n')
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    process.stdin.close()
    process.wait()
    assert answer["result"]["ci"] == "true"


def test_a_template_is_rendered_with_the_generation_prompt() -> None:
    loop = "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] }}{% endfor %}"
    source = loop + "{% if add_generation_prompt %}>{% endif %}"
    assert template.render(source, MESSAGES) == "<|user|>Hello <b>>"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__ }}",
        "{{ cycler.__init__.__globals__.os.system('id') }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}xxxxxxxxxx{% endfor %}",
        "{{ 'x' * 10000000 }}",
        "{{ [1, 2] * 10000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ raise_exception('no') }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ missing.field }}",
        "{% if %}",
        "{{ 1 / 0 }}",
        "x" * (template.MAX_TEMPLATE_CHARACTERS + 1),
    ],
    ids=lambda source: source[:40],
)
def test_an_evil_or_broken_template_fails_soon(source: str) -> None:
    started = time.perf_counter()
    with pytest.raises(WorkerError) as caught:
        template.render(source, MESSAGES)
    assert caught.value.code == "bad-template"
    assert len(caught.value.message) < 400
    assert time.perf_counter() - started < template.SECONDS + 3


@pytest.mark.skipif(sys.platform != "linux", reason="addresses are counted on Linux")
@pytest.mark.parametrize(
    "source",
    [
        "{% set n = namespace(x='x') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ '%900000000d' % 1 }}",
        "{{ '{:900000000}'.format(1) }}",
        "{{ 'x'.ljust(900000000) }}",
    ],
)
def test_a_template_that_takes_all_memory_gets_little_and_leaves_the_limit_as_it_was(source: str) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(WorkerError, match="MemoryError"):
        template.render(source, MESSAGES)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize("name", sorted(scales.BLOCKS))
def test_block_sizes_are_ggmls(name: str) -> None:
    size, places = scales.BLOCKS[name]
    assert size == ggml_types()[name].bytes
    assert all(0 <= place <= size - 2 for place in places)


def scan(tmp_path: Path, kind: str, data: bytes) -> dict[str, Any]:
    path = tmp_path / "file"
    path.write_bytes(bytes(64) + data)
    tensor = {"name": "t", "type": kind, "offset": 64, "bytes": len(data)}
    return scales.scan({"model": str(path), "tensors": [tensor]})


def blocks(kind: str, values: list[float]) -> bytes:
    """Blocks full of 0xFF (a NaN wherever a scale is not looked for) whose scales are `values`, minima one."""
    size, places = scales.BLOCKS[kind]
    made = np.full((len(values), size), 255, np.uint8)
    for field, place in enumerate(places):
        column = np.array(values if field == 0 else [1.0] * len(values), "<f2")
        made[:, place : place + 2] = column[:, None].view(np.uint8).reshape(-1, 2)
    return made.tobytes()


@pytest.mark.parametrize("kind", sorted(scales.BLOCKS))
def test_sound_scales_are_nothing_to_tell(tmp_path: Path, kind: str) -> None:
    assert scan(tmp_path, kind, blocks(kind, [0.5, -0.25, 60000.0]))["tensors"] == []


@pytest.mark.parametrize("kind", sorted(scales.BLOCKS))
def test_scales_that_are_no_numbers_and_zeros_are_counted(tmp_path: Path, kind: str) -> None:
    (found,) = scan(tmp_path, kind, blocks(kind, [np.nan, np.inf, 0.0, 1.0]))["tensors"]
    assert found == {"name": "t", "not_finite": 2, "zero_share": 0.25}


@pytest.mark.parametrize(("kind", "dtype"), [("F16", "<f2"), ("F32", "<f4")])
def test_plain_floats_are_looked_at(tmp_path: Path, kind: str, dtype: str) -> None:
    data = np.array([1, np.nan, 0, 0], dtype).tobytes()
    assert scan(tmp_path, kind, data)["tensors"] == [{"name": "t", "not_finite": 1, "zero_share": 0.5}]


def test_a_type_without_16_bit_scales_is_counted_as_skipped(tmp_path: Path) -> None:
    assert scan(tmp_path, "MXFP4", bytes(17)) == {"tensors": [], "scanned": 0, "skipped": 1}


@pytest.mark.parametrize(("offset", "size"), [(60, 64), (-4, 4), (2**62, 4), (0, -4)])
def test_data_outside_the_file_is_refused(tmp_path: Path, offset: int, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64))
    with pytest.raises(WorkerError) as caught:
        scales.scan({"model": str(path), "tensors": [{"name": "t", "type": "F32", "offset": offset, "bytes": size}]})
    assert caught.value.code == "damaged-file"
