"""Who is held out: folds of leave-one-slice-out, leave-one-patient-out and k-fold, and which slices share a patient.

A patient's slices are often neighbouring sections of one tumour. A fold that trains on one and tests on another
measures interpolation within a patient rather than prediction for a new one, so every fold says which of its
training slices do that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import UserError, unknown
from ..system.wording import listed

SPLITS = ("loso", "lopo", "kfold")


@dataclass(frozen=True)
class Fold:
    """Slices to learn from and slices to predict, both in the dataset's order."""

    name: str
    test: tuple[str, ...]
    train: tuple[str, ...]
    same_patient: tuple[str, ...]  # training slices of a patient who also has a test slice

    def statement(self) -> str:
        """The fold in words, for example "B4 held out; 0 of 5 training slices are of the same patient"."""
        share = "are of the same patient" if len(self.test) == 1 else "share a patient with them"
        return f"{listed(self.test)} held out; {len(self.same_patient)} of {len(self.train)} training slices {share}"


def same_patient(test: Iterable[str], train: Iterable[str], patients: Mapping[str, str]) -> tuple[str, ...]:
    """The slices of ``train`` whose patient is also that of a slice in ``test``; ``patients`` maps slice to patient."""
    tested = {patients[slice_id] for slice_id in test}
    return tuple(slice_id for slice_id in train if patients[slice_id] in tested)


def loso(patients: Mapping[str, str]) -> list[Fold]:
    """Leave one slice out: each is predicted once, from all others (the paper's protocol). Folds are named by slice.

    ``patients`` maps each slice to its patient, in the dataset's order.
    """
    if len(patients) < 2:
        raise UserError(
            f"leave-one-slice-out needs two slices, there is {len(patients)} ({', '.join(patients) or 'none'}) "
            "- add a slice of the dataset"
        )
    return [_fold(slice_id, {slice_id}, patients) for slice_id in patients]


def lopo(patients: Mapping[str, str]) -> list[Fold]:
    """Leave one patient out: a patient's slices are predicted from all others' slices. Folds are named by patient."""
    distinct = tuple(dict.fromkeys(patients.values()))
    if len(distinct) < 2:
        raise UserError(
            f"leave-one-patient-out needs two patients, there is {len(distinct)} ({', '.join(distinct) or 'none'}) "
            "- add slices of another patient, or choose --split loso"
        )
    return [_fold(patient, {s for s, of in patients.items() if of == patient}, patients) for patient in distinct]


def kfold(patients: Mapping[str, str], k: int = 5, seed: int = 0) -> list[Fold]:
    """k folds over slices, shuffled by ``seed``; sizes differ by one at most. Folds are named 1of5, 2of5, ...

    Patients are not kept together (how the paper's later revision formed its five folds is not said): each fold
    states how many training slices are of a tested patient.
    """
    if k < 2:
        raise UserError(f"k-fold needs at least two folds, not {k} - choose k between 2 and the number of slices")
    if k > len(patients):
        raise UserError(
            f"k-fold with k = {k} needs {k} slices, there are {len(patients)} - choose a smaller k, or --split loso"
        )
    import numpy as np  # here, as the command line offers the names of the splits, and starts fast

    shuffled = np.random.default_rng(seed).permutation(np.array(list(patients), dtype=object))
    parts = np.array_split(shuffled, k)
    return [_fold(f"{number}of{k}", set(part), patients) for number, part in enumerate(parts, start=1)]


def make_folds(split: str, patients: Mapping[str, str], k: int = 5, seed: int = 0) -> list[Fold]:
    """The folds of the split named ``loso``, ``lopo`` or ``kfold``; ``k`` and ``seed`` matter to ``kfold`` only."""
    if split == "loso":
        return loso(patients)
    if split == "lopo":
        return lopo(patients)
    if split == "kfold":
        return kfold(patients, k, seed)
    raise unknown("split", split, SPLITS)


def _fold(name: str, held_out: set[str], patients: Mapping[str, str]) -> Fold:
    test = tuple(slice_id for slice_id in patients if slice_id in held_out)
    train = tuple(slice_id for slice_id in patients if slice_id not in held_out)
    return Fold(name, test, train, same_patient(test, train, patients))
