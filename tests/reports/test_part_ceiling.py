"""The part on floor and ceiling: fractions by hand, incomplete entries, and what it says where it knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import CONTROLS, METHODS, TARGET, make_results

from stbench.reports.parts.ceiling import numbers, part
from stbench.reports.parts.part import Context, Part
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.tables.markdown import markdown
from stbench.scores.ceiling import COLUMNS, write_table

FEW = (METHODS[0], METHODS[1], CONTROLS[0], CONTROLS[1], CONTROLS[3])
N_GENES = 60


def with_ceilings(results: Path, of: dict[str, float], mse_floor: float = 0.2, n_genes: int = N_GENES) -> None:
    """Write the evidence file: on each slice every gene has the same ceiling; the last one has none."""
    parts = []
    for name, level in of.items():
        r = np.where(np.arange(n_genes) == n_genes - 1, np.nan, level)
        columns = {"slice": name, "gene": [f"GENE{i}" for i in range(n_genes)], "ceiling_r": r, "reliability": r**2}
        columns |= {"at_zero": False, "mse_floor": mse_floor, "n_spots": 300, "n_repeats": 10}
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True)[list(COLUMNS)]
    write_table(results / "evidence" / f"ceiling-her2st-{TARGET}.parquet", table, {"keys": {}})


@pytest.fixture
def load_with_ceilings(tmp_path: Path) -> Callable[..., Section]:
    def one(ceilings: dict[str, float] | None = None, **changes: object) -> Section:
        settings: dict[str, object] = {"methods": FEW, "slices": ["B4", "B5", "C2"], "n_genes": N_GENES, **changes}
        results = make_results(tmp_path / "run", **settings)  # type: ignore[arg-type]
        with_ceilings(results, ceilings or {"B4": 0.4, "B5": 0.5, "C2": 0.6})
        (section,) = load([results])
        return section

    return one


def made(section: Section) -> Part:
    found = part.part(section, Context([section]))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("value", "floor", "best", "expected"),
    [
        (0.2, 0.0, 0.5, 0.4),  # a correlation
        (0.25, 0.3, 0.1, 0.25),  # an error: 0.05 of the 0.2 that can be gained
        (0.35, 0.3, 0.1, -0.25),  # worse than the training mean
        (0.0, 0.0, 0.5, 0.0),
    ],
)
def test_the_fraction_of_the_way_is_that_of_a_hand_computed_case(
    value: float, floor: float, best: float, expected: float
) -> None:
    assert numbers.fraction(value, floor, best) == pytest.approx(expected)


def test_there_is_no_way_where_floor_and_ceiling_are_one() -> None:
    assert np.isnan(numbers.fraction(0.1, 0.3, 0.3))


def test_scores_stand_between_the_training_mean_and_the_ceiling(load_with_ceilings: Callable[..., Section]) -> None:
    section = load_with_ceilings()
    framed = made(section).frames["scores.csv"].set_index(["entry", "metric"])
    rows = section.rows.groupby("entry")[["strict_pcc_acg", "mse"]].mean()
    best, mean = "mclstexp/published/imagenet (densenet121-a639ec97)", "training_mean/published/none"
    acg, mse = framed.loc[(best, "strict_pcc_acg")], framed.loc[(best, "mse")]
    assert acg["ceiling"] == pytest.approx(0.5)
    assert acg["fraction"] == pytest.approx(rows.loc[best, "strict_pcc_acg"] / 0.5)
    gained, possible = rows.loc[mean, "mse"] - rows.loc[best, "mse"], rows.loc[mean, "mse"] - 0.2
    assert mse["fraction"] == pytest.approx(gained / possible)
    assert framed.loc[(mean, "strict_pcc_acg"), "fraction"] == 0
    assert framed.loc[(mean, "mse"), "fraction"] == pytest.approx(0)


@pytest.mark.usefixtures("saved_pictures")
def test_the_finding_names_the_best_method_its_share_and_the_ceiling(
    load_with_ceilings: Callable[..., Section],
) -> None:
    section = load_with_ceilings()
    value = section.rows[section.rows["method"] == "mclstexp"]["strict_pcc_acg"].mean()
    assert made(section).lead[0] == (
        f"The best method, mclSTExp, reaches {100 * value / 0.5:.0f} % of the way from the training mean to the noise "
        f"ceiling of 0.500 in PCC (ACG): {value:.3f}."
    )


def test_the_table_starts_with_the_ceiling_and_keeps_controls_apart(load_with_ceilings: Callable[..., Section]) -> None:
    text = markdown(made(load_with_ceilings()).tables[0])
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[2].startswith("| Noise ceiling | 0.5000 | 100 % |")
    assert "| Training mean | 0.0000 | 0 % |" in text
    assert "No ceiling is known for the MAE" in text


def test_an_incomplete_entry_is_framed_on_its_own_slices_and_never_the_best(
    load_with_ceilings: Callable[..., Section],
) -> None:
    section = load_with_ceilings(states={("mclstexp", "C2", 0): ("failed", "out of memory")})
    part = made(section)
    row = (
        part.frames["scores.csv"]
        .set_index(["entry", "metric"])
        .loc[("mclstexp/published/imagenet (densenet121-a639ec97)", "strict_pcc_acg")]
    )
    assert row["ceiling"] == pytest.approx(0.45)  # of B4 and B5
    assert not row["complete"]
    assert "STnet" in part.lead[0]
    assert "2/3 slices" in markdown(part.tables[0])


def test_slices_without_a_ceiling_are_left_out_and_said(load_with_ceilings: Callable[..., Section]) -> None:
    part = made(load_with_ceilings({"B4": 0.4, "C2": 0.6}))
    assert "1 of 3 slices have no ceiling yet and are left out here." in part.lead
    assert set(part.frames["scores.csv"]["n_slices"]) == {2}


def test_without_the_training_mean_the_mse_has_no_floor(load_with_ceilings: Callable[..., Section]) -> None:
    part = made(load_with_ceilings(methods=FEW[:2]))
    framed = part.frames["scores.csv"]
    assert framed.loc[framed["metric"] == "mse", "fraction"].isna().all()
    assert any("training_mean the MSE has no floor" in sentence for sentence in part.lead)


def test_without_an_estimate_the_reader_is_told_how_to_get_one(load_fake: Callable[..., Section]) -> None:
    part = made(load_fake())
    assert "No noise ceiling was estimated" in part.lead[0]
    assert not part.tables


def test_each_gene_stands_beside_its_ceiling_over_the_slices_that_score_it(
    load_with_ceilings: Callable[..., Section],
) -> None:
    section = load_with_ceilings()
    table = made(section).frames["genes.parquet"].set_index(["entry", "gene"])
    entry = "stnet/published/imagenet (densenet121-a639ec97)"
    of = section.genes[(section.genes["entry"] == entry) & (section.genes["gene"] == "GENE7")]
    assert table.loc[(entry, "GENE7"), "r"] == pytest.approx(of["strict_r"].mean())
    assert table.loc[(entry, "GENE7"), "ceiling_r"] == pytest.approx(0.5)
    assert (entry, f"GENE{N_GENES - 1}") not in table.index  # no ceiling anywhere


def test_replicates_are_compared_by_the_means_of_their_genes(load_with_ceilings: Callable[..., Section]) -> None:
    section = load_with_ceilings()
    rng = np.random.default_rng(0)
    of_gene = rng.normal(size=N_GENES)
    levels = {"B4": of_gene, "B5": of_gene + rng.normal(0, 0.1, N_GENES), "C2": rng.normal(size=N_GENES)}
    genes = section.genes
    number = genes["gene"].str.removeprefix("GENE").astype(int)
    means = [levels[name][place] for name, place in zip(genes["slice"], number, strict=True)]
    pairs = numbers.gene_mean_agreement(replace(section, genes=genes.assign(mean_truth=means)))
    same = pairs[pairs["same_patient"]]
    assert list(same["slice"] + same["other"]) == ["B4B5"]
    assert same["r"].item() == pytest.approx(np.corrcoef(levels["B4"], levels["B5"])[0, 1])
    assert len(pairs) == 3


def test_the_positional_agreement_is_the_control_s_score(load_with_ceilings: Callable[..., Section]) -> None:
    part = made(load_with_ceilings())
    assert any("control Nearest replicate, 3 slices" in sentence for sentence in part.lead)


def test_without_replicates_that_is_said(load_with_ceilings: Callable[..., Section]) -> None:
    part = made(load_with_ceilings({"B4": 0.4, "C2": 0.5}, slices=["B4", "C2"]))
    assert any("No two slices here are of one patient" in sentence for sentence in part.lead)
    assert {picture.name for picture in part.pictures} == {"way", "genes"}
