"""What makes a slide valid: of what it is made of, how much, and whether its parts belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import UserError
from ..system.wording import shortened
from . import geometry
from .counts import count_fault
from .evidence import Finding
from .gene_names import mismatch
from .on_tissue import fit
from .slide import Slide

LEAST_OF_PANEL = 0.05  # a slide that lists a smaller share of the panel has other names, or is of another kind
FEWEST, MANY, EVEN = 20, 500, 0.02  # spots, counts of a spot, and by how much sums differ, beyond which they are even
NEARLY_EMPTY = 10  # a spot with fewer counts than this is counted in a notice; nothing is dropped


@dataclass(frozen=True)
class Problem:
    """Something about a slide: an ``error`` forbids its use, a ``notice`` is for the user to know.

    What is ``lasting`` may make its numbers wrong: it is told wherever they are, not only when the data are checked.
    """

    severity: Literal["error", "notice"]
    text: str
    lasting: bool = False


def validate(slide: Slide, *, panel: Sequence[str] | None = None) -> None:
    """Raise a ``UserError`` with the first error that :func:`check_slide` finds; notices pass."""
    refuse(slide, check_slide(slide, panel=panel))


def refuse(slide: Slide, problems: Iterable[Problem]) -> None:
    """Raise a ``UserError`` with the first error among ``problems``, if there is one."""
    for problem in problems:
        if problem.severity == "error":
            raise UserError(f"slice {slide.id}: {problem.text}")


def check_slide(slide: Slide, *, panel: Sequence[str] | None = None) -> list[Problem]:
    """Everything that is wrong with a slide or worth knowing about it, errors first; nothing: the list is empty.

    With ``panel``, also whether the slide can be scored on it: a gene that the slide's file does not list was counted
    zero times, but a slide that lists none of the panel's genes uses other names for them.
    """
    errors = [*_image_errors(slide), *_schema_errors(slide)]
    misfits: list[Finding] = []
    if not errors:  # the rest relies on the schema
        misfits = _found(geometry.check_image, slide)
        errors += _count_errors(slide)
        errors += [finding.text for finding in misfits if finding.severity == "error"]
        # on another image spots lie elsewhere: that need not be said again
        misplaced = [] if any(finding.severity == "error" for finding in misfits) else _position_errors(slide)
        errors += [*misplaced, *_array_errors(slide)]
    if errors:
        return [Problem("error", text) for text in errors]
    misfits += [*_found(geometry.check_spots, slide), *_even_totals(slide)]
    problems = [Problem(finding.severity, finding.text, lasting=True) for finding in misfits]
    problems += [] if panel is None else panel_problems(slide.genes, panel)
    if all(problem.severity == "notice" for problem in problems):
        remarks = [Problem("notice", f"{slide.image.name}: {text}", lasting=True) for text in slide.image.remarks()]
        notices = [Problem("notice", text) for text in _notices(slide)]
        problems = [*problems, *remarks, *notices]
    return sorted(problems, key=lambda problem: problem.severity)


def _found(look: Callable[[Slide], list[Finding]], slide: Slide) -> list[Finding]:
    """What ``look`` finds; it reads images, of which only the headers have been read before."""
    try:
        return look(slide)
    except UserError as error:
        return [Finding("error", str(error))]


def _image_errors(slide: Slide) -> list[str]:
    try:
        width, height = slide.image.size
    except UserError as error:
        return [str(error)]
    return [] if width and height else [f"{slide.image.name} has no pixels - fetch it again"]


def _schema_errors(slide: Slide) -> list[str]:
    adata = slide.adata
    if adata.n_obs == 0:
        return ["it has no spots - check the files that name the spots under the tissue"]
    if adata.n_vars == 0:
        return ["it has no genes - check the count file"]
    errors = []
    if adata.X is None:
        errors.append("it has no counts (X is empty) - give raw counts")
    missing = [name for name in ("array_row", "array_col", "in_tissue") if name not in adata.obs]
    if missing:
        errors.append(f"obs lacks {', '.join(missing)} - the reader must fill them in")
    else:
        for name in ("array_row", "array_col"):
            values = np.asarray(adata.obs[name])
            if values.dtype.kind not in "iu":
                errors.append(f"obs['{name}'] holds {values.dtype} values - array indices are integers")
    if "spatial" not in adata.obsm:
        errors.append("obsm lacks 'spatial' - give the spots' pixel centres (x, y)")
    elif np.shape(adata.obsm["spatial"]) != (adata.n_obs, 2):
        errors.append(
            f"obsm['spatial'] has the shape {np.shape(adata.obsm['spatial'])} - it must be ({adata.n_obs}, 2)"
        )
    for what, names in (("spot", adata.obs_names), ("gene", adata.var_names)):
        if not names.is_unique:
            twice = names[names.duplicated()]
            errors.append(f"{len(twice)} {what} names occur twice, the first is {twice[0]} - make them unique")
    return errors


def _count_errors(slide: Slide) -> list[str]:
    from scipy import sparse

    matrix = slide.adata.X
    if not sparse.issparse(matrix) or matrix.format != "csr":
        return [f"the counts are a {type(matrix).__name__} - a reader must return a CSR matrix"]
    fault = count_fault(matrix.data)
    return [] if fault is None else [f"{fault} - give raw counts: non-negative integers"]


def _position_errors(slide: Slide) -> list[str]:
    centres = slide.centres
    unplaced = ~np.isfinite(centres).all(axis=1)
    if unplaced.any():
        first = slide.spot_ids[int(np.argmax(unplaced))]
        return [
            f"{int(unplaced.sum())} of {slide.n_spots} spots have no position (NaN), the first is {first} - "
            "leave them out, or complete the file of positions"
        ]
    if len(np.unique(centres, axis=0)) == 1 and slide.n_spots > 1:
        return ["all spots have the same position - check the columns of the file of positions"]
    outside = slide.image.outside(centres)
    if not outside.any():
        return []
    width, height = slide.image.full_resolution_size
    place = f"{slide.image.name} ({width:.0f} x {height:.0f} px at full resolution)"
    if not slide.image.outside(centres[:, ::-1]).any():
        return [
            f"{int(outside.sum())} of {slide.n_spots} spots lie outside {place}, but all fit when x and y are swapped "
            "- x is the image's column and y its row: exchange the two columns"
        ]
    x, y = centres[int(np.argmax(outside))]
    found = fit(slide)
    hint = "" if found is None or found.better is None else f"; {found.better}"
    return [
        f"{int(outside.sum())} of {slide.n_spots} spots lie outside {place}, the first at x={x:.1f}, y={y:.1f}{hint} - "
        "check that the image belongs to this slice and that positions are in its full-resolution pixels"
    ]


def _array_errors(slide: Slide) -> list[str]:
    """No two spots of one section lie at the same place of the array."""
    places, n_there = np.unique(slide.array_xy, axis=0, return_counts=True)
    n_twice = slide.n_spots - len(places)
    if not n_twice:
        return []
    crowded = int(np.argmax(n_there > 1))
    column, row = (int(index) for index in places[crowded])
    there = np.flatnonzero((slide.array_xy == places[crowded]).all(axis=1))
    names = [slide.spot_ids[spot] for spot in there[:2]]
    return [
        f"{n_twice} of {slide.n_spots} spots lie where another one lies on the array (the first are {names[0]} and "
        f"{names[1]}, both at array_row {row}, array_col {column}) - if these are several sections, give each a slide "
        "of its own; else correct array_row and array_col"
    ]


def panel_problems(genes: Sequence[str], panel: Sequence[str]) -> list[Problem]:
    """What is wrong, or worth knowing, where a slide that lists ``genes`` is scored on ``panel``."""
    listed = set(genes)
    absent = [gene for gene in panel if gene not in listed]
    n_listed = len(panel) - len(absent)
    if n_listed < LEAST_OF_PANEL * len(panel):
        how_many = "none" if n_listed == 0 else f"only {n_listed}"
        why = mismatch(genes, panel, "it", "the panel")
        return [Problem("error", f"{how_many} of the {len(panel)} panel genes is among its {len(genes)} genes - {why}")]
    if not absent:
        return []
    some = shortened(absent, 5)
    text = f"{len(absent)} of {len(panel)} panel genes are not in its file and count as zero: {some}"
    return [Problem("notice", text)]


def _even_totals(slide: Slide) -> list[Finding]:
    """Whole numbers may be normalised values that were rounded; then all spots have the same sum."""
    totals = np.asarray(slide.adata.X.sum(axis=1), dtype=np.float64).ravel()
    middle = float(np.median(totals))
    if slide.n_spots < FEWEST or middle < MANY or np.abs(totals - middle).max() > EVEN * middle:
        return []
    text = (
        f"all spots have the same sum of counts, {middle:,.0f} within {EVEN:.0%}, as values have that were normalised "
        "and rounded - give raw counts"
    )
    return [Finding("notice", text)]


def _notices(slide: Slide) -> list[str]:
    notices = []
    totals = np.asarray(slide.adata.X.sum(axis=1)).ravel()
    empty, sparse_spots = int((totals == 0).sum()), int(((totals > 0) & (totals < NEARLY_EMPTY)).sum())
    if empty:
        notices.append(f"{empty} of {slide.n_spots} spots have no counts at all; they are kept")
    if sparse_spots:
        notices.append(f"{sparse_spots} of {slide.n_spots} spots have fewer than {NEARLY_EMPTY} counts; they are kept")
    if slide.image.level != "full":
        scale = slide.image.scale
        size = "as large as the full-resolution one" if scale == 1 else f"{scale:.4g} times as large as the full one"
        notices.append(f"its image is the {slide.image.level} one, {size}")
    return notices
