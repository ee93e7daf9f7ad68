"""The demo: quick, the same everywhere, recognisable tissue, and expression of which everything is known."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stbench.data import targets
from stbench.data.cache import slide_key
from stbench.data.prepare import prepare
from stbench.dataset import Dataset
from stbench.datasets.demo import Demo, dataset
from stbench.datasets.demo.ceiling import best_reachable, expected_target
from stbench.datasets.demo.expression import draw_counts, slide_counts, slide_truth
from stbench.datasets.demo.sections import FEATURES, section, window
from stbench.datasets.demo.tissue import MALIGNANT, REGIONS, SIDE, STROMA
from stbench.errors import UserError
from stbench.slides.checks import check_slide
from stbench.slides.slide import Slide

TARGET = "spot-log10-cp10k"


@pytest.fixture(scope="module")
def slides() -> dict[str, Slide]:
    found = {source.id: source.read() for source in Demo().find()[0]}
    assert len(found) == 6  # or the loops over them below would assert nothing
    return found


@pytest.fixture(scope="module")
def patches(slides: dict[str, Slide]) -> dict[str, np.ndarray]:
    return {name: slide.image.cut(slide.centres, Demo.patch_px)[0] for name, slide in slides.items()}


@pytest.fixture(scope="module")
def programme() -> np.ndarray:
    return best_reachable("P1a")["programme"].to_numpy()


def observed(slide: Slide, target: str = TARGET) -> np.ndarray:
    counts = slide.adata[:, Demo().panel()].X.toarray()
    total_counts = np.asarray(slide.adata.X.sum(axis=1)).ravel()
    return targets.target(target)(counts, total_counts, len(slide.genes)).astype(float)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r of each column of ``a`` with the same column of ``b``, or with the vector ``b``."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    b = b[:, None] if b.ndim == 1 else b
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def image_statistics(patches: np.ndarray) -> np.ndarray:
    """Mean and spread of the colours, quantiles and gradients of the brightness: what any method sees at once."""
    pixels = patches.astype(np.float32)
    grey = pixels.mean(axis=-1)
    gradients = [np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    quantiles = np.quantile(grey.reshape(len(grey), -1), [0.05, 0.25, 0.5, 0.75, 0.95], axis=1)
    return np.column_stack([pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)), *gradients, *quantiles])


def held_out_correlation(
    slides: dict[str, Slide],
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
    model,
    by_patient: bool = False,
) -> np.ndarray:
    """(n_genes,) r on a held-out slide (or a slide of a held-out patient), averaged over slides."""
    scores = []
    for test in slides:
        apart = [
            name for name in slides if (slides[name].patient != slides[test].patient if by_patient else name != test)
        ]
        model.fit(np.concatenate([inputs[name] for name in apart]), np.concatenate([outputs[name] for name in apart]))
        scores.append(correlation(outputs[test], model.predict(inputs[test])))
    return np.mean(scores, axis=0)


def ridge():
    return make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))


def fingerprint(slide: Slide) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in (
        slide.image.read(),
        slide.adata.X.toarray(),
        slide.adata.layers["expected"],
        slide.centres,
        slide.adata.var["best_r"].to_numpy(),
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# --- the dataset -----------------------------------------------------------------------------------------------------


def test_six_slides_of_three_patients_are_always_there():
    dataset = Demo(Path("/nowhere"))
    assert isinstance(dataset, Dataset)
    present, missing = dataset.find()
    assert missing == []
    assert [source.id for source in present] == list(dataset.slices) == ["P1a", "P1b", "P2a", "P2b", "P3a", "P3b"]
    assert [source.patient for source in present] == ["P1", "P1", "P2", "P2", "P3", "P3"]
    assert all(source.files == () for source in present)


def test_finding_slides_draws_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset, "section", lambda slice_id: pytest.fail("a slide was drawn"))
    assert len(Demo().find()[0]) == 6


def test_an_unknown_slice_is_named_with_its_near_match():
    with pytest.raises(UserError, match="unknown slice of demo 'P1A' - did you mean 'P1"):
        Demo().patient("P1A")
    with pytest.raises(UserError, match="unknown slice of demo 'P9a'"):
        dataset.read_slide("P9a")


def test_every_slide_is_valid_and_has_about_a_hundred_spots(slides: dict[str, Slide]):
    for slide in slides.values():
        assert check_slide(slide, panel=Demo().panel()) == []
        assert 80 <= slide.n_spots <= 130
        assert np.all(np.diff(np.unique(slide.array_xy[:, 0])) == 1)
        step = np.linalg.lstsq(np.c_[slide.array_xy[:, 0], np.ones(slide.n_spots)], slide.centres[:, 0], rcond=None)[0][
            0
        ]
        assert step == pytest.approx(72)


def test_no_two_slides_have_the_same_outline(slides: dict[str, Slide]):
    assert len({frozenset(map(tuple, slide.array_xy)) for slide in slides.values()}) == 6


def test_patches_lie_inside_the_image_and_on_tissue(slides: dict[str, Slide]):
    for name, slide in slides.items():
        assert slide.image.cut(slide.centres, Demo.patch_px)[1] == 0
        covered = [(section(name).region[window(centre)] != 255).mean() for centre in slide.centres]
        assert min(covered) >= 0.6


def test_genes_are_named_after_their_programme(slides: dict[str, Slide]):
    var = slides["P1a"].adata.var
    panel = Demo().panel()
    assert 100 <= len(panel) <= 120
    assert len(var) - len(panel) == 30
    assert panel == var.index[var["in_panel"]].tolist()
    for gene, programme in var["programme"].items():
        stem = {"visible": r"VIS-[A-Z]+", "positional": "POS", "noise": "NOISE"}[programme]
        assert re.fullmatch(stem + r"-\d\d", str(gene))
    assert set(var["programme"][var["in_panel"]]) == set(var["programme"][~var["in_panel"]])


def test_prepared_slides_have_its_targets_and_labels(tmp_path: Path, slides: dict[str, Slide]):
    prepared = prepare(Demo(), TARGET, tmp_path, slices=["P1a"])
    slide = prepared.slides["P1a"]
    np.testing.assert_allclose(slide.target, observed(slides["P1a"]), rtol=1e-6)
    assert slide.labels == tuple(slides["P1a"].adata.obs["label"])
    assert slide.n_padded == 0


def test_prepared_data_are_made_again_when_the_generator_changes(monkeypatch: pytest.MonkeyPatch):
    def key() -> str:
        return slide_key(Demo(), Demo().find()[0][0], Demo().panel())

    before = key()
    json.dumps(dict(Demo().find()[0][0].parameters))
    assert key() == before
    monkeypatch.setattr(dataset, "VERSION", dataset.VERSION + 1)
    assert key() != before
    monkeypatch.undo()
    monkeypatch.setattr("stbench.datasets.demo.expression._SHIFT", 0.5)
    assert key() != before


# --- the same everywhere, in seconds ---------------------------------------------------------------------------------

_OTHER_PROCESS = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_demo import fingerprint
from stbench.datasets.demo.dataset import read_slide
started = time.process_time()
for name in sys.argv[2:]:
    print(name, fingerprint(read_slide(name)))
print("seconds", time.process_time() - started)
"""


