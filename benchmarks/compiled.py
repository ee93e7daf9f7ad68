"""What ``torch.compile`` of a method's network gives: the bare loop compiled against eager, and what compiling takes.

    python benchmarks/compiled.py --out compiled.json

The network alone is compiled, with the options of the setting ``compile``. ``paid_after_steps``: from when on a
training is shorter with it. ``--backend`` names another compiler than Inductor (``aot_eager`` compiles nothing: it
shows, in seconds, that a network can be traced).
"""

from __future__ import annotations

import json
import statistics
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import command
import gpu
import machine
import torch
from plain_step import METHODS, configured, made_up_slides, opened, plain_loss, ready_images

from stbench.system.files import write_json
from stbench.system.precision import tf32_flags
from stbench.training import compiling

BATCHES = 16  # of a round
ROUNDS = 3
FIRST = ("mclstexp", "hist2st", "stnet", "bleep", "histogene", "thitogene")  # should time run out


def stepped(name: str, size: gpu.Size, device: str, backend: str | None, batches: int) -> dict[str, Any]:
    """Seconds of the first batch and of a batch afterwards, and the first loss; eager without a ``backend``."""
    method = configured(name, size.preset, size.changes)
    n_spots = size.n_spots if method.batching == "slides" else method.batch_size
    slides = made_up_slides(1, n_spots, size.n_genes, size.side)
    start = opened(method, slides, device)
    start.network.to(memory_format=torch.channels_last)
    batch = next(iter(start.data.batches(start.groups[:1])))
    images = ready_images(method, batch)
    views = [images, *(images.clone() for _ in range(getattr(method.config, "copies", 0)))]
    if backend is not None:
        options = compiling.OPTIONS if backend == compiling.BACKEND else None
        start.network.compile(backend=backend, options=options)
    losses: list[float] = []

    def step() -> None:
        loss = plain_loss(method, start.network, views, batch)
        loss.backward()
        start.optimiser.step()
        start.optimiser.zero_grad(set_to_none=True)
        if not losses:
            losses.append(float(loss.detach()))

    def steps() -> None:
        for _ in range(batches):
            step()

    torch.manual_seed(0)  # dropout
    with tf32_flags("fp32"):
        first = gpu.timed(step, device)
        gpu.timed(step, device)  # strides of gradients may have been others in the first
        rounds = [gpu.timed(steps, device) / batches for _ in range(ROUNDS)]
    return {"first_s": first, "batch_s": statistics.median(rounds), "rounds_s": rounds, "loss": losses[0]}


def compared(name: str, size: gpu.Size, device: str, backend: str, batches: int) -> dict[str, Any]:
    """Eager, then compiled."""
    eager = stepped(name, size, device, None, batches)
    torch.compiler.reset()
    fast = stepped(name, size, device, backend, batches)
    gained = eager["batch_s"] - fast["batch_s"]
    taken = fast["first_s"] - eager["first_s"]
    return {
        "eager": eager,
        "compiled": fast,
        "ratio": eager["batch_s"] / fast["batch_s"],
        "compile_s": taken,
        "paid_after_steps": None if gained <= 0 else max(0.0, taken / gained),
    }


def main(words: Sequence[str] | None = None, say: Callable[[str], None] = print) -> None:
    options = command.part_options(
        __doc__,
        words,
        ("--methods", {"default": ",".join(FIRST), "help": "names with commas"}),
        ("--backend", {"default": compiling.BACKEND, "help": f"of torch.compile ({compiling.BACKEND})"}),
    )
    size = gpu.TINY if options.tiny else gpu.HER2ST
    found: dict[str, Any] = {}
    out = {**machine.facts(options.device), "backend": options.backend, "meaningless": options.tiny, "methods": found}
    for name in command.methods_named(options.methods, METHODS):
        try:
            found[name] = compared(name, size, options.device, options.backend, 1 if options.tiny else BATCHES)
        except Exception as error:  # noqa: BLE001 - whatever a compiler raises is what is to be known; others go on
            traceback.print_exc()
            found[name] = {"error": " ".join(str(error).split())[:400]}
        write_json(options.out, out)
        say(f"{name} {json.dumps(found[name])[:400]}")
        if options.device.startswith("cuda"):
            torch.cuda.empty_cache()


if __name__ == "__main__":
    command.end(main)
