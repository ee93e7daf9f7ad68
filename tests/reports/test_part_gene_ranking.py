"""Genes are ranked as the paper ranks them, and the table and the heat map say what the numbers say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from synthetic import CONTROLS, METHODS, make_results
from synthetic_predictions import add_predictions, truth_of

from stbench.reports.figures.canvas import drawing
from stbench.reports.numbers.genes import gene_cube, ranking, shown_entries
from stbench.reports.parts.gene_ranking import agreement_figure, gene_agreement, gene_leaders, part
from stbench.reports.parts.part import Context, Part
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section

MCLSTEXP, STNET, BLEEP = METHODS[0], METHODS[1], METHODS[5]
MEAN, DEPTH, KNN = CONTROLS[0], CONTROLS[1], CONTROLS[2]


def section_of(path: Path, genes: pd.DataFrame | None = None, **settings: object) -> Section:
    chosen: dict = {"methods": (MCLSTEXP, STNET), "slices": ["B4", "C2", "C3"], "n_genes": 4, **settings}
    (section,) = load([make_results(path / "run", **chosen)])
    return section if genes is None else replace(section, genes=genes)


def genes_table(section: Section, r: dict[tuple[str, str, str], float], seed: str = "0") -> pd.DataFrame:
    """``r``: (method, slice, gene) to its correlation."""
    entry = {method: name for name, method in section.entries["method"].items()}
    rows = [(entry[method], seed, name, gene, value) for (method, name, gene), value in r.items()]
    table = pd.DataFrame(rows, columns=["entry", "seed", "slice", "gene", "r"])
    return table.assign(strict_r=table["r"])


def made(section: Section, **context: bool) -> Part:
    answer = part(section, Context([section], **context))
    assert answer is not None
    return answer


HAND = {
    ("mclstexp", "B4", "LOW"): 0.1,
    ("mclstexp", "C2", "LOW"): -0.1,
    ("mclstexp", "C3", "LOW"): 0.1,
    # strong on one slice and undefined on the others: the mean is over the one
    ("mclstexp", "B4", "RARE"): 0.6,
    ("mclstexp", "C2", "RARE"): np.nan,
    ("mclstexp", "C3", "RARE"): np.nan,
    ("mclstexp", "B4", "GOOD"): 0.5,
    ("mclstexp", "C2", "GOOD"): 0.5,
    ("mclstexp", "C3", "GOOD"): -0.5,
    ("mclstexp", "B4", "NEVER"): np.nan,
    ("mclstexp", "C2", "NEVER"): np.nan,
    ("mclstexp", "C3", "NEVER"): np.nan,
}


def test_genes_are_ranked_by_the_mean_of_neg_log10_p_over_the_slices_that_have_one(tmp_path: Path) -> None:
    section = section_of(tmp_path)
    cube = gene_cube(replace(section, genes=genes_table(section, HAND)))
    assert cube is not None
    table = ranking(cube).set_index("gene")
    assert list(table.index) == ["RARE", "GOOD", "LOW"]  # NEVER has no value anywhere
    assert list(table["rank"]) == [1, 2, 3]
    n = 300  # spots of each made-up slice
    t = 0.5 * np.sqrt((n - 2) / (1 - 0.25))
    by_hand = -np.log10(2 * scipy.stats.t.sf(t, n - 2))  # the same for 0.5 and -0.5
    assert table.loc["GOOD", "mean_neg_log10_p"] == pytest.approx(by_hand, rel=1e-9)
    assert table.loc["GOOD", "mean_r"] == pytest.approx(0.5 / 3)
    assert table.loc["GOOD", "share_positive"] == pytest.approx(2 / 3)
    assert table["n_slices"].to_dict() == {"RARE": 1, "GOOD": 3, "LOW": 3}


def test_the_ranking_agrees_with_scipys_p_of_the_predictions(tmp_path: Path) -> None:
    def predict(method: str, name: str, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return truth + rng.normal(size=truth.shape) * np.linspace(1, 8, truth.shape[1])

    slices, genes, n_spots = ["B4", "C2", "C3"], [f"GENE{i}" for i in range(6)], 36
    run = make_results(tmp_path / "run", (MCLSTEXP,), slices=slices, n_genes=6)
    (section,) = load([add_predictions(run, predict, n_spots)])
    expected = np.zeros((3, 6))
    for place, name in enumerate(slices):
        rng = np.random.default_rng(sum(map(ord, "mclstexp" + name)))
        truth = truth_of(name, n_spots, genes)
        prediction = predict("mclstexp", name, truth, rng).astype(np.float32)
        p = [scipy.stats.pearsonr(truth[:, i].astype(float), prediction[:, i].astype(float)).pvalue for i in range(6)]
        expected[place] = -np.log10(p)
    wanted = pd.Series(expected.mean(axis=0), genes).sort_values(ascending=False)
    cube = gene_cube(section)
    assert cube is not None
    table = ranking(cube).set_index("gene")["mean_neg_log10_p"]
    assert list(table.index) == list(wanted.index)
    np.testing.assert_allclose(table, wanted, rtol=1e-6)


def test_seeds_are_averaged_before_slices(tmp_path: Path) -> None:
    section = section_of(tmp_path, seeds=(0, 1))
    r = {("mclstexp", "B4", "A"): 0.2, ("mclstexp", "C2", "A"): 0.6}
    other = {("mclstexp", "B4", "A"): 0.4}  # the second seed has one of the two slices
    genes = pd.concat([genes_table(section, r), genes_table(section, other, seed="1")])
    cube = gene_cube(replace(section, genes=genes))
    assert cube is not None
    assert ranking(cube)["mean_r"].item() == pytest.approx(((0.2 + 0.4) / 2 + 0.6) / 2)


def test_a_p_that_underflows_still_ranks(tmp_path: Path) -> None:
    section = section_of(tmp_path)
    r = {("mclstexp", "B4", "SURE"): 0.9999, ("mclstexp", "B4", "SURER"): 0.99999}
    genes = genes_table(section, r).assign(p=0.0)
    cube = gene_cube(replace(section, genes=genes))
    assert cube is not None
    table = ranking(cube)
    assert list(table["gene"]) == ["SURER", "SURE"]
    assert np.isfinite(table["mean_neg_log10_p"]).all()
    assert table["mean_neg_log10_p"].min() > 308


def test_methods_come_before_controls_and_the_incomplete_come_last(tmp_path: Path) -> None:
    states = {("mclstexp", "C3", 0): ("failed", "no memory")}
    section = section_of(tmp_path, methods=(MCLSTEXP, STNET, BLEEP, KNN, DEPTH), states=states)
    assert [name.split("/")[0] for name in shown_entries(section)] == ["bleep", "stnet", "mclstexp"]


def test_without_methods_fair_controls_are_shown(tmp_path: Path) -> None:
    section = section_of(tmp_path, methods=(KNN, DEPTH, MEAN))
    assert [name.split("/")[0] for name in shown_entries(section)] == ["position_knn", "training_mean"]


def test_the_best_method_of_each_gene_and_its_lead(tmp_path: Path) -> None:
    section = section_of(tmp_path, methods=(MCLSTEXP, STNET, KNN))
    r = {
        **{("mclstexp", name, "A"): 0.5 for name in section.slices},
        **{("stnet", name, "A"): 0.1 for name in section.slices},
        **{("position_knn", name, "A"): 0.9 for name in section.slices},
        **{("mclstexp", name, "B"): 0.2 for name in section.slices},
        **{("stnet", name, "B"): 0.3 for name in section.slices},
        **{("position_knn", name, "B"): 0.0 for name in section.slices},
        **{(method, name, "FLAT"): np.nan for method in ("mclstexp", "stnet") for name in section.slices},
    }
    cube = gene_cube(replace(section, genes=genes_table(section, r)))
    assert cube is not None
    stnet, mclstexp, knn = section.entries.index  # in the paper's order
    table = gene_leaders(cube, [stnet, mclstexp], [knn]).set_index("gene")
    best = {gene: entry.split("/")[0] for gene, entry in table["best"].items()}
    assert best == {"A": "mclstexp", "B": "stnet"}  # FLAT cannot be scored and is left out
    assert table["margin"].to_dict() == pytest.approx({"A": 0.4, "B": 0.1})
    assert table["control_beats_all"].to_dict() == {"A": True, "B": False}


def test_agreement_is_scipys_spearman_over_genes(tmp_path: Path) -> None:
    section = section_of(tmp_path, methods=(MCLSTEXP, STNET, MEAN), n_genes=30)
    cube = gene_cube(section)
    assert cube is not None
    ranked = ranking(cube)
    matrix = gene_agreement(ranked, list(section.entries.index))
    assert [entry.split("/")[0] for entry in matrix] == ["stnet", "mclstexp"]  # a constant control ranks no genes
    wide = section.genes.pivot_table(index="gene", columns="entry", values="r")
    expected = scipy.stats.spearmanr(wide[matrix.columns[0]], wide[matrix.columns[1]]).statistic
    assert matrix.iloc[0, 1] == pytest.approx(expected)


def test_the_heat_map_draws_the_table(tmp_path: Path) -> None:
    table = pd.DataFrame([[1.0, -0.3], [-0.3, 1.0]], index=["one", "two"], columns=["one", "two"])
    with drawing():
        figure = agreement_figure(table)
    axes, bar = figure.axes
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array(), table.to_numpy())
    assert mesh.get_clim() == (-1, 1)
    assert [text.get_text() for text in axes.texts] == ["1.00", "−0.30", "−0.30", "1.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert bar.get_ylim() == (-1, 1)


@pytest.mark.usefixtures("saved_pictures")
def test_the_part_names_the_first_gene_and_lists_fifty(tmp_path: Path) -> None:
    section = section_of(tmp_path, n_genes=80)
    answer = made(section)
    top, best = answer.tables
    ranked = answer.frames["ranking.csv"]
    first = ranked[ranked["label"] == "mclSTExp"].iloc[0]
    assert answer.lead[0].startswith(f"{first['gene']} is the gene that mclSTExp predicts most surely")
    assert len(top.blocks[0]) == 50
    assert top.blocks[0][0][1].text == first["gene"]
    won = {row[0].text: row[1].value for row in best.blocks[0]}
    assert sum(won.values()) == 80
    counts = answer.frames["per-gene.csv"]["best_label"].value_counts()
    assert won == counts.astype(float).to_dict()


def test_the_papers_list_stands_beside_only_where_it_is_asked_for(tmp_path: Path) -> None:
    section = section_of(tmp_path, n_genes=80)
    names = {"GENE3": "GNAS", "GENE7": "NDRG1"}  # ranks 1 and 25 of Table S2
    section = replace(section, genes=section.genes.replace({"gene": names}))
    assert "rank in the paper" not in made(section).tables[0].columns
    answer = made(section, compare_paper=True)
    table = answer.tables[0]
    beside = {row[1].text: row[5].text for row in table.blocks[0]}
    listed = set(beside) & {"GNAS", "NDRG1"}
    assert {gene: beside[gene] for gene in listed} == {gene: {"GNAS": "1", "NDRG1": "25"}[gene] for gene in listed}
    assert all(place == "not listed" for gene, place in beside.items() if gene not in listed)
    assert any("copying slip" in note for note in table.notes)
    assert any(f"mclSTExp {len(listed)}," in sentence for sentence in answer.lead)


def test_the_papers_list_is_of_two_datasets_and_one_protocol(tmp_path: Path) -> None:
    for dataset, slices in (("alex10x", ["CID4290", "FFPE"]), ("her2st", ["B4", "C2"])):
        split = "lopo" if dataset == "her2st" else "loso"
        section = section_of(tmp_path / dataset, dataset=dataset, slices=slices, split=split)
        assert "rank in the paper" not in made(section, compare_paper=True).tables[0].columns


def test_nothing_is_said_without_per_gene_tables(load_fake: Callable[..., Section]) -> None:
    section = load_fake(with_genes=False)
    assert part(section, Context([section])) is None


def test_constant_predictions_alone_are_said_to_have_no_ranking(load_fake: Callable[..., Section]) -> None:
    answer = made(load_fake(methods=(MEAN,)))
    assert "cannot be ranked" in answer.lead[0]
    assert not answer.tables
