"""What the six published methods cost on this machine's GPU: one command, JSON for machines, a table for people.

    python benchmarks/gpu.py --out performance.json
    python benchmarks/gpu.py --compare performance.json    # measured again: exit 1 if anything has become worse
    python benchmarks/gpu.py --compare old.json --measured new.json

``--compare`` takes methods, size, steps and precision from the earlier file; exit 2 says that they cannot be compared.

It needs stbench (``pip install --no-deps .`` will do), torch, torchvision, timm, torch-geometric, pydantic and psutil;
no data and no pretrained weights: sections of noise with the shapes of HER2+ and random weights cost the same.
``--tiny`` shows in half a minute, also on a CPU, that the script works; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import stbench  # noqa: F401 - before torch, which reads then how its threads are to wait

# isort: split

import command
import comparison
import machine
import torch
from plain_step import METHODS, configured, made_up_slides, opened, plain_loss, ready_images
from torch.utils.flop_counter import FlopCounterMode

from stbench.errors import UserError
from stbench.method import Run, TrainingSlide, configure
from stbench.system.files import write_json
from stbench.system.out_of_memory import out_of_memory
from stbench.system.precision import Precision, autocast, require_capable, tf32_flags
from stbench.training.device import resolve_device
from stbench.training.precision import resolve_precision

# Dense bf16 peak in FLOP/s, from the vendor's data sheets; the first name that the device's name contains counts.
PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}
DATASETS = {"her2st": (32, 11_548), "cscc": (12, 8_671), "alex10x": (9, 25_914)}  # folds (leave one slice out), spots
STEPS = 32
MEASURED_EPOCHS = 5  # after one that pays for what is set up once
OTHER_EPOCHS = 2  # in the precisions that are no more than compared with
READY_BATCHES = 4


@dataclass(frozen=True)
class Size:
    """Of the made-up training set."""

    preset: str
    n_spots: int  # of a section
    n_genes: int
    side: int  # of a patch, in pixels
    changes: Mapping[str, Any]


HER2ST = Size("published", n_spots=361, n_genes=785, side=224, changes={})
TINY = Size("quick", n_spots=12, n_genes=8, side=112, changes={"batch_size": 8, "n_positions": 64})


@dataclass(frozen=True)
class Cost:
    """What training one method costs. Times are seconds; a batch is a batch of spots, or a whole section."""

    preset: str
    precision: str
    spots_in_batch: int
    batches_in_epoch: int
    batch_s: float  # in our loop, augmentation and all: the median of the rounds
    rounds_s: Sequence[float]  # the same in every measured epoch
    spots_per_s: float
    bare_batch_s: float  # the same network and objective in a bare loop, images ready on the device
    bare_rounds_s: Sequence[float]
    bare_spots_per_s: float
    share: float  # ours of the bare loop's throughput
    bare_fp32_batch_s: float
    bf16_speedup: float  # of the bare loop over fp32
    flops_per_batch: int  # forward and backward, of what torch's counter knows: not an LSTM, not what is elementwise
    flops_per_s: float  # in our loop
    utilisation: float | None  # of the device's dense bf16 peak; none: not bf16, or the peak is not known
    peak_memory_bytes: int | None  # of our loop, with the resident patches; none on a CPU
    fold_s: Mapping[str, float]  # training of one published fold of each dataset


def main(words: Sequence[str] | None = None) -> int:
    options = _options(words)
    old = None if options.compare is None else comparison.read_report(options.compare)
    if options.measured is not None:
        report = comparison.read_report(options.measured)
    else:
        report = _asked_for(options, old)
        if old is not None:
            comparison.require_comparable(old, report | {"methods": dict.fromkeys(options.methods)})
        for name in options.methods:
            print(f"{name} ...", flush=True)
            try:
                cost = measure(name, Size(**report["size"]), report["steps"], options.device, report["precision"])
            except torch.cuda.OutOfMemoryError as error:  # a card may be too small for one of them
                report["failed"][name] = out_of_memory(error)
            else:
                report["methods"][name] = asdict(cost)
                report["table1_hours"][name] = table1_hours(cost)
            if options.out is not None:
                write_json(options.out, report)  # after each: who has the card for ten minutes may be cut off
        print(markdown(report))
        if options.out is not None:
            print(f"\nwritten: {options.out}")
    worse = 0 if old is None or not report["methods"] else compare(old, report)
    return max(worse, 1 if report["failed"] else 0)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> int:
    """Print what has changed, and a line for whatever has become worse; 1 if anything has, else 0."""
    comparison.require_comparable(old, new)
    found = comparison.changes(old, new)
    print(f"\n{comparison.markdown(found)}\n")
    worse = comparison.regressions(found)
    for change in worse:
        print(f"worse: {change}")
    if not worse:
        print("nothing has become worse")
    return 1 if worse else 0


def _asked_for(options: argparse.Namespace, old: Mapping[str, Any] | None) -> dict[str, Any]:
    """A report of nothing yet: the machine, and what is to be measured, as ``old`` was where nothing else is said."""
    options.device = resolve_device(options.device)
    if old is None:
        size, steps, asked, known = asdict(TINY if options.tiny else HER2ST), STEPS, "auto", list(METHODS)
    else:
        size, steps, asked, known = old["size"], old["steps"], old["precision"], list(old["methods"])
    options.methods = command.methods_named(options.methods or ",".join(known), METHODS)
    precision = resolve_precision(options.precision or asked)
    require_capable(precision, options.device)
    return {
        **machine.facts(options.device),
        "precision": precision,
        "size": size,
        "steps": options.steps or steps,
        "meaningless": size == asdict(TINY),
        "methods": {},
        "failed": {},  # by method why there is no measurement
        "table1_hours": {},
    }


def measure(name: str, size: Size, steps: int, device: str, precision: Precision) -> Cost:
    """Our loop, then the bare one in the same precision, in fp32 and in bf16, on the same made-up sections."""
    method = configured(name, size.preset, size.changes)
    whole_slides = method.batching == "slides"
    spots_in_batch = size.n_spots if whole_slides else method.batch_size
    in_section = max(1, round(size.n_spots / spots_in_batch))  # full batches, so that all take the same time
    n_slides = math.ceil(steps / in_section)
    n_batches = n_slides * in_section
    slides = made_up_slides(n_slides, in_section * spots_in_batch, size.n_genes, size.side)

    epochs_s, memory = ours(name, size, slides, device, precision)
    rounds_s = [seconds / n_batches for seconds in epochs_s]
    batch_s = statistics.median(rounds_s)
    bare_rounds_s, flops = bare(name, size, slides, device, precision, n_batches, MEASURED_EPOCHS)
    bare_s = statistics.median(bare_rounds_s)
    others: tuple[Precision, ...] = ("fp32", "bf16")
    fp32_s, bf16_s = (
        bare_s
        if other == precision
        else statistics.median(bare(name, size, slides, device, other, n_batches, OTHER_EPOCHS)[0])
        for other in others
    )
    on_gpu = device.startswith("cuda")
    peak = _peak(torch.cuda.get_device_name(device)) if precision == "bf16" and on_gpu else None
    spots_per_s = spots_in_batch / batch_s
    return Cost(
        preset=size.preset,
        precision=precision,
        spots_in_batch=spots_in_batch,
        batches_in_epoch=n_batches,
        batch_s=batch_s,
        rounds_s=rounds_s,
        spots_per_s=spots_per_s,
        bare_batch_s=bare_s,
        bare_rounds_s=bare_rounds_s,
        bare_spots_per_s=spots_in_batch / bare_s,
        share=bare_s / batch_s,
        bare_fp32_batch_s=fp32_s,
        bf16_speedup=fp32_s / bf16_s,
        flops_per_batch=flops,
        flops_per_s=flops / batch_s,
        utilisation=flops / batch_s / peak if peak else None,
        peak_memory_bytes=memory,
        fold_s={dataset: fold_seconds(name, dataset, spots_per_s) for dataset in DATASETS},
    )


def ours(
    name: str, size: Size, slides: Sequence[TrainingSlide], device: str, precision: Precision
) -> tuple[list[float], int | None]:
    """Seconds of the epochs of the method's real ``fit``, and the most memory on the GPU."""
    method = configured(name, size.preset, {**size.changes, "epochs": 1 + MEASURED_EPOCHS})
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    method.fit(slides, Run(device=device, precision=precision))
    seconds = [row["seconds"] for row in method.history[1:]]  # of an epoch up to and with its wait for the device
    return seconds, torch.cuda.max_memory_allocated(device) if on_gpu else None


