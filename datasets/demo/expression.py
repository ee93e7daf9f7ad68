"""The demo's gene programmes, the expected count of every gene at every spot, and counts drawn around it.

Counts are negative binomial, var = mu + dispersion * mu², with

    log mu = base (gene) + shift (gene, patient) + visible (gene, what the spot's window shows)
             + positional (gene, array position) + log depth (slide, what the window shows, chance)

where a gene has a visible part, a positional part, or neither. So it is known what a method can learn from an image
and what it cannot.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from .sections import FEATURES, section
from .tissue import GRID, generator, patient_of

# Genes in the panel and beyond it, per theme. The visible themes are named after FEATURES of the window.
_VISIBLE = (9, 2)
_POSITIONAL = (24, 8)
_NOISE = (27, 8)
N_FIELDS = 3  # independent gradients that the positional genes follow
SHARED = 0.7  # part of a gradient's variance that all patients have in common

_BASE = (np.log(4.0), 0.7)  # mean and spread over genes of the log count at depth 1
_SHIFT = 0.35  # spread of the patients' effect on a gene
_VISIBLE_SLOPE = (1.5, 3.2)  # log fold change between a window that has nothing of the theme and one that is full of it
_VISIBLE_SHARE = 0.6  # sum of the visible genes' rates at depth 1, in units of the sum of all genes' base rates
_POSITIONAL_SLOPE = (0.45, 0.85)  # log fold change per standard deviation of the gradient
_DISPERSION = (np.log(0.12), 0.4)  # mean and spread over genes of the log dispersion
_DEPTH_OF_SLIDE = 0.3  # spread of log depth between slides
_DEPTH_OF_SPOT = 0.3  # and between spots
_DEPTH_OF_TISSUE = {"tumour": 0.35, "immune": 0.2, "adipose": -0.7}  # cells carry RNA, fat hardly any


@dataclass(frozen=True)
class Genes:
    """The genes, panel first; arrays are (n_genes,) unless said otherwise."""

    names: tuple[str, ...]
    programme: np.ndarray  # "visible", "positional" or "noise"
    in_panel: np.ndarray  # bool
    base: np.ndarray
    visible_slopes: np.ndarray  # (n_genes, len(FEATURES)), one entry per visible gene
    positional_slopes: np.ndarray  # (n_genes, N_FIELDS), one entry per positional gene
    dispersion: np.ndarray

    @property
    def panel(self) -> list[str]:
        return [name for name, chosen in zip(self.names, self.in_panel, strict=True) if chosen]


@dataclass(frozen=True)
class Truth:
    """What is known about a slide's expression before counts are drawn. Log rates are (n_spots, n_genes), natural."""

    genes: Genes
    array_xy: np.ndarray  # (n_spots, 2)
    image_part: np.ndarray  # patient's shift, base, and visible programmes
    positional_part: np.ndarray
    depth_of_tissue: np.ndarray  # (n_spots,) log depth that follows from the tissue, with the slide's
    depth_by_chance: np.ndarray  # (n_spots,) log depth beyond that

    @property
    def depth(self) -> np.ndarray:
        """(n_spots,) the factor on all rates of a spot."""
        return np.exp(self.depth_of_tissue + self.depth_by_chance)

    @property
    def expected(self) -> np.ndarray:
        """(n_spots, n_genes) float64: the mean of the negative binomial distribution of each count."""
        return np.exp(self.image_part + self.positional_part) * self.depth[:, None]


@functools.cache
def genes() -> Genes:
    """The genes of the demo: the same for all slides."""
    rng = generator("genes")
    themes = [(f"VIS-{feature.upper()}", "visible", *_VISIBLE) for feature in FEATURES]
    themes += [("POS", "positional", *_POSITIONAL), ("NOISE", "noise", *_NOISE)]
    # (in the panel?, programme, column of the slopes, name), those of the panel first
    rows = [
        (number <= inside, programme, column, f"{stem}-{number:02d}")
        for column, (stem, programme, inside, outside) in enumerate(themes)
        for number in range(1, inside + outside + 1)
    ]
    rows.sort(key=lambda row: not row[0])
    n = len(rows)
    visible_slopes, positional_slopes = np.zeros((n, len(FEATURES))), np.zeros((n, N_FIELDS))
    for i, (_, programme, column, _) in enumerate(rows):
        if programme == "visible":
            visible_slopes[i, column] = rng.uniform(*_VISIBLE_SLOPE)
        elif programme == "positional":
            positional_slopes[i, rng.integers(N_FIELDS)] = rng.choice([-1, 1]) * rng.uniform(*_POSITIONAL_SLOPE)
    return Genes(
        names=tuple(name for *_, name in rows),
        programme=np.array([programme for _, programme, _, _ in rows]),
        in_panel=np.array([inside for inside, *_ in rows]),
        base=rng.normal(*_BASE, n),
        visible_slopes=visible_slopes,
        positional_slopes=positional_slopes,
        dispersion=np.exp(rng.normal(*_DISPERSION, n)),
    )


