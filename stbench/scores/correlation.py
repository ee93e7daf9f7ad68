"""Pearson's r of every gene across the spots of a slice, and its p, to full precision at any size.

A gene is *constant* on a slice when all its values are equal (largest minus smallest is zero), as in
``scipy.stats.pearsonr``. Everything is computed in float64, whatever the inputs' type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Correlation:
    """Pearson correlation of each gene across the spots of a slice; all arrays are (n_genes,)."""

    r: np.ndarray  # float64; NaN where the truth or the prediction is constant
    p: np.ndarray  # float64, two-sided; NaN where r is; 0 below about 1e-308: see neg_log10_p
    constant_truth: np.ndarray  # bool
    constant_prediction: np.ndarray  # bool


def per_gene(truth: np.ndarray, prediction: np.ndarray) -> Correlation:
    """Pearson's r of each gene across spots, and its two-sided p.

    The same as ``scipy.stats.pearsonr`` column by column, also for inputs near either end of float64's range. (If a
    column's spread is close to the rounding of its mean, both are noise, and scipy warns; float32 inputs are never
    there.)

    Parameters
    ----------
    truth, prediction : ndarray of shape (n_spots, n_genes)
        Finite numbers.

    Returns
    -------
    Correlation
        Of two spots r is exactly 1 or -1 and p is 1; a single spot is constant.

    Examples
    --------
    >>> found = per_gene(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [1.0], [5.0]]))
    >>> found.r.round(3), found.p.round(3)
    (array([0.945]), array([0.212]))
    """
    truth, prediction = np.array(truth, dtype=np.float64), np.array(prediction, dtype=np.float64)  # copies, to work on
    constant_truth = (truth == truth[:1]).all(axis=0)
    constant_prediction = (prediction == prediction[:1]).all(axis=0)
    truth, prediction = _centred_columns(truth), _centred_columns(prediction)
    lengths = np.sqrt(_dot_columns(truth, truth)) * np.sqrt(_dot_columns(prediction, prediction))
    with np.errstate(invalid="ignore"):  # 0 / 0 of a constant column, replaced below
        r = np.clip(_dot_columns(truth, prediction) / lengths, -1.0, 1.0)
    n_spots = len(truth)
    if n_spots == 2:
        r = np.round(r)
    r[constant_truth | constant_prediction] = np.nan
    return Correlation(r, _two_sided_p(r, n_spots), constant_truth, constant_prediction)


def joined(parts: Sequence[Correlation]) -> Correlation:
    """Of all genes, from those of some genes each."""
    columns = zip(*((part.r, part.p, part.constant_truth, part.constant_prediction) for part in parts), strict=True)
    return Correlation(*(np.concatenate(column) for column in columns))


def neg_log10_p(r: np.ndarray | float, n: int) -> np.ndarray:
    r"""Minus log10 of the two-sided p of Pearson's r, also where p itself underflows to 0.

    This is the ranking quantity of the paper's tables S2 and S3.

    Parameters
    ----------
    r : ndarray of any shape or float
        Correlations.
    n : int
        Number of spots.

    Returns
    -------
    ndarray
        Of the shape of ``r``. NaN where r is; infinite where \|r\| is 1 (and n above 2).

    Notes
    -----
    With a = n/2 - 1 and x = 1 - r², p is the regularised incomplete beta function I_x(a, 1/2). In its defining integral
    over t, put t = x·exp(-u/a): I_x(a, 1/2) = x^a / (a·B(a, 1/2)) · ∫ exp(-u)·(1 - x·exp(-u/a))^(-1/2) du over u > 0.
    Where p underflows, the second factor hardly changes over the integral's range, so that a few Gauss-Laguerre nodes
    give it to full precision.

    Examples
    --------
    >>> neg_log10_p(np.array([0.1, 0.9]), 4000).round(1)
    array([   9.6, 1443.6])
    """
    r = np.asarray(r, dtype=np.float64)
    p = _two_sided_p(r, n)
    with np.errstate(divide="ignore"):
        result = np.asarray(np.abs(np.log10(p)))  # abs: p = 1 gives 0, not -0; p never exceeds 1
    tiny = (p < 1e-290) & (np.abs(r) < 1)  # close to the end of float64 p has lost digits already
    if tiny.any():
        size = np.abs(r[tiny])
        a = n / 2 - 1
        log_x = np.log1p(-size) + np.log1p(size)
        nodes, weights = np.polynomial.laguerre.laggauss(24)
        integral = weights @ (1 / np.sqrt(-np.expm1(log_x[None, :] - nodes[:, None] / a)))
        log_p = a * log_x - np.log(a) - special.betaln(a, 0.5) + np.log(integral)
        result[tiny] = -log_p / np.log(10)
    return result


def _centred_columns(values: np.ndarray) -> np.ndarray:
    """Columns less their means, times a power of two where their squares would leave float64's range; in place."""
    values = _in_range(values)
    values -= values.mean(axis=0)
    values -= values.mean(axis=0)  # what rounding of the first mean left over
    return _in_range(values)


def _in_range(values: np.ndarray) -> np.ndarray:
    """Where a column's largest size is not moderate, columns times the powers of two that bring theirs into [1/2, 1):
    exact."""
    size = np.maximum(values.max(axis=0), -values.min(axis=0))
    if ((size == 0) | (size > 1e-60) & (size < 1e60)).all():
        return values
    _, exponent = np.frexp(size)
    return np.ldexp(values, -exponent, out=values)


def _dot_columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("sg,sg->g", a, b)


def _two_sided_p(r: np.ndarray, n: int) -> np.ndarray:
    """Chance that ``n`` independent normal pairs correlate at least so far from 0 in either direction."""
    if n < 2:
        return np.full_like(r, np.nan)
    if n == 2:  # no degree of freedom is left: every pair of spots lies on a line
        return np.where(np.isnan(r), np.nan, 1.0)
    a = n / 2 - 1
    size = np.abs(r)
    # Each form where it is exact: 1 - r² holds too few digits of a small r, and 1 - p those of a small p. 0.45 / n is
    # about the median of r² (that of a chi-squared variable is 0.455).
    small = size * size < 0.45 / n
    p = np.empty_like(size)
    p[small] = 1 - special.betainc(0.5, a, size[small] ** 2)
    p[~small] = special.betainc(a, 0.5, (1 - size[~small]) * (1 + size[~small]))
    return p
