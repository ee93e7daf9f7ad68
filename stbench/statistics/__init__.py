"""Statistics whose unit is the patient: slices of one patient, and seeds of one slice, are no independent evidence.

All functions take tidy tables of scores with the columns ``entry``, ``slice``, ``patient`` and ``value`` (one row for
each entry and slice, the mean over seeds; ``variance_components`` wants a row for each ``seed`` too) and know nothing
of methods or metrics. ``scipy`` does the arithmetic wherever it has the test.
"""

from .bootstrap import Interval, bootstrap_interval
from .multiple import ahead_of_all, holm
from .paired import Comparison, PairedTest, paired_by_patient, paired_test, patient_differences
from .ranks import Ranks, critical_difference, mean_ranks
from .strata import StratifiedTest, stratified_test
from .variance import VarianceSplit, variance_components
from .wins import win_matrix

__all__ = [
    "Comparison",
    "Interval",
    "PairedTest",
    "Ranks",
    "StratifiedTest",
    "VarianceSplit",
    "ahead_of_all",
    "bootstrap_interval",
    "critical_difference",
    "holm",
    "mean_ranks",
    "paired_by_patient",
    "paired_test",
    "patient_differences",
    "stratified_test",
    "variance_components",
    "win_matrix",
]