def in_another_process(names: list[str]) -> dict[str, str]:
    """What ``_OTHER_PROCESS`` prints for these slides, in this order."""
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _OTHER_PROCESS, str(Path(__file__).parent), *names]
    lines = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split() for line in lines)


def test_a_slide_does_not_depend_on_the_process_or_on_the_others(slides: dict[str, Slide]):
    assert in_another_process(["P2b"])["P2b"] == fingerprint(slides["P2b"])


@pytest.mark.slow
def test_the_whole_dataset_takes_seconds_and_is_the_same_in_any_order(slides: dict[str, Slide]):
    found = in_another_process(list(reversed(slides)))
    assert float(found.pop("seconds")) < 15  # about 5 on one core of 2024
    assert found == {name: fingerprint(slide) for name, slide in slides.items()}


def test_reading_a_slide_again_costs_nothing_and_gives_a_table_of_its_own(slides: dict[str, Slide]):
    started = time.process_time()
    again = dataset.read_slide("P1a")
    assert time.process_time() - started < 0.3
    assert again.image.array is slides["P1a"].image.array
    again.adata.X.data[:] = 0
    again.adata.layers["expected"][:] = 0
    again.adata.obsm["spatial"][:] = 0
    assert fingerprint(dataset.read_slide("P1a")) == fingerprint(slides["P1a"])
    with pytest.raises(ValueError, match="read-only"):
        again.image.array[0, 0] = 0


