"""What planned trials will take, in a table and a few lines that say what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..system.wording import amount
from .console import out

if TYPE_CHECKING:
    from ..trials.cost import Cost
    from .planned_on import PlannedOn


def say_costs(rows: Mapping[str, Sequence[Cost]], time: str, planned: PlannedOn) -> None:
    """Print what trials take. ``rows``: theirs, by what they are; ``time``: that of all, in words."""
    _say_table("to run", rows)
    costs = _all(rows)
    on_gpu = sum(cost.seconds for cost in costs if cost.gpu_memory_bytes is not None)
    out.print(
        f"{time}; {f'{gpu_hours(on_gpu)} GPU hours' if on_gpu else 'no GPU'}; "
        f"{amount(sum(cost.disk_bytes for cost in costs))} on disk; a trial takes at most "
        f"{amount(max(cost.memory_bytes for cost in costs))} of memory",
        soft_wrap=True,
    )
    _say_counted(rows, planned)
    if any(cost.basis == "table" for cost in costs):
        out.print("a table knows neither this machine nor changed settings: take it times or divided by three")


def say_on_a_card(rows: Mapping[str, Sequence[Cost]], planned: PlannedOn) -> None:
    """Print what trials that have no GPU here would take of one: those whose steps were counted."""
    counted = {kind: costs for kind, costs in rows.items() if all(cost.basis == "counted" for cost in costs)}
    if not counted:
        return
    _say_table("on a GPU", counted)
    costs = _all(counted)
    others = len(_all(rows)) - len(costs)
    out.print(
        f"{gpu_hours(sum(cost.seconds for cost in costs))} GPU hours, at most {gpu_memory(costs)} of GPU memory"
        f"{f'; not counted: the trials of other methods, {others:,} in all' if others else ''}",
        soft_wrap=True,
    )
    _say_counted(counted, planned)


def _all(rows: Mapping[str, Sequence[Cost]]) -> list[Cost]:
    return [cost for row in rows.values() for cost in row]


def _say_table(title: str, rows: Mapping[str, Sequence[Cost]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for number, column in enumerate((title, "trials", "each", "together", "memory", "GPU", "on disk", "from")):
        table.add_column(column, justify="left" if number in (0, 7) else "right", no_wrap=number < 7)
    for kind, costs in rows.items():
        total = sum(cost.seconds for cost in costs)
        table.add_row(
            kind,
            f"{len(costs):,}",
            duration(total / len(costs)),
            duration(total),
            amount(max(cost.memory_bytes for cost in costs)),
            gpu_memory(costs),
            amount(sum(cost.disk_bytes for cost in costs)),
            _basis(costs),
        )
    out.print(table)


def _say_counted(rows: Mapping[str, Sequence[Cost]], planned: PlannedOn) -> None:
    """For which card was counted, and what has no room on it."""
    card = planned.card
    if any(cost.basis == "counted" for cost in _all(rows)):
        out.print(
            f"counted for an {card}, not measured: what steps ask of it, at everyday shares of its data sheet"
            f"{f' ({planned.note})' if planned.note else ''}",
            soft_wrap=True,
        )
    for kind, costs in rows.items():
        wanted = max((cost.gpu_memory_bytes or 0 for cost in costs if cost.basis == "counted"), default=0)
        together = planned.at_a_time * wanted
        if together > card.memory:
            several = f", {planned.at_a_time} at a time {amount(together)}" if planned.at_a_time > 1 else ""
            out.print(
                f"warning: {kind} needs {amount(wanted)} of GPU memory{several}, and an {card} has "
                f"{amount(card.memory)}",
                style="yellow",
                soft_wrap=True,
            )


def _basis(costs: Sequence[Cost]) -> str:
    n_past = max(cost.n_past for cost in costs)
    past = f"{n_past} past trial{'s' if n_past > 1 else ''}" if n_past else ""
    counted = "counted" if any(cost.basis == "counted" for cost in costs) else ""
    table = "a table" if any(cost.basis == "table" for cost in costs) else ""
    return " and ".join(filter(None, (past, counted, table)))


def gpu_memory(costs: Iterable[Cost]) -> str:
    """The most of it; empty where none is used."""
    found = [cost.gpu_memory_bytes for cost in costs if cost.gpu_memory_bytes is not None]
    return amount(max(found)) if found else ""


def gpu_hours(seconds: float) -> str:
    """Two digits at least: ``0.012``, ``1.5``, ``1,234.5``"""
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.4 h``, ``5.2 days``"""
    for unit, size, digits in (("days", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= (2 * size if unit == "days" else size):
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
