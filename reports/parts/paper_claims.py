"""The paper's claims: what each says, and how results of the same dataset decide it.

Source: the main text's statements about Table 1 and Figures 2 to 4, and about Figure S3 (Min et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import pandas as pd

from ..numbers.means import slice_scores
from ..sections.section import Section
from ..sections.trial_files import trial_table
from ..words.format import number

OURS, RIVAL = "mclstexp", "bleep"  # the paper's method, and the one that it calls second
COMPARED = 6  # methods of the paper
ANNOTATED = ("B1", "C1", "D1", "E1", "F1", "G2")


class Outcome(Enum):
    """What results say of a claim, in the words of the table."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot be decided"

    @property
    def number(self) -> float:
        """As in files: 1, 0, or NaN where it is open."""
        return {Outcome.HOLDS: 1.0, Outcome.FAILS: 0.0}.get(self, float("nan"))


@dataclass(frozen=True)
class Answer:
    """``ours``: the value here, in words."""

    ours: str
    outcome: Outcome


class Statement(Protocol):
    """What a claim says, as something that can be looked at."""

    def check(self, section: Section, grid: pd.DataFrame) -> Answer:
        """``grid``: PCC (ACG) of slices by methods, see :func:`slice_grid`."""
        ...


@dataclass(frozen=True)
class Claim:
    """One statement of the paper about a dataset."""

    dataset: str
    text: str
    paper: str  # the value that it prints
    statement: Statement


def decided(holds: bool, complete: bool) -> Outcome:
    """Whether it holds, where the results are over everything that the claim is about; else it is open."""
    if not complete:
        return Outcome.OPEN
    return Outcome.HOLDS if holds else Outcome.FAILS


def slice_grid(section: Section, metric: str = "pcc_acg") -> pd.DataFrame:
    """Slices by methods: the metric's mean over seeds; of a method that stands in several entries the first counts."""
    scores = slice_scores(section.rows)
    grid = scores.pivot_table(index="slice", columns="entry", values=metric).reindex(section.slices)
    entries = section.entries[section.entries["kind"] == "method"]
    first = entries[~entries["method"].duplicated()]
    grid = grid.reindex(columns=first.index)
    return grid.set_axis(list(first["method"]), axis=1)


@dataclass(frozen=True)
class MostWins:
    """Ours is the best method on at least ``wins`` of the dataset's ``slices``."""

    slices: int
    wins: int

    def check(self, section: Section, grid: pd.DataFrame) -> Answer:
        if OURS not in grid or grid.shape[1] < 2:
            return Answer("not run beside another method", Outcome.OPEN)
        known = grid.dropna()
        won = int((known[OURS] >= known.max(axis=1)).sum())
        words = f"{won} of {len(known)} slices, {grid.shape[1]} methods"
        lost = len(known) - won
        if self.slices - lost < self.wins:  # more slices or rivals could only take wins away
            return Answer(words, Outcome.FAILS)
        return Answer(words, decided(True, len(known) == self.slices and grid.shape[1] >= COMPARED))


@dataclass(frozen=True)
class AboveRival:
    """Ours is above the rival on each of the dataset's ``slices``."""

    slices: int

    def check(self, section: Section, grid: pd.DataFrame) -> Answer:
        if not {OURS, RIVAL} <= set(grid):
            return Answer("not both run", Outcome.OPEN)
        known = grid[[OURS, RIVAL]].dropna()
        won = int((known[OURS] > known[RIVAL]).sum())
        words = f"{won} of {len(known)} slices"
        if won < len(known):
            return Answer(words, Outcome.FAILS)
        return Answer(words, decided(True, len(known) == self.slices))


@dataclass(frozen=True)
class GainOverRival:
    """The relative gain over the rival: it holds where ours has the printed sign and at least half its size."""

    metric: str
    printed: float

    def check(self, section: Section, grid: pd.DataFrame) -> Answer:
        values = slice_grid(section, self.metric)
        if not {OURS, RIVAL} <= set(values):
            return Answer("not both run", Outcome.OPEN)
        known = values[[OURS, RIVAL]].dropna()
        if known.empty or known[RIVAL].mean() <= 0:
            return Answer(f"undefined: {RIVAL} has no positive mean here", Outcome.OPEN)
        gain = float(known[OURS].mean() / known[RIVAL].mean() - 1)
        complete = bool(section.expected) and len(known) == len(section.expected)
        return Answer(f"{gain:+.2%}".replace("-", "−"), decided(gain >= self.printed / 2, complete))


