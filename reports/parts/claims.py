"""The paper's claims and numbers beside ours: what holds, what does not, and what these results cannot decide.

Source: the main text's statements about Table 1 and Figures 2 to 4, and about Figure S3 (Min et al. 2024). Shown with
``stbench report --compare paper``; never a gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..numbers.means import board_of, eligible, slice_scores, with_published
from ..numbers.metrics import METRICS
from ..published.table1 import published
from ..sections.section import Section, records
from ..sections.trial_files import trial_table
from ..tables.table import Cell, Table
from ..words.format import number, plus_minus
from ..words.protocol import caption
from ..words.warnings import unpublished
from .part import Context, Part

OURS, RIVAL = "mclstexp", "bleep"  # the paper's method, and the one that it calls second
ANNOTATED = ("B1", "C1", "D1", "E1", "F1", "G2")


@dataclass(frozen=True)
class Verdict:
    """``ours``: the value here, in words; ``holds``: ``None`` where these results cannot decide."""

    ours: str
    holds: bool | None


@dataclass(frozen=True)
class Claim:
    """One statement of the paper; ``check`` reads it off a table of slices by methods (see :func:`slice_grid`)."""

    dataset: str
    text: str
    paper: str
    check: Callable[[Section, pd.DataFrame], Verdict]


def part(section: Section, context: Context) -> Part | None:
    """``None`` unless the paper is to be compared and has numbers or claims for this dataset and split."""
    if not context.compare_paper:
        return None
    differences = difference_table(section)
    claims = claim_table(section)
    if differences.empty and claims.empty:
        return None
    decided = claims.dropna(subset=["holds"])
    lead = [
        f"Of {len(claims)} claims of the paper about {section.title}, {int((decided['holds'] == 1).sum())} hold here, "
        f"{int((decided['holds'] == 0).sum())} do not, and {len(claims) - len(decided)} cannot be decided by these "
        "results."
        if len(claims)
        else f"The paper makes no claim about {section.title} under this split that can be read off these results."
    ]
    if section.expected and len(section.slices) < len(section.expected):
        lead.append(
            f"The paper's numbers are over {len(section.expected)} slices, ours over {len(section.slices)}: they are "
            "not the same quantity."
        )
    lead += _other_settings(section)
    lead.append("A difference says as much about data, scale and settings as about a method; none is a pass or a fail.")
    tables = []
    if len(claims):
        tables.append(_claims(section, claims))
    if len(differences):
        tables.append(_differences(section, differences))
    frames = {"claims.csv": claims, "published.csv": differences}
    title = "Does it agree with the paper?"
    return Part("paper", title, lead, tables, frames={name: frame for name, frame in frames.items() if len(frame)})


def _other_settings(section: Section) -> list[str]:
    """Said where a method did not run as published: its numbers can then neither confirm nor refute the paper."""
    methods = section.entries[section.entries["kind"] == "method"]
    other = [f"preset {preset}" for preset in sorted(set(unpublished(section)["preset"]))]
    other += ["random encoder weights"] if (methods["weights_kind"] == "random").any() else []
    other += ["changed settings"] if (methods["variant"] != "").any() else []
    other += [f"precision {name}" for name in sorted(set(methods["lowered"]) - {""})]
    if not other:
        return []
    return [
        f"Methods ran here with other settings than the published ones ({', '.join(other)}): what does not hold here "
        "may hold there."
    ]


def slice_grid(section: Section, metric: str = "pcc_acg") -> pd.DataFrame:
    """Slices by methods: the metric's mean over seeds; of a method that stands in several entries the first counts."""
    scores = slice_scores(section.rows)
    grid = scores.pivot_table(index="slice", columns="entry", values=metric).reindex(section.slices)
    entries = section.entries[section.entries["kind"] == "method"]
    first = entries[~entries["method"].duplicated()]
    grid = grid.reindex(columns=first.index)
    return grid.set_axis(list(first["method"]), axis=1)


def claim_table(section: Section) -> pd.DataFrame:
    """One row a claim on this dataset: claim, paper, ours, holds (1, 0, or NaN where it cannot be decided)."""
    if section.split != "loso":
        return pd.DataFrame(columns=["claim", "paper", "ours", "holds"])
    grid = slice_grid(section)
    rows = []
    for claim in CLAIMS:
        if claim.dataset == section.dataset:
            verdict = claim.check(section, grid)
            holds = float("nan") if verdict.holds is None else float(verdict.holds)
            rows.append({"claim": claim.text, "paper": claim.paper, "ours": verdict.ours, "holds": holds})
    return pd.DataFrame(rows, columns=["claim", "paper", "ours", "holds"])


