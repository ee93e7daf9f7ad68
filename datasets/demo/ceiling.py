"""The best score that any method could reach on the demo, because the expected value of every count is known.

With r(p, y) the Pearson correlation over a slide's spots, and y standardised (y minus its mean, divided by its length),
r is the inner product of the standardised p and y. So over repeated sampling of the counts

    mean over y of r(p, y) = < p, m >,    m = mean over y of the standardised y,

and no prediction p reaches more than the length of m: that is the ceiling, gene by gene. It is computed by Monte Carlo:
counts are drawn anew, turned into the target, and averaged.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from stbench.data import targets

from .expression import draw_counts, draw_counts_given_image, genes, slide_counts, slide_truth
from .tissue import generator

if TYPE_CHECKING:
    import pandas as pd

Knowledge = Literal["everything", "image"]

DRAWS = 200  # of a slide's counts; the Monte Carlo error of a ceiling is then below 0.01 for all but the weakest genes


class _Average(NamedTuple):
    """Means over draws of a slide's target over the panel."""

    target: np.ndarray  # (n_spots, n_genes)
    standardised: np.ndarray  # (n_spots, n_genes), over the draws in which the gene varies
    draws: np.ndarray  # (n_genes,) how many those are


def expected_target(slide_id: str, target: str = "spot-log10-cp10k", knowing: Knowledge = "everything") -> np.ndarray:
    """(n_spots, n_genes) float32: the mean of the target over repeated sampling, for the slide's spots and the panel.

    This is the prediction of least expected squared error for who knows everything but the sampling noise, or, with
    ``knowing="image"``, for who knows besides the gene programmes only what the image shows (not the position on
    the array, and not how deeply a spot happened to be sequenced). ``UserError`` for an unknown slide or target.
    """
    return _average(slide_id, target, knowing).target.astype(np.float32)


def best_reachable(slide_id: str, target: str = "spot-log10-cp10k") -> pd.DataFrame:
    """How well each gene of the panel can be predicted on a slide; one row per gene, in the panel's order.

    ``programme``
        visible, positional or noise.
    ``best_r``
        the mean r over repeated sampling of the best possible prediction: no method exceeds it on average.
    ``image_r``
        the mean r of the best prediction that rests on the image alone.
    ``expected_r``
        r of :func:`expected_target` with the counts as they were drawn; it scatters around ``best_r``.
    """
    import pandas as pd

    full, image = _average(slide_id, target, "everything"), _average(slide_id, target, "image")
    chosen = targets.target(target)
    counts = slide_counts(slide_id)
    observed = chosen(counts[:, genes().in_panel], counts.sum(axis=1), counts.shape[1]).astype(np.float64)
    length = np.linalg.norm(full.standardised, axis=0)
    # The length of a mean of n unit vectors is too long by chance: E |mean|² = |m|² + (1 - |m|²) / n
    squared = (full.draws * length**2 - 1) / np.maximum(full.draws - 1, 1)
    return pd.DataFrame(
        {
            "programme": genes().programme[genes().in_panel],
            "best_r": np.sqrt(np.clip(squared, 0, 1)),
            "image_r": (_standardise(image.standardised) * full.standardised).sum(axis=0),
            "expected_r": (_standardise(full.target) * _standardise(observed)).sum(axis=0),
        },
        index=pd.Index(genes().panel, name="gene"),
    )


def _standardise(values: np.ndarray) -> np.ndarray:
    """Columns less their mean, of length 1; a constant column becomes zeros."""
    centred = values - values.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    return np.divide(centred, length, out=np.zeros_like(centred), where=np.ptp(values, axis=0) > 0)


@functools.cache
def _average(slide_id: str, target: str, knowing: Knowledge) -> _Average:
    truth, chosen = slide_truth(slide_id), targets.target(target)
    draw = draw_counts if knowing == "everything" else draw_counts_given_image
    rng = generator("ceiling", slide_id, knowing)
    panel = truth.genes.in_panel
    shape = (len(truth.array_xy), int(panel.sum()))
    total, standardised, draws = np.zeros(shape), np.zeros(shape), np.zeros(shape[1])
    for _ in range(DRAWS):
        counts = draw(truth, rng)
        values = chosen(counts[:, panel], counts.sum(axis=1), counts.shape[1]).astype(np.float64)
        total += values
        standardised += _standardise(values)
        draws += np.ptp(values, axis=0) > 0
    return _Average(total / DRAWS, standardised / np.maximum(draws, 1), draws)
