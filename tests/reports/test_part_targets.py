"""The part of the report that scores the same predictions on every target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import CONTROLS, METHODS, Fake, make_results

from stbench.reports.figures import canvas
from stbench.reports.parts.part import Context
from stbench.reports.parts.targets import on_targets, part, slopes_figure
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.tables.markdown import markdown

FEW = (METHODS[0], METHODS[1], METHODS[3], CONTROLS[0], CONTROLS[1])  # mclstexp, stnet, hist2st, mean, depth oracle
TARGETS = ("spot-log10-cp10k", "gene-log10-cp10k", "lognorm")
NAN = float("nan")
SAME = {
    "mclstexp": (0.3, 0.4, 0.2),
    "stnet": (0.2, 0.3, 0.1),
    "hist2st": (0.1, 0.2, 0.05),
    "training_mean": (NAN, NAN, NAN),
    "depth_oracle": (0.25, 0.6, 0.01),
}


@pytest.fixture
def section(tmp_path: Path) -> Callable[..., Section]:
    """Results whose PCC (ACG) on each of TARGETS is given, a hundredth more on slice C2 and one less on C3."""

    def one(
        scores: Mapping[str, tuple[float, ...]] = SAME, methods: tuple[Fake, ...] = FEW, **changes: object
    ) -> Section:
        settings: dict = {"slices": ["B4", "C2", "C3"], **changes}
        results = make_results(tmp_path / "run", methods, **settings)
        rows = pd.read_csv(results / "summary.csv")
        for row in rows[rows["state"] == "finished"].itertuples():
            shift = {"B4": 0.0, "C2": 0.01, "C3": -0.01}[row.slice]
            table = pd.DataFrame(
                {"slice": row.slice, "target": TARGETS, "pcc_acg": np.array(scores[row.method]) + shift}
            )
            table["pcc_heg"] = table["pcc_acg"] + 0.1
            table["strict_pcc_acg"], table["strict_pcc_heg"] = table["pcc_acg"].fillna(0), table["pcc_heg"].fillna(0)
            table.to_csv(results / "trials" / row.key / "targets.csv", index=False)
        (found,) = load([results])
        return found

    return one


def test_scores_are_means_over_slices_and_ranks_are_among_methods(section: Callable[..., Section]) -> None:
    of = section(seeds=(0, 1))
    table = on_targets(of, pd.concat(_files(of))).assign(method=lambda t: t["entry"].map(of.entries["method"]))
    table = table.set_index(["method", "target"])
    assert table.loc[("stnet", "gene-log10-cp10k"), "pcc_acg"] == pytest.approx(0.3)
    assert list(table.loc["mclstexp"]["rank"]) == [1, 1, 1]
    assert list(table.loc["hist2st"]["rank"]) == [3, 3, 3]
    assert table.loc["depth_oracle"]["rank"].isna().all()
    assert np.isnan(table.loc[("training_mean", "lognorm"), "pcc_acg"])


def _files(section: Section) -> list[pd.DataFrame]:
    return [
        pd.read_csv(Path(row.directory) / "trials" / row.key / "targets.csv").assign(entry=row.entry, seed=row.seed)
        for row in section.rows.itertuples()
    ]


@pytest.mark.usefixtures("saved_pictures")
def test_one_order_on_all_targets_is_said(section: Callable[..., Section]) -> None:
    lead = part(of := section(), Context([of])).lead
    assert lead[0] == "mclSTExp is best by PCC (ACG) on all 3 targets; the order of the 3 methods is the same on each."


def test_places_that_change_below_the_best_are_counted(section: Callable[..., Section]) -> None:
    of = section(SAME | {"stnet": (0.2, 0.1, 0.1)})
    assert "on all 3 targets; below it, 2 of 3 methods change places" in part(of, Context([of])).lead[0]


def test_a_best_method_that_depends_on_the_target_is_said(section: Callable[..., Section]) -> None:
    of = section(SAME | {"stnet": (0.2, 0.9, 0.1)})
    assert part(of, Context([of])).lead[0] == (
        "The best of 3 methods by PCC (ACG) depends on the target: mclSTExp on spot-log10-cp10k; STnet on "
        "gene-log10-cp10k; mclSTExp on lognorm."
    )


def test_the_oracle_is_shown_for_each_target_and_where_it_is_above_all(section: Callable[..., Section]) -> None:
    oracle = part(of := section(), Context([of])).lead[1]
    assert "0.25 on spot-log10-cp10k, 0.60 on gene-log10-cp10k, 0.01 on lognorm" in oracle
    assert oracle.endswith("more than everything that is ranked, on gene-log10-cp10k.")


def test_an_incomplete_method_is_not_ranked(section: Callable[..., Section]) -> None:
    of = section(states={("mclstexp", "C2", 0): ("failed", "out of memory")})
    made = part(of, Context([of]))
    assert made.lead[0].startswith("STnet is best")
    (line,) = [line for line in markdown(made.tables[0]).splitlines() if "mclSTExp" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "2/3 †"
    assert cells[3] == "–"


def test_controls_are_ranked_where_no_method_was_run(section: Callable[..., Section]) -> None:
    scores = {"position_knn": (0.1, 0.1, 0.1), "colour_ridge": (0.2, 0.2, 0.2), "depth_oracle": (0.9, 0.9, 0.9)}
    of = section(scores, (CONTROLS[1], CONTROLS[2], CONTROLS[4]))
    assert part(of, Context([of])).lead[0].startswith("Colour ridge is best")


def test_the_figure_draws_what_the_table_says(section: Callable[..., Section]) -> None:
    of = section()
    table = on_targets(of, pd.concat(_files(of)))
    with canvas.drawing():
        drawn = slopes_figure(of, table)
    acg, heg = drawn.axes
    drawn_lines = [line for line in acg.get_lines() if len(line.get_xdata()) == len(TARGETS)]
    assert any(list(line.get_ydata()) == pytest.approx([0.2, 0.3, 0.1]) for line in drawn_lines)
    legend = {
        text.get_text(): line for text, line in zip(drawn.legends[0].texts, drawn.legends[0].get_lines(), strict=True)
    }
    assert legend["Depth oracle"].get_linestyle() == "--"
    assert legend["STnet"].get_linestyle() == "-"
    assert "Training mean" not in legend  # it has no correlation anywhere
    assert [label.get_text() for label in heg.get_xticklabels()] == ["spot-log10-cp10k\n(learned)", *TARGETS[1:]]


def test_results_of_an_older_version_say_so(tmp_path: Path) -> None:
    (of,) = load([make_results(tmp_path / "old", methods=FEW, slices=["B4", "C2"])])
    made = part(of, Context([of]))
    assert "run them again" in made.lead[0]
