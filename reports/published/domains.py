"""Agreement of predicted spatial domains with annotations, as papers printed it, slice by slice."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from stbench.system.tables import read_csv

NAMES = ("dataset", "split", "slice", "method", "source", "note")


@cache
def published_domains() -> pd.DataFrame:
    """dataset, split, slice, method, ari, nmi, source, note."""
    return read_csv(Path(__file__).with_suffix(".csv"), NAMES)
