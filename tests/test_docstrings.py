"""The doors and the numbers are documented as numpydoc has it, and their examples give what they show."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

DOORS = (
    *("method", "torch_method", "dataset", "switches", "errors", "registry"),
    *("training.hooks", "method_checks", "method_checks.battery", "reports"),
)
NUMBERS = ("scores", "statistics")  # every module of them
# no docstring, sections of another name or in another order, parameters that are missing, unknown or in another order,
# a summary that is empty, without a full stop or longer than a line, what is returned or yielded left out
ASKED = {"GL06", "GL07", "GL08", "PR01", "PR02", "PR03", "RT01", "RT03", "SS01", "SS03", "SS06", "YD01"}
FULL = ("torch_method", "training.hooks")  # of these doors every function says its parameters and what it returns
# not asked where one sentence says all: no section of parameters follows, and no number is made of several
BRIEF = {"PR01", "RT01", "YD01"}


def documented_modules() -> list[str]:
    found = [f"stbench.{door}" for door in DOORS]
    for package in NUMBERS:
        places = importlib.import_module(f"stbench.{package}").__path__
        found += [f"stbench.{package}.{module.name}" for module in pkgutil.iter_modules(places)]
    return found


def public(module: ModuleType) -> Iterator[str]:
    """Full names of what a module defines for others: functions, classes, and the methods of classes."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}"
        elif inspect.isclass(value):
            yield f"{module.__name__}.{name}"
            for member, what in vars(value).items():
                if member.startswith("_") or getattr(what, "__name__", "") == "<lambda>":  # a field's default
                    continue
                if inspect.isfunction(what) or isinstance(what, classmethod):
                    yield f"{module.__name__}.{name}.{member}"


@pytest.mark.parametrize("name", documented_modules())
def test_examples_give_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, f"python -m doctest of {name}: see above"


def test_every_statistic_and_every_score_of_arrays_has_an_example() -> None:
    """So many at least: a docstring that lost its examples would pass the test above."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(name) for name in documented_modules()]
    assert sum(bool(found.examples) for module in modules for found in finder.find(module)) >= 45


@pytest.mark.parametrize("module", documented_modules())
def test_docstrings_are_numpydoc(module: str) -> None:
    validate = pytest.importorskip("numpydoc.validate").validate
    wrong = {}
    for name in public(importlib.import_module(module)):
        found = validate(name)
        value = vars(importlib.import_module(module)).get(name.rpartition(".")[2])
        asked = ASKED
        if inspect.isclass(value):
            asked = ASKED - {"PR01", "PR02", "PR03"}  # fields say what they are where they stand
        elif module.removeprefix("stbench.") in FULL:
            asked = ASKED
        elif "Parameters\n----------" not in inspect.cleandoc(found["docstring"]) and not (
            module.split(".")[1] in NUMBERS
            and inspect.isfunction(value)
            and len(inspect.signature(value).parameters) > 1
        ):
            asked = ASKED - BRIEF
        if errors := [text for code, text in found["errors"] if code in asked]:
            wrong[name] = errors
    assert wrong == {}
