"""The memory that resident patches take: one dataset's at a time, and a worker's share of the device's at most."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stbench.method import Run, TestSlide, TrainingSlide
from stbench.slides.content import with_content
from stbench.system.sharing import SHARED_BY
from stbench.torch_method import Batch, SpotBatchConfig, TestBatch, TorchConfig, TorchMethod, TrainingData
from stbench.training import augment, patch_store
from stbench.training.patch_bank import PatchBank
from stbench.training.patch_store import PatchStore, ResidentPatches, release_resident_patches, room
from stbench.training.windows import Windows

SIDE = 8
ONE_PATCH = 3 * SIDE**2
CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def nothing_resident():
    release_resident_patches()
    yield
    release_resident_patches()


class Arenas:
    """Stands in for the allocator of resident patches: ``live`` bytes at any time, and the ``peak``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak = 0
        self._arrays: list[weakref.ref[np.ndarray]] = []
        allocate = torch.empty

        def empty(*shape: Any, **options: Any) -> Tensor:
            if options.get("dtype") is not torch.uint8 or "device" not in options:  # nor what is read into on the way
                return allocate(*shape, **options)
            array = np.empty(shape[0], np.uint8)
            self._arrays.append(weakref.ref(array))  # it lives as long as the tensor's memory, whoever looks at it
            self.peak = max(self.peak, self.live)
            return torch.from_numpy(array)

        monkeypatch.setattr(torch, "empty", empty)

    @property
    def live(self) -> int:
        return sum(array.nbytes for each in self._arrays if (array := each()) is not None)


@pytest.fixture
def arenas(monkeypatch: pytest.MonkeyPatch) -> Arenas:
    return Arenas(monkeypatch)


class Config(SpotBatchConfig, TorchConfig):
    epochs: int = 1
    batch_size: int = 5
    lr: float = 1e-2
    patch_px: int = SIDE
    fails: bool = False


class Mean(TorchMethod):
    """Regresses on the mean colour."""

    name: ClassVar[str] = "mean"
    title: ClassVar[str] = "Mean"
    Config = Config
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published": {}}
    batching = "spots"

    def describe(self, data: TrainingData) -> dict[str, Any]:
        return {"n_genes": data.n_genes}

    def network(self, shape: Mapping[str, Any]) -> nn.Module:
        return nn.Linear(3, shape["n_genes"])

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if self.config.fails:
            raise ArithmeticError("it was asked to fail")
        return {"loss": (self.predict_batch(network, batch) - batch.target).square().mean()}

    def optimiser(self, network: nn.Module, device: torch.device) -> Any:
        return torch.optim.SGD(network.parameters(), self.config.lr), None

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        return network(augment.to_float(batch.patches).mean((2, 3)))