def difference_table(section: Section) -> pd.DataFrame:
    """One row for each entry and metric that a paper printed: published, spread, ours, difference, source, note."""
    printed = published()
    board = board_of(section)
    board = with_published(board, printed, section.dataset, section.split)
    here = printed[(printed["dataset"] == section.dataset) & (printed["split"] == section.split)]
    about = here.set_index(["metric", "method"])
    rows = []
    for entry, of in board.iterrows():
        for metric in METRICS:
            if (metric, of["method"]) in about.index and of["n_slices"]:
                row = about.loc[(metric, of["method"])]
                value = float(of[metric])
                rows.append(
                    {
                        "entry": entry,
                        "label": of["label"],
                        "metric": metric,
                        "published": float(row["mean"]),
                        "published_spread": float(row["spread"]),
                        "ours": value,
                        "difference": value - float(row["mean"]),
                        "n_slices": int(of["n_slices"]),
                        "complete": bool(eligible(board, metric).loc[str(entry)]),
                        "source": row["source"],
                        "note": row["note"],
                    }
                )
    return pd.DataFrame(rows)


def _wins(of_slices: int, wins: int) -> Callable[[Section, pd.DataFrame], Verdict]:
    def check(section: Section, grid: pd.DataFrame) -> Verdict:
        if OURS not in grid or grid.shape[1] < 2:
            return Verdict("not run beside another method", None)
        known = grid.dropna()
        won = int((known[OURS] >= known.max(axis=1)).sum())
        words = f"{won} of {len(known)} slices, {grid.shape[1]} methods"
        if of_slices - (len(known) - won) < wins:  # more slices or rivals could only take wins away
            return Verdict(words, False)
        return Verdict(words, won >= wins if len(known) == of_slices and grid.shape[1] >= 6 else None)

    return check


def _above_rival(of_slices: int) -> Callable[[Section, pd.DataFrame], Verdict]:
    def check(section: Section, grid: pd.DataFrame) -> Verdict:
        if not {OURS, RIVAL} <= set(grid):
            return Verdict("not both run", None)
        known = grid[[OURS, RIVAL]].dropna()
        won = int((known[OURS] > known[RIVAL]).sum())
        refuted = won < len(known)
        return Verdict(
            f"{won} of {len(known)} slices", False if refuted else (True if len(known) == of_slices else None)
        )

    return check


def _gain(metric: str, printed: float) -> Callable[[Section, pd.DataFrame], Verdict]:
    """The relative gain over the rival; it holds where ours has the printed sign and at least half its size."""

    def check(section: Section, grid: pd.DataFrame) -> Verdict:
        values = slice_grid(section, metric)
        if not {OURS, RIVAL} <= set(values):
            return Verdict("not both run", None)
        known = values[[OURS, RIVAL]].dropna()
        if known.empty or known[RIVAL].mean() <= 0:
            return Verdict(f"undefined: {RIVAL} has no positive mean here", None)
        gain = float(known[OURS].mean() / known[RIVAL].mean() - 1)
        complete = bool(section.expected) and len(known) == len(section.expected)
        return Verdict(f"{gain:+.2%}".replace("-", "−"), gain >= printed / 2 if complete else None)

    return check


def _low_on(slices: tuple[str, ...], methods: int = 6) -> Callable[[Section, pd.DataFrame], Verdict]:
    """Every method's mean over these slices is below its mean over the others."""

    def check(section: Section, grid: pd.DataFrame) -> Verdict:
        inside = [name for name in slices if name in grid.index]
        outside = [name for name in grid.index if name not in slices]
        if not inside or not outside or grid.shape[1] == 0:
            return Verdict("these slices were not run" if not inside else "no other slices were run", None)
        low, other = grid.loc[inside].mean(), grid.loc[outside].mean()
        n_low = int((low < other).sum())
        words = f"{n_low} of {grid.shape[1]} methods: mean {number(low.mean())} there, {number(other.mean())} elsewhere"
        complete = len(inside) == len(slices) and grid.shape[1] >= methods
        return Verdict(words, n_low == grid.shape[1] if complete else None)

    return check


def _largest_gain_on(name: str) -> Callable[[Section, pd.DataFrame], Verdict]:
    def check(section: Section, grid: pd.DataFrame) -> Verdict:
        if not {OURS, RIVAL} <= set(grid):
            return Verdict("not both run", None)
        gain = (grid[OURS] - grid[RIVAL]).dropna()
        if name not in gain.index:
            return Verdict(f"{name} was not run", None)
        largest = str(gain.idxmax())
        complete = bool(section.expected) and len(gain) == len(section.expected)
        return Verdict(f"largest on {largest} ({number(gain.max())})", largest == name if complete else None)

    return check


