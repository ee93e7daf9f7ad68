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

    def limit_s(self, operations: Mapping[Operation, int]) -> float:
        """Seconds that no step with this arithmetic and traffic can go below, at the peaks of the data sheet."""
        convolved = sum(each.flops * times for each, times in operations.items() if each.convolves)
        multiplied = sum(each.flops * times for each, times in operations.items() if not each.convolves)
        moved = sum(each.n_bytes * times for each, times in operations.items())
        return max(convolved / self.tf32 + multiplied / self.fp32, moved / self.bandwidth)

    def _operation_s(self, operation: Operation, tf32_products: bool) -> float:
        in_tf32, in_float32 = self.tf32 * self.convolutions, self.fp32 * self.products
        of_products = max(in_tf32, in_float32) if tf32_products else in_float32
        peak = in_tf32 if operation.convolves else of_products
        return max(operation.flops / peak, operation.n_bytes / (self.bandwidth * self.traffic), self.kernel_s)


def read_cards() -> dict[str, Card]:
    """All cards by their keys, ``h200`` first."""
    tables = tomllib.loads(FILE.read_text(encoding="utf-8"))
    everyday = tables.pop("everyday")
    return {key: Card(key=key, **values, **everyday) for key, values in tables.items()}
