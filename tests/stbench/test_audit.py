"""The audit finds what was planted, says who is whose patient, and raises nothing on clean slides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import poisson

from stbench.audit import Audit, Finding, audit, read_audit, write_audit
from stbench.audit.expression import MIN_PAIRS, SMOOTHED_BELOW, _log_chance, neighbour_ratio
from stbench.audit.panel import variance_ranks
from stbench.audit.pretraining import seen
from stbench.data.prepare import prepare
from stbench.data.prepared import PreparedDataset, PreparedSlide
from stbench.data.splits import make_folds
from stbench.dataset import Missing, SlideSource
from stbench.errors import UserError
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide
from stbench.system.locate import cache_root
from stbench.training.foundation.table import published_encoders

SIDE, PITCH, PATCH, N_GENES = 12, 40, 32, 120
PATIENTS = {"A1": "A", "A2": "A", "B1": "B", "C1": "C"}
GENES = [f"G{i}" for i in range(N_GENES)]
PANEL = GENES[:30]


def _slide(slide_id: str) -> Slide:
    rng = np.random.default_rng([5, *map(ord, slide_id)])
    texture = gaussian_filter(rng.normal(size=(SIDE * PITCH, SIDE * PITCH, 3)), (2, 2, 0))
    picture = np.clip(150 + 40 * texture / texture.std(), 0, 255).astype(np.uint8)
    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    base = np.random.default_rng(1).uniform(1, 6, N_GENES)
    region = np.where(x[:, None] < SIDE / 2, 1.0, rng.uniform(0.5, 2, N_GENES))
    counts = rng.poisson(base * region * rng.uniform(0.6, 1.4, (SIDE**2, 1)))
    names = [f"{i}x{j}" for i, j in zip(x, y, strict=True)]
    obs = pd.DataFrame({"array_row": y, "array_col": x, "in_tissue": 1}, index=names)
    adata = anndata.AnnData(scipy.sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES))
    adata.obsm["spatial"] = np.stack([x, y], axis=1) * PITCH + PITCH / 2.0
    adata.uns["spatial"] = {slide_id: {"scalefactors": {}, "metadata": {}}}
    return Slide(slide_id, PATIENTS[slide_id], adata, SlideImage.from_array(picture), um_per_px=0.5)


class Made:
    """Four sections of three patients; what was declared of its panel is given."""

    name, title, slices, patch_px = "made", "Made", (*PATIENTS, "D1"), PATCH
    how_to_get, citation = "It is made by its test.", ""

    def __init__(self, panel: list[str] = PANEL, saw_test: bool | None = False, source: str = "drawn by lot") -> None:
        self.genes = panel
        if saw_test is not None:
            self.panel_saw_test, self.panel_source = saw_test, source

    def patient(self, slice_id: str) -> str:
        return PATIENTS[slice_id]

    def panel(self) -> list[str]:
        return self.genes

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        return [SlideSource(i, p, partial(_slide, i)) for i, p in PATIENTS.items()], [Missing("D1", "nobody made it")]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepare(Made(), "spot-log10-cp10k", tmp_path_factory.mktemp("cache"))


def _with(data: PreparedDataset, **changes: PreparedSlide) -> PreparedDataset:
    return replace(data, slides={**data.slides, **changes})


def _audit(data: PreparedDataset, split: str = "loso", **more: object) -> Audit:
    return audit(data, make_folds(split, data.patients, k=2), split, **more)  # type: ignore[arg-type]


def _finding(of: Audit, check: str) -> Finding:
    (found,) = [one for one in of.findings if one.check == check]
    return found


def _raised(of: Audit) -> set[str]:
    return {one.check for one in of.findings if one.verdict in ("warning", "leak")}


def _smoothed(slide: PreparedSlide, own: float) -> PreparedSlide:
    """Each spot's counts mixed with the mean of the spots beside it, and rounded to whole numbers again."""
    distance = np.abs(slide.pixel_xy[:, None] - slide.pixel_xy[None]).sum(axis=2)
    beside = (distance == PITCH).astype(float)
    mixed = own * slide.counts + (1 - own) * (beside @ slide.counts) / beside.sum(axis=1, keepdims=True)
    return replace(slide, counts=np.rint(mixed).astype(np.int32))


def _with_patch(slide: PreparedSlide, row: int, patch: np.ndarray) -> PreparedSlide:
    patches = np.array(slide.patches)
    patches[row] = patch
    return replace(slide, patches=patches)


# clean slides -------------------------------------------------------------------------------------------------------


