"""Running all checks on a method."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..method import Method, MethodConfig
from ..system.calls import Calls
from .checks import (
    constructor_does_no_work,
    declares_itself,
    fits_and_predicts,
    inputs_are_not_modified,
    leaves_the_process_as_it_was,
    no_access_to_test_expression,
    order_of_test_slides_does_not_matter,
    rejects_bad_configs,
    remembers_nothing_between_fits,
    returns_arrays_of_its_own,
    same_seed_same_numbers,
    spots_are_independent_unless_declared,
)
from .inspect import in_one_line
from .robustness import (
    honours_the_device,
    saves_and_loads,
    says_when_not_applicable,
    stops_and_resumes,
    survives_one_spot,
    survives_small_training_slide,
    survives_three_spots,
    survives_unseen_positions,
)
from .subject import CheckFailed, Subject, small_config


@dataclass(frozen=True)
class CheckResult:
    """What one check found."""

    name: str
    passed: bool
    message: str  # what to fix; empty where it passed, or why the check does not apply


def run_checks(method: type[Method], config: MethodConfig | None = None) -> list[CheckResult]:
    """Run every check on a method.

    Parameters
    ----------
    method : type of Method
        The process, its global random state included, is left as it was found, whatever the method does.
    config : MethodConfig, optional
        Without one the method's preset "quick" is taken, with few epochs, small batches and random weights.

    Returns
    -------
    list of CheckResult
        In the order of ``CHECKS``.

    Examples
    --------
    >>> from stbench import registry
    >>> [result.name for result in run_checks(registry.method("training_mean")) if not result.passed]
    []
    """
    return list(each_check(method, config))


def each_check(method: type[Method], config: MethodConfig | None = None) -> Iterator[CheckResult]:
    """The results of :func:`run_checks`, each as soon as it is known."""
    try:
        subject = Subject(method, config or small_config(method))
    except Exception as error:  # noqa: BLE001 - a stranger's method may fail in any way
        yield CheckResult("declares_itself", False, f"no config can be made: {in_one_line(error)}")
        return
    for check in CHECKS:
        yield _run_check(check, subject)


def _run_check(check: Callable[[Subject], str | None], subject: Subject) -> CheckResult:
    try:
        with tempfile.TemporaryDirectory() as place:
            subject.place = Path(place)
            note = Calls(str(subject.method.name))(check.__name__, check, subject)
    except CheckFailed as failure:
        return CheckResult(check.__name__, False, str(failure))
    except Exception as error:  # noqa: BLE001 - a stranger's method may fail in any way
        return CheckResult(check.__name__, False, in_one_line(error))
    return CheckResult(check.__name__, True, note or "")


CHECKS: tuple[Callable[[Subject], str | None], ...] = (
    declares_itself,
    rejects_bad_configs,
    constructor_does_no_work,
    fits_and_predicts,
    same_seed_same_numbers,
    remembers_nothing_between_fits,
    leaves_the_process_as_it_was,
    returns_arrays_of_its_own,
    order_of_test_slides_does_not_matter,
    spots_are_independent_unless_declared,
    inputs_are_not_modified,
    no_access_to_test_expression,
    survives_one_spot,
    survives_three_spots,
    survives_small_training_slide,
    survives_unseen_positions,
    saves_and_loads,
    honours_the_device,
    says_when_not_applicable,
    stops_and_resumes,
)
