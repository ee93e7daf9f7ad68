"""The checks that every method has to pass, one function each."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import numpy as np

from ..errors import UserError
from ..method import Needs, OracleSlide, Run, configure
from ..registry import changes_at_import
from ..system.calls import Calls
from .inspect import (
    arrays_of,
    digests_of,
    disturb_random_state,
    in_one_line,
    largest_difference,
    random_state,
    tensors_in,
)
from .subject import (
    EXPRESSION,
    CheckFailed,
    Subject,
    WatchedOracleSlide,
    WatchedSlide,
    check_prediction,
    expect,
    take_spots,
    training_slide,
)

UNTYPED = object()  # a value that no typed setting accepts


def declares_itself(subject: Subject) -> None:
    """Names, kind, presets, needs and label are there before fit, as reports and the command line need them."""
    method = subject.method
    expect(
        isinstance(method.name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", method.name) is not None,
        f"name = {method.name!r} - use lower-case letters, digits and underscores",
    )
    expect(isinstance(method.title, str) and bool(method.title), f"title = {method.title!r} - give the name as printed")
    expect(method.kind in ("method", "control"), f"kind = {method.kind!r} - it is 'method' or 'control'")
    for preset in ("published", "quick"):
        expect(
            preset == "published" or preset in method.presets,
            f"presets has no '{preset}' - add it ({{}} where the published settings take minutes anyway)",
        )
    for preset in method.presets:
        name, _, dataset = preset.partition("/")
        try:
            configure(method, name, dataset)
        except UserError as error:
            raise CheckFailed(f"preset '{preset}' does not make a Config: {error}") from error
    fresh = subject.new()
    expect(isinstance(fresh.needs, Needs), f"needs is a {type(fresh.needs).__name__} - return stbench.method.Needs")
    expect(
        not fresh.needs.oracle or method.kind == "control",
        "needs.oracle on a method that is no control - what sees test counts must not compete: set kind = 'control'",
    )
    label = fresh.weights_label
    expect(
        isinstance(label, str) and bool(label),
        f"weights_label = {label!r} before fit - say where pretrained weights come from, or 'none'",
    )


def rejects_bad_configs(subject: Subject) -> None:
    """Unknown settings and values of the wrong type are refused by name; a config does not change."""
    method = subject.method
    try:
        method.Config.model_validate({"no_such_setting": 1})
    except ValueError:
        pass
    else:
        raise CheckFailed(
            "Config accepts the unknown field no_such_setting - derive it from stbench.method.MethodConfig"
        )
    for name in method.Config.model_fields:
        try:
            configure(method, changes=dict(subject.config) | {name: UNTYPED})
        except UserError as error:
            expect(
                f"{method.name}.{name}" in str(error),
                f"a wrong type of setting {name} is refused without naming it: {error}",
            )
        else:
            raise CheckFailed(f"Config accepts any value for {name} - give the field a type")
        try:
            setattr(subject.config, name, getattr(subject.config, name))
        except ValueError:
            continue
        raise CheckFailed(f"config.{name} can be assigned to - derive Config from stbench.method.MethodConfig (frozen)")


def constructor_does_no_work(subject: Subject) -> None:
    """``__init__`` keeps the config and builds nothing: it is called wherever a method is only talked about."""
    before = random_state()
    method = subject.new()
    after = random_state()
    expect(method.config == subject.config, "the constructor does not keep its config - set self.config = config")
    expect(
        all(after[library] == state for library, state in before.items()),
        "the constructor draws random numbers - build networks in fit",
    )
    held = [place for place, _ in tensors_in(vars(method), "self")]
    expect(not held, f"the constructor makes {', '.join(held[:3])} - build networks and arrays in fit")


def fits_and_predicts(subject: Subject) -> None:
    """``predict`` returns finite float32 numbers, (n_spots, n_genes)."""
    check_prediction(subject.fitted.predict(subject.test()), 6)


def same_seed_same_numbers(subject: Subject) -> None:
    """A second fit with the same seed predicts the same, bit for bit, whatever the global random state is."""
    disturb_random_state()
    again = subject.fit().predict(subject.test())
    expect(
        np.array_equal(again, subject.prediction),
        "two fits with one seed predict differently (by up to"
        f" {largest_difference(again, subject.prediction)}) - draw all random numbers from run.numpy_generator,"
        " run.torch_generator or run.derive_seed",
    )


def remembers_nothing_between_fits(subject: Subject) -> None:
    """What another instance learnt, of the test slide even, does not enter: folds and seeds follow in one process."""
    expected = subject.prediction
    truth = training_slide("A3", "A", 6, subject.window)
    subject.fit([truth, *subject.training()]).predict(subject.test(5, "A4"))
    again = subject.fit().predict(subject.test())
    expect(
        np.array_equal(again, expected),
        f"a fit predicts differently after another instance was fitted on other slides (by up to"
        f" {largest_difference(again, expected)}) - keep what is learnt in self, not in the class or the module",
    )


def leaves_the_process_as_it_was(subject: Subject) -> None:
    """No call changes what all methods share: torch's defaults, generators, the working folder, signals, ..."""
    told = [*changes_at_import(subject.method)]
    calls = Calls(subject.method.name, told.append)
    method = calls.guard(calls("its constructor", subject.method, subject.config))
    method.needs, method.weights_label  # noqa: B018 - looking at them is a call, too
    method.fit(subject.training(), Run(seed=1))
    method.predict(subject.test())
    saved = subject.place / "saved"
    saved.mkdir()
    method.save(saved)
    calls.guard(calls("load", subject.method.load, saved)).predict(subject.test())
    expect(
        not told,
        f"{'; '.join(dict.fromkeys(told))} - set it for your own call alone (with torch.no_grad(): ..., a generator of"
        " your own): a run puts it back, so that your next call does not find it either",
    )