@dataclass(frozen=True)
class LowOn:
    """Every method's mean over ``slices`` is below its mean over the others."""

    slices: tuple[str, ...]

    def check(self, section: Section, grid: pd.DataFrame) -> Answer:
        inside = [name for name in self.slices if name in grid.index]
        outside = [name for name in grid.index if name not in self.slices]
        n_methods = grid.shape[1]
        if not inside or not outside or n_methods == 0:
            return Answer("these slices were not run" if not inside else "no other slices were run", Outcome.OPEN)
        low, other = grid.loc[inside].mean(), grid.loc[outside].mean()
        n_low = int((low < other).sum())
        words = f"{n_low} of {n_methods} methods: mean {number(low.mean())} there, {number(other.mean())} elsewhere"
        complete = len(inside) == len(self.slices) and n_methods >= COMPARED
        return Answer(words, decided(n_low == n_methods, complete))


@dataclass(frozen=True)
class LargestGainOn:
    """The gain over the rival is largest on this slice."""

    slice: str

    def check(self, section: Section, grid: pd.DataFrame) -> Answer:
        if not {OURS, RIVAL} <= set(grid):
            return Answer("not both run", Outcome.OPEN)
        gain = (grid[OURS] - grid[RIVAL]).dropna()
        if self.slice not in gain.index:
            return Answer(f"{self.slice} was not run", Outcome.OPEN)
        largest = str(gain.idxmax())
        complete = bool(section.expected) and len(gain) == len(section.expected)
        return Answer(f"largest on {largest} ({number(gain.max())})", decided(largest == self.slice, complete))


@dataclass(frozen=True)
class BestDomains:
    """Clusters of our predictions agree best with the annotation, by both scores, on each annotated slice."""

    slices: tuple[str, ...]

    def check(self, section: Section, grid: pd.DataFrame) -> Answer:
        domains = trial_table(section, "domains.csv")
        if domains.empty:
            return Answer("no slice has annotations here", Outcome.OPEN)
        predicted = domains[domains["of"] == "prediction"]
        means = predicted.groupby(["entry", "slice"])[["ari", "nmi"]].mean().reset_index()
        means["method"] = means["entry"].map(section.entries["method"])
        means = means[means["entry"].map(section.entries["kind"]) == "method"]
        n_methods = means["method"].nunique()
        if OURS not in set(means["method"]) or n_methods < 2:
            return Answer("not run beside another method", Outcome.OPEN)
        slices = list(means["slice"].unique())
        won = sum(_is_best(scores) for _, scores in means.groupby("slice"))
        complete = set(self.slices) <= set(slices) and n_methods >= COMPARED
        return Answer(f"{won} of {len(slices)} slices", decided(won == len(slices), complete))


def _is_best(scores: pd.DataFrame) -> bool:
    """Whether ours is above or level with all others on a slice, by both scores."""
    ours = scores["method"] == OURS
    return bool((scores.loc[ours, ["ari", "nmi"]].max() >= scores.loc[~ours, ["ari", "nmi"]].max()).all())


CLAIMS = (
    Claim("her2st", "mclSTExp has the highest PCC (ACG) on 26 of 32 slices", "26 of 32", MostWins(32, 26)),
    Claim("her2st", "mclSTExp is above BLEEP on every slice", "32 of 32", AboveRival(32)),
    Claim("her2st", "PCC (ACG): gain of mclSTExp over BLEEP", "+23.01%", GainOverRival("pcc_acg", 0.2301)),
    Claim("her2st", "PCC (HEG): gain of mclSTExp over BLEEP", "+32.89%", GainOverRival("pcc_heg", 0.3289)),
    Claim(
        "her2st",
        "every method has a low PCC on E1 to F3",
        "read off Figure 2",
        LowOn(("E1", "E2", "E3", "F1", "F2", "F3")),
    ),
    Claim(
        "her2st", "clusters of mclSTExp's predictions agree best with the annotation (ARI and NMI)", "6 of 6 slices",
        BestDomains(ANNOTATED),
    ),
    Claim("cscc", "mclSTExp has the highest PCC (ACG) on all 12 slices", "12 of 12", MostWins(12, 12)),
    Claim("cscc", "PCC (ACG): gain of mclSTExp over BLEEP", "+32.09%", GainOverRival("pcc_acg", 0.3209)),
    Claim("cscc", "PCC (HEG): gain of mclSTExp over BLEEP", "+36.48%", GainOverRival("pcc_heg", 0.3648)),
    Claim("cscc", "the largest gain is on P10_ST_rep3", "P10_ST_rep3", LargestGainOn("P10_ST_rep3")),
    Claim("alex10x", "mclSTExp has the highest PCC (ACG) on 7 of 9 slices", "7 of 9", MostWins(9, 7)),
    Claim("alex10x", "PCC (ACG): gain of mclSTExp over BLEEP", "+25.57%", GainOverRival("pcc_acg", 0.2557)),
    Claim("alex10x", "PCC (HEG): gain of mclSTExp over BLEEP", "+27.82%", GainOverRival("pcc_heg", 0.2782)),
    Claim("alex10x", "every method has a low PCC on 1142243F", "read off Figure 4", LowOn(("1142243F",))),
)  # fmt: skip
