"""The probes' parsers on real captures: what people posted of their own machines, with the thread as the source."""

import json
from pathlib import Path

import pytest

from knowledge.match import chips_named
from probes.cpu import parse_cpu_list, parse_proc_cpuinfo, parse_registry, parse_sysctl
from probes.gpu_text import (
    bus_address,
    is_software,
    parse_kfd_target,
    parse_nvidia_information,
    parse_nvidia_smi,
    parse_nvidia_version,
    parse_registry_class,
    parse_system_profiler,
    parse_video_controllers,
    parse_vulkan_summary,
    registry_memory,
    windows_pci_id,
)  # fmt: skip
from probes.memory import (
    parse_cgroup_mounts,
    parse_cpu_quota,
    parse_meminfo,
    parse_proc_cgroup,
    parse_vm_stat,
    read_memory,
)
from probes.npu import npu_of_pnp, parse_accelerators, read_npus
from probes.reader import ReplayReader
from probes.system import filesystem_of, parse_os_release

CAPTURES = Path(__file__).parent / "captures"
GIB = 2**30


def capture(name: str) -> dict[str, str]:
    document: dict[str, str] = json.loads((CAPTURES / f"{name}.json").read_text(encoding="utf-8"))
    return document


def test_every_capture_is_real_and_says_where_it_is_from() -> None:
    for path in CAPTURES.glob("*.json"):
        document = json.loads(path.read_text(encoding="utf-8"))
        assert document["kind"] == "real capture", path.name
        assert len(document["source"]) > 20, path.name


@pytest.mark.parametrize(
    ("name", "vendor", "model", "physical", "words", "missing"),
    [
        ("cpuinfo_raspberry_pi_4", "arm", "Cortex-A72", 4, {"neon"}, {"dotprod"}),
        ("cpuinfo_raspberry_pi_5", "arm", "Cortex-A76", 4, {"neon", "dotprod"}, {"i8mm"}),
        ("cpuinfo_snapdragon_x", "qualcomm", "Oryon", 2, {"dotprod", "i8mm", "bf16"}, {"sve", "sme"}),
        ("cpuinfo_snapdragon_8_elite_gen_5", "qualcomm", "Oryon", 2, {"sve2", "sme", "i8mm"}, set()),
        ("cpuinfo_jetson_tx2", "arm", "ARMv8 Processor rev 3 (v8l)", 4, {"neon"}, {"dotprod"}),
        ("cpuinfo_core_ultra_7_155h", "intel", "Intel(R) Core(TM) Ultra 7 155H", 1, {"avx2", "avx_vnni"}, {"avx512"}),
        ("cpuinfo_epyc_two_sockets", "amd", "AMD EPYC 9754 128-Core Processor", 8, {"avx512", "bf16"}, {"amx"}),
    ],
)
def test_proc_cpuinfo(name: str, vendor: str, model: str, physical: int, words: set[str], missing: set[str]) -> None:
    cpu = parse_proc_cpuinfo(capture(name)["cpuinfo"])
    assert (cpu.vendor, cpu.model, cpu.physical_cores) == (vendor, model, physical)
    assert words <= set(cpu.instruction_sets)
    assert not missing & set(cpu.instruction_sets)


def test_cores_of_two_sockets_are_counted_apart() -> None:
    cpu = parse_proc_cpuinfo(capture("cpuinfo_epyc_two_sockets")["cpuinfo"])
    assert (cpu.physical_cores, cpu.logical_cores) == (8, 8)


def test_sysctl_of_an_m1_pro() -> None:
    text = capture("sysctl_m1_pro")["sysctl"]
    cpu = parse_sysctl(text + "hw.nperflevels: 2\n" + capture("sysctl_optional_m1")["sysctl"])
    assert (cpu.vendor, cpu.model, cpu.physical_cores, cpu.performance_cores) == ("apple", "Apple M1 Pro", 10, 8)
    assert cpu.instruction_sets == ("neon",)