def bare(
    name: str,
    size: Size,
    slides: Sequence[TrainingSlide],
    device: str,
    precision: Precision,
    n_batches: int,
    rounds: int,
) -> tuple[list[float], int]:
    """Seconds of a batch of a loop with nothing but the steps, in every round, and the FLOPs of a batch."""
    start = opened(configured(name, size.preset, size.changes), slides, device)
    start.network.to(memory_format=torch.channels_last)
    copies = getattr(start.method.config, "copies", 0)
    ready = []
    for batch in start.data.batches(start.groups[: min(READY_BATCHES, n_batches)]):
        images = ready_images(start.method, batch)
        ready.append(([images, *(images.clone() for _ in range(copies))], batch))

    def steps() -> None:
        for i in range(n_batches):
            views, batch = ready[i % len(ready)]
            with autocast(torch.device(device), precision):
                loss = plain_loss(start.method, start.network, views, batch)
            (loss / start.method.accumulate).backward()
            if (i + 1) % start.method.accumulate == 0 or i + 1 == n_batches:
                start.optimiser.step()
                start.optimiser.zero_grad(set_to_none=True)

    with tf32_flags(precision):
        steps()
        seconds = [timed(steps, device) / n_batches for _ in range(rounds)]
    counter = FlopCounterMode(display=False)
    with counter, autocast(torch.device(device), precision):
        plain_loss(start.method, start.network, *ready[0]).backward()
    return seconds, counter.get_total_flops()


