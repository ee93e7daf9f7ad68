"""What a shell offers after Tab: names that are known without importing a method or dataset.

A shell asks while somebody types and shows whatever is printed, so what goes wrong here ends in no offer, never in an
error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

from .. import registry
from ..data.splits import SPLITS
from ..data.target_names import TARGET_NAMES
from ..readings import READINGS
from ..system.locate import cohort_names, data_root
from ..system.precision import PRECISIONS

ASKED_BY_SHELL = "_STBENCH_COMPLETE"  # typer's variable for a program of this name: set where a shell asks

Completion = Callable[[str], list[str]]


def one_of(names: Callable[[], Iterable[str]]) -> Completion:
    """Completes one name of ``names()``."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in _offered(names) if name.startswith(incomplete)]

    return complete


def several_of(names: Callable[[], Iterable[str]]) -> Completion:
    """Completes the last of several names of ``names()`` with commas between them, and offers none a second time."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",")
        return [f"{before}{comma}{name}" for name in _offered(names) if name.startswith(last) and name not in given]

    return complete


def _offered(names: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return list(names())
    except Exception:  # noqa: BLE001 - the metadata of any installed package may be broken in any way
        return []


def _methods_and_groups() -> list[str]:
    return [*registry.method_names(), *registry.GROUPS_OF_METHODS]


def complete_cohort(context: typer.Context, incomplete: str) -> list[str]:
    """The user's own cohorts, below the folder that the command line names so far."""
    names = _offered(lambda: cohort_names(data_root(context.params.get("data"))))
    return [name for name in names if name.startswith(incomplete)]


def complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    """Registered datasets, and the user's own cohorts."""
    registered = [name for name in _offered(registry.dataset_names) if name.startswith(incomplete)]
    return [*registered, *complete_cohort(context, incomplete)]


complete_method = one_of(registry.method_names)
complete_methods = several_of(_methods_and_groups)
complete_method_or_group = one_of(_methods_and_groups)
complete_preset = one_of(lambda: (*READINGS, "quick"))  # those that the help names; a method may have more
complete_target = one_of(lambda: TARGET_NAMES)
complete_split = one_of(lambda: SPLITS)
complete_splits = several_of(lambda: SPLITS)
complete_precision = one_of(lambda: ("auto", *PRECISIONS))
