"""Which models predict: folders, or all of one method that a results directory keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError, unknown
from ..results.summary import collect


def model_directories(given: Sequence[Path], method: str | None) -> list[Path]:
    """The folders that ``given`` stands for; ``method`` chooses in results directories.

    Raises ``UserError`` where a results directory is given without a method, or keeps no model of it.
    """
    found: list[Path] = []
    of_results = [path for path in given if (path / "run.json").is_file()]
    if method is not None and not of_results:
        raise UserError(f"--method {method} chooses in a results directory - give one with --model, or leave it out")
    for path in given:
        found += _of_results(path, method) if path in of_results else [path]
    return found


def _of_results(results: Path, method: str | None) -> list[Path]:
    """The trials of a method that count and kept a model, in the order of the summary."""
    summary = collect(results)
    kept = summary[[(results / "trials" / key / "model").is_dir() for key in summary["key"]]]
    if kept.empty:
        raise UserError(f"{results} keeps no trained model - run the command again in a new --out with --save-models")
    if method is None:
        names = ", ".join(sorted(set(kept["method"])))
        raise UserError(f"{results} is a results directory - choose a method of it with --method ({names})")
    if method not in set(kept["method"]):
        raise unknown(f"method with models in {results}", method, set(kept["method"]))
    return [results / "trials" / key for key in dict.fromkeys(kept.loc[kept["method"] == method, "key"])]
