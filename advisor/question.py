"""What to ask when the answer decides, with the answer per case: each vendor's recommendation is really computed.

The question names the option to answer with, how to find out, one row per possible answer, what is firm whatever the
answer, and a fallback that is labelled as not being what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from advisor import rank
from advisor.constraints import Constraints
from advisor.judging import Judged
from advisor.walk import Taken
from knowledge.records import ModelSpec
from knowledge.tables import read_document
from probes.profile import CPU, GPU, NPU, HardwareProfile, MemoryPool, OperatingSystem

if TYPE_CHECKING:
    from advisor.search import Search, Setting

SearchFor = Callable[[Constraints, HardwareProfile, Sequence[ModelSpec]], "Search"]
_EXAMPLE_SIZES_B = (1.0, 2.0, 4.6, 9.0, 16.0)
_EXAMPLES_PER_SIZE = 2  # an answer's example is chosen from so many models of each size class, the most able first


@cache
def _questions() -> dict[str, Any]:
    return read_document("questions.toml")


def ask(
    taken: Taken, setting: Setting, models: Sequence[ModelSpec], search: SearchFor
) -> tuple[dict[str, Any], Sequence[Judged], list[dict[str, Any]]]:
    """The question document, the survivors of the labelled fallback, and the rejections of both."""
    request, profile = setting.request, setting.profile
    data = _questions()[taken.rule.id]
    rejected: list[dict[str, Any]] = []
    examples, options = _examples(models, profile, request), []
    for option in data["option"]:
        answered = request.model_copy(update={"vendor": option["vendor"]})
        found = search(answered, _suppose(profile, option), examples)
        options.append(_row(option, rank.order(found.survivors, answered, top=3), answered))
        rejected += [r | {"text": f"{option['label']}: {r['text']}"} for r in found.rejections if r["model"] is None]
    fallback: Sequence[Judged] = ()
    if data["fallback"]:
        found = search(
            request.model_copy(update={"target": data["fallback"], "framework": request.framework or "llama.cpp"}),
            profile,
            models,
        )
        fallback = found.survivors
        for judged in fallback:
            judged.notices.append(data["fallback_text"])
    question = {
        "id": taken.rule.id,
        "text": taken.text,
        "answer_with": data["field"],
        "how_to_find_out": data["find_out"],
        "options": options,
        "firm": data["firm"],
        "fallback": data["fallback_text"],
        "source": data["source"],
    }
    return question, fallback, _unique(rejected)


def _examples(models: Sequence[ModelSpec], profile: HardwareProfile, request: Constraints) -> Sequence[ModelSpec]:
    memory = profile.main_memory
    if len(models) <= _EXAMPLES_PER_SIZE or memory is None:
        return models
    fitting = [m for m in models if m.params * 0.55 < memory.total_bytes and request.use_case in m.use_cases]
    able = sorted(fitting, key=lambda m: (-rank.capability(m, request.use_case), m.name))
    chosen, smallest = [], 0.0
    for largest in _EXAMPLE_SIZES_B:
        chosen += [m for m in able if smallest < m.params_b <= largest][:_EXAMPLES_PER_SIZE]
        smallest = largest
    return chosen


def _suppose(profile: HardwareProfile, option: dict[str, Any]) -> HardwareProfile:
    """The same machine with the hardware that an answer implies."""
    vendor = option["vendor"]
    system = OperatingSystem(family=option["os"]) if "os" in option and profile.os.family is None else profile.os
    main = profile.main_memory
    memory, gpus = profile.memory, profile.gpus
    if "gpu" in option and main is not None:
        unified = MemoryPool(id="unified", kind="unified", total_bytes=main.total_bytes)
        memory = (unified,)
        gpus = (GPU(vendor=vendor, name=option["gpu"]["name"], kind="integrated", pool="unified"),)
    npu = NPU(vendor=vendor, name=option["npu"]["name"], generation=option["npu"]["generation"])
    cpu = CPU(vendor=vendor if vendor != "rockchip" else "arm", arch=option["arch"])
    return profile.model_copy(update={"os": system, "cpu": cpu, "memory": memory, "gpus": gpus, "npus": (npu,)})


def _row(option: dict[str, Any], best: Sequence[Judged], answered: Constraints) -> dict[str, Any]:
    """One possible answer: what would be recommended, in words and fields."""
    row: dict[str, Any] = {"vendor": option["vendor"], "label": option["label"], "recommendation": None, "others": []}
    if best:
        first = rank.recommendation(1, best[0])
        row["recommendation"] = {
            key: first[key]
            for key in ("model", "params_b", "framework", "backend", "precision", "nominal_bits", "reasons", "warnings")
        }
        row["recommendation"]["total_bytes"] = first["memory"]["total_bytes"]
        row["others"] = [
            f"{j.option.backend.framework} on {j.option.backend.backend} at {j.option.precision.name}" for j in best[1:]
        ]
        where = (
            ""
            if best[0].option.engine.kind == answered.target
            else f", on the {best[0].option.engine.kind.upper()} and not on the NPU"
        )
        row["text"] = (
            f"{option['label']}: {first['framework']} with the backend {first['backend']}, {first['precision']} "
            f"(INT{first['nominal_bits']}), for example {first['model']}{where}."
        )
    else:
        row["text"] = f"{option['label']}: nothing fits this memory."
    return row


def _unique(rejected: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(r["framework"], r["backend"], r["text"]): r for r in rejected}.values())
