"""The history of a training: a row for each epoch, as it comes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path


class History:
    """The training history of one trial: one row per epoch, on disk as it comes, so that a crash loses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[int, dict[str, float]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that a crash cut short; its epoch runs again
                self.rows[int(row.pop("epoch"))] = row
        self._earlier = dict(self.rows)

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        if self._earlier.get(epoch) == dict(values):
            return  # a training that goes on tells again what its checkpoint knew
        self._earlier.pop(epoch, None)  # an epoch after the last checkpoint ran again
        self.rows[epoch] = {**self.rows.get(epoch, {}), **values}
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"epoch": epoch, **values}) + "\n")

    @property
    def seconds_of_earlier_attempts(self) -> float:
        """Training time of the epochs that an earlier attempt completed and this one did not repeat."""
        return float(sum(row.get("seconds", 0.0) for row in self._earlier.values()))

    def write_csv(self, path: Path) -> None:
        import pandas as pd  # here, as who looks at a run imports this module, and starts fast

        table = pd.DataFrame.from_dict(self.rows, orient="index").sort_index()
        table.index.name = "epoch"
        table.to_csv(path)
