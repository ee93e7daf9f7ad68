"""``run.json`` of a results directory as typed records: which trials count, and what they were planned under."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..data.prepared import PADDING_RULE, PreparedDataset
from ..data.splits import Fold
from ..errors import DamagedFileError, UserError, first_problem
from ..system.files import read_json
from ..trials.spec import TrialSpec

LAYOUT = 2  # of a results directory; 1, which the file did not name, had its sections under joined names
RUN_LOST = "restore it, or delete it and run every command of it again (trials that ended are reused)"


class Record(BaseModel):
    """A part of ``run.json``. What is not listed belongs to another layout, whose number would say so."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TrialIdentity(Record):
    """What a trial is called by people: two trials with the same identity answer the same question."""

    dataset: str
    target: str
    split: str
    fold: str
    method: str
    preset: str
    variant: str
    weights: str
    seed: int
    precision: str

    @classmethod
    def of(cls, spec: TrialSpec) -> TrialIdentity:
        return cls(
            dataset=spec.data.name,
            target=spec.data.target,
            split=spec.split,
            fold=spec.fold,
            method=spec.name,
            preset=spec.preset,
            variant=spec.variant,
            weights=spec.weights,
            seed=spec.seed,
            precision=spec.precision,
        )

    @property
    def protocol(self) -> tuple[str, str, str]:
        """Dataset, split and target: what it shares with all trials of its section."""
        return self.dataset, self.split, self.target


class TrialRecord(Record):
    """A trial that was planned: the question that it answers, and its name in messages."""

    identity: TrialIdentity
    label: str


class FoldRecord(Record):
    """A fold of the section's split: slices by name, and the fold in words."""

    name: str
    test: tuple[str, ...]
    train: tuple[str, ...]
    same_patient: tuple[str, ...]  # training slices of a patient who also has a test slice
    statement: str

    @classmethod
    def of(cls, fold: Fold) -> FoldRecord:
        return cls(
            name=fold.name,
            test=fold.test,
            train=fold.train,
            same_patient=fold.same_patient,
            statement=fold.statement(),
        )


class DatasetRecord(Record):
    """Which slices of the dataset were there, and why the others were not."""

    name: str
    title: str
    slices_present: tuple[str, ...]
    slices_expected: tuple[str, ...]  # all of the dataset, in fold order; empty: unknown
    missing: dict[str, str]  # slice to the reason


class TargetRecord(Record):
    """What was predicted."""

    name: str
    formula: str


class SlideRecord(Record):
    """A prepared slide, as :meth:`stbench.data.prepared.PreparedSlide.facts` describes it."""

    patient: str
    n_spots: int
    n_padded: int  # patches that cross the image's border
    image_level: str
    um_per_px: float | None
    window_px: float | None = None  # full-resolution pixels that a side of its windows covers; None: patch_px
    notes: tuple[str, ...]
    key: str  # digest of the prepared content


class TransferRecord(Record):
    """Of a section whose test slices are of another dataset: :class:`stbench.data.transfer.Transfer`."""

    trained: str  # name of the training dataset
    trained_title: str
    tested: str  # name of the tested dataset
    tested_title: str
    n_panel: int  # genes of the training dataset's panel
    missing: tuple[str, ...]  # those that were not measured on every tested slice
    trained_here: bool  # whether the training slices were at hand