# --- the image -------------------------------------------------------------------------------------------------------


def test_the_glass_beside_the_tissue_is_nearly_white(slides: dict[str, Slide]):
    for name, slide in slides.items():
        glass = slide.image.array[section(name).region == 255]
        assert glass.mean() > 235
        assert 0.3 < (section(name).region != 255).mean() < 0.75


def test_regions_look_as_they_should(slides: dict[str, Slide], patches: dict[str, np.ndarray]):
    for name, slide in slides.items():
        pure = pd.DataFrame(section(name).features, columns=FEATURES)
        colour = patches[name].mean(axis=(1, 2))
        label = slide.adata.obs["label"].to_numpy()
        bright = {region: colour[label == region].mean() for region in REGIONS}
        assert max(bright, key=bright.get) == "adipose"
        assert min(bright, key=bright.get) == "immune"
        redness = colour[:, 0] - colour[:, 2]
        assert redness[label == "stroma"].mean() > redness[label == "tumour"].mean() > redness[label == "immune"].mean()
        assert pure["cells"][label == "immune"].mean() > 1.5 * pure["cells"][label == "stroma"].mean()


def test_nuclei_are_where_they_are_said_to_be(slides: dict[str, Slide]):
    for name in slides:
        drawn = section(name)
        x, y = np.rint(drawn.nuclei.x).astype(int), np.rint(drawn.nuclei.y).astype(int)
        red = drawn.image[..., 0].astype(float)
        assert red[y, x].mean() < 0.75 * red[drawn.region != 255].mean()
        beside = np.clip(x + 60, 0, SIDE - 1)
        assert red[y, x].mean() < red[y, beside].mean()


def test_the_tumours_grade_is_seen_in_its_nuclei():
    size = {}
    for name in ("P2a", "P3a"):  # high and low grade
        nuclei = section(name).nuclei
        size[name] = np.sqrt(nuclei.long * nuclei.short)[nuclei.kind == MALIGNANT]
    assert size["P2a"].mean() > 1.1 * size["P3a"].mean()
    assert size["P2a"].std() > size["P3a"].std()


def test_each_patient_has_a_stain_of_its_own(slides: dict[str, Slide]):
    def hue(name: str) -> np.ndarray:
        """Direction of the stroma's mean absorption: what is left of the colour when strength and amount are not."""
        stroma = slides[name].image.array[section(name).tissue == STROMA]
        absorbed = -np.log(np.maximum(stroma, 1) / 246.0).mean(axis=0)
        return absorbed / np.linalg.norm(absorbed)

    hues = {name: hue(name) for name in slides}
    distance = {(a, b): np.linalg.norm(hues[a] - hues[b]) for a, b in combinations(slides, 2)}
    within = [value for (a, b), value in distance.items() if slides[a].patient == slides[b].patient]
    between = [value for (a, b), value in distance.items() if slides[a].patient != slides[b].patient]
    assert 2 * max(within) < min(between)


# --- replicates ------------------------------------------------------------------------------------------------------


def test_sections_of_one_patient_are_more_alike_than_those_of_two(slides: dict[str, Slide]):
    def shared(one: str, other: str) -> tuple[float, float]:
        """Agreement of the labels, and of the expected expression less its gene means, at common array positions."""
        rows = [{tuple(xy): i for i, xy in enumerate(slides[name].array_xy)} for name in (one, other)]
        common = sorted(rows[0].keys() & rows[1].keys())
        labels, rates = [], []
        for name, row in zip((one, other), rows, strict=True):
            index = [row[xy] for xy in common]
            adata = slides[name].adata
            labels.append(adata.obs["label"].to_numpy()[index])
            rate = np.log(adata.layers["expected"] / adata.obs["depth"].to_numpy()[:, None])[index]
            rates.append((rate - rate.mean(axis=0)).ravel())
        return float((labels[0] == labels[1]).mean()), float(np.corrcoef(*rates)[0, 1])

    same = [shared(f"{p}a", f"{p}b") for p in ("P1", "P2", "P3")]
    other = [shared(p, q) for p in ("P1a", "P1b") for q in ("P2a", "P2b", "P3a")]
    assert min(agreement for agreement, _ in same) > 0.6 > 0.45 > max(agreement for agreement, _ in other)
    assert min(r for _, r in same) > 0.6 > 0.45 > max(r for _, r in other)
    assert not np.array_equal(section("P1a").image, section("P1b").image)


