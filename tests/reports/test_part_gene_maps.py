"""Maps show the ranked genes where they are predicted best, from the predictions themselves, with or without tissue."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from synthetic import CONTROLS, METHODS, Fake, make_results
from synthetic_predictions import ORIGIN, PITCH, SCALE, add_predictions, add_thumbnails, truth_of

from stbench.errors import UserError
from stbench.reports import report
from stbench.reports.figures.canvas import drawing
from stbench.reports.figures.tissue import backgrounds
from stbench.reports.numbers.genes import gene_cube
from stbench.reports.parts import gene_maps
from stbench.reports.parts.gene_maps import GeneRow, maps_figure, part, residuals_figure, slice_of
from stbench.reports.parts.part import Context, Part
from stbench.reports.sections.predictions import of_lowest_seed, prediction_files, read_genes
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section

MCLSTEXP, STNET = METHODS[0], METHODS[1]
MEAN, KNN = CONTROLS[0], CONTROLS[2]
SLICES = ["B4", "C2", "C3"]
GENES = [f"GENE{i}" for i in range(5)]
NOISE = {"mclstexp": 0.5, "stnet": 4.0, "position_knn": 8.0}


def predict(method: str, name: str, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The truth one unit too high, with the method's noise; the training mean predicts one value."""
    if method not in NOISE:
        return np.ones_like(truth)
    return truth + 1 + NOISE[method] * rng.normal(size=truth.shape)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    run = make_results(tmp_path / "run", (MCLSTEXP, STNET, KNN), slices=SLICES, n_genes=len(GENES))
    return add_predictions(run, predict)


def other_results(tmp_path: Path, *methods: Fake, **settings: object) -> Section:
    chosen: dict = {"slices": SLICES, "n_genes": len(GENES), **settings}
    (section,) = load([add_predictions(make_results(tmp_path / "other", methods, **chosen), predict)])
    return section


def section_of(results: Path) -> Section:
    (section,) = load([results])
    return section


def made(section: Section, genes: Sequence[str] = ()) -> Part:
    answer = part(section, Context([section], genes=genes))
    assert answer is not None
    return answer


def entry(section: Section, method: str) -> str:
    return next(name for name, of in section.entries["method"].items() if of == method)


def map_axes(figure: object) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_gid() != "bar"]  # type: ignore[attr-defined]


def circles(axes: Axes) -> EllipseCollection:
    (drawn,) = [one for one in axes.collections if isinstance(one, EllipseCollection)]
    return drawn


def row_of(section: Section, gene: str, name: str) -> GeneRow:
    files = prediction_files(section)
    of = [key for key, where in files if where == name]
    read = {key: read_genes(files[key, name], [gene]) for key in of}
    first = read[of[0]]
    predictions = {key: one.prediction[:, 0] for key, one in read.items()}
    return GeneRow(gene, name, first.pixel_xy, first.truth[:, 0], predictions)


def test_predictions_are_read_for_the_genes_asked_for_in_their_order(results: Path) -> None:
    section = section_of(results)
    path = prediction_files(section)[entry(section, "mclstexp"), "C2"]
    read = read_genes(path, ["GENE3", "GENE0"])
    np.testing.assert_allclose(read.truth, truth_of("C2", 36, GENES)[:, [3, 0]], rtol=1e-6)
    np.testing.assert_array_equal(read.pixel_xy[0], [ORIGIN, ORIGIN])
    with pytest.raises(UserError, match="does not predict ELSE"):
        read_genes(path, ["ELSE"])


def test_the_lowest_seed_is_drawn(tmp_path: Path) -> None:
    states = {("mclstexp", "B4", 1): ("failed", "no memory")}
    section = other_results(tmp_path, MCLSTEXP, seeds=(2, 10, 1), states=states)
    files = prediction_files(section)
    seed_of = dict(zip(section.rows["key"], section.rows["seed"].astype(str), strict=True))
    seeds = {name: seed_of[path.parents[1].name] for (_, name), path in files.items()}
    assert seeds == {"B4": "2", "C2": "1", "C3": "1"}


def test_a_damaged_prediction_is_one_line(results: Path) -> None:
    path = next(iter(prediction_files(section_of(results)).values()))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be read"):
        read_genes(path, ["GENE0"])