def returns_arrays_of_its_own(subject: Subject) -> None:
    """A prediction is not overwritten by the next one."""
    method = subject.fitted
    first = method.predict(subject.test())
    before = np.array(first)
    method.predict(subject.test(5, "A4"))
    expect(np.array_equal(first, before), "the next predict writes into the array returned before - return a copy")


def order_of_test_slides_does_not_matter(subject: Subject) -> None:
    """Predicting one slide leaves nothing behind that changes the prediction of another."""
    method, first = subject.fitted, subject.prediction
    other_first = method.predict(subject.test(5, "A4"))
    after_other = method.predict(subject.test())
    repeated = method.predict(subject.test(5, "A4"))
    expect(
        np.array_equal(after_other, first) and np.array_equal(other_first, repeated),
        "a slide's prediction depends on which slides were predicted before it - let predict change nothing in self"
        " (a network must be in eval mode)",
    )


def spots_are_independent_unless_declared(subject: Subject) -> str | None:
    """Where ``needs.whole_slide`` is false a spot's prediction does not depend on the slide's other spots."""
    if subject.needs.whole_slide:
        return "does not apply: needs.whole_slide"
    alone = np.concatenate([subject.fitted.predict(take_spots(subject.test(), [spot])) for spot in range(6)])
    expect(
        np.allclose(alone, subject.prediction, rtol=1e-3, atol=1e-4),
        f"a spot alone is predicted differently from the same spot within its slide (by up to"
        f" {largest_difference(alone, subject.prediction)}) - declare Needs(whole_slide=True), or find what mixes"
        " spots",
    )
    return None


def inputs_are_not_modified(subject: Subject) -> None:
    """Neither ``fit`` nor ``predict`` writes into the arrays it is given: other trials see them too."""
    training, test = subject.training(), subject.test()
    before = [digests_of(slide) for slide in (*training, test)]
    for slide in (*training, test):
        for array in arrays_of(slide).values():
            array.setflags(write=False)
    advice = "work on a copy (torch.from_numpy shares memory: clone before writing in place)"
    try:
        method = subject.fit(training)
        method.predict(test)
    except (ValueError, RuntimeError) as error:
        if "read-only" not in str(error):
            raise
        raise CheckFailed(f"the method writes into a slide's array: {in_one_line(error)} - {advice}") from error
    for slide, digests in zip((*training, test), before, strict=True):
        changed = [name for name, digest in digests_of(slide).items() if digest != digests[name]]
        expect(not changed, f"the method changes {', '.join(changed)} of slide {slide.id} - {advice}")


def no_access_to_test_expression(subject: Subject) -> None:
    """``predict`` does not ask a test slide for expression; only a declared oracle is told the total counts."""
    plain = subject.test()
    visible: dict[str, Any] = {item.name: getattr(plain, item.name) for item in fields(plain)}
    watched = WatchedOracleSlide(**visible) if isinstance(plain, OracleSlide) else WatchedSlide(**visible)
    failure = ""
    try:
        subject.fitted.predict(watched)
    except AttributeError as error:
        failure = str(error)
    asked = [name for name in watched.asked if name in EXPRESSION]
    expect(
        not asked,
        f"predict asks the test slide for {', '.join(dict.fromkeys(asked))}, which is what it is to predict - use"
        " patches and positions only (a control that must see total counts declares Needs(oracle=True))",
    )
    expect(not failure, f"predict needs what a test slide has not: {failure}")
