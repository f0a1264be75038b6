"""What each isolated environment holds: `toolchains/toolchains.toml` and the lock files beside it, read and checked."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from knowledge.base import AdvisorError

LOCKS = Path(__file__).resolve().parent / "toolchains"
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)(?:;\s*sys_platform (==|!=) '(\w+)')?")


@dataclass(frozen=True, slots=True)
class Archive:
    """Files that come with no wheel: `members` (files, and folders that end in /) under the folder `top` of a package's
    source archive, kept in the folder `place` of the environment."""

    package: str
    version: str
    sha256: str
    top: str
    members: tuple[str, ...]
    place: str

    def is_file(self, name: str) -> bool:
        """Whether a file of this name is the archive."""
        return name.endswith(".tar.gz") and package_of(name) == (self.package, self.version)

    def lacking(self, environment: Path) -> str:
        """The first of the members that the environment does not keep; empty if none."""
        kept = environment / self.place
        return next((name for name in self.members if not (kept / name).exists()), "")


@dataclass(frozen=True, slots=True)
class Beside:
    """Other versions of packages (`pins`, without what they need), kept in the folder `place` of the environment, where
    a worker finds them that puts it first."""

    place: str
    pins: Mapping[str, str]

    @property
    def requirements(self) -> list[str]:
        """The pins as pip reads them."""
        return [f"{name}=={version}" for name, version in self.pins.items()]

    def lacking(self, environment: Path) -> str:
        """The first of the pins that the environment does not keep; empty if none."""
        kept = environment / self.place
        names = (
            (f"{name.replace('-', '_')}-{version}.dist-info", f"{name} {version}")
            for name, version in self.pins.items()
        )
        return next((shown for folder, shown in names if not (kept / folder).is_dir()), "")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A row of toolchains.toml with its lock file: `pins` are those for this system, by normalized name.

    `pythons` are the versions (`3.11`) that the pins were resolved for; `build` the environment variables of what is
    compiled; `disk_bytes` what stays on disk, `temporary_bytes` what is needed beside it meanwhile; `seconds` from
    nothing to whole on two cores.
    """

    framework: str
    version: str
    pins: Mapping[str, str]
    lock: Path
    imports: tuple[str, ...]
    pythons: tuple[str, ...]
    download_bytes: int
    disk_bytes: int
    temporary_bytes: int
    seconds: int
    compiles: bool
    build: Mapping[str, str]
    source: str
    archive: Archive | None = None
    beside: Beside | None = None


@cache
def recipes(locks: Path = LOCKS) -> dict[str, Recipe]:
    """Every environment that can be made, by framework, as the folder `locks` describes them."""
    rows = tomllib.loads((locks / "toolchains.toml").read_text(encoding="utf-8")).values()
    return {row["framework"]: _recipe(row, locks) for row in rows}


def _recipe(row: Mapping[str, Any], locks: Path) -> Recipe:
    lock = locks / f"{row['framework']}.lock.txt"
    pins = read_pins(lock.read_text(encoding="utf-8"))
    arguments = row.get("cmake_args", "").format(folder=locks.as_posix())
    kept, beside = row.get("archive"), row.get("beside")
    return Recipe(
        framework=row["framework"],
        version=pins[row["distribution"]],
        pins=pins,
        lock=lock,
        imports=tuple(row["imports"]),
        pythons=tuple(row["pythons"]),
        download_bytes=row["download_bytes"],
        disk_bytes=row["disk_bytes"],
        temporary_bytes=row["temporary_bytes"],
        seconds=row["seconds"],
        compiles=row.get("compiles", False),
        build={"CMAKE_ARGS": arguments} if arguments else {},
        source=row["source"],
        archive=Archive(**kept | {"members": tuple(kept["members"])}) if kept else None,
        beside=Beside(beside["place"], read_pins("\n".join(beside["pins"]))) if beside else None,
    )


def read_pins(text: str, system: str = sys.platform) -> dict[str, str]:
    """The lines `name==version` of a lock file that hold on `system`; ValueError for any other line."""
    pins = {}
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        found = _PIN.fullmatch(line)
        if found is None:
            raise ValueError(f"not a pin: {line}")
        name, version, comparison, named = found.groups()
        if comparison is None or (named == system) is (comparison == "=="):
            pins[_normal(name)] = version
    return pins


def find_recipe(framework: str, locks: Path = LOCKS) -> Recipe:
    """The recipe of `framework`; AdvisorError `unknown-name` where there is none."""
    known = recipes(locks)
    if framework not in known:
        hint = f"write one of {', '.join(known)}"
        raise AdvisorError("unknown-name", f"There is no toolchain {framework!r}.", hint)
    return known[framework]


def package_of(file: str) -> tuple[str, str]:
    """Name and version that a wheel's or source archive's file name tells; empty for any other file."""
    if file.endswith(".whl"):
        name, version, *_ = [*file.split("-"), ""]
    else:
        stem, archive, _ = file.partition(".tar.gz")
        name, _, version = stem.rpartition("-") if archive else ("", "", "")
    return _normal(name), version


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
