"""``--panel``: other genes than a dataset's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .. import registry
from ..errors import UserError
from ..system.locate import cache_root, data_root
from ..system.user_paths import expanded
from .console import of_each
from .lists import slice_list

if TYPE_CHECKING:
    from ..data.gene_statistics import GeneStatistics
    from ..data.panel import Panel
    from ..data.splits import Fold
    from ..dataset import Dataset, SlideSource

CRITERIA = {
    "hvg": "the most variable genes (normalised dispersion of Seurat)",
    "svg": "the genes of greatest Moran's I over neighbouring spots",
}
FORMS = "a file of one gene per line, the name of a dataset with a panel, hvg:1000, svg:1000, or common"
MADE = re.compile(r"(hvg|svg):(\d+)")
SCOPES = ("training", "all")


@dataclass(frozen=True)
class PanelOptions:
    """``--panel`` and ``--panel-from``, and what they are applied to, as they were typed."""

    panel: str | None
    scope: str | None
    dataset: str
    data: Path | None
    slices: str | None
    split: str
    folds: int | None
    patch_um: float | None = None

    def check(self) -> None:
        """``UserError`` for what is no panel; reads no slide."""
        if self.panel is None:
            if self.scope is not None:
                raise UserError(
                    "--panel-from says what --panel hvg:N or svg:N looks at - give --panel, or leave it out"
                )
            return
        made = MADE.fullmatch(self.panel)
        if made is None and self.scope is not None:
            raise UserError(f"--panel-from is for hvg:N and svg:N, not for --panel {self.panel} - leave it out")
        if self.scope not in (None, *SCOPES):
            raise UserError(f"--panel-from {self.scope} is neither training nor all - choose one of the two")
        if made is not None and not int(made[2]):
            raise UserError(f"--panel {self.panel} has no genes - give a number above 0")
        if made is None and self.panel != "common":
            _listed(self.panel)

    def own(self) -> Dataset:
        """The dataset with its own panel, and windows of the size that was asked for."""
        return self._own

    @cached_property
    def _own(self) -> Dataset:
        from ..data.physical import with_patch_um

        return with_patch_um(self._registered, self.patch_um)

    @cached_property
    def _registered(self) -> Dataset:
        return registry.dataset(self.dataset, data_root(self.data))

    @property
    def is_own(self) -> bool:
        """Whether no other panel is asked for."""
        return self.panel is None or self.panel == self._registered.name

    def check_one_list(self, reason: str) -> None:
        """As :meth:`check`; and ``UserError``, with the reason, where every fold has genes of its own."""
        self.check()
        if MADE.fullmatch(self.panel or "") is not None and self.scope != "all":
            raise UserError(
                f"--panel {self.panel} has other genes in every fold, and {reason} - give --panel-from all, or a file "
                "of genes"
            )

    def name(self) -> str:
        """The dataset's as results have it, with the panel's; reads no slide."""
        own = self.own().name
        return own if self.is_own else f"{own}-{_name(self)}"

    def open(self) -> tuple[Dataset, Panel | None]:
        """The dataset, with the panel that was asked for; slides are read where it is made from them."""
        from ..data.panel import WithPanel

        return (self.own(), None) if self.chosen is None else (WithPanel(self.own(), self.chosen), self.chosen)

    @cached_property
    def chosen(self) -> Panel | None:
        """``None`` for the dataset's own."""
        return None if self.is_own else _panel(self)


def _name(options: PanelOptions) -> str:
    text = str(options.panel)
    made = MADE.fullmatch(text)
    if made is not None:
        return f"{made[1]}{int(made[2])}{'-of-all' if options.scope == 'all' else ''}"
    return "common" if text == "common" else _listed(text)[0]


def _panel(options: PanelOptions) -> Panel:
    from ..data.panel import Panel

    text = str(options.panel)
    made = MADE.fullmatch(text)
    if made is not None:
        return _chosen(options, made[1], int(made[2]))
    if text == "common":
        genes = _common(options)
        source = "every gene that all slices list, whatever its counts"
        return Panel(_name(options), "genes common to all slices", source, False, genes)
    name, genes, source = _listed(text)
    return Panel(name, f"panel {name}", source, None, genes)  # on which slides it was chosen, the audit has to test


