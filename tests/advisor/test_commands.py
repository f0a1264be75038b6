"""The commands of a plan are those of current tools: every flag is known, none is deprecated.

Flags as listed by the help of olive-ai 0.13.0, optimum-intel 2.2.0, mlx-lm 0.32.2 and huggingface_hub 1.33, read
2026-11-24; those of llama.cpp's programs from general knowledge, as none of them is installed here.
"""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from house_gguf import House, string

from advisor.constraints import Constraints
from advisor.decide import make_plan
from advisor.embedding import recipes
from knowledge.checkpoint import read_model_path
from knowledge.models import find_model
from knowledge.records import ModelSpec
from probes.declared import declared_profile

GIB = 2**30
KNOWN: dict[str, set[str]] = {
    "hf download": {"--local-dir", "--include", "--exclude", "--revision"},
    "llama-quantize": {"--allow-requantize", "--tensor-type", "--imatrix"},
    "llama-imatrix": {"-m", "-f", "-o", "-c"},
    "llama-cli": {
        "-m", "-c", "-n", "-p", "--single-turn", "--cache-type-k", "--cache-type-v", "--flash-attn", "--n-gpu-layers",
        "--n-cpu-moe",
    },
    "llama-perplexity": {"-m", "-f", "-bf", "--kl-divergence-base", "--kl-divergence", "--multiple-choice"},
    "llama-bench": {
        "-m", "-p", "-n", "-t", "--cache-type-k", "--cache-type-v", "--flash-attn", "--n-gpu-layers", "--n-cpu-moe",
    },
    "optimum-cli export openvino": {
        "--model", "--task", "--weight-format", "--sym", "--group-size", "--ratio", "--scale-estimation", "--dataset",
        "--awq", "--backup-precision", "--all-layers", "--group-size-fallback",
    },
    "olive optimize": {
        "--model_name_or_path", "--device", "--provider", "--precision", "--act_precision", "--block_size",
        "--output_path", "--num_split", "--use_qdq_format", "--exporter", "--surgeries", "--enable_aot",
    },
    "mlx_lm.convert": {
        "--hf-path", "--mlx-path", "-q", "--q-bits", "--q-group-size", "--q-mode", "--quant-predicate", "--dtype",
    },
    "mlx_lm.generate": {"--model", "--prompt", "--max-tokens"},
    "mlx_lm.perplexity": {"--model", "--data-path", "--num-samples", "--sequence-length"},
    "mlx_lm.benchmark": {"--model", "-p", "-g", "-n"},
}  # fmt: skip
OLIVE_PROVIDERS = {
    "CPUExecutionProvider", "CUDAExecutionProvider", "QNNExecutionProvider", "VitisAIExecutionProvider",
    "OpenVINOExecutionProvider", "WebGpuExecutionProvider", "NvTensorRTRTXExecutionProvider",
}  # fmt: skip
OLIVE_PRECISIONS = {"int4", "int8", "int16", "int32", "uint4", "uint8", "uint16", "uint32", "fp16", "fp32", "bf16"}
DEPRECATED = (
    "huggingface-cli",
    "auto-opt",
    "convert.py",
    "mlx_lm.manage",
    "--use_auth_token",
    "-e dml",
    "./main",
    "./quantize",
)
MACHINES: list[dict[str, Any]] = [
    {"device": "Raspberry Pi 5 8GB"},
    {"chip": "RTX 4090", "ram_bytes": 64 * GIB, "os": "linux"},
    {"chip": "RTX 4090", "ram_bytes": 64 * GIB, "os": "windows", "kv_cache": "q8_0"},
    {"chip": "Core Ultra 7 155H", "ram_bytes": 32 * GIB, "os": "windows", "target": "npu"},
    {"chip": "Core Ultra 7 258V", "os": "linux", "target": "gpu"},
    {"chip": "Ryzen AI 9 HX 370", "ram_bytes": 32 * GIB, "os": "windows", "target": "npu"},
    {"chip": "Snapdragon X Elite", "ram_bytes": 32 * GIB, "os": "windows", "target": "npu"},
    {"chip": "Apple M4 Max", "ram_bytes": 64 * GIB},
    {"device": "Galaxy S24 Ultra"},
    {"device": "iPhone 15 Pro"},
    {"device": "Jetson Orin Nano Super"},
    *(
        {"chip": "RTX 4060", "ram_bytes": 32 * GIB, "os": "windows", "framework": name}
        for name in ("llama.cpp", "openvino", "olive")
    ),
]


def steps(request: dict[str, Any], model: ModelSpec) -> list[dict[str, Any]]:
    asked = Constraints(**request)
    names = ("ram_bytes", "vram_bytes", "chip", "device", "vendor", "os", "target")
    profile = declared_profile(**{name: getattr(asked, name) for name in names})
    return make_plan(asked, profile, model)["plan"]["steps"]


def commands(request: dict[str, Any], model: str) -> list[list[str]]:
    return [step["command"] for step in steps(request, find_model(model))]


