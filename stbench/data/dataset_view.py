"""A dataset that is another one but for what its class says."""

from __future__ import annotations

from typing import Any

from ..dataset import Dataset


class DatasetView:
    """Passes on every attribute of ``dataset`` that it does not have itself."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # before __init__, as copies and pickles are made
            raise AttributeError(name)
        return getattr(self._dataset, name)
