"""What it means to train on one dataset and to test on another: the names, and the facts that readers are told."""

from __future__ import annotations

from dataclasses import dataclass

SPLIT = "transfer"  # the rule that holds slices out: they are of another dataset
ALL = "all"  # the fold that trains on every slice of the training dataset
FEWEST_GENES = 10  # that a panel and the tested slices must share


@dataclass(frozen=True)
class Transfer:
    """Which dataset was trained on, which is tested, and what the two share. JSON-able.

    ``missing`` are the genes of the training panel, which has ``n_panel``, that were not measured on every tested
    slice. ``trained_here``: whether the training slices are at hand, without which no control can be trained, and no
    copy of a tested slice be found among them.
    """

    trained: str  # name
    trained_title: str
    tested: str  # name
    tested_title: str
    n_panel: int
    missing: tuple[str, ...]
    trained_here: bool

    @property
    def name(self) -> str:
        """Of the two as one dataset, as results have it."""
        return joint_name(self.trained, self.tested)

    @property
    def title(self) -> str:
        return f"Trained on {self.trained_title}, tested on {self.tested_title}"

    def own_name(self, name: str) -> str:
        """What the training dataset itself calls a slice, or a patient, of its own; of a tested one its name."""
        return name.removeprefix(training_name(self.trained, ""))

    @property
    def n_shared(self) -> int:
        return self.n_panel - len(self.missing)


def joint_name(trained: str, tested: str) -> str:
    """``her2st-to-mycohort``: the name under which results of a transfer stand."""
    return f"{trained}-to-{tested}"


def training_name(trained: str, name: str) -> str:
    """What a slice, or a patient, of the training dataset is called beside the tested ones: ``her2st.B4``.

    The same letter in two datasets is not the same slice or patient.
    """
    return f"{trained}.{name}"
