"""What a run will take, as ``--dry-run`` prints it. Nothing is written to the results directory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .console import out
from .costs import duration, say_costs, say_on_a_card
from .planned_on import PlannedOn, on_a_card, planned_on

if TYPE_CHECKING:
    from ..results.plan import Experiment
    from ..trials.cost import Cost
    from ..trials.engines.protocol import Engine
    from ..trials.forecast import Forecast
    from ..trials.spec import TrialSpec
    from .setting import Setting

ORDER = ("finished", "failed", "skipped", "running", "interrupted", "pending")


def forecast_of(
    experiments: Iterable[Experiment], results: Path, engine: Engine, planned: PlannedOn | None = None
) -> Forecast:
    """What the trials of ``experiments`` will take, once it is shown them.

    ``planned``: where they are to run. Default: where the engine will have them run.
    """
    from ..trials.cost import Costs, Size
    from ..trials.forecast import Forecast

    planned = planned or planned_on(engine)

    sizes = {
        slide.key: Size(slide.n_spots, len(experiment.data.genes))
        for experiment in experiments
        for slide in experiment.data.slides.values()
    }
    return Forecast(Costs(results, sizes, planned.on_gpu, _threads(engine), planned.card))


def in_best_order(keys: Sequence[str], forecast: Forecast, engine: Engine) -> list[str]:
    """The longest first, where several run at a time; one after the other, those on the same data follow each other."""
    return list(keys) if _at_a_time(engine) == 1 else forecast.longest_first(keys)


def _at_a_time(engine: Engine) -> int | None:
    """How many trials the engine runs at a time, at most; None where a cluster says."""
    from ..trials.engines.script import ScriptEngine
    from ..trials.engines.serial import SerialEngine
    from ..trials.engines.slots import SlotsEngine
    from ..trials.engines.slurm.engine import SlurmEngine

    if isinstance(engine, SlotsEngine):
        return len(engine.slots)
    if isinstance(engine, SlurmEngine | ScriptEngine):
        return engine.layout.at_a_time
    return 1 if isinstance(engine, SerialEngine) else None


def _threads(engine: Engine) -> int:
    """Cores that each trial has."""
    from ..system.cores import usable_cores
    from ..trials.engines.script import ScriptEngine
    from ..trials.engines.slots import SlotsEngine
    from ..trials.engines.slurm.engine import SlurmEngine

    if isinstance(engine, SlotsEngine):
        return engine.slots[0].threads
    return engine.layout.threads if isinstance(engine, SlurmEngine | ScriptEngine) else usable_cores()


def say_plan(experiments: Sequence[Experiment], results: Path, setting: Setting) -> None:
    """Print the folds, the trials by state, and what those that are still to run will take."""
    from ..results.plan import Execution, specs_of
    from ..trials.state import FINAL_STATES
    from ..trials.survey import states_of

    execution = Execution(results, "", setting.device, setting.precision, setting.save_models)
    engine = setting.engine.build(setting.device)
    planned = planned_on(engine, setting.engine.card, setting.engine.slots_per_gpu or 1)
    forecast = forecast_of(experiments, results, engine, planned)
    none_here = setting.device == "auto" and not planned.on_gpu
    elsewhere = forecast_of(experiments, results, engine, on_a_card()) if none_here else None
    chosen = setting.chosen_folds()
    _say_folds(experiments, chosen)
    kinds: dict[str, str] = {}  # trial to the row of the table that it counts in
    folds: dict[str, str] = {}
    for experiment in experiments:
        for spec in specs_of(experiment, execution):
            forecast.see(spec)
            if elsewhere is not None:
                elsewhere.see(spec)
            kinds[spec.key], folds[spec.key] = _kind(spec), spec.fold
    states = {key: state.state for key, state in states_of(results, kinds)}
    counts: Counter[str] = Counter(states.values())
    out.print("by state: " + ", ".join(f"{counts[state]:,} {state}" for state in ORDER if counts[state]))
    final = {state for state in FINAL_STATES if not (setting.retry_failed and state == "failed")}
    todo = [key for key, state in states.items() if state not in final and (chosen is None or folds[key] in chosen)]
    if not todo:
        out.print("nothing is to be run")
        return
    engine = setting.engine.within_memory(engine, forecast.peak_bytes(todo))
    n_slots = _at_a_time(engine)
    together = forecast.seconds_on(n_slots or 1, in_best_order(todo, forecast, engine))
    at_a_time = f"{n_slots} at a time" if n_slots else "one after the other"
    say_costs(_rows(forecast, todo, kinds), f"roughly {duration(together)}, {at_a_time}", planned)
    if elsewhere is not None:
        say_on_a_card(_rows(elsewhere, todo, kinds), on_a_card())


def _kind(spec: TrialSpec) -> str:
    return " ".join(filter(None, (spec.name, spec.variant)))


def _say_folds(experiments: Sequence[Experiment], chosen: Sequence[str] | None) -> None:
    first = experiments[0]
    for experiment in experiments:
        if experiment.data is first.data:  # the folds are the same on every target
            for fold in experiment.folds:
                if chosen is None or fold.name in chosen:
                    out.print(f"{experiment.split}: {fold.statement()}")
    n_trials = sum(experiment.n_trials for experiment in experiments)
    names = dict.fromkeys(choice.method.name for experiment in experiments for choice in experiment.methods)
    names |= dict.fromkeys(spec.name for experiment in experiments for spec in experiment.models)
    out.print(f"{n_trials:,} trials: {', '.join(names)}; seeds {', '.join(map(str, first.seeds))}", soft_wrap=True)


def _rows(forecast: Forecast, todo: Sequence[str], kinds: Mapping[str, str]) -> dict[str, list[Cost]]:
    """What trials take, by their row of the table."""
    rows: dict[str, list[Cost]] = defaultdict(list)
    for key in todo:
        rows[kinds[key]].append(forecast.cost(key))
    return rows
