"""The noise ceiling: the best score that a predictor could reach which knows every gene's true rate at every spot.

A count is a random draw (Poisson) around the rate of its spot and gene, and no predictor knows the draw. One that knows
the rates reaches, on average over repeated sampling, a Pearson r with the measured target of at most

    ceiling r = sqrt(reliability),    reliability = the expected r of two independent measurements of full depth

because with standardised targets y, y' the mean of <y, y'> is the squared length of the mean of y. Only one measurement
exists. Binomial thinning makes two of half the depth from it: every count is split at random into halves, which are
independent given the rates. Both go through the same target, each with its own totals, and their correlation is the
reliability at half depth. Spearman and Brown's formula for a test of twice the length, 2 r / (1 + r), brings it to full
depth: the ratio of signal to noise doubles.

What this does and does not say:

* The formula is exact for additive noise whose variance halves when the depth doubles. Targets are logarithms: against
  simulated rates the mean ceiling over genes comes out 0.03 too low (300 spots, hardly any counts) to 0.03 too high,
  up to 0.07 too high for genes that follow the depth alone, and the lowest reachable MSE 1 to 8 % too low. On
  spot-ln-cpm, which says little more than whether a gene was seen, it is 0.05 too high, and the MSE 15 % too low. A
  single gene's ceiling scatters by 0.05 to 0.15 at 300 spots.
* What varies between spots beyond Poisson noise counts as signal, also where no image can show it: in one section it
  cannot be told from a pattern. On ``demo``, whose counts are overdispersed by chance, the ceiling is 0.66 where the
  best predictor can reach 0.46.

So it is too high rather than too low: a method may be nearer to what is possible than it seems.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import NUMBERS
from ..data.targets import Target
from ..errors import UserError
from ..system.files import replacing, value_digest

if TYPE_CHECKING:
    import pandas as pd

    from ..data.prepared import PreparedDataset, PreparedSlide

COLUMNS = ("slice", "gene", "ceiling_r", "reliability", "at_zero", "mse_floor", "n_spots", "n_repeats")
MOST_SPOTS = 15_000  # over which a correlation is known to 0.01; memory grows with them
RECORD = b"stbench"  # what a table was made from, in the parquet file's own metadata


def noise_ceiling(slide: PreparedSlide, target: Target, rng: np.random.Generator, repeats: int = 10) -> pd.DataFrame:
    """The noise ceiling of every gene of a slide, as a table.

    Parameters
    ----------
    slide : PreparedSlide
        Its raw counts are split at random.
    target : Target
        What is to be predicted.
    rng : numpy.random.Generator
        Draws the splits.
    repeats : int, default=10
        Number of splits.

    Returns
    -------
    pandas.DataFrame
        One row per gene of the panel, in its order: ``gene``, the arrays of :func:`gene_ceilings`, ``n_spots``,
        ``n_repeats``. Of a slide of more than ``MOST_SPOTS`` spots at most so many are looked at, evenly spread.
    """
    import pandas as pd

    spots = slice(None, None, -(-slide.n_spots // MOST_SPOTS) or 1)
    counts, total_counts = slide.counts[spots], slide.total_counts[spots]
    values = gene_ceilings(counts, total_counts, target, rng, repeats, slide.n_measured)
    return pd.DataFrame({"gene": list(slide.genes), **values, "n_spots": len(counts), "n_repeats": repeats})


def gene_ceilings(
    counts: np.ndarray,
    total_counts: np.ndarray,
    target: Target,
    rng: np.random.Generator,
    repeats: int = 10,
    n_measured: int | None = None,
) -> dict[str, np.ndarray]:
    """What sampling noise leaves possible, for each gene of one slide.

    Parameters
    ----------
    counts : ndarray of shape (n_spots, n_genes)
        The panel's raw counts.
    total_counts : ndarray of shape (n_spots,)
        Raw counts over all measured genes. They are thinned with the panel, because targets divide by them.
    target : Target
        Formula from counts to what is predicted.
    rng : numpy.random.Generator
        Draws the binomial splits.
    repeats : int, default=10
        Number of splits over which is summed.
    n_measured : int, optional
        Number of genes behind ``total_counts``, for targets that ask for it.

    Returns
    -------
    dict of str to ndarray of shape (n_genes,)
        ``reliability``
            In [0, 1]; NaN if the target is constant over the slide, where r is undefined.
        ``at_zero``
            Whether the halves did not agree at all (their correlation was zero or below), so that the reliability was
            set to zero.
        ``ceiling_r``
            The square root of the reliability.
        ``mse_floor``
            The sampling variance of the target, averaged over spots, on the target's scale squared: the mean squared
            error that is left to a predictor that knows the target's expected value. It is the variance of the measured
            target over spots times (1 - reliability); zero for a constant target.

    Raises
    ------
    ValueError
        If ``repeats`` is below 1, or if total counts are smaller than the panel's.

    Examples
    --------
    >>> from stbench.data.targets import target
    >>> rng = np.random.default_rng(0)
    >>> rate = rng.gamma(4, 0.25, (500, 2)) * [1, 40]  # both vary alike, and the first is rarely counted
    >>> counts = rng.poisson(np.column_stack([rate, np.full(500, 1000)]))
    >>> found = gene_ceilings(counts, counts.sum(axis=1), target("spot-log10-cp10k"), rng)
    >>> found["ceiling_r"][:2].round(1)
    array([0.4, 0.9])
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats} - split the counts once at least")
    counts, total_counts = np.asarray(counts), np.asarray(total_counts)
    other = total_counts - counts.sum(axis=1)
    if (other < 0).any():
        raise ValueError("total_counts are smaller than the panel's counts - they are sums over all genes")
    measured = target(counts, total_counts, n_measured).astype(np.float64)
    varies = np.ptp(measured, axis=0) > 0
    shared, spread = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
    for _ in range(repeats):
        half_counts, half_other = rng.binomial(counts, 0.5), rng.binomial(other, 0.5)
        first = _centred(target(half_counts, half_counts.sum(axis=1) + half_other, n_measured))
        rest = counts - half_counts
        second = _centred(target(rest, rest.sum(axis=1) + other - half_other, n_measured))
        shared += np.einsum("sg,sg->g", first, second)
        spread += (np.einsum("sg,sg->g", first, first) + np.einsum("sg,sg->g", second, second)) / 2
    # Sums over repeats before the ratio: a gene of few counts may be constant in one half, which is no agreement
    half = np.divide(shared, spread, out=np.zeros_like(shared), where=spread > 0)
    reliability = np.where(varies, full_depth(np.clip(half, 0, 1)), np.nan)
    return {
        "ceiling_r": np.sqrt(reliability),
        "reliability": reliability,
        "at_zero": varies & (half <= 0),
        "mse_floor": np.where(varies, measured.var(axis=0) * (1 - np.nan_to_num(reliability)), 0.0),
    }


