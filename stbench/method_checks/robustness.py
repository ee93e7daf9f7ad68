"""Checks of what is rare in a demo and common in a study: few spots, other machines, interruptions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields

import numpy as np

from ..errors import Interrupted, NotApplicable
from ..method import Run
from .inspect import expect_tensors_on, in_one_line, is_pickle, largest_difference
from .subject import CheckFailed, Subject, check_prediction, expect, training_slide


def survives_one_spot(subject: Subject) -> None:
    """A test slide of one spot is predicted."""
    check_prediction(subject.fitted.predict(subject.test(1)), 1)


def survives_three_spots(subject: Subject) -> None:
    """A test slide of three spots is predicted."""
    check_prediction(subject.fitted.predict(subject.test(3)), 3)


def survives_small_training_slide(subject: Subject) -> None:
    """A training slide of three spots beside others, and alone, is learnt from."""
    small = training_slide("A2", "A", 3, subject.window)
    for slides in ([subject.training()[0], small], [small]):
        check_prediction(subject.fit(slides).predict(subject.test()), 6)


def survives_unseen_positions(subject: Subject) -> None:
    """Array and pixel positions far outside those of the training slides (Visium has 78 x 128) are predicted."""
    near = subject.test()
    moved = {item.name: getattr(near, item.name) for item in fields(near)}
    moved |= {"array_xy": near.array_xy + 100, "pixel_xy": near.pixel_xy + 20_000.0}
    try:
        prediction = subject.fitted.predict(type(near)(**moved))
    except Exception as error:
        raise CheckFailed(
            f"array positions above 100 fail where training ended at {subject.training()[0].array_xy.max()}:"
            f" {in_one_line(error)} - size tables of positions generously, or clip to them"
        ) from error
    check_prediction(prediction, 6)


def saves_and_loads(subject: Subject) -> None:
    """What ``load`` returns predicts as what was saved, from another folder, from files without pickled code."""
    saved = subject.place / "saved"
    saved.mkdir()
    subject.fitted.save(saved)
    files = [path for path in saved.rglob("*") if path.is_file()]
    expect(bool(files), "save writes no file - write safetensors, npy and JSON into the folder")
    for path in [] if getattr(subject.method, "reads_own_files", False) else files:
        expect(
            not is_pickle(path), f"save writes {path.name}, a pickle, which can run code when loaded - use safetensors"
        )
    moved = saved.rename(subject.place / "moved")
    loaded = subject.method.load(moved)
    expect(loaded.config == subject.config, "load does not restore the config - save it as JSON beside the weights")
    expect(loaded.weights_label == subject.fitted.weights_label, "load does not restore weights_label - save it")
    prediction = loaded.predict(subject.test())
    check_prediction(prediction, 6)
    expect(
        np.allclose(prediction, subject.prediction, rtol=1e-5, atol=1e-6),
        f"after save and load the prediction differs (by up to {largest_difference(prediction, subject.prediction)})"
        " - save everything that fit learnt (buffers, retrieval keys, normalisation)",
    )


def honours_the_device(subject: Subject) -> str | None:
    """All tensors are where ``run.device`` says; where there is CUDA it is tried as well, with loading to the CPU."""
    expect_tensors_on(subject.fitted, "cpu", "run.device = 'cpu'")
    torch = sys.modules.get("torch")
    if torch is None:
        return "the method does not use torch"
    if not torch.cuda.is_available():
        return "on the CPU only: no CUDA here"
    method = subject.fit(run=Run(seed=1, device="cuda"))
    check_prediction(method.predict(subject.test()), 6)
    expect_tensors_on(method, "cuda", "run.device = 'cuda'", parameters_only=True)
    method.save(subject.place)
    loaded = subject.method.load(subject.place, device="cpu")
    expect_tensors_on(loaded, "cpu", "load(..., device='cpu')")
    check_prediction(loaded.predict(subject.test()), 6)
    return None


def says_when_not_applicable(subject: Subject) -> str | None:
    """Without a training slide of the patient ``NotApplicable`` is raised, or there is a prediction; nothing else."""
    if not subject.needs.same_patient:
        return "does not apply: needs no slide of the same patient"
    try:
        method = subject.new()
        method.fit(subject.training()[2:], Run(seed=1))
        prediction = method.predict(subject.test())
    except NotApplicable as reason:
        expect(bool(str(reason)), "NotApplicable is raised without a reason - say what the fold lacks")
        return None
    check_prediction(prediction, 6)
    return None


def stops_and_resumes(subject: Subject) -> str | None:
    """Asked to stop, ``fit`` saves its state and raises ``Interrupted``; the next fit goes on to the same numbers."""
    if "epochs" not in subject.method.Config.model_fields:
        return "does not apply: the config has no epochs"
    if not getattr(subject.method, "resumes", True):
        return "does not apply: it begins anew after an interruption, as it declares"
    checkpoint = subject.place / "checkpoint"
    epochs: list[int] = []

    def run(should_stop: Callable[[], bool]) -> Run:
        return Run(
            seed=1,
            checkpoint_directory=checkpoint,
            should_stop=should_stop,
            on_log=lambda epoch, values: epochs.append(epoch),
        )

    try:
        subject.fit(run=run(lambda: bool(epochs)))
    except Interrupted:
        pass
    else:
        how = "went on" if epochs else "logged no epoch (call run.log once per epoch) and went on"
        raise CheckFailed(
            f"fit {how} after should_stop() was true - ask run.check_interrupt() after each batch or epoch, save the"
            " state in run.checkpoint_directory and raise run.interrupted(...)"
        )
    before = list(epochs)
    resumed = subject.fit(run=run(lambda: False))
    repeated = sorted(set(before) & set(epochs[len(before) :]))
    expect(not repeated, f"epochs {repeated} ran again after an interruption - go on from the checkpoint")
    prediction = resumed.predict(subject.test())
    expect(
        np.array_equal(prediction, subject.prediction),
        f"a fit that was interrupted and resumed predicts differently (by up to"
        f" {largest_difference(prediction, subject.prediction)}) - the checkpoint must hold weights, optimiser,"
        " schedule and the state of every random generator",
    )
    return None