# --- counts ----------------------------------------------------------------------------------------------------------


def test_counts_have_the_stated_mean_and_variance():
    truth = slide_truth("P2a")
    rng = np.random.default_rng(0)
    draws = np.stack([draw_counts(truth, rng) for _ in range(300)]).astype(float)
    variance = truth.expected + truth.genes.dispersion * truth.expected**2
    z = (draws.mean(axis=0) - truth.expected) / np.sqrt(variance / len(draws))
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert z.std() == pytest.approx(1, abs=0.03)
    ratio = draws.var(axis=0, ddof=1) / variance
    assert ratio.mean() == pytest.approx(1, abs=0.01)
    assert (truth.expected / variance).mean() < 0.75  # a Poisson law, of ratio 1, would not have passed


def test_the_counts_of_every_slide_follow_the_stated_distribution(slides: dict[str, Slide]):
    # The distribution function of a discrete value, spread evenly over its jump, is uniform if the law is right
    rng = np.random.default_rng(1)
    for slide in slides.values():
        counts, mean = slide.adata.X.toarray(), slide.adata.layers["expected"]
        size = 1 / slide.adata.var["dispersion"].to_numpy()
        law = stats.nbinom(size, size / (size + mean))
        uniform = law.cdf(counts - 1) + rng.random(counts.shape) * law.pmf(counts)
        assert stats.kstest(uniform.ravel(), "uniform").pvalue > 1e-3


def test_depth_differs_between_slides_and_spots(slides: dict[str, Slide]):
    totals = {name: np.asarray(slide.adata.X.sum(axis=1)).ravel() for name, slide in slides.items()}
    medians = np.array([np.median(total) for total in totals.values()])
    assert medians.max() > 1.3 * medians.min()
    for name, slide in slides.items():
        assert totals[name].min() > 20
        assert np.corrcoef(np.log(totals[name]), np.log(slide.adata.obs["depth"]))[0, 1] > 0.9
        depth = np.log(slide.adata.obs["depth"])
        label = slide.adata.obs["label"]
        assert depth[label == "tumour"].mean() > depth[label == "adipose"].mean() + 0.3


def test_patients_differ_in_every_gene_by_a_shift(slides: dict[str, Slide]):
    def noise_rates(name: str) -> np.ndarray:
        adata = slides[name].adata
        chosen = adata.var["programme"] == "noise"
        return (np.log(adata.layers["expected"][:, chosen]) - np.log(adata.obs["depth"].to_numpy())[:, None]).mean(
            axis=0
        )

    np.testing.assert_allclose(noise_rates("P1a"), noise_rates("P1b"), atol=1e-9)
    assert 0.2 < (noise_rates("P1a") - noise_rates("P2a")).std() < 1.0


# --- what can be learnt ----------------------------------------------------------------------------------------------


def test_an_image_tells_the_visible_genes_but_not_perfectly(
    slides: dict[str, Slide], patches: dict[str, np.ndarray], programme: np.ndarray
):
    seen = {name: image_statistics(patches[name]) for name in slides}
    truth = {name: observed(slide) for name, slide in slides.items()}
    ceiling = np.mean([slide.adata.var["best_r"].dropna() for slide in slides.values()], axis=0)
    visible = programme == "visible"
    for by_patient in (False, True):
        r = held_out_correlation(slides, seen, truth, ridge(), by_patient)
        assert 0.4 < r[visible].mean() < ceiling[visible].mean() - 0.03
        assert (r[visible] > 0).mean() > 0.95
        assert abs(r[~visible].mean()) < 0.12