def test_a_board_names_itself_in_its_device_tree() -> None:
    tree = capture("device_tree_orin_nano")
    named = {chip.name for chip in chips_named(tree["model"].strip("\0"), memory_gib=8)}
    assert named == {"Jetson Orin Nano 8GB", "Jetson Orin Nano 8GB Super"}


def test_registry_has_the_memory_that_cim_wraps() -> None:
    (device,) = parse_registry_class(capture("registry_rx_7900_xt")["registry"])
    assert registry_memory(device) == 21458059264


def test_nvidia_smi_columns_are_taken_by_their_header() -> None:
    cards = parse_nvidia_smi(capture("nvidia_smi_two_cards")["csv"])
    assert [(card.name, card.generation, card.driver, card.total_bytes) for card in cards] == [
        ("NVIDIA TITAN V", "cc 7.0", "570.86.15", None),
        ("NVIDIA RTX 5880 Ada Generation", "cc 8.9", "570.86.15", None),
    ]


def test_a_gpu_that_the_driver_cannot_start_is_no_gpu() -> None:
    assert parse_nvidia_information(capture("proc_nvidia_unknown_model")["information"]) is None


def test_kfd_says_the_compilers_target() -> None:
    assert parse_kfd_target(capture("kfd_navi_31")["properties"]) == "gfx1100"
    assert parse_kfd_target("gfx_target_version 90010") == "gfx90a"
    assert parse_kfd_target("gfx_target_version 110501") == "gfx1151"
    assert parse_kfd_target("gfx_target_version 0") == ""


def test_system_profiler_counts_gpu_cores_and_ignores_displays() -> None:
    (card,) = parse_system_profiler(capture("system_profiler_m4")["json"])
    assert (card.vendor, card.name, card.kind, card.generation) == ("apple", "Apple M4", "integrated", "10-core GPU")
    assert card.total_bytes is None


def test_llvmpipe_is_the_cpu() -> None:
    assert parse_vulkan_summary(capture("vulkaninfo_llvmpipe")["vulkaninfo"]) == []
    assert is_software("llvmpipe (LLVM 15.0.7, 256 bits)")
    assert not is_software("AMD Radeon 780M Graphics (RADV PHOENIX)")


def test_cgroup_v1_of_a_container_that_sees_the_hosts_hierarchy() -> None:
    text = capture("cgroup_v1_docker")
    group = parse_proc_cgroup(text["cgroup"])["memory"]
    root = "/sys/fs/cgroup/memory"
    reader = ReplayReader(
        {
            "files": {
                "/proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\n",
                "/proc/self/cgroup": text["cgroup"],
                "/proc/self/mountinfo": f"35 31 0:32 / {root} rw - cgroup cgroup rw,memory\n",
                f"{root}{group}/memory.limit_in_bytes": text["limit"],
                f"{root}{group}/memory.usage_in_bytes": text["usage"],
                f"{root}/memory.limit_in_bytes": "9223372036854771712\n",
            }
        }
    )
    memory = read_memory(reader)
    assert memory.limit_bytes == 4 * GIB
    assert memory.available_bytes == 4 * GIB - 5013504


def test_cgroup_paths_may_hold_colons() -> None:
    groups = parse_proc_cgroup(capture("cgroup_containerd")["cgroup"])
    assert ":cri-containerd:" in groups["cpuset"]
    assert groups["cpu"] == groups["cpuacct"]


def test_an_xdna2_npu_by_sysfs() -> None:
    values = capture("accel_amdxdna")
    root = "/sys/class/accel/accel0/device"
    files = {f"{root}/vendor": values["vendor"], f"{root}/device": values["device"]}
    (found,) = read_npus(ReplayReader({"files": files, "links": {f"{root}/driver": values["driver"]}}))
    assert (found.npu.vendor, found.npu.generation, found.npu.state) == ("amd", "XDNA2", "ready")
    pci = "/sys/bus/pci/devices/0000:c2:00.1"
    files = {f"{pci}/class": values["class"], f"{pci}/vendor": values["vendor"], f"{pci}/device": values["device"]}
    (missing,) = read_npus(ReplayReader({"files": files}))
    assert missing.npu.state == "driver-missing"


