"""What the sizes that a user names of a machine's memory can mean, by what chips and products are sold with."""

from __future__ import annotations

from collections.abc import Sequence

from knowledge.base import GIB
from knowledge.match import HardwareMatch
from knowledge.records import Chip

_WIDE_GBS = 200.0  # memory of an integrated GPU that nobody puts a card beside (AMD's Ryzen AI Max)


def has_one_pool(chip: Chip) -> bool:
    """Whether CPU and GPU share all memory and no card stands beside them: `--vram` can only mean a share of it."""
    return chip.kind in ("apple", "sbc", "mobile") or (chip.kind == "igpu" and (chip.bandwidth_gbs or 0) >= _WIDE_GBS)


def memory_of_card(size_bytes: int | None, card: Chip, cards: Sequence[Chip]) -> int | None:
    """What `--vram` says of one of several cards: all of it; of alike ones its part, where only the part is sold; None
    where it is no size of this one among unlike ones."""
    sold = {round(size * GIB) for size in card.memory_gib}
    if size_bytes is None or size_bytes in sold or len(cards) == 1:
        return size_bytes
    if len({other.name for other in cards}) > 1:
        return None
    return size_bytes // len(cards) if size_bytes // len(cards) in sold else size_bytes


def sizes_of(match: HardwareMatch) -> tuple[float, ...]:
    """The sizes in GiB that the product and the chip are both sold with; the product's where they share none."""
    product = match.product.memory_gib if match.product else ()
    return tuple(size for size in product if size in match.chip.memory_gib) or product or match.chip.memory_gib


def sizes_sold(sizes: Sequence[float]) -> str:
    """`16, 24 or 32 GB`."""
    *most, last = (f"{size:g}" for size in sizes)
    return f"{', '.join(most)} or {last} GB" if most else f"{last} GB"
