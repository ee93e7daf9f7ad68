"""A line through the mean colours of patches, in arithmetic that every version of every library rounds alike.

Sums of integers are exact, ``math.fsum`` rounds once, and four equations are solved in plain Python, without a BLAS.
"""

# ruff: noqa: B905 - zip(strict=) is of Python 3.10, and an environment of somebody else's may be older

import math


def colours(patches):
    """Mean red, green and blue of each patch, and a one: rows of Python numbers."""
    pixels = patches.shape[1] * patches.shape[2]
    rows = []
    for patch in patches:
        sums = patch.reshape(-1, 3).sum(axis=0, dtype="int64")
        rows.append([int(value) / pixels / 255.0 for value in sums] + [1.0])
    return rows


def fit(rows, target, penalty):
    """Coefficients of every gene, (n_genes, 4) as lists; ``target`` (n_spots, n_genes)."""
    size = len(rows[0])
    left = [[math.fsum(row[i] * row[j] for row in rows) + penalty * (i == j) for j in range(size)] for i in range(size)]
    columns = [[float(value) for value in column] for column in zip(*target.tolist())]
    right = [[math.fsum(row[i] * y for row, y in zip(rows, column)) for column in columns] for i in range(size)]
    for i in range(size):  # positive definite: no pivots are needed
        for j in range(i + 1, size):
            factor = left[j][i] / left[i][i]
            left[j] = [b - factor * a for a, b in zip(left[i], left[j])]
            right[j] = [b - factor * a for a, b in zip(right[i], right[j])]
    solved = [None] * size
    for i in reversed(range(size)):
        solved[i] = [
            (y - sum(left[i][j] * solved[j][gene] for j in range(i + 1, size))) / left[i][i]
            for gene, y in enumerate(right[i])
        ]
    return [list(gene) for gene in zip(*solved)]


def predict(rows, coefficients):
    """Lists of lists, (n_spots, n_genes)."""
    return [[math.fsum(a * b for a, b in zip(row, gene)) for gene in coefficients] for row in rows]