class SectionRecord(Record):
    """One dataset under one split, on one target: what all trials that may stand in one table share."""

    dataset: DatasetRecord
    split: str
    target: TargetRecord
    folds: tuple[FoldRecord, ...]
    n_genes: int
    patch_px: int  # side of a prepared patch
    patch_um: float | None = None  # side of the windows that patches were resampled from; None: patch_px pixels
    padding: str  # what stands in a patch outside the image, in words
    slides: dict[str, SlideRecord]
    notices: tuple[str, ...]  # what preparing the data had to tell
    transfer: TransferRecord | None = None  # of two datasets, one trained on and one tested

    @classmethod
    def of(cls, data: PreparedDataset, folds: tuple[Fold, ...], split: str) -> SectionRecord:
        return cls(
            dataset=DatasetRecord(
                name=data.name,
                title=data.title,
                slices_present=tuple(data.slides),
                slices_expected=tuple(data.expected),
                missing={gone.id: gone.reason for gone in data.missing},
            ),
            split=split,
            target=TargetRecord(name=data.target.name, formula=data.target.formula),
            folds=tuple(map(FoldRecord.of, folds)),
            n_genes=len(data.genes),
            patch_px=data.patch_px,
            patch_um=data.patch_um,
            padding=PADDING_RULE,
            slides={name: SlideRecord.model_validate(slide.facts()) for name, slide in data.slides.items()},
            notices=tuple(data.notices),
            transfer=None if data.transfer is None else TransferRecord(**asdict(data.transfer)),
        )

    def joined_with(self, earlier: SectionRecord) -> SectionRecord:
        """This section with the folds of an earlier command: of a transfer, models of other folds stay beside these.

        Raises ``UserError`` where the earlier one scored other genes, or other content under the same names.
        """
        if self.transfer is None or earlier.transfer is None:
            return self
        if (self.n_genes, self.transfer.missing) != (earlier.n_genes, earlier.transfer.missing):
            raise UserError(
                f"{self.dataset.name} was scored on {earlier.n_genes} genes in this results directory, and the panel "
                f"and the slices that are tested now share {self.n_genes} - give another --out"
            )
        folds = {fold.name: fold for fold in earlier.folds} | {fold.name: fold for fold in self.folds}
        for name, fold in folds.items():
            before = next((other for other in earlier.folds if other.name == name), fold)
            if before.train and fold.train and set(before.train) != set(fold.train):
                raise UserError(f"fold {name} of {self.dataset.name} was of other slices before - give another --out")
        for name in self.slides.keys() & earlier.slides.keys():
            if self.slides[name].key != earlier.slides[name].key:
                raise UserError(f"slice {name} has changed since it was scored here - give another --out")
        return self.model_copy(update={"folds": tuple(folds.values()), "slides": earlier.slides | self.slides})

    @property
    def protocol(self) -> tuple[str, str, str]:
        """Dataset, split and target, by name: no two sections of a run share them."""
        return self.dataset.name, self.split, self.target.name


class AblationEntry(Record):
    """A configuration that an ablation study runs, by the labels under which ``summary.csv`` has it."""

    method: str
    preset: str
    variant: str
    weights: str
    target: str
    lowered: str  # the precision, where it is not fp32

    @property
    def labels(self) -> tuple[str, ...]:
        """What tells it from the other entries on its target."""
        return self.method, self.preset, self.variant, self.weights, self.lowered


class VariantRecord(AblationEntry):
    """A variant of a switch, and the configuration that answers it."""

    name: str
    words: str
    base: bool  # whether it is the base of the study
    reused: bool  # whether it predicts with another configuration's trained model


class SwitchRecord(Record):
    """A switch of the study, with its variants in order."""

    name: str
    title: str
    answers: str  # the table or figure of the paper that it answers
    variants: tuple[VariantRecord, ...]


class AblationRecord(Record):
    """An ablation study: what the variants of each switch are, against which base."""

    method: str
    base: AblationEntry
    switches: tuple[SwitchRecord, ...]

    def joined_with(self, earlier: AblationRecord) -> AblationRecord:
        """This study and the switches of an earlier one on the same base, which stand first."""
        named = {switch.name: switch for switch in (*earlier.switches, *self.switches)}
        return self.model_copy(update={"switches": tuple(named.values())})


class RunRecord(Record):
    """All of ``run.json``."""

    layout: int
    id: str  # of the run, whatever its directory is called
    created: str  # ISO 8601, as ``updated``
    updated: str
    commands: tuple[str, ...]  # each once, in the order in which they were first given
    versions: dict[str, str]  # of Python and packages, when it was last updated
    machine: dict[str, str | int | float]
    trials: dict[str, TrialRecord]  # key to trial: those that count
    superseded: dict[str, TrialRecord]  # those that later commands replaced
    sections: tuple[SectionRecord, ...]
    ablation: AblationRecord | None  # the study whose variants the trials are

    def section(self, dataset: str, split: str, target: str) -> SectionRecord | None:
        """What the run says of one section; ``None`` where it has no such section."""
        protocol = (dataset, split, target)
        return next((section for section in self.sections if section.protocol == protocol), None)


def read(path: Path) -> RunRecord:
    """The record in ``path``.

    Raises ``UserError`` for one of another layout, and ``DamagedFileError`` for what is no run's record.
    """
    content = read_json(path, RUN_LOST)
    _require_layout(path, content)
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        raise DamagedFileError(f"{path} is not a run's record ({first_problem(error)}) - {RUN_LOST}") from error


def _require_layout(path: Path, content: object) -> None:
    """Refuse a results directory that another version laid out differently; what says no version is damaged."""
    if not isinstance(content, dict) or content.get("layout") == LAYOUT:
        return
    versions = content.get("versions")
    version = versions.get("stbench") if isinstance(versions, dict) else None
    if isinstance(version, str):
        raise UserError(
            f"{path.parent} was written by stbench {version}, in another layout than this version's - use that "
            "version, or run its commands again with another --out"
        )
