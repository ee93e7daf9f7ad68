"""Plan methods on a dataset and run the trials that are not finished yet: what ``run`` and ``ablate`` share."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..data.splits import Fold
from ..data.transfer import ALL, SPLIT
from ..errors import LeftToOthers, PlaceError, UserError
from .console import err, out, with_bar
from .feeding import feeding
from .lists import seed_list
from .method_choices import with_whole_windows
from .outstanding import outstanding
from .planning import forecast_of, in_best_order, say_plan
from .recording import record_in_mlflow, say_recorded
from .setting import Setting, join_setting, prepare_setting
from .summary import print_summary

if TYPE_CHECKING:
    import pandas as pd

    from ..data.prepared import PreparedDataset
    from ..results.plan import Experiment, MethodChoice
    from ..results.run_record import AblationRecord
    from ..trials.engines.protocol import Engine

SUMMARY_INTERVAL_S = 30.0


def run_choices(
    setting: Setting,
    chosen: Mapping[str, Sequence[MethodChoice]],
    label: str,
    ablation: AblationRecord | None = None,
) -> None:
    """Plan methods, listed by the target that they predict, and run what the results directory does not hold yet.

    The directory is ``results/DATASET-LABEL`` unless the setting names another. ``ablation`` is the record of the study
    that the methods are the variants of.
    """
    directory = setting.results or Path("results") / f"{setting.dataset_name()}-{label}"
    require_usable(directory, setting)
    run_experiments(directory, setting, _experiments(setting, chosen, ablation))


def require_usable(directory: Path, setting: Setting) -> None:
    """``UserError`` for results that cannot be gone on with, before anything is prepared."""
    from ..results.record import read_run
    from ..trials.owner import require_free

    if (directory / "run.json").exists():
        read_run(directory)
        if not (setting.dry_run or setting.engine.wait or setting.engine.take_over):
            require_free(directory)


def run_experiments(directory: Path, setting: Setting, experiments: Sequence[Experiment]) -> None:
    """Plan experiments, and run what the results directory does not hold yet; or say what that would take."""
    if setting.dry_run:
        say_plan(experiments, directory, setting)
        _say_memory(setting, experiments)
        return
    command = "stbench " + shlex.join(sys.argv[1:])
    with _owning(directory, command, setting) as taken_away:
        _run_experiments(directory, setting, experiments, command, taken_away)


def _owning(directory: Path, command: str, setting: Setting) -> AbstractContextManager[Callable[[], bool]]:
    from ..trials.owner import owning

    return owning(
        directory,
        command,
        wait=setting.engine.wait,
        take_over=setting.engine.take_over,
        say=lambda line: err.print(line, style="yellow", soft_wrap=True, markup=False, highlight=False),
    )


def _run_experiments(
    directory: Path,
    setting: Setting,
    experiments: Sequence[Experiment],
    command: str,
    taken_away: Callable[[], bool],
) -> None:
    """Plan and run them in a directory that this process owns, until all is done or it is ``taken_away``."""
    from ..results.plan import Execution, plan
    from ..results.summary import superseded

    execution = Execution(directory, command, setting.device, setting.precision, setting.save_models)
    engine = setting.engine.build(setting.device)
    forecast = forecast_of(experiments, directory, engine)
    superseded_before = superseded(directory)
    keys = [key for experiment in experiments for key in plan(experiment, execution, forecast.see)]
    for prepared in {experiment.data_spec.target: experiment.data for experiment in experiments}.values():
        _say_audit(directory, setting, prepared, _folds_of(experiments))
    n_superseded = len(superseded(directory).keys() - superseded_before.keys())
    if n_superseded:
        out.print(
            f"{n_superseded} earlier trials no longer count: the same methods, slices and seeds are planned with other "
            f"code, data or precision (they stay in {directory / 'trials'})",
            style="yellow",
            soft_wrap=True,
            markup=False,
        )
    todo = outstanding(directory, keys, setting.retry_failed, setting.chosen_folds())
    if todo:
        _say_memory(setting, experiments)
    engine = setting.engine.within_memory(engine, forecast.peak_bytes(todo))
    todo = in_best_order(todo, forecast, engine)
    try:
        with feeding(directory, setting.mlflow and bool(todo)) as all_is_fed:
            summary = _run_trials(directory, todo, engine, taken_away)
    except LeftToOthers as left:
        out.print(str(left), soft_wrap=True, markup=False, highlight=False)
        return
    if setting.mlflow and all_is_fed():
        say_recorded(directory)
    elif setting.mlflow:
        record_in_mlflow(directory)
    print_summary(summary[summary["key"].isin(keys)])
    out.print(f"results: {directory}   now: stbench report {shlex.quote(str(directory))}", soft_wrap=True)
    if (summary.loc[summary["key"].isin(keys), "state"] == "failed").any():
        raise typer.Exit(1)


def _say_memory(setting: Setting, experiments: Sequence[Experiment]) -> None:
    """Say which methods cannot hold what they learn from, and will fail, and which may run out of memory."""
    if not setting.engine.runs_here:
        return  # each trial sees where it runs
    from ..training.device import resolve_device
    from ..trials.whole_slide import does_not_fit, too_large

    device = resolve_device(setting.device)
    said: dict[str, None] = {}
    for experiment in experiments:
        for choice in experiment.methods:
            if choice.trained_by is not None:
                continue
            asked = choice.method, choice.config, experiment.data.slides.values(), device
            title = " ".join(filter(None, (choice.method.title, choice.variant)))
            if (reason := too_large(*asked)) is not None:
                said[f"{title} cannot be trained here: {reason}"] = None
            elif (warning := does_not_fit(*asked, setting.engine.slots_per_gpu or 1)) is not None:
                said[f"{title}: {warning}"] = None
    for line in said:
        out.print(line, style="yellow", soft_wrap=True, markup=False)


def _experiments(
    setting: Setting, chosen: Mapping[str, Sequence[MethodChoice]], ablation: AblationRecord | None
) -> list[Experiment]:
    """One for each target and split, in that order."""
    from ..results.plan import Experiment

    seeds = seed_list(setting.seeds)
    experiments = []
    for target, methods in chosen.items():
        if setting.tested is None:
            prepared, data_spec, panel = prepare_setting(setting, target)
            splits = setting.split_folds(prepared)
        else:
            joined = join_setting(setting, setting.tested, target, [choice.config for choice in methods])
            prepared, data_spec, panel = joined.prepared, joined.data_spec, joined.panel
            splits = {SPLIT: [Fold(ALL, joined.tested_slices, joined.training_slices, ())]}
        if setting.patch_um is not None:
            methods = with_whole_windows(methods, prepared.patch_px)
        for split, folds in splits.items():
            experiments.append(Experiment(prepared, data_spec, methods, split, folds, seeds, ablation, panel))
    return experiments


def _run_trials(directory: Path, todo: Sequence[str], engine: Engine, taken_away: Callable[[], bool]) -> pd.DataFrame:
    """Run planned trials and return the summary, which is written however the run ends."""
    from ..errors import Interrupted
    from ..results.record import read_run
    from ..results.summary import SummaryTable
    from ..system.interrupt import stop_on_signals
    from .progress import ConsoleListener

    trials, table = read_run(directory).trials, SummaryTable(directory)
    table.write()
    due = time.monotonic() + SUMMARY_INTERVAL_S

    def after_trial(key: str) -> None:
        nonlocal due
        # the table is derived from all trials: fresh enough to be looked at, but it must not cost more than they do
        began = time.monotonic()
        if began > due:
            table.write()
            due = time.monotonic() + max(SUMMARY_INTERVAL_S, 20 * (time.monotonic() - began))

    try:
        with (
            stop_on_signals() as stop,
            ConsoleListener({key: trials[key].label for key in todo}, err, after_trial) as listener,
        ):
            engine.run(directory, todo, listener, lambda: stop() or taken_away())
    except BaseException as error:
        if isinstance(error, Interrupted) and taken_away():
            raise UserError(f"{directory} was taken over by another command meanwhile: this one has stopped") from error
        with contextlib.suppress(PlaceError):  # report what stopped the run, not that the table cannot be written
            table.write()
        raise
    return table.write()


def _folds_of(experiments: Sequence[Experiment]) -> dict[str, Sequence[Fold]]:
    """Split to its folds, which are the same on every target."""
    return {experiment.split: experiment.folds for experiment in experiments}


def _say_audit(
    directory: Path, setting: Setting, prepared: PreparedDataset, folds: Mapping[str, Sequence[Fold]]
) -> None:
    """Audit the data before anything is trained, and print what a reader of the numbers must know."""
    from ..results.evidence import write_evidence
    from ..results.record import examples

    leaks = {
        f"{spec.title} ({', '.join(filter(None, (spec.preset, spec.variant)))})": spec.leak
        for spec in examples(directory, apart_from=("fold", "seed"))
        if spec.leak and (spec.data.name, spec.data.target) == (prepared.name, prepared.target.name)
    }
    opened, _ = setting.panel_options.open()
    audits = with_bar(
        "auditing the data:",
        lambda bar: write_evidence(directory, prepared, opened, folds, bar, leaks),
    )
    for record in audits:
        serious = [finding for finding in record.findings if finding.verdict in ("warning", "leak")]
        counts = ", ".join(f"{finding.title} ({finding.count}/{finding.of})" for finding in serious)
        out.print(f"audit of {record.split}: {record.badge}{f'; {counts}' if counts else ''}", soft_wrap=True)
