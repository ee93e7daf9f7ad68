"""Controls predict what their definitions say: compared with scikit-learn and with cases worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stbench import registry
from stbench.errors import NotApplicable, UserError
from stbench.method import OracleSlide, Run, TestSlide, TrainingSlide, configure
from stbench.methods import controls
from stbench.methods.controls.control import Control, colour_statistics, colours
from stbench.methods.layers import frozen_features, nearest, once_per_slide, ridge
from stbench.methods.layers.once_per_slide import SlideResults
from stbench.slides.content import with_content
from stbench.system.files import value_digest
from stbench.training.encoder_input import own_input

CONTROLS = registry.expand_methods("controls")

Make = Callable[..., list[TrainingSlide]]
Hide = Callable[[TrainingSlide], TestSlide]


def fitted(control: type[Control], slides: list[TrainingSlide], **config: Any) -> Any:
    made = control(configure(control, "quick", changes=config))
    made.fit(slides, Run(seed=3))
    return made


def scattered(slides: list[TrainingSlide], seed: int = 0) -> list[TrainingSlide]:
    """The slides with spots at random array positions, so that hardly any two distances are equal."""
    rng = np.random.default_rng(seed)
    return [replace(slide, array_xy=rng.permutation(10_000)[: 2 * slide.n_spots].reshape(-1, 2)) for slide in slides]


def unit_square(slide: TestSlide) -> np.ndarray:
    low, high = slide.array_xy.min(0), slide.array_xy.max(0)
    return (slide.array_xy - low) / (high - low)


# Training mean and depth ---------------------------------------------------------------------------------------------


def test_training_mean_is_the_mean_over_all_training_spots_not_over_slides(make_training_slides: Make) -> None:
    slides = make_training_slides(2)
    slides[1] = replace(
        slides[1], **{f: getattr(slides[1], f)[:5] for f in ("patches", "array_xy", "pixel_xy", "target")}
    )
    prediction = fitted(controls.TrainingMean, slides).predict(slides[0])
    expected = (20 * slides[0].target.mean(0) + 5 * slides[1].target.mean(0)) / 25
    np.testing.assert_allclose(prediction, np.tile(expected, (20, 1)), rtol=1e-6)


def test_the_depth_oracle_is_a_least_squares_line_on_log_depth(make_training_slides: Make) -> None:
    slides = make_training_slides(3)
    test = slides[2]
    oracle = OracleSlide(
        test.id, test.patient, test.patches, test.array_xy, test.pixel_xy, test.um_per_px, test.total_counts
    )
    prediction = fitted(controls.DepthOracle, slides[:2]).predict(oracle)
    depth = np.log1p(np.concatenate([slide.total_counts for slide in slides[:2]]))
    for gene in range(6):
        line = stats.linregress(depth, np.concatenate([slide.target[:, gene] for slide in slides[:2]]))
        expected = line.intercept + line.slope * np.log1p(test.total_counts)
        np.testing.assert_allclose(prediction[:, gene], expected, rtol=1e-5)


def test_the_depth_oracle_falls_back_on_the_mean_where_all_depths_are_equal(make_training_slides: Make) -> None:
    slides = [replace(slide, total_counts=np.full(20, 7)) for slide in make_training_slides(2)]
    control = fitted(controls.DepthOracle, slides)
    np.testing.assert_allclose(control.learnt["slope"], 0)
    np.testing.assert_allclose(
        control.learnt["intercept"], np.concatenate([s.target for s in slides]).mean(0), rtol=1e-6
    )


def test_the_depth_oracle_declares_itself_and_takes_no_ordinary_test_slide(
    make_training_slides: Make, hide_expression: Hide
) -> None:
    slides = make_training_slides(2)
    control = fitted(controls.DepthOracle, slides)
    assert control.needs.oracle
    assert "oracle" in control.title.lower()
    with pytest.raises(TypeError, match="OracleSlide"):
        control.predict(hide_expression(slides[0]))


def test_no_other_control_is_an_oracle() -> None:
    oracles = []
    for name in CONTROLS:
        control = registry.method(name)
        if control(configure(control, "quick")).needs.oracle:
            oracles.append(name)
    assert oracles == ["depth_oracle"]


# Position -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 17])
def test_position_knn_equals_scikit_learns_on_normalised_positions(
    make_training_slides: Make, hide_expression: Hide, k: int
) -> None:
    slides = scattered(make_training_slides(4))
    prediction = fitted(controls.PositionKNN, slides[:3], k=k).predict(hide_expression(slides[3]))
    other = KNeighborsRegressor(n_neighbors=k).fit(
        np.concatenate([unit_square(slide) for slide in slides[:3]]), np.concatenate([s.target for s in slides[:3]])
    )
    np.testing.assert_allclose(prediction, other.predict(unit_square(slides[3])), rtol=1e-5)


def test_position_knn_takes_every_training_spot_where_there_are_fewer_than_k(
    make_training_slides: Make, hide_expression: Hide
) -> None:
    slides = make_training_slides(2)
    prediction = fitted(controls.PositionKNN, slides[:1], k=1000).predict(hide_expression(slides[1]))
    np.testing.assert_allclose(prediction, np.tile(slides[0].target.mean(0), (20, 1)), rtol=1e-6)


def test_position_knn_does_not_see_the_image_the_array_size_or_the_offset(
    make_training_slides: Make, hide_expression: Hide
) -> None:
    slides = make_training_slides(3)
    control = fitted(controls.PositionKNN, slides[:2], k=3)
    test = hide_expression(slides[2])
    other = replace(test, patches=255 - test.patches, array_xy=test.array_xy * [2, 5] + 30)
    np.testing.assert_array_equal(control.predict(other), control.predict(test))


def test_nearest_replicate_copies_the_same_position_of_the_neighbouring_slide_of_the_patient(
    make_training_slides: Make, hide_expression: Hide
) -> None:
    names = ["A1", "A2", "A9", "A10", "B1"]
    slides = [
        replace(slide, id=name, patient=name[0]) for slide, name in zip(make_training_slides(5), names, strict=True)
    ]

    def source(test: str) -> str:
        """The slide whose target the prediction of ``test`` is, where all others are learnt from."""
        control = fitted(controls.NearestReplicate, [slide for slide in slides if slide.id != test])
        prediction = control.predict(hide_expression(slides[names.index(test)]))
        return next(slide.id for slide in slides if np.array_equal(slide.target, prediction))

    assert [source(name) for name in names[:4]] == ["A2", "A1", "A2", "A9"]


def test_nearest_replicate_is_not_applicable_without_a_slide_of_the_patient(
    make_training_slides: Make, hide_expression: Hide
) -> None:
    slides = make_training_slides(3)
    control = fitted(controls.NearestReplicate, slides[:2])
    with pytest.raises(NotApplicable, match="no training slice is of slice S2's patient P1"):
        control.predict(hide_expression(slides[2]))


@given(
    seed=st.integers(0, 2**32 - 1),
    n_keys=st.integers(1, 40),
    k=st.integers(1, 50),
    block=st.sampled_from([1, 64, 2**23]),
)
@settings(max_examples=60, deadline=None)
def test_the_nearest_are_the_first_of_a_stable_sort_however_many_are_equally_near(
    seed: int, n_keys: int, k: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, keys = rng.integers(0, 4, (5, 2)).astype(float), rng.integers(0, 4, (n_keys, 2)).astype(float)
    target = rng.normal(size=(n_keys, 3)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "BLOCK_ELEMENTS", block)
        found = nearest.mean_of_nearest(queries, keys, target, k, nearest.plane_distances)
    for query, prediction in zip(queries, found, strict=True):
        order = sorted(range(n_keys), key=lambda key: (((keys[key] - query) ** 2).sum(), key))[:k]
        np.testing.assert_allclose(prediction, target[order].mean(0), rtol=1e-5, atol=1e-6)


# Colour -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 7, 10, 32]), st.integers(1, 256))
@settings(max_examples=40, deadline=None)
def test_colour_statistics_equal_numpys(seed: int, side: int, n_values: int) -> None:
    patches = np.random.default_rng(seed).integers(0, n_values, (3, side, side, 3)).astype(np.uint8)
    pixels = patches.reshape(3, -1, 3) / 255
    quantiles = np.quantile(patches.reshape(3, -1, 3), [0.1, 0.5, 0.9], axis=1, method="inverted_cdf") / 255
    expected = np.concatenate([pixels.mean(1), pixels.std(1), *quantiles], axis=1)
    np.testing.assert_allclose(colour_statistics(patches), expected, atol=1e-12)


def test_ridge_equals_scikit_learns_on_standardised_features(make_training_slides: Make, hide_expression: Hide) -> None:
    slides = make_training_slides(3)
    prediction = fitted(controls.ColourRidge, slides[:2], alpha=0.3).predict(hide_expression(slides[2]))
    features = [colour_statistics(slide.patches) for slide in slides]
    scaler = StandardScaler().fit(np.concatenate(features[:2]))
    other = Ridge(alpha=0.3 * 40).fit(
        scaler.transform(np.concatenate(features[:2])), np.concatenate([s.target for s in slides[:2]])
    )
    np.testing.assert_allclose(prediction, other.predict(scaler.transform(features[2])), rtol=1e-5)


def test_each_gene_has_the_penalty_that_is_best_on_slides_left_out() -> None:
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(n, 5)) * [1, 2, 3, 4, 0] + i for i, n in enumerate((30, 12, 25))]
    weights = np.array([[1.0, 0, 0], [0.5, 0, 0.05], [0, 0, 0.1], [1.0, 0, 0], [0, 0, 0]])
    targets = [part @ weights + rng.normal(size=(len(part), 3)) for part in features]
    chosen = ridge.fit_ridge(features, targets, None)["alpha"]
    errors = np.zeros((len(ridge.ALPHAS), 3))
    for left_out in range(3):
        train = [i for i in range(3) if i != left_out]
        scaler = StandardScaler().fit(np.concatenate([features[i] for i in train]))
        X, Y = (
            scaler.transform(np.concatenate([features[i] for i in train])),
            np.concatenate([targets[i] for i in train]),
        )
        for row, alpha in enumerate(ridge.ALPHAS):
            model = Ridge(alpha=alpha * len(X)).fit(X, Y)
            errors[row] += ((model.predict(scaler.transform(features[left_out])) - targets[left_out]) ** 2).sum(0)
    np.testing.assert_array_equal(chosen, np.array(ridge.ALPHAS)[errors.argmin(0)])
    assert len(set(chosen)) > 1


def test_a_gene_that_is_noise_gets_a_strong_penalty_and_one_that_is_linear_a_weak_one() -> None:
    rng = np.random.default_rng(1)
    features = [rng.normal(size=(60, 4)) for _ in range(3)]
    targets = [np.stack([part[:, 0], rng.normal(size=60)], axis=1) for part in features]
    linear, noise = ridge.fit_ridge(features, targets, None)["alpha"]
    assert linear == min(ridge.ALPHAS)
    assert noise >= 10


@pytest.mark.parametrize("n_spots", [1, 2, 3, 20])
def test_ridge_learns_from_a_single_slide(n_spots: int) -> None:
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(n_spots, 3)), rng.normal(size=(n_spots, 2))
    learnt = ridge.fit_ridge([features], [target], None)
    assert np.isfinite(ridge.predict_ridge(learnt, features)).all()
    assert set(learnt["alpha"]) <= set(ridge.ALPHAS)
    if n_spots == 1:
        np.testing.assert_allclose(ridge.predict_ridge(learnt, features + 1), target, rtol=1e-5)


def test_a_feature_that_does_not_vary_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    features, target = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    constant = np.concatenate([features, np.full((20, 1), 0.1)], axis=1)
    alone = ridge.predict_ridge(ridge.fit_ridge([features], [target], 0.1), features)
    beside = ridge.predict_ridge(ridge.fit_ridge([constant], [target], 0.1), constant)
    np.testing.assert_allclose(beside, alone, rtol=1e-5)


def test_colour_ridge_learns_a_gene_that_follows_the_colour(make_training_slides: Make, hide_expression: Hide) -> None:
    slides = make_training_slides(4, n_spots=60)
    prediction = fitted(controls.ColourRidge, slides[:3]).predict(hide_expression(slides[3]))
    assert np.corrcoef(prediction[:, 0], slides[3].target[:, 0])[0, 1] > 0.5


# Encoder features ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def features_and_slides(make_training_slides: Make) -> tuple[list[np.ndarray], list[TrainingSlide]]:
    """Features of a random ResNet-18 as the quick controls compute them, and their slides."""
    slides = make_training_slides(3, side=64)
    encoder = frozen_features.frozen_encoder("resnet18", "random", 0, Run())
    return [frozen_features.encode(encoder, slide, 224, own_input("resnet18", 64)) for slide in slides], slides


def test_feature_ridge_equals_scikit_learns(
    features_and_slides: tuple[list[np.ndarray], list[TrainingSlide]], hide_expression: Hide
) -> None:
    features, slides = features_and_slides
    prediction = fitted(controls.FeatureRidge, slides[:2], alpha=1.0).predict(hide_expression(slides[2]))
    scaler = StandardScaler().fit(np.concatenate(features[:2]).astype(np.float64))
    X, Y = scaler.transform(np.concatenate(features[:2])), np.concatenate([slide.target for slide in slides[:2]])
    other = Ridge(alpha=40.0, solver="svd").fit(X, Y)
    np.testing.assert_allclose(prediction, other.predict(scaler.transform(features[2])), rtol=1e-4)


@pytest.mark.parametrize(("components", "penalty"), [(256, None), (7, None), (7, 3.0)])
def test_feature_pca_ridge_equals_scikit_learns_pipeline(
    features_and_slides: tuple[list[np.ndarray], list[TrainingSlide]],
    hide_expression: Hide,
    components: int,
    penalty: float | None,
) -> None:
    """HEST-1k's, without its intercept: the predictions differ by each gene's level alone."""
    features, slides = features_and_slides
    changes = {"components": components, "penalty": penalty}
    prediction = fitted(controls.FeaturePCARidge, slides[:2], **changes).predict(hide_expression(slides[2]))
    kept = min(components, 40)
    pipe = make_pipeline(StandardScaler(), PCA(kept, svd_solver="full"))
    X = pipe.fit_transform(np.concatenate(features[:2]).astype(np.float64))
    Y = np.concatenate([slide.target for slide in slides[:2]])
    alpha = 100 / (kept * Y.shape[1]) if penalty is None else penalty
    other = Ridge(alpha=alpha, solver="svd", fit_intercept=False).fit(X, Y)
    expected = other.predict(pipe.transform(features[2])) + Y.mean(axis=0)
    np.testing.assert_allclose(prediction, expected, rtol=1e-3, atol=1e-4)


def test_feature_knn_equals_scikit_learns_by_cosine(
    features_and_slides: tuple[list[np.ndarray], list[TrainingSlide]], hide_expression: Hide
) -> None:
    features, slides = features_and_slides
    prediction = fitted(controls.FeatureKNN, slides[:2], k=5).predict(hide_expression(slides[2]))
    scaler = StandardScaler().fit(np.concatenate(features[:2]).astype(np.float64))
    other = KNeighborsRegressor(n_neighbors=5, metric="cosine", algorithm="brute").fit(
        scaler.transform(np.concatenate(features[:2])), np.concatenate([slide.target for slide in slides[:2]])
    )
    np.testing.assert_allclose(prediction, other.predict(scaler.transform(features[2])), rtol=1e-4)


def test_random_weights_are_labelled_and_noted(make_training_slides: Make) -> None:
    control = controls.FeatureRidge(configure(controls.FeatureRidge, "quick"))
    assert control.weights_label == "random"
    run = Run(seed=3)
    control.fit(make_training_slides(2, n_spots=4, side=64), run)
    assert any("random weights" in note for note in run.notes)


def test_weights_from_a_file_are_labelled_even_after_the_file_is_gone(
    make_training_slides: Make, tmp_path: Path
) -> None:
    import torch

    from stbench.training.encoders import build_encoder

    weights = tmp_path / "mine.pth"
    torch.save(build_encoder("resnet18").module.state_dict(), weights)
    slides = make_training_slides(2, n_spots=4, side=64)
    control = fitted(controls.FeatureKNN, slides, weights=str(weights))
    label = control.weights_label
    assert label.startswith("file (mine.pth ")
    (tmp_path / "model").mkdir()
    control.save(tmp_path / "model")
    weights.unlink()
    loaded = controls.FeatureKNN.load(tmp_path / "model")
    assert loaded.weights_label == label
    np.testing.assert_array_equal(loaded.predict(slides[0]), control.predict(slides[0]))


def with_keys(slides: list[TrainingSlide]) -> list[TrainingSlide]:
    """The slides as the harness hands them out: with keys of their content."""
    return [with_content(slide, value_digest(slide.patches.tolist())) for slide in slides]


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> SlideResults:
    """What is kept of slides, empty at first."""
    empty = SlideResults(2**20)
    monkeypatch.setattr(once_per_slide, "RESULTS", empty)
    return empty


def test_a_slides_features_are_computed_once(make_training_slides: Make, results: SlideResults) -> None:
    slides = with_keys(make_training_slides(2, n_spots=4, side=64))
    first, second = fitted(controls.FeatureRidge, slides), fitted(controls.FeatureKNN, slides)
    assert first.features(slides[0]) is second.features(slides[0])
    assert len(results) == 2
    again = with_keys(make_training_slides(2, n_spots=4, side=64))  # opened once more, for the next trial
    assert first.features(again[1]) is second.features(slides[1])


@pytest.mark.parametrize("change", [{"draw": 1}, {"patch_px": 32}, {"input_px": 32}, {"encoder": "resnet34"}])
def test_features_of_another_network_or_window_are_others(
    make_training_slides: Make, results: SlideResults, change: dict[str, Any]
) -> None:
    slides = with_keys(make_training_slides(1, n_spots=4, side=64))
    one, other = fitted(controls.FeatureKNN, slides), fitted(controls.FeatureKNN, slides, **change)
    assert not np.array_equal(one.features(slides[0]), other.features(slides[0]))


def test_features_of_exchanged_patches_are_computed_from_them(
    make_training_slides: Make, results: SlideResults
) -> None:
    (slide,) = with_keys(make_training_slides(1, n_spots=4, side=64))
    control = fitted(controls.FeatureKNN, [slide])
    exchanged = replace(slide, patches=slide.patches[::-1])
    np.testing.assert_allclose(control.features(exchanged), control.features(slide)[::-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(colours(exchanged), colours(slide)[::-1])
    assert len(results) == 2  # of the slide alone: its features and its colours


def test_of_a_slide_without_a_key_everything_is_computed_anew(make_training_slides: Make) -> None:
    (slide,) = make_training_slides(1, n_spots=4)
    results, values = SlideResults(limit=100), iter([np.zeros(1), np.ones(1)])
    assert [results.once(slide, "x", lambda: next(values))[0] for _ in range(2)] == [0, 1]
    assert len(results) == 0


def test_results_of_slides_are_kept_up_to_a_limit_those_that_were_used_last(make_training_slides: Make) -> None:
    slides = with_keys(make_training_slides(3, n_spots=4))
    results, computed = SlideResults(2 * 8), []

    def compute() -> np.ndarray:
        computed.append(len(computed))
        return np.array([len(computed)], dtype=np.int64)

    for i in (0, 1, 0, 2, 0):  # the third takes the place of the second
        results.once(slides[i], "x", compute)
    assert (len(computed), len(results), results.n_bytes) == (3, 2, 16)
    results.once(slides[1], "x", compute)
    assert len(computed) == 4
    results.once(slides[0], "more than there is room for", lambda: np.zeros(3))
    assert (len(results), results.n_bytes) == (2, 16)


def test_a_random_encoder_is_the_same_in_every_fold_and_for_every_seed(make_training_slides: Make) -> None:
    slides = make_training_slides(2, n_spots=4, side=64)
    features = []
    for seed in (0, 1):
        control = controls.FeatureKNN(configure(controls.FeatureKNN, "quick"))
        control.fit(slides[seed:], Run(seed=seed))
        features.append(control.features(slides[1]))
    np.testing.assert_array_equal(*features)


def test_the_batches_of_the_encoder_do_not_change_its_features(
    make_training_slides: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = make_training_slides(1, n_spots=7, side=64)[0]
    encoder = frozen_features.frozen_encoder("resnet18", "random", 0, Run())
    whole = frozen_features.encode(encoder, slide, 64, own_input("resnet18", 64))
    monkeypatch.setattr(frozen_features, "BATCH_SIZE", 3)
    np.testing.assert_allclose(
        frozen_features.encode(encoder, slide, 64, own_input("resnet18", 64)), whole, rtol=1e-3, atol=1e-5
    )


# All controls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTROLS)
def test_a_saved_control_is_no_other_control(name: str, make_training_slides: Make, tmp_path: Path) -> None:
    control = registry.method(name)
    made = control(configure(control, "quick"))
    made.fit(make_training_slides(2, n_spots=4, side=64), Run())
    made.save(tmp_path)
    other: Any = controls.TrainingMean if name != "training_mean" else controls.DepthOracle
    with pytest.raises(UserError, match=f"holds {name}, not {other.name}"):
        other.load(tmp_path)


def test_a_folder_without_a_saved_control_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no saved control"):
        controls.TrainingMean.load(tmp_path)


def test_a_feature_control_that_was_not_fitted_says_so(
    make_training_slides: Make, hide_expression: Hide, tmp_path: Path
) -> None:
    control = controls.FeatureKNN(configure(controls.FeatureKNN, "quick"))
    with pytest.raises(UserError, match="has not been trained"):
        control.save(tmp_path)
    with pytest.raises(UserError, match="has not been trained"):
        control.features(hide_expression(make_training_slides(1)[0]))


@pytest.mark.parametrize("name", CONTROLS)
def test_settings_are_refused_by_name(name: str) -> None:
    control = registry.method(name)
    with pytest.raises(UserError, match=f"unknown setting of {name} 'kk'"):
        configure(control, changes={"kk": 3})
    for field in {"k", "alpha", "components", "penalty", "input_px"} & set(control.Config.model_fields):
        with pytest.raises(UserError, match=rf"{name}.{field} = 0 is not valid"):
            configure(control, changes={field: 0})


def test_the_published_settings_name_the_pretrained_encoder_of_the_field() -> None:
    for control in (controls.FeatureRidge, controls.FeaturePCARidge, controls.FeatureKNN):
        config = configure(control, "published")
        assert own_input(config.encoder, config.input_px).input_px == 224  # type: ignore[attr-defined]
        assert (config.encoder, config.weights, config.input_px) == ("densenet121", "random", None)  # type: ignore[attr-defined]