def _best_domains(section: Section, grid: pd.DataFrame) -> Verdict:
    domains = trial_table(section, "domains.csv")
    if domains.empty:
        return Verdict("no slice has annotations here", None)
    predicted = domains[domains["of"] == "prediction"]
    means = predicted.groupby(["entry", "slice"])[["ari", "nmi"]].mean().reset_index()
    means["method"] = means["entry"].map(section.entries["method"])
    means = means[means["entry"].map(section.entries["kind"]) == "method"]
    if OURS not in set(means["method"]) or means["method"].nunique() < 2:
        return Verdict("not run beside another method", None)
    won, slices = 0, list(means["slice"].unique())
    for _, of in means.groupby("slice"):
        own = of[of["method"] == OURS][["ari", "nmi"]].max()
        others = of[of["method"] != OURS][["ari", "nmi"]].max()
        won += bool((own >= others).all())
    complete = set(ANNOTATED) <= set(slices) and means["method"].nunique() >= 6
    return Verdict(f"{won} of {len(slices)} slices", won == len(slices) if complete else None)


CLAIMS = (
    Claim("her2st", "mclSTExp has the highest PCC (ACG) on 26 of 32 slices", "26 of 32", _wins(32, 26)),
    Claim("her2st", "mclSTExp is above BLEEP on every slice", "32 of 32", _above_rival(32)),
    Claim("her2st", "PCC (ACG): gain of mclSTExp over BLEEP", "+23.01%", _gain("pcc_acg", 0.2301)),
    Claim("her2st", "PCC (HEG): gain of mclSTExp over BLEEP", "+32.89%", _gain("pcc_heg", 0.3289)),
    Claim(
        "her2st",
        "every method has a low PCC on E1 to F3",
        "read off Figure 2",
        _low_on(("E1", "E2", "E3", "F1", "F2", "F3")),
    ),
    Claim(
        "her2st", "clusters of mclSTExp's predictions agree best with the annotation (ARI and NMI)", "6 of 6 slices",
        _best_domains,
    ),
    Claim("cscc", "mclSTExp has the highest PCC (ACG) on all 12 slices", "12 of 12", _wins(12, 12)),
    Claim("cscc", "PCC (ACG): gain of mclSTExp over BLEEP", "+32.09%", _gain("pcc_acg", 0.3209)),
    Claim("cscc", "PCC (HEG): gain of mclSTExp over BLEEP", "+36.48%", _gain("pcc_heg", 0.3648)),
    Claim("cscc", "the largest gain is on P10_ST_rep3", "P10_ST_rep3", _largest_gain_on("P10_ST_rep3")),
    Claim("alex10x", "mclSTExp has the highest PCC (ACG) on 7 of 9 slices", "7 of 9", _wins(9, 7)),
    Claim("alex10x", "PCC (ACG): gain of mclSTExp over BLEEP", "+25.57%", _gain("pcc_acg", 0.2557)),
    Claim("alex10x", "PCC (HEG): gain of mclSTExp over BLEEP", "+27.82%", _gain("pcc_heg", 0.2782)),
    Claim("alex10x", "every method has a low PCC on 1142243F", "read off Figure 4", _low_on(("1142243F",))),
)  # fmt: skip


def _claims(section: Section, claims: pd.DataFrame) -> Table:
    said = {1.0: "holds", 0.0: "does not hold"}
    rows = tuple(
        (
            Cell(row.claim, row.claim),
            Cell(row.paper, row.paper),
            Cell(row.ours, row.ours),
            Cell(said.get(row.holds, "cannot be decided"), None if np.isnan(row.holds) else row.holds),
        )
        for row in records(claims)
    )
    return Table(
        name="claims",
        caption=caption(section, "claims of the paper, one by one"),
        columns=("claim", "paper", "here", "verdict"),
        blocks=(rows,),
        notes=(
            "A claim holds only over all of the dataset's slices and all six methods; one about a count of slices is "
            "refuted as soon as it cannot be reached any more. A gain holds where it is at least half of the printed.",
        ),
        text_columns=frozenset({0, 1, 2, 3}),
    )


def _differences(section: Section, table: pd.DataFrame) -> Table:
    def row(of: pd.Series) -> tuple[Cell, ...]:
        ours = "undefined" if of["ours"] != of["ours"] else number(of["ours"])
        known = of["difference"] == of["difference"]
        return (
            Cell(of["label"], of["label"].lower(), tags=() if of["complete"] else ("incomplete",)),
            Cell(METRICS[of["metric"]].title, METRICS[of["metric"]].title),
            Cell(plus_minus(of["published"], of["published_spread"]), float(of["published"])),
            Cell(ours, float(of["ours"]) if known else None),
            Cell(f"{of['difference']:+.4f}".replace("-", "−") if known else "–", of["difference"] if known else None),
        )

    sources = list(dict.fromkeys(table["source"]))
    flaws = list(dict.fromkeys(clause for note in table["note"] for clause in str(note).split("; ") if clause))
    return Table(
        name="published",
        caption=caption(section, "published numbers beside ours"),
        columns=("method", "metric", "published", "here", "difference"),
        blocks=(tuple(row(of) for _, of in table.iterrows()),),
        notes=(*(f"Source: {source}." for source in sources), *(f"Known flaw: {flaw}." for flaw in flaws)),
        text_columns=frozenset({0, 1}),
    )
