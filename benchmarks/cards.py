"""GPUs as ``cards.toml`` has them, and what counted operations take on one."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from counting import Operation

FILE = Path(__file__).with_name("cards.toml")


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

    def gpu_s(self, operations: Mapping[Operation, int], tf32_products: bool = False) -> float:
        """Seconds of the GPU: of each operation the longest of arithmetic, traffic, and the least that a kernel takes.

        Convolutions are in TF32, as torch's default leaves them, matrix products in float32 unless ``tf32_products``.
        """
        return sum(times * self._operation_s(each, tf32_products) for each, times in operations.items())

    def step_s(self, operations: Mapping[Operation, int]) -> float:
        """Seconds of a step: the host issues while the GPU computes, and the slower of the two tells."""
        return max(self.host_s * sum(operations.values()), self.gpu_s(operations))

    def limit_s(self, operations: Mapping[Operation, int]) -> float:
        """Seconds that no step with this arithmetic and traffic can go below, at the peaks of the data sheet."""
        convolved = sum(each.flops * times for each, times in operations.items() if each.convolves)
        multiplied = sum(each.flops * times for each, times in operations.items() if not each.convolves)
        moved = sum(each.n_bytes * times for each, times in operations.items())
        return max(convolved / self.tf32 + multiplied / self.fp32, moved / self.bandwidth)

    def _operation_s(self, operation: Operation, tf32_products: bool) -> float:
        if operation.convolves:
            peak = self.tf32 * self.convolutions
        else:
            peak = self.tf32 * self.convolutions if tf32_products else self.fp32 * self.products
        return max(operation.flops / peak, operation.n_bytes / (self.bandwidth * self.traffic), self.kernel_s)


def read_cards() -> dict[str, Card]:
    """All cards by their keys, ``h200`` first."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    everyday = tables.pop("everyday")
    return {key: Card(key=key, **values, **everyday) for key, values in tables.items()}


def card_of(device_name: str) -> Card | None:
    """The card that a driver calls ``device_name``, if it is known."""
    return next((card for card in read_cards().values() if card.name in device_name), None)