# What follows are formats as documented, in the smallest form: they fix the rules of the parsers, not their truth.


def test_adapter_ram_at_the_4_gb_wrap_is_no_size() -> None:
    trap = '{"Name": "NVIDIA GeForce RTX 4090", "AdapterRAM": 4293918720, "PNPDeviceID": "PCI\\\\VEN_10DE&DEV_2684"}'
    (card,) = parse_video_controllers(trap)
    assert card.total_bytes is None
    assert card.pci_id == "10de:2684"
    assert parse_video_controllers('{"Name": "Microsoft Basic Display Adapter", "AdapterRAM": 0}') == []


def test_nvidia_smi_without_memory_is_unified_memory() -> None:
    text = "name, memory.total [MiB], compute_cap\nNVIDIA GB10, [N/A], 12.1\nNVIDIA L4, 23034, 8.9\n"
    assert [card.total_bytes for card in parse_nvidia_smi(text)] == [None, 23034 * 2**20]


def test_driver_version_in_proc() -> None:
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16 21:39:15 UTC 2024\nGCC version: 12\n"
    assert parse_nvidia_version(text) == "560.35.03"


def test_pnp_devices_as_json_and_as_a_table() -> None:
    table = "OK     ComputeAccelerator   Intel(R) AI Boost   PCI\\VEN_8086&DEV_7D1D&SUBSYS_0\\3&1\n"
    assert parse_accelerators(table) == [("Intel(R) AI Boost", "OK", "PCI\\VEN_8086&DEV_7D1D&SUBSYS_0\\3&1")]
    npu = npu_of_pnp(*parse_accelerators(table)[0])
    assert (npu.vendor, npu.generation, npu.state) == ("intel", "NPU 3720", "ready")
    amd = npu_of_pnp("NPU Compute Accelerator Device", "OK", "PCI\\VEN_1022&DEV_17F0&SUBSYS_0\\4")
    assert (amd.vendor, amd.generation) == ("amd", "XDNA2")
    assert npu_of_pnp("Intel(R) AI Boost", "Error", "PCI\\VEN_8086&DEV_643E").state == "driver-missing"


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8", {0, 1, 2, 3, 8}), ("0", {0}), ("", set()), ("5-2", set()), ("0-99999999", set())]
)
def test_cpu_lists(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("200000 100000", 2.0), ("max 100000", None), ("-1 100000", None), ("50000 100000\n", 0.5), ("", None)],
)
def test_cpu_quotas(text: str, cpus: float | None) -> None:
    assert parse_cpu_quota(text) == cpus


def test_small_formats() -> None:
    assert parse_meminfo("MemTotal: 8 kB\nMemFree: 2 kB\nBuffers: 1 kB\nCached: 3 kB\n") == (8192, 6144)
    assert (
        parse_vm_stat("(page size of 16384 bytes)\nPages free: 10.\nPages inactive: 5.\nPages wired down: 7.\n")
        == 15 * 16384
    )
    assert parse_os_release('NAME="Debian GNU/Linux"\nVERSION_ID=12\n') == {
        "NAME": "Debian GNU/Linux",
        "VERSION_ID": "12",
    }
    assert parse_cgroup_mounts("30 25 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup rw")[""] == ("/sys/fs/cgroup", "/")
    mounts = "27 1 254:0 / / rw - ext4 /dev/a rw\n40 27 0:1 / /mnt/usb\\040stick rw - vfat /dev/b rw\n"
    assert filesystem_of(mounts, "/mnt/usb stick/models") == "vfat"
    assert filesystem_of(mounts, "/mnt/usb") == "ext4"
    assert bus_address("00000000:2B:00.0") == "0000:2b:00.0"
    assert windows_pci_id("ACPI\\QCOM0D0A\\2") == ""
    registry = "    ProcessorNameString    REG_SZ    AMD Ryzen 7 7840U w/ Radeon  780M Graphics   \n"
    assert parse_registry(registry).model == "AMD Ryzen 7 7840U w/ Radeon 780M Graphics"
