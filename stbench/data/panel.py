"""A panel that the user chose in place of a dataset's own, and a dataset that has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..dataset import Dataset
from ..errors import DamagedFileError
from ..system.files import read_object, value_digest, write_json
from .dataset_view import DatasetView

WAY_OUT = "delete it and run the command again that planned the trials"


@dataclass(frozen=True)
class Panel:
    """Genes to predict, the same for all folds or chosen anew for each.

    Parameters
    ----------
    name : str
        Short, for names of files and folders: ``hvg1000``.
    title : str
        As printed behind the dataset's.
    source : str
        How it was chosen, in words.
    saw_test : bool, optional
        Whether expression of slices that are tested was looked at; ``None``: not known, so that the audit tests it.
    genes : tuple of str
        In the order of the predictions' columns; where folds differ, all that any fold has.
    folds : mapping of split to mapping of fold to genes
        Empty where all folds have the same.
    notices : tuple of str
        What a user must know of it.
    """

    name: str
    title: str
    source: str
    saw_test: bool | None
    genes: tuple[str, ...]
    folds: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def of(self, split: str, fold: str) -> tuple[str, ...]:
        """The genes of a fold."""
        return self.folds[split][fold] if self.folds else self.genes

    @cached_property
    def digest(self) -> str:
        return value_digest(asdict(self))[:16]

    def write(self, results: Path) -> None:
        """Into ``RESULTS/panels``, where trials find it, and people a list of genes."""
        path = panel_path(results, self.digest)
        if not path.is_file():
            write_json(path, asdict(self))


def panel_path(results: Path, digest: str) -> Path:
    return results / "panels" / f"{digest}.json"


def read_panel_of(results: Path, digest: str) -> Panel:
    """What :meth:`Panel.write` wrote. Raises ``DamagedFileError`` where it is not there, or is something else."""
    path = panel_path(results, digest)
    content: dict[str, Any] = read_object(path, WAY_OUT)
    try:
        content["genes"], content["notices"] = tuple(content["genes"]), tuple(content["notices"])
        content["folds"] = {
            split: {fold: tuple(genes) for fold, genes in folds.items()} for split, folds in content["folds"].items()
        }
        panel = Panel(**content)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{path} is not a panel of genes - {WAY_OUT}") from error
    if panel.digest != digest:
        raise DamagedFileError(f"{path} was changed after trials were planned with it - {WAY_OUT}")
    return panel


class WithPanel(DatasetView):
    """A dataset with another panel than its own: under a name of its own, as its numbers are not those of the other."""

    def __init__(self, dataset: Dataset, panel: Panel) -> None:
        super().__init__(dataset)
        self._panel = panel
        self.name = f"{dataset.name}-{panel.name}"
        self.title = f"{dataset.title}, {panel.title}"
        self.panel_source, self.panel_saw_test = panel.source, panel.saw_test
        self.panel_notices = panel.notices

    def panel(self) -> list[str]:
        return list(self._panel.genes)

    def listed_panel(self) -> list[str]:
        return self.panel()

    def panel_of(self, genes: Mapping[str, Sequence[str]]) -> list[str]:
        """Whatever slides could be read, it is the one that was chosen."""
        return self.panel()
