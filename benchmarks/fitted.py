"""Counted against measured: what the model of a card says a step takes, and the constants that would have said it.

    python benchmarks/fitted.py --measured performance.json --out fitted.json

Takes what ``gpu.py`` measured, counts the same steps (``counting.py``, half a minute, no GPU), and models them for the
card by ``cards.toml``. The everyday constants there are then fitted to what was measured: least squares of the
logarithms of the steps' times over all methods, drawn a little towards the values of today, so that a constant on which
no step hangs stays what it is. They are printed as a suggestion.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import command
import comparison
import numpy as np
from counted_step import Counts, Step, harness
from counting import Operation, exactly
from plain_step import configured
from scipy.optimize import least_squares

from stbench.errors import UserError
from stbench.system.files import write_json
from stbench.trials.cards import Card, card_called, read_cards

CONSTANTS = ("products", "convolutions", "traffic", "host_s", "kernel_s")
SHARES = frozenset(CONSTANTS[:3])  # of a peak: at most 1
PULL = 0.1  # weight of a constant's distance from today's value against that of a method's time from what was measured
HARDLY = 0.1  # a constant that moves the logarithms of all methods' times by less than this in all is hardly determined


@dataclass(frozen=True)
class Timed:
    """A step that was counted and measured."""

    method: str
    operations: Mapping[Operation, int]
    seconds: float  # measured
    tf32_products: bool = False

    def modelled(self, card: Card) -> float:
        """Seconds: the GPU's, or the host's where issuing takes longer."""
        return card.step_s(exactly(self.operations), self.tf32_products)


@dataclass(frozen=True)
class Fit:
    card: Card  # with the fitted constants
    error_before: float  # root mean square of log(modelled / measured)
    error: float
    weight: Mapping[str, float]  # of each constant: how far it moves the logarithms of the times, summed over methods


def fitted(steps: Sequence[Timed], card: Card) -> Fit:
    """The constants of ``card`` that come nearest to what was measured, and how near both come."""
    today = np.log([getattr(card, name) for name in CONSTANTS])
    measured = np.log([step.seconds for step in steps])

    def at(x: np.ndarray) -> Card:
        return replace(card, **dict(zip(CONSTANTS, np.exp(x).tolist(), strict=True)))

    def distances(x: np.ndarray) -> np.ndarray:
        return np.log([step.modelled(at(x)) for step in steps]) - measured

    def error(x: np.ndarray) -> float:
        return float(np.sqrt(np.mean(distances(x) ** 2)))

    found = least_squares(
        lambda x: np.concatenate([distances(x), PULL * (x - today)]),
        today,
        jac="3-point",
        diff_step=0.002,  # of a constant's logarithm
        bounds=(-np.inf, [0.0 if name in SHARES else np.inf for name in CONSTANTS]),
    )
    weight = np.abs(found.jac[: len(steps)]).sum(axis=0)
    return Fit(at(found.x), error(today), error(found.x), dict(zip(CONSTANTS, weight.tolist(), strict=True)))


def suggestion(fit: Fit) -> str:
    """The table ``everyday`` for ``cards.toml``."""
    lines = ["[everyday]"]
    for name in CONSTANTS:
        value = getattr(fit.card, name)
        said = f"{value:.2f}" if name in SHARES else f"{value:.1e}"
        hardly = "  # hardly determined by these steps" if fit.weight[name] < HARDLY else ""
        lines.append(f"{name} = {said}{hardly}")
    return "\n".join(lines)


def counts_of(name: str, size: Mapping[str, Any], spots_in_batch: int) -> Counts:
    """Of the step that ``gpu.py`` measures; of BLEEP four batches, which are one step of its optimiser."""
    return harness(Step(name, size["preset"], spots_in_batch, size["n_genes"]))


def steps_of(report: Mapping[str, Any]) -> dict[str, tuple[Timed, Counts]]:
    """What was measured, counted, by method."""
    found = {}
    for name, cost in report["methods"].items():
        counts = counts_of(name, report["size"], cost["spots_in_batch"])
        batches = configured(name, report["size"]["preset"], report["size"]["changes"]).accumulate
        timed = Timed(name, Counter(counts.operations), batches * cost["batch_s"], report["precision"] == "tf32")
        found[name] = timed, counts
    return found


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--measured", type=Path, required=True, help="what gpu.py wrote, on any machine")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(words)
    report = comparison.read_report(options.measured)
    card = card_called(report["device"]) or (read_cards()["h200"] if report["meaningless"] else None)
    if card is None:
        known = ", ".join(read_cards())
        raise UserError(
            f"no card of stbench/trials/cards.toml is called {report['device']} ({known}) - add its data sheet"
        )
    if report["precision"] == "bf16":
        raise UserError(f"{options.measured} was measured in bf16, which cards are not modelled in - measure in fp32")
    steps = steps_of(report)
    fit = fitted([timed for timed, _ in steps.values()], card)
    rows = {
        name: {
            "operations": counts.n,
            "flops": counts.flops,
            "bytes": counts.n_bytes,
            "peak_bytes": counts.peak_bytes,
            "measured_s": timed.seconds,
            "measured_peak_bytes": report["methods"][name]["peak_memory_bytes"],
            "host_s": card.host_s * counts.n,
            "modelled_s": timed.modelled(card),
            "fitted_s": timed.modelled(fit.card),
            "limit_s": card.limit_s(exactly(counts.operations)),
        }
        for name, (timed, counts) in steps.items()
    }
    out = {
        "card": card.key,
        "methods": rows,
        "fit": {
            "error_before": fit.error_before,
            "error": fit.error,
            "constants": {name: getattr(fit.card, name) for name in CONSTANTS},
            "weight": fit.weight,
            "suggestion": suggestion(fit),
        },
    }
    write_json(options.out, out)
    for name, row in rows.items():
        print(f"{name}: measured {1e3 * row['measured_s']:.2f} ms, modelled {1e3 * row['modelled_s']:.2f} ms")
    print(f"{suggestion(fit)}\n# error {fit.error_before:.0%} -> {fit.error:.0%}, {card.name}, {len(rows)} methods")


if __name__ == "__main__":
    command.end(main)
