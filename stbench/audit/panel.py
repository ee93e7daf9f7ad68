"""Whether the panel was chosen by looking at test slices: as the dataset declares, or else as the panel shows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..data.prepared import PreparedDataset
from ..dataset import Dataset
from .record import Finding, some

MATCH = 0.9  # share of the panel among a slice's most variable genes, above which the slice may have chosen it
AHEAD = 0.05  # and by so much more than any other slice's
SMALL = 0.5  # a panel of a greater share of the measured genes matches every slice

TITLE = "A panel that was chosen by looking at test slices"


def origin(data: PreparedDataset, ranks: Mapping[str, np.ndarray] | None = None) -> Finding:
    """``panel_source`` and ``panel_saw_test`` of the dataset; where it declares nothing, what ``ranks`` show."""
    of = len(data.genes)
    if data.panel_saw_test is not None:
        seen = data.panel_saw_test
        consequence = (
            "the genes that every method is scored on were picked with the test slices' expression in view."
            if seen
            else "no expression of a test slice was looked at."
        )
        reason = f"Declared by the dataset: {data.panel_source}; {consequence}"
        return Finding("panel", TITLE, "warning" if seen else "ok", of if seen else 0, of, reason)
    undeclared = "The dataset does not declare on which slices its panel was chosen"
    if ranks is None:
        reason = f"{undeclared}, and its slides' other genes were not at hand to test it."
        return Finding("panel", TITLE, "note", 0, of, reason)
    if not ranks:
        reason = f"{undeclared}, and it cannot be tested: the panel holds most of the measured genes."
        return Finding("panel", TITLE, "note", 0, of, reason)
    match = {name: (share < 1).mean(axis=1) for name, share in ranks.items()}  # of each way to rank
    for way in range(len(next(iter(match.values())))):
        ordered = sorted(match, key=lambda name: (-match[name][way], name))
        best = float(match[ordered[0]][way])
        second = float(match[ordered[1]][way]) if len(ordered) > 1 else 0.0
        if best >= MATCH and best - second >= AHEAD:
            reason = (
                f"{undeclared}, but {best:.0%} of it are the genes that vary most in {ordered[0]}, which is tested "
                f"(next: {second:.0%} in {ordered[1] if len(ordered) > 1 else 'no other'}): it looks chosen there."
            )
            return Finding("panel", TITLE, "leak", round(best * of), of, reason, (ordered[0],))
    closest = some([f"{name}: {float(shares.max()):.0%} of the panel" for name, shares in match.items()])
    reason = f"{undeclared}; it is not the list of the most variable genes of any one slice."
    return Finding("panel", TITLE, "note", 0, of, reason, closest)


def ranks_if_needed(data: PreparedDataset, dataset: Dataset | None) -> dict[str, np.ndarray] | None:
    """:func:`variance_ranks` where the panel's origin is not declared; reading the slides again takes a while."""
    return None if dataset is None or data.panel_saw_test is not None else variance_ranks(data, dataset)


def variance_ranks(data: PreparedDataset, dataset: Dataset) -> dict[str, np.ndarray]:
    """Where the panel's genes stand among all of each slide's genes, in the three usual orders of variability.

    Slice to (3, n_genes): rank divided by the panel's size, so that below 1 is among as many most variable genes as the
    panel has. The orders: variance of raw counts, of ln(1 + 10000 count / the spot's total), and variance over mean of
    raw counts. A gene that the slide does not list ranks last. Empty where the panel holds more than half of the genes.
    """
    ranks: dict[str, np.ndarray] = {}
    for source in dataset.find()[0]:
        if source.id not in data.slides:
            continue
        slide = source.read()
        if len(data.genes) > SMALL * len(slide.genes):
            return {}
        column = {gene: place for place, gene in enumerate(slide.genes)}
        places = np.array([column.get(gene, -1) for gene in data.genes])
        orders = np.stack([_rank(measure) for measure in _variability(slide.adata.X)])
        absent = np.full((len(orders), 1), len(slide.genes))
        ranks[source.id] = np.hstack([orders, absent])[:, places] / len(data.genes)
    return ranks


def _variability(counts: object) -> list[np.ndarray]:
    """Three measures of each gene of (n_spots, n_genes) sparse raw counts."""
    from scipy import sparse

    raw = sparse.csc_matrix(counts, dtype=np.float64)
    totals = np.asarray(raw.sum(axis=1)).ravel()
    scaled = sparse.diags(1e4 / np.maximum(totals, 1)) @ raw
    mean, variance = _moments(raw)
    return [variance, _moments(scaled.log1p().tocsc())[1], variance / np.maximum(mean, 1e-12)]


def _moments(matrix: object) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(matrix.mean(axis=0)).ravel()  # type: ignore[attr-defined]
    squares = np.asarray(matrix.multiply(matrix).mean(axis=0)).ravel()  # type: ignore[attr-defined]
    return mean, squares - mean**2


def _rank(measure: np.ndarray) -> np.ndarray:
    """0 for the greatest."""
    rank = np.empty(len(measure), dtype=np.int64)
    rank[np.argsort(-measure, kind="stable")] = np.arange(len(measure))
    return rank
