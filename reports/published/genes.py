"""The best predicted genes, as papers ranked and printed them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from stbench.system.tables import read_csv

NAMES = ("dataset", "split", "method", "gene", "source", "note")


@cache
def published_genes() -> pd.DataFrame:
    """dataset, split, method, rank, gene, mean_neg_log10_p, source, note."""
    return read_csv(Path(__file__).with_suffix(".csv"), NAMES)