def test_clean_slides_raise_nothing_but_the_shared_patient(clean: PreparedDataset) -> None:
    assert _raised(_audit(clean, "lopo")) == set()
    assert _raised(_audit(clean, "loso")) == {"same-patient"}


def test_the_badge_and_the_patients_are_those_of_the_split(clean: PreparedDataset) -> None:
    loso, lopo = _audit(clean, "loso"), _audit(clean, "lopo")
    assert (loso.badge, lopo.badge) == ("replicates in training", "patient-disjoint")
    found = _finding(loso, "same-patient")
    assert (found.count, found.of) == (2, 4)
    assert "A1 and A2 are one patient (A); B1 (B) and C1 (C) are each alone" in found.reason
    assert found.examples == ("A1 is tested after training on A2", "A2 is tested after training on A1")
    assert _finding(lopo, "same-patient").count == 0


@settings(deadline=None, max_examples=6)
@given(order=st.permutations(list(PATIENTS)))
def test_the_order_of_the_slices_changes_no_count(clean: PreparedDataset, order: list[str]) -> None:
    planted = _planted(clean)
    shuffled = replace(planted, slides={name: planted.slides[name] for name in order})

    def counts(data: PreparedDataset) -> dict[str, tuple[str, int, int]]:
        return {one.check: (one.verdict, one.count, one.of) for one in _audit(data).findings}

    assert counts(shuffled) == counts(planted)


def _planted(clean: PreparedDataset) -> PreparedDataset:
    a, b = clean.slides["A1"], clean.slides["B1"]
    counts = np.array(b.counts)
    counts[7] = a.counts[3]
    patched = _with_patch(_with_patch(b, 0, a.patches[4]), 1, a.patches[9][::-1])
    return _with(clean, B1=replace(patched, counts=counts), C1=_smoothed(clean.slides["C1"], 0.3))


# patches ------------------------------------------------------------------------------------------------------------


def test_a_patch_in_two_patients_slices_is_a_leak(clean: PreparedDataset) -> None:
    copied = _with_patch(clean.slides["B1"], 5, clean.slides["A1"].patches[17])
    found = _finding(_audit(_with(clean, B1=copied), "lopo"), "identical-patches")
    assert (found.verdict, found.count, found.of) == ("leak", 2, 4 * SIDE**2)
    assert found.examples == ("A1 spot 5x1 = B1 spot 5x0",)


