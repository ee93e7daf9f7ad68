"""Is a prediction as sharp as the tissue? Spread, rank correlation, smoothness and local structure of every gene.

A high correlation says nothing about that: a prediction may follow the tissue and still be flat and blurred. None of
these numbers judges by itself. Measured counts carry sampling noise of every spot for itself, so that even the
noiseless expression would vary less, and be smoother, than its measurement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..slides.lattice import direct_neighbours, gaussian_window
from .correlation import per_gene
from .pieces import pieces_of_genes

if TYPE_CHECKING:
    import pandas as pd
    from scipy.sparse import csr_array

COLUMNS = ("sd_truth", "sd_prediction", "spearman", "moran_truth", "moran_prediction", "ssim")
K1, K2 = 0.01, 0.03  # Wang et al. 2004: they keep the quotients finite where a map is flat
MOST_WINDOWS = 20_000  # spots whose surroundings are compared: of more the mean would be the same, but for minutes
_GENES = 128  # as many maps are worked on at once at most: 5,000 spots take 5 MB per array


def sharpness(truth: np.ndarray, prediction: np.ndarray, positions: np.ndarray) -> pd.DataFrame:
    """Spread, rank correlation, smoothness and local structure of every gene.

    Parameters
    ----------
    truth, prediction : ndarray of shape (n_spots, n_genes)
        On the same target's scale.
    positions : ndarray of shape (n_spots, 2)
        The spots' centres, in pixels.

    Returns
    -------
    pandas.DataFrame
        One row per gene, in the columns' order, all float64:

        ``sd_truth``, ``sd_prediction``
            Standard deviation over the spots (divided by n, as in Pearson's r).
        ``spearman``
            Rank correlation, ties by average ranks; NaN if truth or prediction is constant.
        ``moran_truth``, ``moran_prediction``
            See :func:`moran`.
        ``ssim``
            See :func:`structural_similarity`; over 20,000 spots, evenly spread, of a slide of more.

    Examples
    --------
    >>> positions = np.array([(x, y) for y in range(6) for x in range(6)]) * 100.0
    >>> truth = positions[:, :1] / 100  # grows from left to right
    >>> sharpness(truth, truth / 2, positions)[["sd_truth", "sd_prediction", "ssim"]].round(2).to_numpy()
    array([[1.71, 0.85, 0.64]])
    """
    import pandas as pd
    from scipy.stats import rankdata  # takes two seconds: a mistyped command must not wait for it

    neighbours, window = direct_neighbours(positions), gaussian_window(positions, around=evenly_spread(len(positions)))
    tables = []
    for part in pieces_of_genes(*np.shape(truth)):
        x, y = (np.asarray(values[:, part], dtype=np.float64) for values in (truth, prediction))
        ranks = per_gene(rankdata(x, axis=0), rankdata(y, axis=0))
        values = (
            x.std(axis=0),
            y.std(axis=0),
            ranks.r,
            moran(x, neighbours),
            moran(y, neighbours),
            structural_similarity(x, y, window),
        )
        tables.append(pd.DataFrame(dict(zip(COLUMNS, values, strict=True))))
    return pd.concat(tables, ignore_index=True)


def evenly_spread(n_spots: int) -> np.ndarray | None:
    """The spots whose surroundings are compared, where there are more than ``MOST_WINDOWS``; ``None``: all."""
    if n_spots <= MOST_WINDOWS:
        return None
    return np.linspace(0, n_spots - 1, MOST_WINDOWS).round().astype(np.int64)


def moran(values: np.ndarray, neighbours: csr_array) -> np.ndarray:
    """Moran's I of every gene: how alike neighbouring spots are.

    Parameters
    ----------
    values : ndarray of shape (n_spots, n_genes)
        A prediction or a target.
    neighbours : scipy.sparse.csr_array of shape (n_spots, n_spots)
        Zeros and ones, symmetric (:func:`stbench.slides.lattice.direct_neighbours`).

    Returns
    -------
    ndarray of shape (n_genes,)
        Near 1 for a smooth map, -1 / (n - 1) expected for one without structure, below that for a chequered one. NaN
        for a constant gene, and if no spot has a neighbour. A spot without neighbours has nothing to be compared with
        and is left out of all sums.

    Notes
    -----
    With z the values less their mean and w the neighbours' weights divided by their row's sum, so that S0 = n::

        I = (n / S0) Σij wij zi zj / Σi zi²

    the covariance of a spot and the mean of its neighbours, over the variance.

    Examples
    --------
    >>> from stbench.slides.lattice import direct_neighbours
    >>> positions = np.array([(x, y) for y in range(8) for x in range(8)]) * 100.0
    >>> ramp, chequered = positions[:, 0], positions.sum(axis=1) / 100 % 2
    >>> moran(np.column_stack([ramp, chequered]), direct_neighbours(positions)).round(2)
    array([ 0.94, -1.  ])
    """
    from scipy import sparse

    degree = neighbours.sum(axis=1)
    joined = degree > 0
    values = np.asarray(values, dtype=np.float64)[joined]
    if not len(values):
        return np.full(values.shape[1], np.nan)
    weights = sparse.diags_array(1 / degree[joined]) @ neighbours[joined][:, joined]
    constant = (values == values[:1]).all(axis=0)
    centred = values - values.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 of a constant gene, replaced below
        result = np.einsum("sg,sg->g", centred, weights @ centred) / np.einsum("sg,sg->g", centred, centred)
    result[constant] = np.nan
    return result


def structural_similarity(truth: np.ndarray, prediction: np.ndarray, window: csr_array) -> np.ndarray:
    """Mean structural similarity of the truth's and the prediction's map of every gene.

    Parameters
    ----------
    truth, prediction : ndarray of shape (n_spots, n_genes)
        On the same target's scale.
    window : scipy.sparse.csr_array of shape (n_windows, n_spots)
        Weights of the spots around each spot, or around some
        (:func:`stbench.slides.lattice.gaussian_window`). Nothing is interpolated: at a border the window holds the
        spots that are there.

    Returns
    -------
    ndarray of shape (n_genes,)
        1 for equal maps; NaN if the truth is constant.

    Notes
    -----
    Equation 13 of Wang et al., with spots for pixels. At every spot ::

        (2 µx µy + C1) (2 σxy + C2) / ((µx² + µy² + C1) (σx² + σy² + C2)),  C1 = (0.01 L)², C2 = (0.03 L)²

    of the weighted means, variances and covariance of the spots around it, and the mean of that over the windows. L is
    the range (largest less smallest) of the truth.

    Other numbers of the field go by the same name: Li et al. and those who follow them scale both maps by their largest
    value and evaluate the quotient once over all spots of the slice, without any neighbourhood, with C1 = 0.01² and
    C2 = 0.03². Such numbers do not compare with these.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli (2004), IEEE Transactions on Image Processing 13, 600.

    Li et al. (2022), Nature Methods 19, 662.

    Examples
    --------
    >>> from stbench.slides.lattice import gaussian_window
    >>> positions = np.array([(x, y) for y in range(8) for x in range(8)]) * 100.0
    >>> truth = positions[:, :1] % 300
    >>> window = gaussian_window(positions)
    >>> structural_similarity(truth, truth, window), structural_similarity(truth, truth * 0 + 100, window).round(2)
    (array([1.]), array([0.01]))
    """
    truth, prediction = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    result = np.empty(truth.shape[1])
    for part in pieces_of_genes(len(truth), truth.shape[1], _GENES):
        result[part] = _similarity(truth[:, part], prediction[:, part], window)
    return result


def _similarity(x: np.ndarray, y: np.ndarray, window: csr_array) -> np.ndarray:
    x_range = x.max(axis=0) - x.min(axis=0)
    c1, c2 = (K1 * x_range) ** 2, (K2 * x_range) ** 2
    # variances are taken about the gene's mean of the slice, where the difference of squares keeps its digits
    x_level, y_level = x.mean(axis=0), y.mean(axis=0)
    x, y = x - x_level, y - y_level
    x_mean, y_mean = window @ x, window @ y
    x_variance = np.maximum(window @ (x * x) - x_mean**2, 0)
    y_variance = np.maximum(window @ (y * y) - y_mean**2, 0)
    covariance = window @ (x * y) - x_mean * y_mean
    x_mean, y_mean = x_mean + x_level, y_mean + y_level
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant truth, replaced below
        level = (2 * x_mean * y_mean + c1) / (x_mean**2 + y_mean**2 + c1)
        structure = (2 * covariance + c2) / (x_variance + y_variance + c2)
        similarity = (level * structure).mean(axis=0)
    return np.where(x_range > 0, similarity, np.nan)
