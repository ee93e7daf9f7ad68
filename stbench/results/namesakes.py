"""Two methods of one name: results are told apart by the name, so a results directory takes one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .. import registry
from ..errors import UserError
from ..method import Method
from ..trials.spec import EXTERNAL
from .record import examples


def refuse_namesakes(results: Path, methods: Iterable[tuple[str, type[Method]]]) -> None:
    """``UserError`` where ``results`` has trials of another method of the same name: one would replace the other.

    ``methods``: each with the reference that the registry finds it by.

    The same method is what the registry finds at the same place, whatever became of its code since, or the same code
    elsewhere.
    """
    if not (results / "run.json").is_file():
        return
    named: dict[str, set[tuple[str, type[Method]]]] = defaultdict(set)
    for reference, method in methods:
        named[method.name].add((reference, method))
    for spec in examples(results, apart_from=("fold",)):  # who plans a fold plans all, with the same method
        if spec.method.startswith(EXTERNAL):
            continue
        for reference, method in named.get(spec.name, ()):
            here = registry.origin(reference)
            origin = spec.origin or spec.method  # of an older version: as it was typed
            same_class = origin.rpartition(":")[2] == here.rpartition(":")[2]  # one file may hold several
            same_code = same_class and spec.method_source == registry.source_digest(method)
            if origin in (here, reference) or same_code:
                continue
            raise UserError(
                f"{results} has trials of '{spec.name}' from {origin}, and {here} calls itself '{spec.name}' too - "
                "rename one, or give another --out: results are told apart by the name"
            )
