"""The GPU that trials are planned for: the one that is here, that a cluster gives, or that is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..trials.cards import Card
    from ..trials.engines.protocol import Engine

NAME_IT = "--card names the one that is meant"


class PlannedOn(NamedTuple):
    """``note``: what must be known of how the card was chosen."""

    on_gpu: bool  # whether trials whose device is "auto" have one
    card: Card
    note: str = ""
    at_a_time: int = 1  # trials on one card


def planned_on(engine: Engine, key: str | None = None, at_a_time: int = 1) -> PlannedOn:
    """Where ``engine`` has trials run, so many on a card. ``key``: of the card that they are planned for, if named."""
    from ..trials.cards import card_here, card_named, default_card
    from ..trials.cost_table import has_gpu
    from ..trials.engines.script import ScriptEngine
    from ..trials.engines.slurm.engine import SlurmEngine

    if key is not None:
        return PlannedOn(True, card_named(key), at_a_time=at_a_time)
    if isinstance(engine, SlurmEngine | ScriptEngine):
        note = f"which GPU a job gets is not known here: {NAME_IT}"
        return PlannedOn(engine.layout.options.asks_for_gpus, default_card(), note)
    if not has_gpu():
        return PlannedOn(False, default_card())
    card, note = card_here()
    return PlannedOn(True, card, f"{note}, so this one was taken: {NAME_IT}" if note else "", at_a_time)


def on_a_card() -> PlannedOn:
    """For what it would take on a GPU, where there is none."""
    from ..trials.cards import default_card

    return PlannedOn(True, default_card(), f"there is none here: {NAME_IT}")
