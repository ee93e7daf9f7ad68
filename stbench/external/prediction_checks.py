"""Signs that predictions made elsewhere are not what they seem: the truth itself, or values on another scale.

Nothing is refused and no number changed. Each sign becomes an :class:`~stbench.scores.alarms.Alarm` of the trial, so
that it stands in the output, in the trial's state and in the report.

The limits leave room for poor predictions on the right scale. On 14 real HER2+ sections, the mean profile of another
patient's section (which knows nothing of the tested one but the scale) was off by 0.31 to 1.31 of the truth's level on
the spot-wise target, and no other scale came nearer than 0.54 times as near.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np

from ..data.targets import TARGETS, Target
from ..scores.alarms import Alarm

SAME = 1e-4  # largest difference that counts as none: predictions are float32, and rounded when they are written
SAME_R = 0.9999  # correlation from which a gene is the truth but for scale
BELOW_SHARE = 1 / 3  # of values below the truth's lowest: standardised values have half of theirs below 0
ABOVE_FACTOR = 2.0  # highest prediction over highest truth
LEVEL_FACTOR = 4.0  # mean prediction over mean truth, or the other way round
NEARER = 1 / 3  # distance to another scale over that to the target's

EQUAL = "predictions equal the truth"
SCALE = "predictions look as if on another scale than the target"

# what is often handed in instead of a target; of counts (n_spots, n_genes) and total counts (n_spots,)
OTHER_SCALES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "raw counts": lambda counts, totals: counts,
    "ln(1 + count)": lambda counts, totals: np.log1p(counts),
    "counts per ten thousand without a logarithm": lambda counts, totals: 1e4 * counts / np.maximum(totals[:, None], 1),
}


def check_prediction(
    name: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    counts: np.ndarray,
    total_counts: np.ndarray,
    n_measured: int,
    target: Target,
) -> Iterator[Alarm]:
    """Alarms on the prediction of slice ``name``.

    ``prediction``, ``truth`` (on ``target``) and ``counts`` are (n_spots, n_genes), of the whole panel, as the other
    scales depend on it; a gene that was not predicted is NaN in every spot. ``total_counts`` (n_spots,) are over all
    ``n_measured`` genes of the slide.
    """
    scales = {target.name: truth.astype(np.float64)}
    scales |= {
        other.name: other(counts, total_counts, n_measured).astype(np.float64)
        for other in TARGETS.values()
        if other is not target
    }
    scales |= {label: scale(counts.astype(np.float64), total_counts) for label, scale in OTHER_SCALES.items()}
    given = ~np.isnan(prediction).any(axis=0)
    prediction = prediction[:, given].astype(np.float64)
    scales = {scale: values[:, given] for scale, values in scales.items()}
    found = yield from _equality(name, prediction, scales)
    if not found:
        yield from _scale(name, prediction, scales, target.name)


def _equality(name: str, prediction: np.ndarray, scales: dict[str, np.ndarray]) -> Generator[Alarm, None, bool]:
    """Whether genes are the measured values, on whatever scale, exactly or but for a factor."""
    stated = next(iter(scales))
    varying = scales[stated].std(axis=0) > 0
    n_varying = int(varying.sum())
    if len(prediction) < 3 or not n_varying:
        return False
    for scale, values in scales.items():
        same = (np.abs(prediction - values) <= SAME * (1 + np.abs(values))).all(axis=0) & varying
        if same.any():
            where = "" if scale == stated else f", on the scale {scale}"
            yield Alarm(
                EQUAL, f"{name}: in {int(same.sum())} of {n_varying} genes every spot has the measured value{where}"
            )
            return True
    r = _correlation(prediction[:, varying], scales[stated][:, varying])
    if (r >= SAME_R).any() and len(prediction) > 3:
        n = int((r >= SAME_R).sum())
        yield Alarm(
            EQUAL, f"{name}: in {n} of {n_varying} genes the prediction is the truth but for its scale (r = 1.000)"
        )
        return True
    return False


def _scale(name: str, prediction: np.ndarray, scales: dict[str, np.ndarray], stated: str) -> Iterator[Alarm]:
    truth = scales[stated]
    level, wanted = float(prediction.mean()), float(truth.mean())
    facts = f"mean {level:.3g}, {prediction.min():.3g} to {prediction.max():.3g}"
    facts += f"; the truth: mean {wanted:.3g}, {truth.min():.3g} to {truth.max():.3g}"
    distance = {
        scale: float(np.abs(prediction.mean(axis=0) - values.mean(axis=0)).mean()) for scale, values in scales.items()
    }
    nearest = min(distance, key=lambda scale: distance[scale])
    below = float((prediction < truth.min()).mean())
    if distance[nearest] < NEARER * distance[stated]:
        yield Alarm(SCALE, f"{name}: the genes' levels are those of {nearest}, not of {stated} ({facts})")
    elif below > BELOW_SHARE:
        yield Alarm(
            SCALE,
            f"{name}: {100 * below:.0f} % of the values are below the truth's lowest, as if standardised ({facts})",
        )
    elif prediction.max() > ABOVE_FACTOR * truth.max() > 0:
        yield Alarm(SCALE, f"{name}: values reach far above what {stated} can have ({facts})")
    elif wanted > 0 and not 1 / LEVEL_FACTOR <= level / wanted <= LEVEL_FACTOR:
        yield Alarm(SCALE, f"{name}: their level is another than that of {stated} ({facts})")


def _correlation(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Pearson's r of each column; 0 where one of the two is constant."""
    left, right = left - left.mean(axis=0), right - right.mean(axis=0)
    norm = np.sqrt((left**2).sum(axis=0) * (right**2).sum(axis=0))
    return np.divide((left * right).sum(axis=0), norm, out=np.zeros(left.shape[1]), where=norm > 0)
