"""The numbers of the paper's Table 1."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stbench.system.tables import read_csv


def published() -> pd.DataFrame:
    """Numbers as printed in papers: dataset, split, metric, method, mean, spread, source, note. Shown, never a gate."""
    names = ("dataset", "split", "metric", "method", "source", "note")
    return read_csv(Path(__file__).with_suffix(".csv"), names)  # a spread may be blank
