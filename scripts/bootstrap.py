"""Make .venv and install what a make target needs: `python3 scripts/bootstrap.py EXTRA...` (llamacpp, test, ui, ...).

Standard library only, and readable by any Python 3, so that a wrong one gets a sentence. Says what it does before it
does it, keeps pip's output in .venv/install.log and shows it when something fails. What is already there is skipped:
a stamp in .venv keeps the hash of everything the installation depends on.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOG = VENV / "install.log"
STAMP = VENV / "installed.json"
TOOLCHAINS = ROOT / "executors" / "toolchains"  # how llama.cpp is built stands there, in toolchains.toml
# The versions of requires-python in pyproject.toml, the most tried first.
SUPPORTED = ((3, 11), (3, 12), (3, 13))
# 320 to 340 CPU-seconds for llama-cpp-python 0.3.36, against 890 for a plain build: no mtmd, no common library.
BUILD_CPU_MINUTES = 6


def main(extras):
    use_supported_python()
    make_environment()
    wanted = fingerprint()
    installed = read_stamp()
    missing = [extra for extra in extras if installed.get(extra) != wanted]
    if not missing and installed.get("core") == wanted:
        return
    environment = dict(os.environ)
    options = []
    if "llamacpp" in missing:
        options = prepare_llamacpp(environment)
    target = ".[{}]".format(",".join(missing)) if missing else "."
    what = " and ".join(["the core", *missing])
    say(f"installing {what} (log: {LOG.relative_to(ROOT)})")
    pip_install([*options, "--editable", target], environment)
    STAMP.write_text(json.dumps({**installed, **dict.fromkeys(["core", *missing], wanted)}, indent=1) + "\n")


def use_supported_python():
    """Go on in a supported Python, this one or one on the PATH; else say so and end."""
    if sys.version_info[:2] in SUPPORTED:
        return
    for version in SUPPORTED:
        other = shutil.which("python{}.{}".format(*version))
        if other:
            say(f"python3 is {sys.version.split()[0]}, using {other} instead")
            raise SystemExit(subprocess.call([other, *sys.argv]))
    names = ", ".join("{}.{}".format(*version) for version in SUPPORTED)
    fail(
        f"Python {sys.version.split()[0]} is not supported: install one of {names}, or name it: make PYTHON=python3.12"
    )


def make_environment():
    """A .venv whose Python starts and has pip; one that does not start (its Python was removed) is made anew."""
    if PYTHON.exists() and succeeds([PYTHON, "-c", ""]):
        if succeeds([PYTHON, "-c", "import pip"]) or succeeds([PYTHON, "-m", "ensurepip"]):
            return
        fail(f"{VENV.name} has no pip and Python could not add it: remove {VENV.name} and run this again.")
    say(f"making {VENV.name} with Python {sys.version.split()[0]}")
    if not succeeds([sys.executable, "-m", "venv", "--clear", VENV]):
        fail("Python could not make a virtual environment: install its venv module (Debian, Ubuntu: python3-venv).")


def succeeds(command):
    return subprocess.call(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def fingerprint():
    """A hash of what an installation depends on: the project file, how llama.cpp is built, the place, the Python."""
    version = subprocess.run([str(PYTHON), "--version"], stdout=subprocess.PIPE, text=True).stdout
    files = (ROOT / "pyproject.toml", TOOLCHAINS / "toolchains.toml", TOOLCHAINS / "llama-lean.cmake")
    parts = [*(path.read_bytes() for path in files), str(ROOT).encode(), version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read_stamp():
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def prepare_llamacpp(environment):
    """Set the lean build's arguments; where it has to be built, find the compiler and say how long it may take.

    Returns pip's options.
    """
    import tomllib  # here because only a supported Python has it

    recipe = tomllib.loads((TOOLCHAINS / "toolchains.toml").read_text(encoding="utf-8"))["llama_cpp"]
    lean = recipe["cmake_args"].format(folder=TOOLCHAINS.as_posix())
    own = environment.get("CMAKE_ARGS", "")
    environment["CMAKE_ARGS"] = f"{own} {lean}".strip()
    if succeeds([PYTHON, "-c", "import llama_cpp"]):
        return []
    if not own and built_before():
        say("llama.cpp was built on this machine before: pip's cache has it, this takes seconds")
        return []
    if not compiler():
        fail(
            "llama.cpp is built from source and needs a C++ compiler, and there is none: "
            "install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install), then run this again."
        )
    cores = os.cpu_count() or 1
    minutes = max(1, round(BUILD_CPU_MINUTES / cores))
    say(f"building llama.cpp for this CPU: about {minutes} min on {cores} idle cores, paid once (pip's cache keeps it)")
    # pip's wheel cache does not know CMAKE_ARGS: with arguments of your own a cached build could be the wrong one.
    return ["--no-cache-dir"] if own else []


def built_before():
    cache = [str(PYTHON), "-m", "pip", "cache", "list", "--format", "abspath", "llama_cpp_python"]
    return bool(subprocess.run(cache, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip())


def compiler():
    return next(filter(shutil.which, filter(None, [os.environ.get("CXX"), "c++", "g++", "clang++", "cl"])), None)


def pip_install(arguments, environment):
    """Run pip with a sign of life: its output goes to the log, the elapsed seconds to the terminal."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", *arguments]
    start = shown = time.monotonic()
    pause, before, after = (1, "\r", "") if sys.stderr.isatty() else (30, "", "\n")
    with LOG.open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - shown >= pause:
                    shown = time.monotonic()
                    print(f"{before}[advisor] ... {shown - start:.0f} s{after}", end="", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            fail("interrupted; the same command goes on", 130)
    print(before, end="", file=sys.stderr)
    if process.returncode:
        print("\n".join(LOG.read_text(errors="replace").splitlines()[-40:]), file=sys.stderr)
        fail(f"pip could not install it: the reason stands above, all of it in {LOG.relative_to(ROOT)}")
    say(f"installed in {time.monotonic() - start:.0f} s")


def say(text):
    print(f"[advisor] {text}", file=sys.stderr, flush=True)


def fail(text, code=1):
    say(text)
    raise SystemExit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
