"""What the commands that run or score trials have in common: data, split, device, precision and place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .. import registry
from ..data.transfer import joint_name
from ..errors import UserError
from ..system.locate import cache_root, data_root
from .console import out, say_once
from .engine_options import ONE_AT_A_TIME, EngineOptions
from .gene_panels import PanelOptions
from .lists import seed_list, slice_list, words
from .preparing import check_split, notes_of, prepare_slices, require_data, require_slices, split_folds
from .transferring import Joined, TestedOptions, TrainedSide, join_datasets, refuse_itself

if TYPE_CHECKING:
    from ..data.panel import Panel
    from ..data.prepared import PreparedDataset
    from ..data.splits import Fold
    from ..dataset import Dataset
    from ..method import Method, MethodConfig
    from ..system.precision import Precision
    from ..trials.spec import DataSpec


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The options that choose data, folds, machine and place, as they were typed."""

    dataset: str
    split: str
    folds: int | None = None
    seeds: str
    slices: str | None
    data: Path | None
    patch_um: float | None = None
    device: str
    precision: str = "auto"
    allow_unsafe_precision: bool = False
    engine: EngineOptions = ONE_AT_A_TIME
    results: Path | None
    retry_failed: bool = False
    save_models: bool = False
    mlflow: bool
    dry_run: bool = False
    only_folds: str | None = None
    panel: str | None = None
    panel_from: str | None = None
    test_dataset: str | None = None  # what is tested, where it is another dataset
    test_slices: str | None = None

    @cached_property
    def panel_options(self) -> PanelOptions:
        return PanelOptions(
            self.panel,
            self.panel_from,
            self.dataset,
            self.data,
            self.slices,
            self.split,
            self.folds,
            self.patch_um,
        )

    def check(self) -> None:
        """Raise ``UserError``, before any work, for what cannot be run.

        Arguments are checked first, then data, then the device, so that nobody waits for torch to be imported only to
        be told that a folder is missing.
        """
        from ..system.precision import require_capable
        from ..training.precision import resolve_precision

        self.engine.check(self.device)
        self._check_split()
        seed_list(self.seeds)
        self.panel_options.check()
        precision = resolve_precision(self.precision)
        if self.tested is None:
            require_data(self.opened(), self.slices, self.split, self.folds, self.chosen_folds())
        else:
            require_slices(self.opened(), self.slices)
            refuse_itself(self.opened().name, registry.dataset_origin(self.dataset, data_root(self.data)), self.tested)
            require_slices(self.tested.opened, self.test_slices, "--test-slices")

        from ..training.device import resolve_device

        if self.engine.runs_here:
            require_capable(precision, resolve_device(self.device))  # a device that is not there, or cannot

    def _check_split(self) -> None:
        if self.test_dataset is None:
            if self.test_slices is not None:
                raise UserError(f"--test-slices {self.test_slices} are slices of --test-dataset - give it, or --slices")
            check_split(self.split, self.folds)
            return
        for option, given in (("--folds", self.folds), ("--only-folds", self.only_folds)):
            if given is not None:
                raise UserError(f"{option} {given} and --test-dataset do not go together: there is one fold of all")
        if self.split != "loso":
            raise UserError(f"--split {self.split} and --test-dataset are two ways to hold slices out - leave one out")
        self.panel_options.check_one_list("with --test-dataset all slices are trained on")

    @cached_property
    def tested(self) -> TestedOptions | None:
        """The dataset that is tested, where it is another one."""
        if self.test_dataset is None:
            return None
        return TestedOptions(
            dataset=self.test_dataset, slices=self.test_slices, data=self.data, slices_option="--test-slices"
        )

    def opened(self) -> Dataset:
        """The dataset, with windows of the size that was asked for, and with its own panel."""
        return self.panel_options.own()

    def dataset_name(self) -> str:
        """As results have it; another panel, and another dataset that is tested, are in the name."""
        own = self.panel_options.name()
        return own if self.tested is None else joint_name(own, self.tested.opened.name)

    def chosen_folds(self) -> list[str] | None:
        """The names of the folds whose trials are run now; None: all."""
        return None if self.only_folds is None else words(self.only_folds, "--only-folds")

    def check_precision(self, methods: Sequence[type[Method]]) -> None:
        """Refuse a precision that is not safe for some of ``methods``, or warn where the user insists on it."""
        from ..training.precision import require_safe, resolve_precision, unsafe_methods

        if any(self.precision_of(method) != resolve_precision(self.precision) for method in methods):
            out.print("controls compute in float32, whatever the precision", soft_wrap=True)
        if not self.allow_unsafe_precision:
            require_safe(methods, self.precision)
        unsafe = ", ".join(method.name for method in unsafe_methods(methods, self.precision))
        if unsafe:
            out.print(
                f"warning: {self.precision} is not known to be safe for {unsafe}: every table says so",
                style="yellow",
                soft_wrap=True,
            )

    def precision_of(self, method: type[Method]) -> Precision:
        """The precision that trials of ``method`` compute in."""
        from ..training.precision import resolve_precision

        return resolve_precision(self.precision, method)

    def split_folds(self, prepared: PreparedDataset) -> dict[str, list[Fold]]:
        """The folds of every split."""
        return split_folds(self.split, self.folds, prepared.patients)


def join_setting(setting: Setting, tested: TestedOptions, target: str, configs: Iterable[MethodConfig]) -> Joined:
    """Prepare the dataset that is trained on and the one that is tested as one; see :func:`join_datasets`."""
    options = setting.panel_options
    opened, panel = options.open()
    trained = TrainedSide(
        name=opened.name,
        title=opened.title,
        genes=tuple(opened.panel() if panel is None else panel.genes),
        patch_px=opened.patch_px,
        patch_um=setting.patch_um,
        own_size=any(getattr(config, "patch_um", None) is not None for config in configs),
        dataset=options.own(),
        origin=registry.dataset_origin(setting.dataset, data_root(setting.data)),
        root=data_root(setting.data),
        slices=slice_list(setting.slices),
    )
    return join_datasets(trained, tested, target)


def prepare_setting(setting: Setting, target: str) -> tuple[PreparedDataset, DataSpec, Panel | None]:
    """Prepare the dataset for a target, and print what it is in a few lines; with the panel where one was chosen."""
    from ..data.prepared import PADDING_RULE
    from ..trials.spec import DataSpec

    root = data_root(setting.data)
    opened, panel = setting.panel_options.open()
    prepared = prepare_slices(opened, target, setting.slices)
    say_once(notes_of(prepared))
    out.print(
        f"{prepared.title}: {prepared.coverage()} slices, {sum(s.n_spots for s in prepared.slides.values()):,} spots, "
        f"{len(prepared.genes)} genes; target {prepared.target.name}: {prepared.target.formula}",
        soft_wrap=True,
    )
    padded = sum(slide.n_padded for slide in prepared.slides.values())
    if padded:
        out.print(
            f"note: {padded} patches cross the border of their image; {PADDING_RULE}", style="yellow", soft_wrap=True
        )
    data_spec = DataSpec(
        dataset=registry.dataset_origin(setting.dataset, root),
        name=prepared.name,
        root=None if root is None else str(root),
        cache=str(cache_root()),
        target=target,
        keys={name: slide.key for name, slide in prepared.slides.items()},
        patch_um=setting.patch_um,
        panel="" if panel is None else panel.digest,
    )
    return prepared, data_spec, panel