def test_position_and_depth_alone_tell_little_of_the_visible_genes(slides: dict[str, Slide], programme: np.ndarray):
    truth = {name: observed(slide) for name, slide in slides.items()}
    visible, positional = programme == "visible", programme == "positional"
    position = {name: slide.array_xy for name, slide in slides.items()}
    depth = {name: np.log(np.asarray(slide.adata.X.sum(axis=1))) for name, slide in slides.items()}
    by_position = held_out_correlation(slides, position, truth, KNeighborsRegressor(8))
    assert by_position[visible].mean() < 0.25 < by_position[positional].mean()
    assert (
        held_out_correlation(slides, {k: np.asarray(v) for k, v in depth.items()}, truth, ridge())[visible].mean() < 0.3
    )


def test_an_image_tells_nothing_of_the_positional_genes_beyond_position(
    slides: dict[str, Slide], patches: dict[str, np.ndarray], programme: np.ndarray
):
    def without_position(values: np.ndarray, slide: Slide) -> np.ndarray:
        x, y = (slide.array_xy - 6).T
        surface = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y]).astype(float)
        return values - surface @ np.linalg.lstsq(surface, values, rcond=None)[0]

    seen = {name: without_position(image_statistics(patches[name]), slide) for name, slide in slides.items()}
    rest = {
        name: without_position(np.log1p(slide_counts(name) / slide.adata.obs["depth"].to_numpy()[:, None]), slide)
        for name, slide in slides.items()
    }
    r = held_out_correlation(slides, seen, rest, ridge())
    of = slides["P1a"].adata.var["programme"].to_numpy()
    assert abs(r[of == "positional"].mean()) < 0.04
    assert r[of == "visible"].mean() > 0.35


def test_positional_genes_follow_the_array_and_are_shared_by_a_patients_slides(slides: dict[str, Slide]):
    def gradients(name: str) -> pd.DataFrame:
        adata = slides[name].adata[:, slides[name].adata.var["programme"] == "positional"]
        rate = np.log(adata.layers["expected"] / adata.obs["depth"].to_numpy()[:, None])
        keys = [tuple(map(int, xy)) for xy in slides[name].array_xy]
        return pd.DataFrame(rate - rate.mean(axis=0), index=pd.Index(keys, tupleize_cols=False))

    first, replicate, stranger = (gradients(name) for name in ("P1a", "P1b", "P2a"))

    def agreement(other: pd.DataFrame) -> float:
        common = first.index.intersection(other.index)
        return float(correlation(first.loc[common].to_numpy(), other.loc[common].to_numpy()).mean())

    assert agreement(replicate) == pytest.approx(1, abs=1e-6)
    assert 0.2 < agreement(stranger) < 0.97


def test_noise_genes_follow_nothing_but_depth(slides: dict[str, Slide], patches: dict[str, np.ndarray]):
    scores = []
    for name, slide in slides.items():
        adata = slide.adata
        noise = (adata.var["programme"] == "noise").to_numpy()
        depth = adata.obs["depth"].to_numpy()[:, None]
        rate = adata.layers["expected"][:, noise] / depth
        np.testing.assert_allclose(rate, np.broadcast_to(rate[:1], rate.shape), rtol=1e-9)
        # Pearson residuals: what is left of the counts when depth is known
        mean = adata.layers["expected"][:, noise]
        spread = np.sqrt(mean + adata.var["dispersion"].to_numpy()[noise] * mean**2)
        residual = (adata.X.toarray()[:, noise] - mean) / spread
        for statistic in np.column_stack([image_statistics(patches[name]), slide.array_xy]).T:
            scores.append(correlation(residual, statistic) * np.sqrt(slide.n_spots))
    z = np.concatenate(scores)
    assert z.std() == pytest.approx(1, abs=0.1)
    assert abs(z.mean()) < 0.15


