"""Which models predict: folders, or all of one method that a results directory keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError, unknown
from ..results.summary import collect

if TYPE_CHECKING:
    import pandas as pd


def model_directories(given: Sequence[Path], method: str | None) -> list[Path]:
    """The folders that ``given`` stands for; ``method`` chooses in results directories.

    Raises ``UserError`` where a results directory is given without a method, or keeps no model of it.
    """
    of_results = [path for path in given if (path / "run.json").is_file()]
    if method is not None:
        if not of_results:
            raise UserError(
                f"--method {method} chooses in a results directory - give one with --model, or leave it out"
            )
        return models_of(given, [method])
    if of_results:
        names = ", ".join(sorted(set(_kept(of_results[0])["method"])))
        raise UserError(f"{of_results[0]} is a results directory - choose a method of it with --method ({names})")
    return list(given)


def models_of(given: Sequence[Path], methods: Sequence[str] | None) -> list[Path]:
    """The folders that ``given`` stands for: of a results directory every model of ``methods`` (None: of all).

    Raises ``UserError`` where a results directory keeps none of them.
    """
    found: list[Path] = []
    for path in given:
        if not (path / "run.json").is_file():
            found.append(path)
            continue
        kept = _kept(path)
        for method in methods or ():
            if method not in set(kept["method"]):
                raise unknown(f"method with models in {path}", method, set(kept["method"]))
        chosen = kept if methods is None else kept[kept["method"].isin(methods)]
        found += [path / "trials" / key for key in dict.fromkeys(chosen["key"])]
    return found


def _kept(results: Path) -> pd.DataFrame:
    """The summary's rows of trials that kept a model. Raises ``UserError`` where there is none."""
    summary = collect(results)
    kept = summary[[(results / "trials" / key / "model").is_dir() for key in summary["key"]]]
    if kept.empty:
        raise UserError(f"{results} keeps no trained model - run the command again in a new --out with --save-models")
    return kept
