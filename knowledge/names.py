"""Names of hardware in a form that can be compared: what people, drivers and product pages write for the same thing.

Contract: `normalize` gives lower-case words without trademarks, clock rates and punctuation; `runs` its letter runs and
digit runs ("RTX4090" and "RTX 4090" alike) without the words that say nothing; `split_memory` takes a memory size out,
`split_count` how many of a thing there are.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that name a brand or a line: true of a chip, but never needed to tell it from others.
BRANDS = _words(
    """nvidia geforce rtx gtx tesla amd radeon rx instinct intel core arc apple qualcomm snapdragon raspberry rockchip
    mediatek dimensity google samsung galaxy aws jetson ryzen xeon epyc microsoft"""
)
# Words that make another product of a name: never ignored.
MODIFIERS = _words("ti super xt xtx gre d s m pro max ultra plus mini nano laptop elite lite hx xl")
VENDORS = _words("nvidia amd intel apple qualcomm mediatek rockchip")
_NOISE = _words(
    """cpu gpu npu apu graphics processor processors chip soc with w the generation platform accelerator compute device
    board computer pc system silicon bionic machine model rev edition developer kit devkit dev module"""
)

_MEMORY = re.compile(r"\b(\d+(?:\.\d+)?) ?gi?b\b")
_MAC = re.compile(r"\b(?:macbook(?: air| pro)?|mac (?:mini|studio|pro)|imac)\b(?: \d\d(?: ?inch)?)?(?=.*\bm\d)")
_SUBSTITUTIONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"\((?:r|tm|c)\)", " "),
        (r"(?:\bcpu *)?@ *[\d.]+ *[gm]hz", " "),
        (r"(?:\bw/|\bwith\b) *radeon.*", " "),
        (r"\b\d+-cores?(?: processors?\b|$)", " "),
        (r"\b\d{1,2}th gen\b|\bmobile platform\b|\brev(?:ision)? \d+(?:\.\d+)?|\bmodel [ab]\b", " "),
        (r"\+", " plus "),
        (r"\brpi\b|\braspi\b|\braspberrypi\b|\brpi(?=\d)", "raspberry pi "),
        (r"(?:\blaptop gpu|\bmobile */ *max-q|\blaptop|\bmobile|\bnotebook|\bmax-q)\b", " laptop "),
        (r"\b(ryzen(?: ai)?(?: max)?(?: plus)?(?: *[3579])?) +pro\b", r"\1 "),
        (r"\bhx pro\b", "hx "),
        (r"[^a-z0-9.]+|\.(?!\d)", " "),
    )
)

_MOST = 16
_NUMBERS = {"dual": 2, "double": 2, "two": 2, "twin": 2, "triple": 3, "three": 3, "quad": 4, "four": 4}
_COUNTS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^\s*(?P<count>\d{1,2}) ?[x×*] ?(?P<name>(?:[a-z]|\d{4}).*)$",
        r"^(?P<name>.*?)\s*[*×] ?(?P<count>\d{1,2})\s*$",
        r"^(?P<name>.*\d\w*(?: \w+)?) x ?(?P<count>\d{1,2})\s*$",  # not the X of "Snapdragon X2"
        rf"^\s*(?P<count>{'|'.join(_NUMBERS)}) (?P<name>.+)$",
    )
)


def normalize(text: str) -> str:
    """`text` in lower case with single spaces, without trademarks, clock rates, graphics suffixes and punctuation."""
    clean = unicodedata.normalize("NFKC", re.sub(r"[®™©]", " ", text[:300])).casefold()
    for pattern, substitute in _SUBSTITUTIONS:
        clean = pattern.sub(substitute, clean)
    return " ".join(clean.split())


def split_memory(clean: str) -> tuple[str, float | None]:
    """A normalized text without its memory sizes, and the first of them in GiB."""
    sizes = _MEMORY.findall(clean)
    return " ".join(_MEMORY.sub(" ", clean).split()), float(sizes[0]) if sizes else None


def split_count(text: str) -> tuple[str, int]:
    """A text without its count of things, and that: "2x RTX 3090", "dual RTX 3090" and "RTX 3090 * 2" alike."""
    for pattern in _COUNTS:
        if found := pattern.match(text):
            count = found["count"].lower()
            return found["name"], max(1, min(_MOST, _NUMBERS.get(count) or int(count)))
    return text, 1


def runs(clean: str) -> list[str]:
    """The letter runs and digit runs of a normalized text, without the words that say nothing."""
    return [run for run in re.findall(r"[a-z]+|\d+", clean) if run not in _NOISE]


def letters(clean: str) -> str:
    """A normalized text without its spaces."""
    return re.sub(r"[^a-z0-9]", "", clean)


@cache
def compact(text: str) -> str:
    """`text` normalized, without spaces: equal for two spellings of one name."""
    return letters(normalize(text))


def without_mac(clean: str) -> str | None:
    """The chip's name in the name of a Mac ("macbook pro 16 m3 max"); None where there is no Mac in it."""
    text, count = _MAC.subn(" ", clean)
    return " ".join(text.split()) if count else None