def test_a_gene_is_drawn_on_the_slice_where_the_best_method_is_surest(results: Path) -> None:
    section = section_of(results)
    best = entry(section, "mclstexp")
    cube = gene_cube(section)
    assert cube is not None
    files = prediction_files(section)
    p = {}
    for name in SLICES:
        row = row_of(section, "GENE2", name)
        p[name] = scipy.stats.pearsonr(row.truth, row.predictions[best]).pvalue
    surest = min(p, key=lambda name: p[name])
    assert slice_of(cube, best, "GENE2", files) == surest
    fewer = {of: path for of, path in files.items() if of[1] != surest}  # its prediction was deleted
    del p[surest]
    assert slice_of(cube, best, "GENE2", fewer) == min(p, key=lambda name: p[name])
    assert slice_of(cube, best, "GENE2", {}) is None


def test_maps_show_truth_and_predictions_each_on_its_own_scale(results: Path) -> None:
    section = section_of(results)
    row = row_of(section, "GENE1", "C3")
    shown = [entry(section, "mclstexp"), entry(section, "stnet")]
    with drawing():
        figure = maps_figure(section, [row], shown, {})
    observed, best, second = map_axes(figure)
    for axes, values in zip(
        (observed, best, second), (row.truth, *(row.predictions[one] for one in shown)), strict=True
    ):
        np.testing.assert_array_equal(circles(axes).get_array(), values)
        assert circles(axes).get_clim() == (values.min(), values.max())
        assert circles(axes).get_cmap().name == "magma"
        np.testing.assert_array_equal(circles(axes).get_offsets(), row.pixel_xy)
    r = [scipy.stats.pearsonr(row.truth, row.predictions[one]).statistic for one in shown]
    assert best.get_title() == f"PCC {r[0]:.3f}".replace("-", "−")
    assert second.get_title() == f"PCC {r[1]:.3f}".replace("-", "−")
    assert best.title.get_fontweight() == "bold"
    assert second.title.get_fontweight() == "normal"
    texts = [text.get_text() for text in figure.texts]
    assert {"observed", "mclSTExp", "STnet", "GENE1", "C3"} <= set(texts)
    assert next(text for text in figure.texts if text.get_text() == "GENE1").get_fontstyle() == "italic"


def test_residuals_share_limits_around_zero_and_one_bar_for_a_row(results: Path) -> None:
    section = section_of(results)
    row = row_of(section, "GENE1", "C3")
    shown = [entry(section, "mclstexp"), entry(section, "stnet")]
    row = GeneRow(row.gene, row.slice, row.pixel_xy, row.truth, {one: row.predictions[one] for one in shown})
    with drawing():
        figure = residuals_figure(section, [row], shown, {})
    first, second = map_axes(figure)
    for axes, one in ((first, shown[0]), (second, shown[1])):
        np.testing.assert_allclose(circles(axes).get_array(), row.predictions[one] - row.truth)
    low, high = circles(first).get_clim()
    assert (low, high) == circles(second).get_clim()
    assert low == -high
    together = np.concatenate([row.predictions[one] - row.truth for one in shown])
    assert high == pytest.approx(np.percentile(np.abs(together), 98))
    assert len(figure.axes) - len(map_axes(figure)) == 1
    assert first.get_title().startswith("mean +")


def test_the_picture_lies_under_the_spots_at_its_scale(results: Path) -> None:
    add_thumbnails(results, "her2st", SLICES)
    section = section_of(results)
    row = row_of(section, "GENE0", "B4")
    with drawing():
        figure = maps_figure(section, [row], [entry(section, "mclstexp")], backgrounds(section))
    (picture,) = map_axes(figure)[0].images
    assert picture.get_extent() == pytest.approx([0, 120 / SCALE, 110 / SCALE, 0])
    left, right = map_axes(figure)[0].get_xlim()
    bottom, top = map_axes(figure)[0].get_ylim()
    assert left < ORIGIN < ORIGIN + 5 * PITCH < right
    assert bottom > top  # y runs down, as in the image


@pytest.mark.usefixtures("saved_pictures")
def test_the_part_draws_methods_best_first_and_leaves_controls_out(results: Path) -> None:
    section = section_of(results)
    answer = made(section)
    table = answer.frames["drawn.csv"]
    assert list(table["label"].drop_duplicates()) == ["mclSTExp", "STnet"]
    assert set(table["gene"]) == set(GENES)
    assert [one.name for one in answer.pictures] == ["maps", "residuals"]
    assert all(set(one.forms) == {"webp", "png"} for one in answer.pictures)
    assert "plain background" in answer.pictures[0].caption
    assert any("H&E picture is missing" in sentence for sentence in answer.lead)
    r = table.loc[table["label"] == "mclSTExp", "pcc"]
    assert f"from {r.min():.2f} to {r.max():.2f}" in answer.lead[0]


