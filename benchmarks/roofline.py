"""What a training step of each published method must cost on a GPU, counted without one.

    python benchmarks/roofline.py --card h200             # a table: ours, and the bare step in brackets
    python benchmarks/roofline.py --out counts.json       # the counts, for machines
    python benchmarks/roofline.py --compare counts.json   # counted again: exit 1 if anything has become more
    python benchmarks/roofline.py --update --methods stnet  # every size and preset, into methods/counted.json

Counting is exact, the same on every machine (memory: to a thousandth), and takes half a minute for all six; nothing is
computed (``counting.py`` says how). What a card makes of the counts is a model (``stbench/trials/cards.toml``): data
sheet times everyday shares, not measured. ``stbench run --dry-run`` makes the same of ``methods/counted.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import stbench  # noqa: F401 - before torch, which reads then how its threads are to wait

# isort: split

import command
import counted_steps
from counted_step import Step, bare, harness
from counted_steps import COUNTED, GENES, SPOTS, TORCH, batch_of, counted_step, read_counts
from gpu import DATASETS
from plain_step import METHODS

from stbench.errors import UserError, unknown
from stbench.method import configure
from stbench.registry import dataset as dataset_named
from stbench.trials.cards import Card, card_named, read_cards
from stbench.trials.cost_table import rate
from stbench.trials.counted import CountedStep, counted
from stbench.trials.effort import Effort, Work

WORSE = ("operations", "flops", "n_bytes", "peak_bytes")  # what may not become more
LOOSE = {"peak_bytes": 1e-3}  # share that is no change: when Python lets a tensor go is not the same in every process


class Pair(NamedTuple):
    """A step as the harness takes it, and without the harness."""

    ours: CountedStep
    bare: CountedStep


def main(words: Sequence[str] | None = None) -> None:
    options = _options(words)
    if options.compare is not None:
        compare(options.compare)
    elif options.update:
        print(f"{counted_steps.update(options.methods)} steps are in {COUNTED}")
    else:
        steps = [_pair(name, options) for name in options.methods]
        print(markdown(steps, card_named(options.card)))
        if options.out is not None:
            counted_steps.write(options.out, [step.ours for step in steps])
            print(f"\nwritten: {options.out}")


def compare(old: Path) -> None:
    """Count again what ``old`` holds; every count that has become more is printed, and ends the process with 1."""
    steps = read_counts(old)
    worse = False
    for before in steps:
        step = counted_steps.step_of(before)
        for what, then, now in changes(before, counted_step(step, harness(step))):
            print(f"{step}: {what} {then:,} -> {now:,} ({now / then - 1:+.2%})")
            worse |= now > then
    if worse:
        raise SystemExit(1)
    print(f"no count has become more in {len(steps)} steps")


def changes(before: CountedStep, now: CountedStep) -> list[tuple[str, int, int]]:
    """What is counted otherwise than before: what, then, and now."""
    pairs = [(what, getattr(before, what), getattr(now, what)) for what in WORSE]
    return [(what, then, today) for what, then, today in pairs if abs(today - then) > LOOSE.get(what, 0) * then]


def markdown(steps: Sequence[Pair], card: Card) -> str:
    """A row a method. The bare step's counts are in brackets."""
    columns = (
        *("method", "spots", "operations (bare)", "GFLOP", "GB moved (bare)", "GiB at most", "host ms", "GPU ms"),
        *("with TF32 products", "limit ms", "Table 1, hours", "with TF32 products"),
    )
    lines = [
        f"Counted with torch {TORCH}, modelled for {card.name}, not measured",
        "",
        f"| {' | '.join(columns)} |",
        "| " + " | ".join(["---"] + ["---:"] * (len(columns) - 1)) + " |",
    ]
    for ours, plain in steps:
        cells = (
            ours.method,
            f"{ours.n_spots * ours.accumulate:,}",
            f"{ours.operations:,} ({plain.operations:,})",
            f"{ours.flops / 1e9:,.0f}",
            f"{ours.n_bytes / 1e9:.1f} ({plain.n_bytes / 1e9:.1f})",
            f"{ours.peak_bytes / 2**30:.1f}",
            f"{1e3 * card.issuing_s(ours.kinds):.1f}",
            f"{1e3 * card.gpu_s(ours.kinds):.1f}",
            f"{1e3 * card.gpu_s(ours.kinds, tf32_products=True):.1f}",
            f"{1e3 * card.limit_s(ours.kinds):.1f}",
            *(f"{table1_hours(ours.method, card, tf32):.1f}" for tf32 in (False, True)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def table1_hours(name: str, card: Card, tf32_products: bool = False) -> float:
    """Training of every fold of the paper's three datasets at published settings, one after the other on the card.

    As runs are planned: from the counts that the package holds, at the mean size of each dataset's sections.
    """
    seconds = 0.0
    for dataset, (folds, spots) in DATASETS.items():
        config = configure(METHODS[name], "published", dataset)
        slides = (round(spots / folds),) * (folds - 1)
        work = Work(
            train=slides,
            test=(),
            n_genes=len(dataset_named(dataset).panel()),
            epochs=config.epochs,  # type: ignore[attr-defined]
            batch_size=getattr(config, "batch_size", None),
        )
        effort = Effort(rate(name, "published"), counted(name, "published"), card, None, tf32_products)
        seconds += folds * effort.fit_s(work, on_gpu=True)
    return seconds / 3600


def _pair(name: str, options: argparse.Namespace) -> Pair:
    n_spots = batch_of(name, options.preset) or options.spots
    step = Step(name, options.preset, n_spots, options.genes)
    return Pair(counted_step(step, harness(step)), counted_step(step, bare(step)))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    first, *others = read_cards()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--card", default=first, help=f"{first} (as it is) or {', '.join(others)}")
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas (all six)")
    parser.add_argument("--preset", default="published", help="published or quick (published)")
    parser.add_argument("--spots", type=int, default=SPOTS, help=f"of a section, for whole-slide methods ({SPOTS})")
    parser.add_argument("--genes", type=int, default=GENES, help=f"({GENES})")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="such a file, to be counted again")
    parser.add_argument("--update", action="store_true", help=f"count all sizes into {COUNTED.name}: minutes a method")
    options = parser.parse_args(words)
    card_named(options.card)
    options.methods = options.methods.split(",")
    for name in options.methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    if options.spots < 1 or options.genes < 1:
        raise UserError("--spots and --genes are 1 or more")
    return options


if __name__ == "__main__":
    command.end(main)
