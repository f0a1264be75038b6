"""What a chip's row of the knowledge base says of its CPU, GPU and NPU, as the records of a hardware profile.

Used by declared machines for everything, and by the probes for what no driver reports (bandwidth, throughput).
"""

from __future__ import annotations

import re
from typing import cast, get_args

from knowledge.chips import gpu_generation, load_vendors, npu_generation
from knowledge.records import Chip
from probes.profile import CPU, GPU, NPU, Vendor

HOST_KINDS = ("cpu", "igpu", "apple", "sbc", "mobile")
UNIFIED_KINDS = ("igpu", "apple", "sbc", "mobile")

# Who makes the GPU or NPU of a system on chip, by the first word of its name.
_GPU_MAKERS = {
    "Adreno": "qualcomm", "Mali": "arm", "Immortalis": "arm", "G1": "arm", "VideoCore": "broadcom",
    "cc": "nvidia", "gfx": "amd", "Xe": "intel", "Gen": "intel",
}  # fmt: skip
_NPU_MAKERS = {
    "Hexagon": "qualcomm", "XDNA": "amd", "RKNPU": "rockchip", "RK": "rockchip", "ANE": "apple", "APU": "mediatek",
}  # fmt: skip
# Words of the data that a profile knows under another name, or not at all.
_ISA_WORDS = {"avx512_bf16": ("bf16",), "avx2": ("avx", "avx2"), "fp16": (), "avx512_fp16": ()}
_NON_ISA = re.compile(r"rv64")


def vendor_of(name: str) -> Vendor:
    """The profile's word for a vendor of the data (`aws`, `samsung`... are `other`)."""
    return cast(Vendor, name) if name in get_args(Vendor) else "other"


def arch_of(chip: Chip) -> str:
    """`x86_64`, `arm64`, `riscv64`, or `unknown` for a discrete GPU or accelerator."""
    if chip.kind in ("gpu", "npu"):
        return "unknown"
    if "rv64" in " ".join(chip.isa):
        return "riscv64"
    return "x86_64" if chip.vendor in ("intel", "amd") else "arm64"


def core_counts(cores: str) -> tuple[int | None, int | None]:
    """Physical and performance cores of a text such as "6P+8E+2LPE", "4 Zen 5 + 8 Zen 5c" or "8-10 Oryon".

    The lower bound where the text gives a range; performance cores are None where all cores are alike. Groups of a
    hybrid chip run from the fastest to the slowest: only the last (and any marked E) counts as efficient. A name that
    stands behind the last group alone ("2+6 Oryon") is that of all.
    """
    groups = [(int(found[1]), part) for part in cores.split("+") if (found := re.search(r"(\d+)", part))]
    if not groups:
        return None, None
    total = sum(count for count, _ in groups)
    *others, last = (bool(re.search(r"[A-Za-z]", part)) for _, part in groups)
    if last and not any(others):
        return total, None
    fast = [count for count, part in groups[:-1] if not re.search(r"\d(?:-\d+)?(?:LP)?E\b", part)]
    return total, sum(fast) if len(groups) > 1 and fast else None


def instruction_sets(isa: tuple[str, ...], arch: str) -> tuple[str, ...]:
    """The profile's words for the data's instruction sets, sorted. Apple's own AMX is not Intel's and is left out."""
    words = {
        known
        for word in isa
        for known in _ISA_WORDS.get(word, (word,))
        if not _NON_ISA.match(word) and not (word == "amx" and arch == "arm64")
    }
    return tuple(sorted(words))


def cpu_of(chip: Chip) -> CPU:
    """The CPU of a chip; an empty record for a discrete GPU or accelerator."""
    if chip.kind not in HOST_KINDS:
        return CPU()
    arch = arch_of(chip)
    physical, performance = core_counts(chip.cores)
    return CPU(
        vendor=vendor_of(chip.vendor),
        arch=arch,  # type: ignore[arg-type]  # one of the profile's words by construction
        model=chip.name,
        physical_cores=physical,
        performance_cores=performance,
        usual_cores=chip.usual_cores,
        instruction_sets=instruction_sets(chip.isa, arch),
        fp16_tflops=chip.fp16_tflops if _throughput_is_the_cpus(chip) else None,
    )


def gpu_of(chip: Chip, pool: str) -> GPU | None:
    """The GPU of a chip, computing from `pool`; None for a bare CPU or NPU, or a system on chip without one."""
    generation = gpu_generation(chip)
    if chip.kind in ("cpu", "npu") or not generation:
        return None
    cpu_figures = _throughput_is_the_cpus(chip)
    own_gpu = chip.kind in ("gpu", "igpu") or chip.vendor in ("apple", "nvidia")
    return GPU(
        vendor=_maker(generation, _GPU_MAKERS, vendor_of(chip.vendor) if own_gpu else "other"),
        name=_gpu_name(chip, generation),
        kind="discrete" if chip.kind == "gpu" else "integrated",
        pool=pool,
        generation=generation,
        bandwidth_gbs=chip.bandwidth_gbs,
        fp16_tflops=None if cpu_figures else chip.fp16_tflops,
        fp16_acc16_tflops=None if cpu_figures else chip.fp16_acc16_tflops,
        int8_tops=None if cpu_figures else chip.int8_tops,
    )


def npu_of(chip: Chip) -> NPU | None:
    """The NPU of a chip, in an unknown state; None where it has none. Jetson's TOPS are its GPU's, not an NPU's."""
    generation = npu_generation(chip)
    if not generation and (not chip.npu_tops or chip.vendor == "nvidia"):
        return None
    vendor = _maker(generation, _NPU_MAKERS, vendor_of(chip.vendor))
    line = load_vendors().get(vendor)
    return NPU(
        vendor=vendor,
        name=chip.name if chip.kind == "npu" or line is None or not line.npu else line.npu,
        generation="" if generation == "NPU" else generation,
        tops=chip.npu_tops,
    )


def _maker(generation: str, makers: dict[str, str], default: Vendor) -> Vendor:
    return cast(Vendor, next((maker for word, maker in makers.items() if generation.startswith(word)), default))


def _gpu_name(chip: Chip, generation: str) -> str:
    if chip.kind == "gpu" or chip.vendor == "nvidia":
        return chip.name
    if inner := re.search(r"\(((?:Radeon|Iris|Vega|UHD)[^)]*)\)", chip.name):
        return inner[1]
    if chip.vendor == "apple":
        return chip.name if "GPU" in chip.name else f"{chip.name} GPU"
    if (chip.kind in ("sbc", "mobile") and chip.vendor != "nvidia") or chip.vendor == "qualcomm":
        return generation
    line = load_vendors().get(chip.vendor)
    return f"{line.gpu} ({generation})" if line else generation


def _throughput_is_the_cpus(chip: Chip) -> bool:
    """The throughput columns describe the GPU of a system on chip, except where it is of no use for models."""
    return chip.kind == "cpu" or gpu_generation(chip).startswith("VideoCore")