@pytest.mark.parametrize("request_", MACHINES, ids=lambda r: " ".join(str(v) for v in r.values()))
@pytest.mark.parametrize("model", ["Llama-3.2-1B-Instruct", "Qwen2.5-1.5B-Instruct"])
def test_every_command_is_one_that_its_tool_understands(request_: dict[str, Any], model: str) -> None:
    for command in commands(request_, model):
        line = " ".join(command)
        assert command
        assert all(command), line
        assert "{" not in line.replace("{print", "") or command[0] == "python", line
        assert not any(word in line for word in DEPRECATED), line
        for tool, known in KNOWN.items():
            if line.startswith(tool + " "):
                flags = {part for part in command if part.startswith("-") and not part.lstrip("-").isdigit()}
                assert flags <= known, f"{tool}: {flags - known}"


@pytest.mark.parametrize("chip", ["RTX 4060", "Ryzen AI 9 HX 370", "Snapdragon X Elite", "Core Ultra 7 155H"])
def test_olive_is_called_with_providers_and_precisions_that_it_has(chip: str) -> None:
    target = "gpu" if chip == "RTX 4060" else "npu"
    request = {"chip": chip, "ram_bytes": 32 * GIB, "os": "windows", "framework": "olive", "target": target}
    for command in commands(request, "Llama-3.2-1B-Instruct"):
        if command[:2] == ["olive", "optimize"]:
            said = dict(pairwise(command))
            assert said["--provider"] in OLIVE_PROVIDERS
            assert said["--precision"] in OLIVE_PRECISIONS
            assert said["--device"] in ("cpu", "gpu", "npu")


def test_a_quantized_cache_is_set_with_flash_attention_in_every_command_that_runs_the_model() -> None:
    request = {"chip": "RTX 4090", "ram_bytes": 64 * GIB, "os": "linux", "framework": "llama.cpp", "kv_cache": "q8_0"}
    lines = [" ".join(command) for command in commands(request, "Llama-3.2-1B-Instruct")]
    running = [line for line in lines if line.startswith(("llama-cli", "llama-bench"))]
    assert len(running) == 2
    assert all("--cache-type-v q8_0 --flash-attn" in line for line in running)


def test_for_a_phone_everything_is_made_here_and_copied_there() -> None:
    asked = Constraints(device="Galaxy S24 Ultra")
    profile = declared_profile(device="Galaxy S24 Ultra")
    document = make_plan(asked, profile, find_model("Llama-3.2-1B-Instruct"))
    steps = document["plan"]["steps"]
    hosts = {step["id"]: step["host"] for step in steps}
    assert {hosts[name] for name in ("acquire", "reference", "quantize", "deploy", "build")} == {"this"}
    assert {hosts[name] for name in ("smoke", "benchmark")} == {"target"}
    order = [step["id"] for step in steps]
    assert order.index("quantize") < order.index("deploy") < order.index("smoke")
    assert all(step["estimate"]["peak_ram_bytes"] for step in steps)


def test_a_laptop_of_another_system_gets_no_steps_of_a_phone() -> None:
    lines = commands(
        {"chip": "Core Ultra 7 155H", "ram_bytes": 16 * GIB, "framework": "llama.cpp"}, "Llama-3.2-1B-Instruct"
    )
    assert not any(line[0] in ("adb", "cmake") for line in lines)


OURS = {"unpack", "task", "openvino_device", "prompt_tokens"}  # words that no model and no user has a say in


def test_no_word_of_a_model_becomes_code() -> None:
    """What a file calls itself, and where it lies, are arguments of a program; what is run is fixed."""
    for step in (step for kind in ("text", "embedding") for rows in recipes(kind).values() for step in rows):
        for form in ("command", "local_command", "folder_command"):
            assert step.get(form, ["none"])[0] not in ("sh", "bash", "cmd")
            for flag, code in pairwise(step.get(form, [])):
                if flag == "-c" and step[form][0] == "python":
                    assert set(re.findall(r"\{(\w+)\}", code)) <= OURS, code


FILES = [
    {"framework": "llama.cpp", "ram_bytes": 16 * GIB, "os": "linux"},
    {"framework": "openvino", "ram_bytes": 16 * GIB, "os": "linux"},
    {"framework": "olive", "ram_bytes": 16 * GIB, "os": "linux"},
    {"framework": "mlx", "ram_bytes": 16 * GIB, "chip": "Apple M2"},
]


@pytest.mark.parametrize("request_", FILES, ids=lambda r: r["framework"])
def test_commands_name_a_local_file_by_its_place_and_read_only_what_is_there(
    request_: dict[str, Any], tmp_path: Path
) -> None:
    house = House().set("general.name", string("general.name", "x; touch p $(touch q)"))
    path = house.write(tmp_path / "a file.gguf")
    there = ["work/checkpoint", "work/gt.csv", "work/reference.kld"]  # what commands make beside their step's output
    found = steps(request_, read_model_path(path))
    for step in found:
        there += step["outputs"]
        for place in re.findall(r"\bwork/[\w./-]+", " ".join(step["command"])):
            assert place.startswith(tuple(there)), f"{step['id']}: {place}"
    assert any(str(path) in step["command"] for step in found)
    assert not any("touch" in word for step in found for word in step["command"])