def test_with_thumbnails_nothing_is_said_to_be_missing(results: Path) -> None:
    add_thumbnails(results, "her2st", SLICES)
    answer = made(section_of(results))
    assert "on the H&E image" in answer.pictures[0].caption
    assert not any("missing" in sentence for sentence in answer.lead)


def test_controls_are_drawn_where_no_method_was_run_and_constants_have_no_pcc(tmp_path: Path) -> None:
    answer = made(other_results(tmp_path, KNN, MEAN))
    table = answer.frames["drawn.csv"]
    assert list(table["label"].drop_duplicates()) == ["Position kNN", "Training mean"]
    assert table.loc[table["label"] == "Training mean", "pcc"].isna().all()
    assert any("controls are drawn" in sentence for sentence in answer.lead)


def test_a_method_without_this_slice_has_an_empty_place(tmp_path: Path) -> None:
    states = {("stnet", name, 0): ("failed", "no memory") for name in ("B4", "C2")}
    section = other_results(tmp_path, MCLSTEXP, STNET, states=states)
    row = row_of(section, "GENE0", "B4")
    with drawing():
        figure = maps_figure(section, [row], [entry(section, "mclstexp"), entry(section, "stnet")], {})
    assert [text.get_text() for text in map_axes(figure)[2].texts] == ["no prediction"]
    assert "STnet (1/3)" in [text.get_text() for text in figure.texts]


def test_chosen_genes_are_drawn_in_the_order_asked_for(results: Path) -> None:
    answer = made(section_of(results), genes=("GENE4", "GENE1", "GENE4"))
    assert list(answer.frames["drawn.csv"]["gene"].drop_duplicates()) == ["GENE4", "GENE1"]


def test_many_genes_are_spread_over_several_pictures(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gene_maps, "N_GENES", 2)
    answer = made(section_of(results), genes=("GENE4", "GENE1", "GENE2"))
    assert [one.name for one in answer.pictures] == ["maps-1", "maps-2", "residuals-1", "residuals-2"]


def test_a_gene_that_no_section_has_is_refused_and_one_of_another_section_is_said(
    results: Path, tmp_path: Path
) -> None:
    section = section_of(results)
    with pytest.raises(UserError, match="GENE9"):
        made(section, genes=("GENE9",))
    other = other_results(tmp_path, MCLSTEXP, n_genes=12)
    answer = part(section, Context([section, other], genes=("GENE9", "GENE1")))
    assert answer is not None
    assert "GENE9 is not in this dataset's panel." in answer.lead


def test_a_report_that_is_refused_leaves_nothing_behind(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown gene of these results 'NOPE'"):
        report([results], tmp_path / "out", genes=["NOPE"])
    assert not (tmp_path / "out").exists()


def test_results_without_predictions_are_said(tmp_path: Path) -> None:
    (section,) = load([make_results(tmp_path / "bare", (MCLSTEXP,), slices=SLICES, n_genes=5)])
    answer = made(section)
    assert answer.lead == ["No gene can be drawn: no predictions are left in the results."]
    assert not answer.pictures


def test_captions_say_whose_predictions_are_drawn_where_there_are_several_seeds(tmp_path: Path) -> None:
    of_several = "; of several seeds, predictions of the lowest that finished"
    one = other_results(tmp_path / "one", MCLSTEXP, n_genes=5)
    assert not any(of_several in picture.caption for picture in made(one).pictures)
    several = other_results(tmp_path / "several", MCLSTEXP, n_genes=5, seeds=(0, 1))
    assert all(picture.caption.endswith(of_several) for picture in made(several).pictures)


def test_the_lowest_seed_is_the_lowest_number(tmp_path: Path) -> None:
    several = other_results(tmp_path, MCLSTEXP, n_genes=5, seeds=(10, 2))
    chosen = of_lowest_seed(several.rows)
    assert set(chosen["seed"].astype(str)) == {"2"}
    assert len(chosen) == len(SLICES)
    keys = {path.parents[1].name for path in prediction_files(several).values()}
    assert keys == set(chosen["key"])
