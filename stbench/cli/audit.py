"""``stbench audit``: what could make numbers on a dataset look better than the methods are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from ..data.target_names import DEFAULT_TARGET
from ..system.files import write_json
from .console import out
from .gene_panels import PanelOptions
from .options import (
    DataOption,
    DatasetOption,
    FoldsOption,
    PanelFromOption,
    PanelOption,
    PatchUmOption,
    SlicesOption,
    SplitOption,
    TargetOption,
)
from .preparing import check_split, prepare_slices, require_data, split_folds

if TYPE_CHECKING:
    from ..audit import Finding

COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "leak": "red"}


def audit(
    dataset: DatasetOption,
    split: SplitOption = "loso",
    folds: FoldsOption = None,
    target: TargetOption = DEFAULT_TARGET,
    slices: SlicesOption = None,
    panel: PanelOption = None,
    panel_from: PanelFromOption = None,
    data: DataOption = None,
    patch_um: PatchUmOption = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the findings here.")] = None,
) -> None:
    """Look for what makes numbers too good: replicates, copies, smoothed labels, a panel that saw the test slices."""
    from ..audit import audit as examine
    from ..audit.panel import ranks_if_needed

    check_split(split, folds)
    options = PanelOptions(panel, panel_from, dataset, data, slices, split, folds, patch_um)
    options.check()
    require_data(options.own(), slices, split, folds)
    opened, _ = options.open()
    prepared = prepare_slices(opened, target, slices)
    folds_of_split = split_folds(split, folds, prepared.patients)
    ranks = ranks_if_needed(prepared, opened)
    records = [examine(prepared, its_folds, name, ranks=ranks) for name, its_folds in folds_of_split.items()]
    first = records[0]
    for record in records:
        known = () if record is first else first.findings
        out.print(
            f"{prepared.title}, {prepared.coverage()} slices, {record.split}: {record.badge}",
            style="bold",
            soft_wrap=True,
        )
        out.print(_table([finding for finding in record.findings if finding not in known]))
        if known:
            out.print(f"all other findings are as under {first.split}")
    out.print(
        "encoders, and methods that see test expression, are judged in a run's report: they depend on the methods",
        soft_wrap=True,
    )
    if json is not None:
        write_json(json, [record.to_json() for record in records])
        out.print(f"findings: {json}", soft_wrap=True)


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("check", "verdict"):
        table.add_column(heading, no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("reason")
    for finding in findings:
        examples = f" ({'; '.join(finding.examples)})" if finding.examples else ""
        table.add_row(
            finding.check,
            Text(finding.verdict, COLOURS[finding.verdict]),
            f"{finding.count:,}/{finding.of:,}",
            Text.assemble(finding.reason, (examples, "dim")),
        )
    return table
