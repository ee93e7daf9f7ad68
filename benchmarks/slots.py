"""What 1, 2 and 4 slots of one GPU train in the same time, each slot being a process, as the engine has them.

    python benchmarks/slots.py --out slots.json

The processes are started once and train a method side by side, the same number of epochs each, from the same moment on.
``gain`` is what they train a second together against what one trains alone; ``reserved_bytes`` is what their allocators
held of the device at most, together, without CUDA's contexts of some hundred MiB each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import command
import gpu
import machine
import torch
from plain_step import METHODS, configured, made_up_slides

from stbench.errors import UserError
from stbench.method import Run, TrainingSlide
from stbench.system.cores import usable_cores
from stbench.system.files import write_json

SECTIONS = 4
SLOTS = (1, 2, 4)
LEAST_S = 3.0  # that a round of one slot is to take, so that starting together matters little
MOST_EPOCHS = 400


class Slot:
    """A process that trains when it is told to."""

    def __init__(self, device: str, tiny: bool, threads: int) -> None:
        words = [sys.executable, __file__, "--slot", "--device", device, *(["--tiny"] if tiny else [])]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, **words: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"a slot's process ended with {self.process.wait()} - see what it printed above")
        return dict(json.loads(line))


def serve(device: str, size: gpu.Size) -> None:
    """A slot's side: a line says what to train and is answered when all is ready; the next one starts it."""
    made: dict[str, list[TrainingSlide]] = {}
    on_gpu = device.startswith("cuda")
    for line in sys.stdin:
        asked = json.loads(line)
        method = configured(asked["method"], size.preset, {**size.changes, "epochs": asked["epochs"]})
        in_section = size.n_spots
        if method.batching == "spots":
            in_section = max(1, round(size.n_spots / method.batch_size)) * method.batch_size
        if method.name not in made:
            made = {method.name: made_up_slides(SECTIONS, in_section, size.n_genes, size.side)}
        print(json.dumps({"ready": True}), flush=True)
        sys.stdin.readline()
        try:
            method.fit(made[method.name], Run(device=device))
            found: dict[str, Any] = {"spots": SECTIONS * in_section * asked["epochs"]}
            found["seconds"] = sum(row["seconds"] for row in method.history)
        except RuntimeError as error:  # memory that ran out: with this number of slots
            found = {"error": " ".join(str(error).split())[:300]}
        if on_gpu:
            found["reserved_bytes"] = torch.cuda.max_memory_reserved(device)
            del method
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        print(json.dumps(found), flush=True)


def trained(slots: Sequence[Slot], name: str, epochs: int) -> dict[str, Any]:
    """All ``slots`` train, from the same moment on."""
    for slot in slots:
        slot.tell(method=name, epochs=epochs)
    for slot in slots:
        slot.answer()
    for slot in slots:
        slot.tell(start=True)
    found = [slot.answer() for slot in slots]
    failed = [each["error"] for each in found if "error" in each]
    if failed:
        return {"slots": len(slots), "error": failed[0]}
    slowest = max(each["seconds"] for each in found)
    return {
        "slots": len(slots),
        "epochs": epochs,
        "seconds": slowest,
        "spots_per_s": sum(each["spots"] for each in found) / slowest,
        "reserved_bytes": sum(each.get("reserved_bytes", 0) for each in found) or None,
    }


def rows_of(slots: Sequence[Slot], name: str, numbers: Sequence[int], least_s: float) -> list[dict[str, Any]]:
    """One row for each number of slots; the first epochs are not counted, and say how many are worth it."""
    warm = trained(slots, name, 2)
    if "error" in warm:
        warm = trained(slots[:1], name, 2)
    if "error" in warm:
        return [warm]
    a_slot_s = warm["seconds"] / 2 / warm["slots"]
    epochs = min(MOST_EPOCHS, max(2, round(least_s / a_slot_s)))
    rows = [trained(slots[:n], name, epochs) for n in numbers]
    for row in rows:
        if "error" not in row and "error" not in rows[0]:
            row["gain"] = row["spots_per_s"] / rows[0]["spots_per_s"]
    return rows


def main(words: Sequence[str] | None = None) -> None:
    if "--slot" in (sys.argv[1:] if words is None else words):
        parser = argparse.ArgumentParser()
        parser.add_argument("--slot", action="store_true")
        parser.add_argument("--device")
        parser.add_argument("--tiny", action="store_true")
        options = parser.parse_args(words)
        return serve(options.device, gpu.TINY if options.tiny else gpu.HER2ST)
    numbers: tuple[str, dict[str, Any]] = ("--slots", {"help": "numbers with commas (1,2,4; 1,2 where --tiny)"})
    names: tuple[str, dict[str, Any]] = ("--methods", {"default": "histogene,mclstexp,stnet", "help": "of three kinds"})
    options = command.part_options(__doc__, words, names, numbers)
    wanted = [int(n) for n in options.slots.split(",")] if options.slots else SLOTS[: 2 if options.tiny else 3]
    out: dict[str, Any] = {**machine.facts(options.device), "meaningless": options.tiny, "methods": {}}
    with ExitStack() as stack:
        threads = max(1, usable_cores() // max(wanted))
        slots = [stack.enter_context(Slot(options.device, options.tiny, threads)) for _ in range(max(wanted))]
        for name in command.methods_named(options.methods, METHODS):
            out["methods"][name] = rows_of(slots, name, wanted, 0.1 if options.tiny else LEAST_S)
            write_json(options.out, out)
            print(name, json.dumps(out["methods"][name]), flush=True)
    return None


if __name__ == "__main__":
    command.end(main)