def full_depth(half: np.ndarray) -> np.ndarray:
    """The reliability of the whole, from the correlation of its halves: 2 r / (1 + r).

    Parameters
    ----------
    half : ndarray
        Correlation of the two halves.

    Returns
    -------
    ndarray
        Of the same shape.

    References
    ----------
    Spearman, C. (1910), British Journal of Psychology 3, 271; Brown, W. (1910), ibid. 3, 296.

    Examples
    --------
    >>> full_depth(np.array([0.0, 0.5, 1.0])).round(3)
    array([0.   , 0.667, 1.   ])
    """
    return 2 * half / (1 + half)


def write_ceiling(results: Path, data: PreparedDataset, seed: int = 0, repeats: int = 10) -> Path:
    """Write the noise ceilings of a dataset's slices into a results directory.

    Slices that the file already holds, made from the same prepared content by the same rules, are kept as they are,
    even if ``data`` lacks them. The numbers depend on the slice's content, ``seed`` and ``repeats`` only.

    Parameters
    ----------
    results : Path
        The results directory.
    data : PreparedDataset
        The slices.
    seed : int, default=0
        Seed of the random splits.
    repeats : int, default=10
        Number of splits.

    Returns
    -------
    Path
        ``evidence/ceiling-DATASET-TARGET.parquet``, with the columns ``COLUMNS``.

    Raises
    ------
    UserError
        If the file is there and cannot be read.
    """
    import pandas as pd

    path = Path(results) / "evidence" / f"ceiling-{data.name}-{data.target.name}.parquet"
    rules = {"numbers": NUMBERS, "formula": data.target.formula, "seed": seed, "repeats": repeats}
    held, keys = _held(path, rules)
    new = {name: slide for name, slide in data.slides.items() if keys.get(name) != slide.key}
    if not new:
        return path
    tables = [held[~held["slice"].isin(list(new))]] if len(held) else []
    for name, slide in new.items():
        rng = np.random.default_rng(int(value_digest([seed, "ceiling", slide.key, data.target.name]), 16))
        table = noise_ceiling(slide, data.target, rng, repeats)
        table.insert(0, "slice", name)
        tables.append(table)
        keys[name] = slide.key
    whole = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
    write_table(path, whole, {**rules, "keys": keys})
    return path


def read_ceiling(path: Path) -> pd.DataFrame:
    """The table that :func:`write_ceiling` wrote.

    Raises
    ------
    UserError
        If it cannot be read or is something else.
    """
    return _read(path)[0]


def write_table(path: Path, table: pd.DataFrame, record: dict[str, Any]) -> None:
    """Write a table of noise ceilings.

    Parameters
    ----------
    path : Path
        A parquet file; replaced whole.
    table : pandas.DataFrame
        The ceilings.
    record : dict
        What the table was made from (JSON-able); kept in the file's own metadata.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns = pa.Table.from_pandas(table, preserve_index=False)
    columns = columns.replace_schema_metadata({**columns.schema.metadata, RECORD: json.dumps(record).encode()})
    with replacing(path) as temporary:
        parquet.write_table(columns, temporary)


def _centred(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    values -= values.mean(axis=0)
    return values


def _held(path: Path, rules: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, str]]:
    """What the file holds by these rules, and each of its slices' prepared key; nothing where other rules made it."""
    import pandas as pd

    if path.is_file():
        table, record = _read(path)
        if {name: record.get(name) for name in rules} == rules:
            return table, dict(record["keys"])
    return pd.DataFrame(), {}


def _read(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    from pyarrow import parquet

    try:
        columns = parquet.read_table(path)
        record = json.loads(columns.schema.metadata[RECORD])
        absent = [name for name in COLUMNS if name not in columns.column_names]
        if absent or not isinstance(record["keys"], dict):
            raise ValueError(f"no column {', '.join(absent)}" if absent else "its record names no content")
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are subclasses of the first two
        raise UserError(
            f"{path} is not a table of noise ceilings ({error}) - delete it to have it made again"
        ) from error
    return columns.to_pandas(), record