def fold_seconds(name: str, dataset: str, spots_per_s: float) -> float:
    """Training time of a mean published fold, from the throughput on HER2+-sized sections.

    An estimate: larger sections cost the whole-slide methods more a spot (attention is quadratic), and the epoch's
    validation of BLEEP is counted as if its spots were trained on.
    """
    folds, spots = DATASETS[dataset]
    epochs = configure(METHODS[name], "published", dataset).epochs  # type: ignore[attr-defined]
    return epochs * spots * (folds - 1) / folds / spots_per_s


def table1_hours(cost: Cost) -> float:
    """Training of every fold of the three datasets, one after the other on this device."""
    return sum(DATASETS[dataset][0] * seconds for dataset, seconds in cost.fold_s.items()) / 3600


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a table, a row a method, and the hours of the paper's whole Table 1."""
    columns = (
        "method",
        "spots/s",
        "bare loop",
        "share",
        "TFLOP/s",
        "of peak",
        "bf16 over fp32",
        "memory",
        "HER2+ fold",
        "Table 1",
    )
    lines = ["Tiny sections: these numbers mean nothing.", ""] if report["meaningless"] else []
    lines += [
        f"{machine.in_words(report)}, {report['precision']}, {report['size']['preset']} presets, random weights",
        "",
        f"| {' | '.join(columns)} |",
        "| " + " | ".join(["---"] + ["---:"] * (len(columns) - 1)) + " |",
    ]
    for name, cost in report["methods"].items():
        memory, used = cost["peak_memory_bytes"], cost["utilisation"]
        cells = (
            name,
            f"{cost['spots_per_s']:,.0f}",
            f"{cost['bare_spots_per_s']:,.0f}",
            f"{cost['share']:.2f}",
            f"{cost['flops_per_s'] / 1e12:.2f}",
            "unknown" if used is None else f"{used:.1%}",
            f"{cost['bf16_speedup']:.2f} x",
            "unknown" if memory is None else f"{memory / 2**30:.1f} GiB",
            f"{cost['fold_s']['her2st']:,.0f} s",
            f"{report['table1_hours'][name]:.1f} h",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{name} was not measured: {reason}." for name, reason in report["failed"].items()]
    total = sum(report["table1_hours"].values())
    return "\n".join([*lines, "", f"Table 1, these methods, training alone: {total:.1f} hours on this device"])


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds of ``work``, from when the device has nothing to do until it has nothing to do again."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _peak(device_name: str) -> float | None:
    return next((peak for name, peak in PEAK_BF16.items() if name in device_name), None)


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, help="the JSON file to write (performance.json; none under --compare)")
    parser.add_argument("--methods", help="names with commas (all six)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--precision", help="of both loops: auto or fp32, tf32, bf16 (auto)")
    parser.add_argument("--steps", type=int, help=f"batches in a measured epoch, about ({STEPS})")
    parser.add_argument("--tiny", action="store_true", help="quick presets on tiny sections: does the script work?")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="an earlier JSON file: measure it again")
    parser.add_argument("--measured", type=Path, metavar="NEW", help="compare this one, and measure nothing")
    options = parser.parse_args(words)
    if options.measured is not None and options.compare is None:
        raise UserError("--measured is what is compared - name the earlier file by --compare")
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps {options.steps} measures nothing - give 1 or more")
    if options.tiny and options.compare is not None:
        raise UserError("--compare measures sections of the size that the earlier file has - leave out --tiny")
    if options.out is None and options.compare is None:
        options.out = Path("performance.json")
    return options


if __name__ == "__main__":
    command.end(main)
