"""Which values of a hardware profile have no provenance."""

from typing import Any

from probes.profile import HardwareProfile


def without_source(profile: HardwareProfile) -> list[str]:
    """Dotted paths of the values that no provenance entry covers."""
    plain = profile.model_dump(mode="json")
    skipped = {"schema_", "origin", "fingerprint", "notes", "provenance"}
    paths = [path for key, value in plain.items() if key not in skipped for path in _leaves(key, value)]
    covered = set(profile.provenance)
    return [path for path in paths if not any(path == known or path.startswith(known + ".") for known in covered)]


def _leaves(path: str, value: Any) -> list[str]:
    if value in (None, "", "unknown", False, [], {}):
        return []
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{path}.{key}", inner)]
    if isinstance(value, list) and isinstance(value[0], dict):
        return [leaf for index, inner in enumerate(value) for leaf in _leaves(f"{path}.{index}", inner)]
    return [path]