def test_a_copy_that_no_fold_separates_is_only_a_note(clean: PreparedDataset) -> None:
    copied = _with(clean, A2=_with_patch(clean.slides["A2"], 5, clean.slides["A1"].patches[17]))
    assert _finding(_audit(copied, "loso"), "identical-patches").verdict == "leak"
    apart = _finding(_audit(copied, "lopo"), "identical-patches")
    assert (apart.verdict, apart.count) == ("note", 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda patch: np.rot90(patch),
        lambda patch: np.rot90(patch, 3)[:, ::-1],
        lambda patch: np.clip(patch * 1.08 + 4, 0, 255).astype(np.uint8),
        lambda patch: (patch // 8) * 8,
    ],
    ids=["quarter turn", "flip and turn", "brighter", "fewer grey levels"],
)
def test_an_altered_copy_of_a_patch_is_a_leak(
    clean: PreparedDataset, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    copied = _with_patch(clean.slides["C1"], 5, change(clean.slides["A1"].patches[17]))
    made = _audit(_with(clean, C1=copied), "lopo")
    found = _finding(made, "similar-patches")
    assert (found.verdict, found.count) == ("leak", 2)
    assert found.examples == ("A1 spot 5x1 = C1 spot 5x0",)
    assert _finding(made, "identical-patches").verdict == "ok"


def test_smooth_patches_of_similar_shading_are_not_taken_for_copies(clean: PreparedDataset) -> None:
    rng = np.random.default_rng(0)
    shade = 120 + 2.0 * np.arange(PATCH)[:, None, None]

    def shaded(slide: PreparedSlide) -> PreparedSlide:
        return replace(slide, patches=(shade + rng.normal(0, 4, slide.patches.shape)).astype(np.uint8))

    made = _audit(_with(clean, B1=shaded(clean.slides["B1"]), C1=shaded(clean.slides["C1"])), "lopo")
    assert _finding(made, "similar-patches").verdict == "ok"


def test_white_patches_are_counted_apart(clean: PreparedDataset) -> None:
    white = np.full((PATCH, PATCH, 3), 255, dtype=np.uint8)
    changed = {name: _with_patch(clean.slides[name], 0, white) for name in ("A1", "B1", "C1")}
    made = _audit(_with(clean, **changed))
    assert _raised(made) == {"same-patient"}
    blank = _finding(made, "blank-patches")
    assert (blank.verdict, blank.count) == ("note", 3)
    assert "B1: 1" in blank.examples


def test_small_windows_are_said_not_to_be_compared(clean: PreparedDataset) -> None:
    small = {name: replace(slide, patches=slide.patches[:, :16, :16]) for name, slide in clean.slides.items()}
    found = _finding(_audit(_with(clean, **small)), "similar-patches")
    assert found.verdict == "note"
    assert found.reason.startswith("Not looked for: windows of 16 px")


# sections and expression --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [("patches",), ("counts",), ("patches", "counts")], ids="-".join)
def test_a_section_under_two_names_is_named(clean: PreparedDataset, what: tuple[str, ...]) -> None:
    twin = replace(clean.slides["C1"], **{name: getattr(clean.slides["B1"], name) for name in what})
    found = _finding(_audit(_with(clean, C1=twin), "lopo"), "repeated-sections")
    assert (found.verdict, found.count) == ("leak", 1)
    assert found.examples == ("B1 = C1: 100% of the spots",)


def test_few_copies_do_not_make_one_section(clean: PreparedDataset) -> None:
    assert _finding(_audit(_planted(clean)), "repeated-sections").count == 0


@pytest.mark.parametrize("factor", [1, 3])
def test_a_copied_label_is_a_leak_also_times_a_factor(clean: PreparedDataset, factor: int) -> None:
    counts = np.array(clean.slides["B1"].counts)
    counts[7] = factor * clean.slides["A1"].counts[3]
    found = _finding(
        _audit(_with(clean, B1=replace(clean.slides["B1"], counts=counts)), "lopo"), "identical-expression"
    )
    assert (found.verdict, found.count) == ("leak", 2)
    assert found.examples == ("A1 spot 3x0 = B1 spot 7x0",)


def test_sparse_rows_that_chance_makes_equal_are_no_leak(clean: PreparedDataset) -> None:
    rng = np.random.default_rng(0)
    sparse = {
        name: replace(slide, counts=rng.poisson(0.02, slide.counts.shape).astype(np.int32))
        for name, slide in clean.slides.items()
    }
    made = _audit(_with(clean, **sparse), "lopo")
    assert _finding(made, "identical-expression").verdict == "ok"
    assert _finding(made, "nearly-empty-spots").verdict == "warning"


def test_the_chance_of_a_row_is_that_of_poisson_counts_around_it() -> None:
    rows = np.array([[0, 1, 5], [0, 0, 0], [30, 2, 0]])
    np.testing.assert_allclose(_log_chance(rows), poisson.logpmf(rows, rows).sum(axis=1), rtol=1e-9)


@pytest.mark.parametrize("own", [0.0, 0.2, 0.5])
def test_smoothed_labels_are_a_leak(clean: PreparedDataset, own: float) -> None:
    found = _finding(_audit(_with(clean, B1=_smoothed(clean.slides["B1"], own))), "smoothed-labels")
    assert (found.verdict, found.count, found.of) == ("leak", 1, 4)
    assert found.examples[0].startswith("B1: 0.")


@pytest.mark.parametrize("mean", [0.3, 3.0, 50.0])
def test_counting_alone_never_looks_smoothed(mean: float) -> None:
    """The hardest case: spots that truly are all the same, in the smallest section that is tested."""
    x, y = np.meshgrid(np.arange(9.0), np.arange(10.0))
    xy = np.stack([x.ravel(), y.ravel()], axis=1)
    rng = np.random.default_rng(0)
    ratios = [neighbour_ratio(rng.poisson(mean, (90, 40)), xy) for _ in range(60)]
    judged = [ratio for ratio in ratios if ratio is not None]
    assert len(judged) == 60
    assert min(judged) > SMOOTHED_BELOW


def test_the_neighbour_ratio_is_that_of_a_plain_loop(clean: PreparedDataset) -> None:
    slide = clean.slides["C1"]
    counts, totals = slide.counts.astype(float), slide.counts.sum(axis=1).astype(float)
    pairs = [
        (i, j)
        for i in range(len(counts))
        for j in range(i)
        if np.hypot(*(slide.pixel_xy[i] - slide.pixel_xy[j])) <= 1.25 * PITCH
    ]
    assert len(pairs) == 2 * SIDE * (SIDE - 1) >= MIN_PAIRS
    ratios = []
    for gene in range(counts.shape[1]):
        observed = expected = 0.0
        for i, j in pairs:
            n, q = counts[i, gene] + counts[j, gene], totals[i] / (totals[i] + totals[j])
            observed += (counts[i, gene] - n * q) ** 2
            expected += n * q * (1 - q) * (1 - counts[:, gene].sum() / totals.sum())
        ratios.append(observed / expected)
    assert neighbour_ratio(slide.counts, slide.pixel_xy) == pytest.approx(np.quantile(ratios, 0.25))


def test_too_few_spots_are_not_judged(clean: PreparedDataset) -> None:
    slide = clean.slides["A1"]
    assert neighbour_ratio(slide.counts[:50], slide.pixel_xy[:50]) is None
    assert neighbour_ratio(slide.counts, slide.pixel_xy) > SMOOTHED_BELOW  # type: ignore[operator]


# panel --------------------------------------------------------------------------------------------------------------


def test_a_panel_declared_to_have_seen_the_test_slices_is_flagged(tmp_path: Path) -> None:
    data = prepare(Made(saw_test=True, source="most variable over all slices"), "spot-log10-cp10k", tmp_path)
    found = _finding(_audit(data), "panel")
    assert (found.verdict, found.count) == ("warning", len(PANEL))
    assert "most variable over all slices" in found.reason


@pytest.mark.parametrize("way", ["raw", "log"])
def test_an_undeclared_panel_of_one_slices_most_variable_genes_is_a_leak(tmp_path: Path, way: str) -> None:
    raw = _slide("B1").adata.X.toarray().astype(float)
    values = raw if way == "raw" else np.log1p(1e4 * raw / raw.sum(axis=1, keepdims=True))
    top = [GENES[i] for i in np.argsort(-values.var(axis=0))[:30]]
    dataset = Made(panel=sorted(top), saw_test=None)
    data = prepare(dataset, "spot-log10-cp10k", tmp_path)
    found = _finding(_audit(data, ranks=variance_ranks(data, dataset)), "panel")
    assert (found.verdict, found.examples) == ("leak", ("B1",))
    assert "100% of it are the genes that vary most in B1" in found.reason


def test_an_undeclared_panel_of_other_genes_is_a_note(tmp_path: Path) -> None:
    dataset = Made(saw_test=None)
    data = prepare(dataset, "spot-log10-cp10k", tmp_path)
    found = _finding(_audit(data, ranks=variance_ranks(data, dataset)), "panel")
    assert found.verdict == "note"
    assert "not the list of the most variable genes of any one slice" in found.reason
    untested = _finding(_audit(data), "panel")
    assert untested.verdict == "note"
    assert "not at hand to test it" in untested.reason


# the rest -----------------------------------------------------------------------------------------------------------


def test_slices_of_another_pixel_size_or_image_are_named(clean: PreparedDataset) -> None:
    odd = _with(
        clean,
        A1=replace(clean.slides["A1"], um_per_px=0.7),
        B1=replace(clean.slides["B1"], image_level="hires"),
    )
    found = _finding(_audit(odd), "image-scale")
    assert (found.verdict, found.count) == ("warning", 2)
    assert found.examples == ("A1: 0.700 µm per px", "B1: hires image")


def test_an_unknown_pixel_size_is_said_to_be_unknown(clean: PreparedDataset) -> None:
    blind = _with(clean, **{name: replace(slide, um_per_px=None) for name, slide in clean.slides.items()})
    found = _finding(_audit(blind), "image-scale")
    assert (found.verdict, found.count) == ("note", 0)
    assert "The scale of 4 slices is unknown" in found.reason


def test_absent_slices_and_nearly_empty_spots_are_counted(clean: PreparedDataset) -> None:
    made = _audit(clean)
    assert _finding(made, "missing-slices").examples == ("D1",)
    counts = np.array(clean.slides["B1"].counts)
    counts[:2] = 0
    counts[1, 0] = 9
    found = _finding(_audit(_with(clean, B1=replace(clean.slides["B1"], counts=counts))), "nearly-empty-spots")
    assert (found.verdict, found.count, found.examples) == ("note", 2, ("B1: 2 of 144",))


def test_a_target_that_pools_spots_is_noted(tmp_path: Path, clean: PreparedDataset) -> None:
    assert _finding(_audit(clean), "normalisation").verdict == "ok"
    pooled = prepare(Made(), "gene-log10-cp10k", tmp_path)
    assert _finding(_audit(pooled), "normalisation").verdict == "note"


@pytest.mark.parametrize(
    ("label", "verdict"),
    [
        ("none", "ok"),
        ("random", "ok"),
        ("imagenet (densenet121-a639ec97)", "ok"),
        ("imagenet (resnet50.a1_in1k)", "ok"),
        ("imagenet (vit_small_patch14_dinov2.lvd142m)", "note"),
        ("file (weights.pth 0123abcd)", "note"),
        ("file (unified.pth 0123abcd)", "note"),
        ("file (uni.pth 0123abcd)", "warning"),
        ("file (ctranspath.pth 0123abcd)", "warning"),
        ("uni (pytorch_model.bin 0123abcd)", "warning"),
        ("kaiko-vits16 (vits16.pth 0123abcd)", "warning"),
    ],
)
def test_what_an_encoder_may_have_seen_is_declared_by_its_weights(label: str, verdict: str) -> None:
    assert seen(label)[0] == verdict


@pytest.mark.parametrize(
    ("name", "tcga", "listed"),
    [
        ("uni", "TCGA is not among it", "are not listed"),
        ("uni2-h", "whether TCGA is among it is not known", "are not listed"),
        ("kaiko-vits16", "it saw TCGA", "are listed"),
        ("phikon-v2", "it saw TCGA", "are not listed"),
    ],
)
def test_of_published_encoders_the_audit_tells_pretraining_and_licence(name: str, tcga: str, listed: str) -> None:
    row = published_encoders()[name]
    _, said = seen(f"{name} (weights.pth 0123abcd)")
    assert f"pretrained on {row.pretraining}; {tcga}; its slides {listed}" in said
    assert said.endswith(f"licence: {row.licence}")


def test_encoders_are_listed_where_they_are_given(clean: PreparedDataset) -> None:
    assert "encoders" not in {one.check for one in _audit(clean).findings}
    encoders: Mapping[str, str] = {"STnet": "imagenet (densenet121-a639ec97)", "Mine": "file (mine.pth 0123abcd)"}
    found = _finding(_audit(clean, encoders=encoders), "encoders")
    assert (found.verdict, found.count, found.of) == ("note", 1, 2)
    assert found.examples[0].startswith("Mine: file (mine.pth 0123abcd) - what it was pretrained on is not known")


def test_an_audit_is_written_for_the_report_and_read_back(tmp_path: Path, clean: PreparedDataset) -> None:
    folds = make_folds("loso", clean.patients)
    path = write_audit(tmp_path, clean, folds, "loso", {"STnet": "random"})
    assert path == tmp_path / "evidence" / f"audit-made-loso-{clean.target.name}.json"
    assert read_audit(path) == audit(clean, folds, "loso", {"STnet": "random"})
    path.write_text(json.dumps({"dataset": "made"}))
    with pytest.raises(UserError, match=r"audit-made-loso-.*\.json is not an audit"):
        read_audit(path)


def test_the_command_prints_a_table_for_each_split(stbench_command: Callable[..., object], tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    done = stbench_command("audit", "--dataset", "demo", "--split", "loso,lopo", "--json", file)
    assert done.code == 0, done.err  # type: ignore[attr-defined]
    text = done.out  # type: ignore[attr-defined]
    assert "loso: replicates in training" in text
    assert "lopo: patient-disjoint" in text
    loso, lopo = json.loads(file.read_text())
    assert {one["check"] for one in loso["findings"] if one["verdict"] in ("warning", "leak")} == {"same-patient"}
    assert {one["check"] for one in lopo["findings"] if one["verdict"] in ("warning", "leak")} == set()


def test_the_command_refuses_folds_without_kfold(stbench_command: Callable[..., object]) -> None:
    done = stbench_command("audit", "--dataset", "demo", "--folds", "3")
    assert done.code == 2  # type: ignore[attr-defined]
    assert "--folds 3 needs --split kfold" in done.err  # type: ignore[attr-defined]


@pytest.mark.data
def test_her2st_has_one_patient_on_both_sides_under_loso(data_root: Path) -> None:
    from stbench.datasets.her2st import HER2ST

    data = prepare(HER2ST(data_root), "spot-log10-cp10k", cache_root(), ["B4", "C2", "C3"])
    loso, lopo = _audit(data, "loso"), _audit(data, "lopo")
    assert (loso.badge, lopo.badge) == ("replicates in training", "patient-disjoint")
    assert "C2 and C3 are one patient (C); B4 (B) is alone" in _finding(loso, "same-patient").reason
    assert _finding(loso, "same-patient").count == 2
    assert _raised(loso) == {"same-patient", "panel"}
    assert _raised(lopo) == {"panel"}
