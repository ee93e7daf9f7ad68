"""Genes that are scored at a time: every score is one of single genes, or a sum over them.

Of a slide of hundreds of thousands of spots all genes at once, in float64 and with the steps between, would take many
times the memory of the prediction. A slide of a few thousand spots is one piece, whose sums are those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator

VALUES = 2**25  # that are worked on at a time: 256 MiB in float64


def pieces_of_genes(n_spots: int, n_genes: int, most: int | None = None) -> Iterator[slice]:
    """Columns of a matrix of spots by genes, ``VALUES`` of its values at a time.

    Parameters
    ----------
    n_spots, n_genes : int
        Shape of the matrix.
    most : int, optional
        Columns of a piece at most.

    Yields
    ------
    slice
        Of the genes; together they are all, in their order.

    Examples
    --------
    >>> list(pieces_of_genes(361, 785))
    [slice(0, 785, None)]
    >>> list(pieces_of_genes(500_000, 100))
    [slice(0, 67, None), slice(67, 100, None)]
    """
    step = max(1, VALUES // max(1, n_spots))
    step = step if most is None else min(step, most)
    for first in range(0, n_genes, step):
        yield slice(first, min(first + step, n_genes))
