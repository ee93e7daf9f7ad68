"""The table of means that a run ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ..system.numerals import bounded
from .console import out

if TYPE_CHECKING:
    import pandas as pd


def print_summary(summary: pd.DataFrame) -> None:
    """Print means over slices per method, with k/n, in at most 80 columns; the report has the full tables."""
    for (split, target), section in summary.groupby(["split", "target"], sort=False):
        presets = sorted(set(section["preset"]))
        common = f", preset {presets[0]}" if len(presets) == 1 else ""
        title = f"{section['dataset'].iloc[0]}, {split}, {target}{common}: means over finished slices"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
        table.add_column("method", overflow="fold")
        counted = "slices" if len(set(section["seed"])) == 1 else "slices × seeds"
        for name in (counted, "PCC ACG", "PCC HEG", "MSE", "MAE", "fit s"):
            table.add_column(name, justify="right", no_wrap=True)
        order = section.groupby(["method", "preset", "variant", "weights", "precision"], sort=False, dropna=False)
        for (method, preset, variant, weights, precision), rows in order:
            done = rows[rows["state"] == "finished"]
            labels = [
                str(method),
                "(oracle)" if rows["oracle"].any() else "",
                "(leak)" if (rows["leak"] != "").any() else "",
                "" if common or preset == "published" else str(preset),
                str(variant),
                "(random weights)" if weights == "random" else "",
                "" if precision in ("", "fp32") else f"({precision})",
            ]
            fit_s = done.drop_duplicates("key")["fit_s"]  # a trial may test several slices
            cells = [_mean(done[metric]) for metric in ("pcc_acg", "pcc_heg", "mse", "mae")]
            name = " ".join(label for label in labels if label)
            table.add_row(
                name,
                f"{len(done)}/{len(rows)}",
                *cells,
                f"{fit_s.sum():.0f}" if fit_s.notna().any() else "-",
            )
        out.print(table)
    _print_remarks(summary)


def _print_remarks(summary: pd.DataFrame) -> None:
    """Print what speaks against the numbers above: how many trials failed, raised an alarm or have notes."""
    trials = summary.drop_duplicates("key")
    for column, style, words in (
        ("reason", "red", "failed"),
        ("alarms", "yellow", "raised an alarm"),
        ("notes", "yellow", "have notes"),
    ):
        chosen = trials[trials["state"] == "failed"] if column == "reason" else trials[trials[column] != ""]
        if chosen.empty:
            continue
        counted = chosen.groupby("method", sort=False).size()
        whose = ", ".join(f"{method} {n}" for method, n in counted.items())
        out.print(
            f"{len(chosen)} of {len(trials)} trials {words} ({whose}): column {column} of summary.csv, and the report",
            style=style,
            soft_wrap=True,
            markup=False,
            highlight=False,
        )


def _mean(values: pd.Series[float]) -> str:
    """The mean, or a dash where it is undefined for a slice (a constant prediction has no correlation)."""
    return "-" if values.empty or values.isna().any() else bounded(values.mean())