# --- the best reachable score ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", sorted(targets.TARGETS))
def test_no_prediction_beats_the_ceiling_on_average(target: str):
    slide_id = "P3a"
    truth = slide_truth(slide_id)
    chosen = partial(targets.target(target), n_measured=truth.expected.shape[1])
    panel = truth.genes.in_panel
    ceiling = best_reachable(slide_id, target)["best_r"].to_numpy()
    share = truth.expected / truth.expected[:, panel].sum(axis=1, keepdims=True)
    rivals = {
        "expected target": expected_target(slide_id, target),
        "target of the expected counts": chosen(truth.expected[:, panel], truth.expected.sum(axis=1)),
        "log of the expected counts": np.log(truth.expected[:, panel]),
        "expected share": share[:, panel],
        "counts as drawn": chosen(slide_counts(slide_id)[:, panel], slide_counts(slide_id).sum(axis=1)),
    }
    rng = np.random.default_rng(2)
    scores: dict[str, list[np.ndarray]] = {name: [] for name in rivals}
    for _ in range(100):
        counts = draw_counts(truth, rng)
        values = chosen(counts[:, panel], counts.sum(axis=1)).astype(float)
        for name, prediction in rivals.items():
            scores[name].append(correlation(values, prediction))
    reached = {name: np.mean(values, axis=0) for name, values in scores.items()}
    for values in reached.values():
        assert values.mean() <= ceiling.mean() + 0.003
        # each gene: 100 draws of r, whose spread is below 0.1, on either side
        assert (values - ceiling).max() < 0.04
    assert reached["expected target"].mean() > ceiling.mean() - 0.025
    assert reached["counts as drawn"].mean() < ceiling.mean() - 0.1


def test_the_ceiling_is_the_share_of_variance_that_is_not_noise():
    # An independent estimate: r² of a conditional mean is the variance between spots over the whole variance
    truth = slide_truth("P1b")
    panel = truth.genes.in_panel
    rng = np.random.default_rng(3)
    draws = np.stack(
        [targets.target(TARGET)(c[:, panel], c.sum(axis=1)) for c in (draw_counts(truth, rng) for _ in range(200))]
    ).astype(float)
    within = draws.var(axis=0, ddof=1).mean(axis=0)
    between = draws.mean(axis=0).var(axis=0, ddof=1) - within / len(draws)
    ceiling = best_reachable("P1b", TARGET)["best_r"].to_numpy()
    independent = np.sqrt(np.clip(between / (between + within), 0, None))
    strong = independent > 0.3  # the square root of a small number is uncertain
    np.testing.assert_allclose(ceiling[strong], independent[strong], atol=0.03)
    np.testing.assert_allclose(ceiling, independent, atol=0.1)
    assert abs((ceiling - independent).mean()) < 0.01


def test_the_score_of_the_expected_values_scatters_around_the_ceiling(slides: dict[str, Slide]):
    for name, slide in slides.items():
        table = best_reachable(name)
        np.testing.assert_allclose(
            table["expected_r"], correlation(observed(slide), expected_target(name).astype(float)), atol=1e-5
        )
        assert abs((table["expected_r"] - table["best_r"]).mean()) < 0.05
        assert table.index.tolist() == Demo().panel()


def test_what_the_image_tells_is_nearly_all_of_the_visible_genes_and_little_of_the_positional(slides: dict[str, Slide]):
    table = pd.concat([best_reachable(name) for name in slides])
    mean = table.groupby("programme")[["best_r", "image_r"]].mean()
    assert (table["image_r"] < table["best_r"] + 0.05).all()
    assert mean.loc["visible", "image_r"] > 0.9 * mean.loc["visible", "best_r"] > 0.45
    assert mean.loc["positional", "image_r"] < 0.15 < 0.4 < mean.loc["positional", "best_r"]
    assert mean.loc["noise", "best_r"] < 0.25


def test_an_image_method_gets_the_image_ceiling_from_the_expected_target_given_the_image(slides: dict[str, Slide]):
    r, promised = [], []
    for name, slide in slides.items():
        r.append(correlation(observed(slide), expected_target(name, knowing="image").astype(float)))
        promised.append(best_reachable(name)["image_r"])
    assert np.mean(r) == pytest.approx(np.mean(promised), abs=0.03)


def test_the_ceiling_is_kept_with_the_slide(slides: dict[str, Slide]):
    for name, slide in slides.items():
        stored = slide.adata.var
        table = best_reachable(name, TARGET)
        np.testing.assert_array_equal(stored.loc[Demo().panel(), "best_r"], table["best_r"])
        np.testing.assert_array_equal(stored.loc[Demo().panel(), "image_r"], table["image_r"])
        assert stored["best_r"].notna().tolist() == stored["in_panel"].tolist()


def test_an_unknown_target_or_slide_is_named():
    with pytest.raises(UserError, match="did you mean 'lognorm'"):
        best_reachable("P1a", "lognrm")
    with pytest.raises(UserError, match="unknown slice of demo"):
        expected_target("Q1")