@pytest.fixture
def dataset(make_training_slides):
    """``dataset(name, n_spots)``: two sections whose content has a key, as the harness hands them out."""

    def make(name: str, n_spots: int = 20) -> list[TrainingSlide]:
        made = make_training_slides(n_slides=2, n_spots=n_spots // 2, n_genes=3, side=SIDE, seed=n_spots)
        return [with_content(slide, f"{name} {slide.id}") for slide in made]

    return make


def test_one_datasets_patches_are_freed_before_the_nexts_are_read(arenas: Arenas, dataset) -> None:
    for name, n_spots in (("a", 40), ("b", 60), ("c", 20)):
        slides = dataset(name, n_spots)
        method = Mean(Config())
        method.fit(slides, Run())
        method.predict(slides[0])  # and lives on, as that of a trial does which is scored
        assert arenas.live == n_spots * ONE_PATCH
    assert arenas.peak == 60 * ONE_PATCH


def test_those_of_a_trial_that_failed_are_freed_too(arenas: Arenas, dataset) -> None:
    for name in ("a", "b"):
        try:
            Mean(Config(fails=True)).fit(dataset(name), Run())
        except ArithmeticError as error:
            error.args = (error,)  # a circle, with the frames of the training in it
    Mean(Config()).fit(dataset("c"), Run())
    assert arenas.peak == 20 * ONE_PATCH


def test_folds_of_a_dataset_take_no_more_than_all_of_it(arenas: Arenas, dataset) -> None:
    slides = [*dataset("a"), *dataset("b")]
    for held_out in range(4):
        Mean(Config()).fit([slide for place, slide in enumerate(slides) if place != held_out], Run())
    assert arenas.peak == 40 * ONE_PATCH


# A card, which several workers fill --------------------------------------------------------------------------------


class Card:
    """A GPU of ``total`` bytes, of which ``others`` have some, as CUDA and torch's allocator tell of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int) -> None:
        self.total, self.others, self.allocated, self.cached = total, 0, 0, 0
        self.emptied = 0
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free, self.total))
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: self.allocated)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: self.allocated + self.cached)
        monkeypatch.setattr(torch.cuda, "empty_cache", self._empty)
        monkeypatch.setattr(ResidentPatches, "filled", self._filled)

    @property
    def free(self) -> int:
        return self.total - self.others - self.allocated - self.cached

    def _empty(self) -> None:
        self.emptied += 1
        self.cached = 0

    def _filled(self, windows: Mapping[Any, Windows], input_px: int, device: torch.device) -> ResidentPatches:
        starts = dict.fromkeys(windows, 0)
        return ResidentPatches(windows, starts, input_px, torch.empty(patch_store.n_bytes(windows.values(), input_px)))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(monkeypatch, 4000 * ONE_PATCH)


def windows_of(n: int, key: str | None = None) -> list[Windows]:
    return [Windows(np.empty((n, SIDE, SIDE, 3), np.uint8), None, key)]


def most_resident() -> int:
    """The largest number of patches that a worker which has just begun keeps on the card."""
    return max((n for n in range(0, 4001, 50) if PatchStore().resident(windows_of(n), SIDE, CUDA)), default=0)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_that_begin_together_do_not_overfill_a_card(
    card: Card, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setenv(SHARED_BY, str(workers))
    each = most_resident()  # every one of them sees the whole card free
    assert each == 4000 // workers * patch_store.CUDA_SHARE


def test_a_worker_takes_no_more_than_the_others_have_left(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED_BY, "2")
    card.others = 3000 * ONE_PATCH
    assert most_resident() == 1000 * patch_store.CUDA_SHARE


def test_what_a_worker_has_already_counts_against_its_share(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED_BY, "4")
    card.allocated, card.cached = 600 * ONE_PATCH, 300 * ONE_PATCH
    assert most_resident() == 400 * patch_store.CUDA_SHARE
    assert room(CUDA, reusable=500 * ONE_PATCH) == 900 * ONE_PATCH * patch_store.CUDA_SHARE


def test_what_is_given_up_is_given_back_to_the_card(card: Card) -> None:
    store = PatchStore()
    for times, name in enumerate(("a", "b", "b", "c")):
        store.resident(windows_of(100, name), SIDE, CUDA)
        card.cached = 100 * ONE_PATCH  # as torch's allocator keeps what was freed
        assert card.emptied == {"a": 0, "b": 1, "c": 2}[name], times


def test_what_somebody_holds_on_to_is_not_counted_as_free(arenas: Arenas, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for one of the two: the other is streamed, as the first is still in use."""
    monkeypatch.setattr(patch_store, "memory_in_all", lambda: 1000 * ONE_PATCH)
    monkeypatch.setattr(patch_store, "usable_memory", lambda: 90 * ONE_PATCH - arenas.live)
    monkeypatch.setattr(patch_store, "CPU_SHARE", 0.25)
    zeros = np.zeros((20, 2))
    slides = [
        with_content(TestSlide(n, "P", np.zeros((20, SIDE, SIDE, 3), np.uint8), zeros.astype(int), zeros, None), n)
        for n in "ab"
    ]
    in_use = PatchBank(slides[:1], SIDE)
    other = PatchBank(slides[1:], SIDE)
    assert (in_use.resident, other.resident, other.crowded_out) == (True, False, False)
    del in_use
    assert PatchBank(slides[1:], SIDE).resident


# What the trial is told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_spots", "workers", "told"),
    [
        (20, "1", False),  # kept
        (20, "4", True),  # of 30 that one may keep, and 7 that each of four may
        (6, "4", False),  # kept
        (60, "4", False),  # too many for one alone, too
    ],
)
def test_a_trial_says_once_that_its_patches_are_streamed_since_others_are_there(
    monkeypatch: pytest.MonkeyPatch, dataset, n_spots: int, workers: str, told: bool
) -> None:
    memory = 30 * ONE_PATCH * round(1 / patch_store.CPU_SHARE)
    monkeypatch.setattr(patch_store, "usable_memory", lambda: memory)
    monkeypatch.setattr(patch_store, "memory_in_all", lambda: memory)
    slides = dataset("a", n_spots)

    def trained() -> tuple[list[str], np.ndarray]:
        run, method = Run(), Mean(Config(epochs=2))
        method.fit(slides, run)
        return run.notes, method.predict(slides[0])

    alone = trained()
    release_resident_patches()
    monkeypatch.setenv(SHARED_BY, workers)
    notes, predicted = trained()
    assert alone[0] == []
    assert [note.startswith(f"patches are read anew in every epoch: {workers} workers share") for note in notes] == (
        [True] if told else []
    )
    assert np.array_equal(predicted, alone[1])