def _surfaces(array_xy: np.ndarray) -> np.ndarray:
    """(n_spots, 5) the gentle surfaces that gradients are made of: the plane's two and the parabola's three."""
    x, y = 2 * array_xy.T / (GRID - 1) - 1
    return np.stack([x, y, x * x - 1 / 3, x * y, y * y - 1 / 3], axis=1)


def _draw_gradients(rng: np.random.Generator) -> np.ndarray:
    """(5, N_FIELDS) random coefficients of :func:`_surfaces`, such that a gradient has variance 1 over the array."""
    scale = np.sqrt([1 / 3, 1 / 3, 4 / 45, 1 / 9, 4 / 45])  # the surfaces' standard deviations over the square
    coefficients = rng.standard_normal((5, N_FIELDS)) * np.array([[1], [1], [0.5], [0.5], [0.5]])
    return coefficients / np.sqrt(((coefficients * scale[:, None]) ** 2).sum(axis=0))


def _gradients(array_xy: np.ndarray, common: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(n_spots, N_FIELDS) the gradients of a patient: one part of all patients, one of its own."""
    return _surfaces(array_xy) @ (np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own)


@functools.cache
def slide_truth(slide_id: str) -> Truth:
    """What the expression of the slide ``slide_id`` follows. ``UserError`` for an unknown one."""
    drawn = section(slide_id)
    table, patient_id = genes(), patient_of(slide_id)
    shift = generator("shift", patient_id).normal(0, _SHIFT, len(table.names))
    common, own = _draw_gradients(generator("gradients")), _draw_gradients(generator("gradients", patient_id))
    rng = generator("depth", slide_id)
    of_tissue = np.full(len(drawn.centres), rng.normal(0, _DEPTH_OF_SLIDE))
    for feature, effect in _DEPTH_OF_TISSUE.items():
        of_tissue += effect * drawn.features[:, FEATURES.index(feature)]
    return Truth(
        genes=table,
        array_xy=drawn.array_xy,
        image_part=shift + _share_budget(table, table.base + drawn.features @ table.visible_slopes.T),
        positional_part=_gradients(drawn.array_xy, common, own) @ table.positional_slopes.T,
        depth_of_tissue=of_tissue,
        depth_by_chance=rng.normal(0, _DEPTH_OF_SPOT, len(drawn.centres)),
    )


def _share_budget(table: Genes, log_rates: np.ndarray) -> np.ndarray:
    """(n_spots, n_genes) the log rates, with the visible genes scaled to take the same part of every spot's RNA.

    Where one visible gene rises the others fall. Otherwise a spot's sum of counts, by which targets divide, would carry
    what the image shows into the genes that do not follow it.
    """
    visible = table.programme == "visible"
    rates = np.exp(log_rates[:, visible]).sum(axis=1)
    budget = _VISIBLE_SHARE * np.exp(table.base).sum()
    shared = log_rates.copy()
    shared[:, visible] += np.log(budget / rates)[:, None]
    return shared


@functools.cache
def slide_counts(slide_id: str) -> np.ndarray:
    """(n_spots, n_genes) int64: the counts of the slide as everybody sees them. Read-only."""
    counts = draw_counts(slide_truth(slide_id), generator("counts", slide_id))
    counts.setflags(write=False)
    return counts


def draw_counts(truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """(n_spots, n_genes) int64: counts of the slide, sampled anew. All that is drawn is the sampling noise."""
    return _negative_binomial(truth.expected, truth.genes.dispersion, rng)


def draw_counts_given_image(truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """As :func:`draw_counts`, but what no image shows is drawn anew too: the gradients, and the chance in depth."""
    gradients = _gradients(truth.array_xy, _draw_gradients(rng), _draw_gradients(rng))
    positional = gradients @ truth.genes.positional_slopes.T
    depth = truth.depth_of_tissue + rng.normal(0, _DEPTH_OF_SPOT, len(gradients))
    return _negative_binomial(np.exp(truth.image_part + positional + depth[:, None]), truth.genes.dispersion, rng)


def _negative_binomial(mean: np.ndarray, dispersion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Counts of mean ``mean`` and variance ``mean + dispersion * mean²``: Poisson with a gamma-distributed rate."""
    shape = np.broadcast_to(1 / dispersion, mean.shape)
    return rng.poisson(mean * dispersion * rng.standard_gamma(shape))


def settings() -> dict[str, object]:
    """The numbers that expression follows, for the key of prepared data."""
    return {
        "genes": {"visible": _VISIBLE, "positional": _POSITIONAL, "noise": _NOISE},
        "base": _BASE,
        "shift": _SHIFT,
        "visible_slope": _VISIBLE_SLOPE,
        "visible_share": _VISIBLE_SHARE,
        "positional_slope": _POSITIONAL_SLOPE,
        "fields": [N_FIELDS, SHARED],
        "dispersion": _DISPERSION,
        "depth": [_DEPTH_OF_SLIDE, _DEPTH_OF_SPOT, _DEPTH_OF_TISSUE],
    }
