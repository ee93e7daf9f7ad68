"""What a training step of each published method must cost on a GPU, counted without one.

    python benchmarks/roofline.py --card h200                      # a table: ours, and the bare step in brackets
    python benchmarks/roofline.py --out benchmarks/counts.json     # the counts, for machines
    python benchmarks/roofline.py --compare benchmarks/counts.json # counted again: exit 1 if anything has become more

Counting is exact, the same on every machine (memory: to a thousandth), and takes half a minute for all six; nothing is
computed (``counting.py`` says how). What a card makes of the counts is a model (``cards.toml``): data sheet times
everyday shares, not measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import stbench  # noqa: F401 - before torch, which reads then how its threads are to wait

# isort: split

import torch
from cards import Card, read_cards
from counted_step import Counts, Step, bare, harness
from plain_step import METHODS, configured

from stbench.errors import UserError, unknown
from stbench.system.files import write_json

SPOTS, GENES = 361, 785  # of a mean section of HER2+, and its panel
TORCH = torch.__version__.partition("+")[0]
COUNTS = Path(__file__).with_name("counts.json")  # of all six, as they are: a test counts them again
WORSE = ("operations", "flops", "bytes", "peak_bytes")  # what may not become more
LOOSE = {"peak_bytes": 1e-3}  # share that is no change: when Python lets a tensor go is not the same in every process


def main(words: Sequence[str] | None = None) -> None:
    options = _options(words)
    if options.compare is not None:
        compare(options.compare)
    else:
        report = count(options.methods, options.preset, options.spots, options.genes)
        print(markdown(report, options.cards[options.card]))
        if options.out is not None:
            write_json(options.out, {**report, "steps": [_plain(row) for row in report["steps"]]})
            print(f"\nwritten: {options.out}")


def count(methods: Sequence[str], preset: str, n_spots: int, n_genes: int) -> dict[str, Any]:
    """Both steps of each method; of methods that learn from batches of spots, at their batch size."""
    rows = []
    for name in methods:
        step = Step(name, preset, batch_of(name, preset) or n_spots, n_genes)
        rows.append({**asdict(step), "harness": harness(step), "bare": bare(step)})
    return {"torch": TORCH, "steps": rows}


def compare(old: Path) -> None:
    """Count again what ``old`` holds; every count that has become more is printed, and ends the process with 1."""
    steps = read_counts(old)
    worse = False
    for step, before in steps.items():
        for what, then, now in changes(before, numbers(harness(step))):
            print(f"{step}: {what} {then:,} -> {now:,} ({now / then - 1:+.2%})")
            worse |= now > then
    if worse:
        raise SystemExit(1)
    print(f"no count has become more in {len(steps)} steps")


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """What is counted otherwise than before: what, then, and now."""
    return [
        (what, before[what], now[what])
        for what in WORSE
        if abs(now[what] - before[what]) > LOOSE.get(what, 0) * before[what]
    ]


def batch_of(name: str, preset: str) -> int | None:
    """Spots in a batch; ``None`` where a method learns a whole slide at a time."""
    method = configured(name, preset, {})
    return method.batch_size if method.batching == "spots" else None


def numbers(counts: Counts) -> dict[str, int]:
    return {
        "spots": counts.spots,
        "operations": counts.n,
        "flops": counts.flops,
        "bytes": counts.n_bytes,
        "peak_bytes": counts.peak_bytes,
    }


def markdown(report: Mapping[str, Any], card: Card) -> str:
    """A row a method. The bare step's counts are in brackets."""
    columns = (
        *("method", "spots", "operations (bare)", "GFLOP", "GB moved (bare)", "GiB at most", "host ms", "GPU ms"),
        *("with TF32 products", "limit ms"),
    )
    lines = [
        f"Counted with torch {report['torch']}, modelled for {card.name}, not measured",
        "",
        f"| {' | '.join(columns)} |",
        "| " + " | ".join(["---"] + ["---:"] * (len(columns) - 1)) + " |",
    ]
    for row in report["steps"]:
        ours, plain = row["harness"], row["bare"]
        cells = (
            row["method"],
            f"{ours.spots:,}",
            f"{ours.n:,} ({plain.n:,})",
            f"{ours.flops / 1e9:,.0f}",
            f"{ours.n_bytes / 1e9:.1f} ({plain.n_bytes / 1e9:.1f})",
            f"{ours.peak_bytes / 2**30:.1f}",
            f"{1e3 * card.host_s * ours.n:.1f}",
            f"{1e3 * card.gpu_s(ours.operations):.1f}",
            f"{1e3 * card.gpu_s(ours.operations, tf32_products=True):.1f}",
            f"{1e3 * card.limit_s(ours.operations):.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: numbers(value) if isinstance(value, Counts) else value for name, value in row.items()}


def read_counts(path: Path) -> dict[Step, dict[str, int]]:
    """The harness's steps of a file that ``--out`` wrote.

    Raises ``UserError`` if it is none, or was counted with another version of torch, which may issue other operations.
    """
    try:
        counted = json.loads(path.read_text(encoding="utf-8"))
        found, rows = counted["torch"], counted["steps"]
        names = [field.name for field in fields(Step)]
        steps = {Step(*(row[name] for name in names)): row["harness"] for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no counts of benchmarks/roofline.py ({error}) - make it by --out") from error
    if found != TORCH:
        raise UserError(f"{path} was counted with torch {found}, this is {TORCH} - count it anew by --out")
    return steps


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    cards = read_cards()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--card", default="h200", help=f"{', '.join(cards)} (h200)")
    parser.add_argument("--methods", default=",".join(METHODS), help="names with commas (all six)")
    parser.add_argument("--preset", default="published", help="published or quick (published)")
    parser.add_argument("--spots", type=int, default=SPOTS, help=f"of a section, for whole-slide methods ({SPOTS})")
    parser.add_argument("--genes", type=int, default=GENES, help=f"({GENES})")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    parser.add_argument("--compare", type=Path, metavar="OLD", help="such a file, to be counted again")
    options = parser.parse_args(words)
    if options.card not in cards:
        raise unknown("card", options.card, cards)
    options.cards, options.methods = cards, options.methods.split(",")
    for name in options.methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    if options.spots < 1 or options.genes < 1:
        raise UserError("--spots and --genes are 1 or more")
    return options


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
