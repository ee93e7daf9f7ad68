"""GPUs as ``cards.toml`` has them, and what counted operations take on one: a model, not a measurement."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..errors import unknown
from ..system.gpus import first_gpu

FILE = Path(__file__).with_name("cards.toml")


class Operations(NamedTuple):
    """Operations of a kind, together: convolutions, or everything else."""

    convolve: bool
    times: int
    flops: int
    n_bytes: int  # read and written


@dataclass(frozen=True)
class Card:
    """A GPU: peaks in FLOP/s, bandwidth in bytes/s, memory in bytes, and what everyday code reaches of them."""

    key: str
    name: str
    fp32: float
    tf32: float
    bf16: float
    bandwidth: float
    memory: float
    source: str
    products: float
    convolutions: float
    traffic: float
    host_s: float
    kernel_s: float

    def __str__(self) -> str:
        return f"NVIDIA {self.name}"

    def bounds_s(self, each: Operations, tf32_products: bool = False) -> tuple[float, float, float]:
        """Seconds of arithmetic, of traffic, and the least that as many kernels take.

        Convolutions are in TF32, as torch's default leaves them, matrix products in float32 unless ``tf32_products``.
        """
        in_tf32, in_float32 = self.tf32 * self.convolutions, self.fp32 * self.products
        of_products = max(in_tf32, in_float32) if tf32_products else in_float32
        peak = in_tf32 if each.convolve else of_products
        return each.flops / peak, each.n_bytes / (self.bandwidth * self.traffic), each.times * self.kernel_s

    def gpu_s(self, operations: Iterable[Operations], tf32_products: bool = False) -> float:
        """Seconds of the GPU: of each kind of operations whatever bounds it."""
        return sum(max(self.bounds_s(each, tf32_products)) for each in operations)

    def issuing_s(self, operations: Iterable[Operations]) -> float:
        """Seconds of the host."""
        return self.host_s * sum(each.times for each in operations)

    def step_s(self, operations: Iterable[Operations], tf32_products: bool = False) -> float:
        """Seconds of a step: the host issues while the GPU computes, and the slower of the two counts."""
        known = list(operations)
        return max(self.issuing_s(known), self.gpu_s(known, tf32_products))

    def limit_s(self, operations: Iterable[Operations]) -> float:
        """Seconds that no step with this arithmetic and traffic can go below, at the peaks of the data sheet."""
        convolved = multiplied = moved = 0
        for each in operations:
            convolved += each.flops if each.convolve else 0
            multiplied += 0 if each.convolve else each.flops
            moved += each.n_bytes
        return max(convolved / self.tf32 + multiplied / self.fp32, moved / self.bandwidth)


def alike(operations: Iterable[Operations]) -> list[Operations]:
    """``operations`` in as few kinds as lose nothing: on every card of the table, one thing bounds all of a kind.

    So :meth:`Card.gpu_s` of the kinds is that of the operations.
    """
    kinds: dict[tuple[int, ...], Operations] = {}
    for each in operations:
        bounds = [
            card.bounds_s(each, tf32_products) for card in read_cards().values() for tf32_products in (False, True)
        ]
        kind = (each.convolve, *(seconds.index(max(seconds)) for seconds in bounds))
        before = kinds.get(kind, Operations(each.convolve, 0, 0, 0))
        kinds[kind] = Operations(
            each.convolve, before.times + each.times, before.flops + each.flops, before.n_bytes + each.n_bytes
        )
    return [kinds[kind] for kind in sorted(kinds)]


@cache
def read_cards() -> Mapping[str, Card]:
    """All cards by their keys, ``h200`` first."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    everyday = tables.pop("everyday")
    return {key: Card(key=key, **values, **everyday) for key, values in tables.items()}


def default_card() -> Card:
    """The first of the table."""
    return next(iter(read_cards().values()))


def card_named(key: str) -> Card:
    """Raises ``UserError`` where the table has none of that key."""
    try:
        return read_cards()[key.lower()]
    except KeyError:
        raise unknown("card", key, list(read_cards())) from None


def card_called(name: str) -> Card | None:
    """The card whose name is in what the driver calls it; the longest such, where there are several."""
    found = [card for card in read_cards().values() if card.name in name]
    return max(found, key=lambda each: len(each.name), default=None)


class CardHere(NamedTuple):
    """``note``: why it is not the card that is here; empty where it is."""

    card: Card
    note: str


def card_here() -> CardHere:
    """The first GPU that this process may use, as the table has it; another one, with a note, where it has it not."""
    gpu = first_gpu()
    if gpu is None:
        return CardHere(default_card(), "which GPU this machine has cannot be seen")
    card = card_called(gpu.name)
    if card is None:
        return CardHere(default_card(), f"the table of cards has no {gpu.name}")
    return CardHere(card if gpu.total_bytes is None else replace(card, memory=float(gpu.total_bytes)), "")
