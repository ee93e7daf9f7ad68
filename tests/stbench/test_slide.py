"""The check of a slide: sound ones pass, every fault is named, notices do not forbid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from stbench.errors import UserError
from stbench.slides.checks import check_slide, validate
from stbench.slides.counts import count_fault
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide

PANEL = ["G0", "G1", "G2"]


@pytest.fixture
def slide() -> Slide:
    """Six spots of five genes on an image of 200 x 100 px; every spot has at least ten counts."""
    counts = np.arange(30).reshape(6, 5) + 3
    adata = AnnData(sparse.csr_matrix(counts.astype(np.int32)))
    adata.obs_names = [f"{i}x1" for i in range(6)]
    adata.var_names = [f"G{i}" for i in range(5)]
    adata.obs["array_row"] = 1
    adata.obs["array_col"] = np.arange(6)
    adata.obs["in_tissue"] = 1
    adata.obsm["spatial"] = np.column_stack([np.arange(6) * 30.0 + 20, np.full(6, 50.0)])
    return Slide("S1", "P1", adata, SlideImage.from_array(np.zeros((100, 200, 3), dtype=np.uint8)))


def test_a_sound_slide_has_no_problems(slide: Slide) -> None:
    assert check_slide(slide, panel=PANEL) == []
    validate(slide, panel=PANEL)


def set_count(slide: Slide, value: float) -> None:
    matrix = slide.adata.X.astype(float)
    matrix[0, 0] = value
    slide.adata.X = matrix


def drop_obs(slide: Slide) -> None:
    del slide.adata.obs["array_row"]


def fractional_indices(slide: Slide) -> None:
    slide.adata.obs["array_col"] = slide.adata.obs["array_col"] + 0.5


def drop_positions(slide: Slide) -> None:
    del slide.adata.obsm["spatial"]


def move(slide: Slide, spot: int, x: float, y: float) -> None:
    slide.adata.obsm["spatial"][spot] = [x, y]


def swap(slide: Slide) -> None:
    slide.adata.obsm["spatial"] = slide.adata.obsm["spatial"][:, ::-1].copy()


def gather(slide: Slide) -> None:
    slide.adata.obsm["spatial"][:] = 50.0


def repeat_spots(slide: Slide) -> None:
    slide.adata.obs_names = ["0x1", "0x1", *[f"{i}x1" for i in range(2, 6)]]


def repeat_genes(slide: Slide) -> None:
    slide.adata.var_names = ["G0", "G1", "G2", "G3", "G3"]


def make_dense(slide: Slide) -> None:
    slide.adata.X = slide.adata.X.toarray()


def rename_genes(slide: Slide) -> None:
    slide.adata.var_names = [f"ENSG{i}" for i in range(5)]


FAULTS: dict[str, tuple[Callable[[Slide], None], str]] = {
    "NaN": (lambda slide: set_count(slide, np.nan), "NaN"),
    "infinite": (lambda slide: set_count(slide, np.inf), "infinite"),
    "negative": (lambda slide: set_count(slide, -2), "negative"),
    "fraction": (lambda slide: set_count(slide, 1.5), "not whole numbers"),
    "dense": (make_dense, "CSR"),
    "no array_row": (drop_obs, "obs lacks array_row"),
    "fractional indices": (fractional_indices, "array indices are integers"),
    "no positions": (drop_positions, "lacks 'spatial'"),
    "NaN position": (lambda slide: move(slide, 2, np.nan, 50), "1 of 6 spots have no position"),
    "outside": (lambda slide: move(slide, 2, 500, 50), "1 of 6 spots lie outside"),
    "swapped": (swap, "x and y are swapped"),
    "one position": (gather, "same position"),
    "repeated spots": (repeat_spots, "spot names occur twice"),
    "repeated genes": (repeat_genes, "gene names occur twice, the first is G3"),
    "foreign genes": (rename_genes, "none of the 3 panel genes"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_a_fault_is_named_in_one_line_with_the_slice(slide: Slide, fault: str) -> None:
    spoil, said = FAULTS[fault]
    spoil(slide)
    problems = check_slide(slide, panel=PANEL)
    assert problems
    assert {problem.severity for problem in problems} == {"error"}
    with pytest.raises(UserError, match="slice S1: ") as caught:
        validate(slide, panel=PANEL)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slide_without_spots_or_genes_is_refused(slide: Slide) -> None:
    with pytest.raises(UserError, match="no spots"):
        validate(replace(slide, adata=slide.adata[:0].copy()))
    with pytest.raises(UserError, match="no genes"):
        validate(replace(slide, adata=slide.adata[:, :0].copy()))


def test_spots_are_checked_against_the_image_at_full_resolution(slide: Slide) -> None:
    small = np.zeros((25, 50, 3), dtype=np.uint8)
    assert validate(replace(slide, image=SlideImage.from_array(small, 0.25, "hires"))) is None
    with pytest.raises(UserError, match="outside"):
        validate(replace(slide, image=SlideImage.from_array(small, 0.5, "hires")))


def test_notices_tell_what_is_kept_and_do_not_forbid(slide: Slide) -> None:
    matrix = slide.adata.X.tolil()
    matrix[0] = 0
    matrix[1] = 1
    slide.adata.X = matrix.tocsr()
    coarse = SlideImage.from_array(np.zeros((50, 100, 3), dtype=np.uint8), 0.5, "hires")
    problems = check_slide(replace(slide, image=coarse), panel=[*PANEL, "ABSENT"])
    assert {problem.severity for problem in problems} == {"notice"}
    text = "; ".join(problem.text for problem in problems)
    assert "1 of 6 spots have no counts at all" in text
    assert "1 of 6 spots have fewer than 10 counts" in text
    assert "1 of 4 panel genes are not in its file and count as zero: ABSENT" in text
    assert "hires" in text
    validate(replace(slide, image=coarse), panel=[*PANEL, "ABSENT"])


@pytest.mark.parametrize("values", [[], [0, 1, 2], [0.0, 3.0], [True, False]])
def test_counts_are_counts_whatever_their_type(values: list[float]) -> None:
    assert count_fault(np.array(values)) is None


def test_words_are_no_counts() -> None:
    assert "type" in str(count_fault(np.array(["a"])))


def test_two_spots_at_one_place_of_the_array_are_refused(slide: Slide) -> None:
    for name in ("array_row", "array_col"):
        slide.adata.obs[name] = [3, *range(10, 14), 3]
    with pytest.raises(UserError) as caught:
        validate(slide)
    first, last = slide.spot_ids[0], slide.spot_ids[5]
    assert f"1 of 6 spots lie where another one lies on the array (the first are {first} and {last}" in str(
        caught.value
    )


def test_a_slide_that_lists_hardly_any_gene_of_the_panel_is_refused_with_names_of_both(slide: Slide) -> None:
    panel = [slide.genes[0], *(f"ENSG{i}" for i in range(99))]
    with pytest.raises(UserError) as caught:
        validate(slide, panel=panel)
    assert "only 1 of the 100 panel genes is among its" in str(caught.value)
    assert "symbols" in str(caught.value)
    assert "the panel by Ensembl identifiers (ENSG0, ...): name them alike" in str(caught.value)