def _listed(text: str) -> tuple[str, tuple[str, ...], str]:
    """Name, genes and source of a panel that is written down somewhere."""
    from stbench.datasets.panels import read_panel

    path = expanded(text)
    if text in registry.dataset_names() and not path.is_file():
        owner = registry.dataset(text)
        listed = getattr(owner, "listed_panel", owner.panel)()
        if listed is None:
            raise UserError(f"--panel {text}: that dataset has no list of genes - choose {FORMS}")
        source = f"the panel of {owner.title}: {getattr(owner, 'panel_source', '') or 'as it is declared there'}"
        return text, tuple(listed), source
    if not path.is_file():
        raise UserError(f"--panel {text} is neither a file nor a panel that is known - choose {FORMS}")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-.") or "genes"
    return name, tuple(read_panel(path)), f"the list in {path.name}, whose origin is not known"


def _sources(options: PanelOptions) -> list[SlideSource]:
    from ..data.prepare import choose

    return choose(options.own(), slice_list(options.slices))[0]


def _statistics(options: PanelOptions) -> dict[str, GeneStatistics]:
    """Of every slide that is used, one after the other: counts of one slide at a time are in memory."""
    from ..data.gene_statistics import cached_statistics

    cache = cache_root()
    return of_each("looking at genes of", _sources(options), lambda source: cached_statistics(source, cache))


def _common(options: PanelOptions) -> tuple[str, ...]:
    statistics = list(_statistics(options).values())
    common = set.intersection(*(set(of.genes) for of in statistics))
    if not common:
        raise UserError(f"the {len(statistics)} slices have no gene in common - use the same kind of gene names in all")
    return tuple(gene for gene in statistics[0].genes if gene in common)


def _chosen(options: PanelOptions, criterion: str, n_genes: int) -> Panel:
    from ..data.gene_selection import LEAST_EXPRESSED, select_genes
    from ..data.panel import Panel
    from .preparing import split_folds

    statistics = _statistics(options)
    rule = (
        f"{CRITERIA[criterion]} of {{}}, at most {n_genes:,}, among those that all of these list and at least "
        f"{LEAST_EXPRESSED:.1%} of their spots express"
    )
    if options.scope == "all":
        genes = select_genes(list(statistics.values()), criterion, n_genes)
        notices = _notices(options, {"": {"": genes}})
        title = f"{options.panel} of all slices"
        return Panel(_name(options), title, rule.format("all slices"), True, genes, notices=notices)
    patients = {source.id: source.patient for source in _sources(options)}
    folds = {
        split: {fold.name: _of_fold(fold, statistics, criterion, n_genes) for fold in of_split}
        for split, of_split in split_folds(options.split, options.folds, patients).items()
    }
    union = tuple(sorted({gene for of_split in folds.values() for genes in of_split.values() for gene in genes}))
    return Panel(
        _name(options),
        f"{options.panel} of training slices",
        rule.format("the training slices, chosen anew in every fold"),
        False,
        union,
        folds,
        _notices(options, folds),
    )


def _of_fold(fold: Fold, statistics: Mapping[str, GeneStatistics], criterion: str, n_genes: int) -> tuple[str, ...]:
    """Chosen on the training slices alone: of a test slice not even the names of its genes are looked at."""
    from ..data.gene_selection import select_genes

    return select_genes([statistics[name] for name in fold.train], criterion, n_genes)


def _notices(options: PanelOptions, folds: Mapping[str, Mapping[str, Sequence[str]]]) -> tuple[str, ...]:
    panels = [set(genes) for of_split in folds.values() for genes in of_split.values()]
    sizes = sorted({len(panel) for panel in panels})
    size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    if all(panel == panels[0] for panel in panels):
        return (f"the panel {options.panel} has {size} genes, the same in every fold",) if len(panels) > 1 else ()
    shared, union = set.intersection(*panels), set.union(*panels)
    return (
        f"the panel {options.panel} is chosen on the training slices of each fold and has {size} genes: "
        f"{len(shared):,} are in every fold's, {len(union):,} in any; means over genes are of other genes in other "
        "folds, and noise ceilings are those of all that any fold has, taken together",
    )
