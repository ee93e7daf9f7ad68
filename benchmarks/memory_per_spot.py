"""Memory of a training step against its count, with activations kept and computed again, as sections grow.

    python benchmarks/memory_per_spot.py --out memory.json

What the harness warns by before training (``stbench/training/step_memory.py``) is counted; here the same steps are
taken on a card, and the most that the allocator gave out is read. A step for which the card is too small is told so.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from typing import Any

import command
import gpu
import machine
import torch
from plain_step import METHODS, configured, made_up_slides

from stbench.method import Run
from stbench.system.files import write_json
from stbench.system.out_of_memory import out_of_memory
from stbench.training.patch_store import release_resident_patches
from stbench.training.step_memory import step_bytes

WHOLE_SLIDE = ("hist2st", "histogene", "thitogene")
SPOTS = (361, 2000, 4895)  # a mean section of HER2+, one of Visium's usual, its full array
EPOCHS = 3  # of one section: the first makes the optimiser's state


def taken(name: str, n_spots: int, setting: str, size: gpu.Size, device: str) -> dict[str, Any]:
    """Bytes of a step counted and taken, and seconds of the last one; ``setting`` of activation checkpointing."""
    changes = {**size.changes, "activation_checkpointing": setting, "epochs": EPOCHS}
    method = configured(name, size.preset, changes)
    found: dict[str, Any] = {"spots": n_spots, "checkpointing": setting}
    found["counted_bytes"] = step_bytes(type(method), method.config, n_spots, size.n_genes)
    slides = made_up_slides(1, n_spots, size.n_genes, size.side)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        release_resident_patches()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if on_gpu else 0
    try:
        method.fit(slides, Run(device=device))
    except RuntimeError as error:
        memory = out_of_memory(error)
        if memory is None:
            raise
        return {**found, "error": memory}
    found["seconds"] = method.history[-1]["seconds"]
    found["taken_bytes"] = torch.cuda.max_memory_allocated(device) - before if on_gpu else None
    return found


def main(words: Sequence[str] | None = None) -> None:
    names: tuple[str, dict[str, Any]] = ("--methods", {"default": ",".join(WHOLE_SLIDE), "help": "names with commas"})
    options = command.part_options(__doc__, words, names)
    size = gpu.TINY if options.tiny else gpu.HER2ST
    chosen = command.methods_named(options.methods, [name for name in METHODS if name in WHOLE_SLIDE])
    out: dict[str, Any] = {**machine.facts(options.device), "meaningless": options.tiny, "methods": {}}
    for name in chosen:
        rows = out["methods"].setdefault(name, [])
        for n_spots in (12, 24) if options.tiny else SPOTS:
            for setting in ("off", "on"):
                rows.append(taken(name, n_spots, setting, size, options.device))
                write_json(options.out, out)
                print(name, json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    command.end(main)
