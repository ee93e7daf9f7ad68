"""Which device a training runs on, and its random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..errors import UserError, unknown
from ..system.cores import usable_memory


def resolve_device(name: str) -> str:
    """A torch device string from ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:0"]) from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"device '{name}' is not supported: exact resuming is tested on cpu and cuda - use --device cpu or cuda"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device '{name}' was asked for, and torch {torch.__version__} finds no CUDA GPU - use --device cpu or auto"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device '{name}' was asked for, and this machine has {torch.cuda.device_count()} GPU(s), counted from 0"
        )
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


def free_memory(device: torch.device) -> int:
    """Bytes that are free now: of a GPU, with those that torch holds there and does not use."""
    if device.type != "cuda":
        return usable_memory()
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global generators start from ``seed`` inside, and are as they were outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def generator_states(generator: torch.Generator) -> dict[str, Any]:
    """The states of ``generator`` and of torch's global ones, on the CPU and on the generator's device."""
    on_gpu = generator.device.type == "cuda"
    return {
        "generator": generator.get_state(),
        "generator_cpu": torch.get_rng_state(),
        "generator_cuda": torch.cuda.get_rng_state(generator.device) if on_gpu else None,
    }


def restore_generators(generator: torch.Generator, states: Mapping[str, Any]) -> None:
    """Put back what :func:`generator_states` gave; ``states`` may have more beside it."""
    generator.set_state(states["generator"])
    torch.set_rng_state(states["generator_cpu"])
    if generator.device.type == "cuda":
        torch.cuda.set_rng_state(states["generator_cuda"], generator.device)
