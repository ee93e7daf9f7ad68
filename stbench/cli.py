"""The command line: each command says what it did and where it put it; bad input is one line and exit code 2."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import __version__, registry
from .cli_ablate import ablate
from .cli_audit import audit
from .cli_leaderboard import leaderboard
from .cli_score import score
from .errors import Interrupted, UserError, unknown
from .locate import cache_root, data_root
from .method import MethodConfig, configure

if TYPE_CHECKING:
    import pandas as pd

    from .prepare import PreparedDataset
    from .results import MethodChoice
    from .splits import Fold
    from .trial import DataSpec

app = typer.Typer(
    name="stbench",
    help="From an H&E image, which method predicts spatial gene expression best, by how much, and can it be believed?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="What data are here, whether they are sound, and preparing them.", no_args_is_help=True)
methods_app = typer.Typer(
    help="Which methods there are, their settings, and the checks they must pass.", no_args_is_help=True
)
app.add_typer(data_app, name="data")
app.add_typer(methods_app, name="methods")

SUMMARY_INTERVAL_S = 30.0

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the data; else STBENCH_DATA, else the user's data folder."),
]
DatasetOption = Annotated[
    str, typer.Option("--dataset", metavar="NAME|PATH", help="her2st, cscc, alex10x, demo, or a manifest.")
]
SlicesOption = Annotated[str | None, typer.Option("--slices", metavar="A,B", help="Only these slices.")]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", metavar="random|PATH", help="Encoder weights instead of the published ones.")
]


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 some trial failed or a check did not pass, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # torch's threads spin while they wait for each other; where cores are shared, that makes a step many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(
            [word for word in arguments if word != "--debug"], prog_name="stbench", standalone_mode=False
        )
    except UserError as error:
        if debug:
            traceback.print_exc()
        err.print(f"stbench: {escape(str(error))}", style="red", soft_wrap=True)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt) as pause:
        err.print(
            f"stbench: interrupted ({escape(str(pause)) or 'at once'}); run the same command again to go on",
            soft_wrap=True,
        )
        sys.exit(130)
    except Exception as error:
        # typer's own complaints (unknown option, missing argument) carry their exit code; anything else is a bug
        if not hasattr(error, "exit_code"):
            raise
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if message:
            err.print(f"stbench: {escape(message)} - see 'stbench --help'", style="red", soft_wrap=True)
        sys.exit(error.exit_code)
    sys.exit(code or 0)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out.print(f"stbench {__version__}")
        raise typer.Exit


# run, trial, report, track ------------------------------------------------------------------------------------------


@app.command()
def run(
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B", help="Names, path.py:Class, or all, published, controls.")
    ],
    dataset: DatasetOption,
    split: Annotated[
        str, typer.Option(help="loso (leave one slice out), lopo (one patient), kfold; several with commas.")
    ] = "loso",
    folds: Annotated[int | None, typer.Option(help="Number of folds of kfold (5).")] = None,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds; every trial is run once with each.")] = "0",
    preset: Annotated[
        str, typer.Option(help="published (as the published code), or quick (minutes on a CPU; labelled).")
    ] = "published",
    target: Annotated[
        str, typer.Option(help="Scale that is predicted: spot-log10-cp10k, gene-log10-cp10k, lognorm.")
    ] = "spot-log10-cp10k",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="METHOD.FIELD=VALUE", help="Change a setting; repeatable.")
    ] = None,
    weights: WeightsOption = None,
    encoders: Annotated[
        str | None, typer.Option(metavar="A,B@PATH", help="Run methods with an encoder once with each of these.")
    ] = None,
    slices: SlicesOption = None,
    data: DataOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto (bf16 where the GPU has it), fp32, bf16.")] = "auto",
    engine: Annotated[str, typer.Option(help="Who runs the trials: local.")] = "local",
    results: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Results directory (results/DATASET-PRESET).")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    save_models: Annotated[
        bool, typer.Option("--save-models", help="Keep every trained model in its trial's directory.")
    ] = False,
    mlflow: Annotated[bool, typer.Option(help="Record in MLflow (MLFLOW_TRACKING_URI, else a SQLite file).")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
) -> None:
    """Run methods on a dataset, fold by fold. Running the same command again resumes."""
    setting = Setting(
        dataset=dataset,
        split=split,
        folds=folds,
        seeds=seeds,
        slices=slices,
        data=data,
        device=device,
        precision=precision,
        engine=engine,
        results=results,
        retry_failed=retry_failed,
        save_models=save_models,
        mlflow=mlflow,
        dry_run=dry_run,
    )
    setting.check()
    chosen = _choose_methods(methods, preset, dataset, change or [], weights, encoders)
    run_choices(setting, {target: chosen}, preset)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What commands that run trials have in common, as it was typed."""

    dataset: str
    split: str
    folds: int | None
    seeds: str
    slices: str | None
    data: Path | None
    device: str
    precision: str
    engine: str
    results: Path | None
    retry_failed: bool
    save_models: bool
    mlflow: bool
    dry_run: bool

    def check(self) -> None:
        """Stop, before any work, at what cannot be run."""
        from .training import resolve_device, resolve_precision

        if self.engine != "local":
            raise unknown("engine", self.engine, ["local"])
        if self.folds is not None and "kfold" not in words(self.split, "--split"):
            raise UserError(f"--folds {self.folds} needs --split kfold, not {self.split} - leave one of the two out")
        resolve_precision(self.precision, resolve_device(self.device))  # a device that is not there
        _seeds(self.seeds)


def run_choices(
    setting: Setting,
    chosen: Mapping[str, Sequence[MethodChoice]],
    label: str,
    ablation: Mapping[str, Any] | None = None,
) -> None:
    """Plan and run methods, listed by target; running the same again resumes. Results are in DATASET-``label`` unless
    the setting names a place.
    """
    from .engine import LocalEngine
    from .interrupt import stop_on_signals
    from .progress import ConsoleListener
    from .results import plan, trial_specs, write_summary

    sections = [(_prepared(setting, target), methods) for target, methods in chosen.items()]
    seeds = _seeds(setting.seeds)
    if setting.dry_run:
        _say_folds(setting, [(prepared, methods) for (prepared, _), methods in sections], seeds)
        return
    directory = setting.results or Path("results") / f"{sections[0][0][0].name}-{label}"
    command = "stbench " + shlex.join(sys.argv[1:])
    keys: list[str] = []
    for (prepared, data_spec), methods in sections:
        for split, folds in _folds(setting, prepared).items():
            keys += plan(
                *(directory, prepared, data_spec, methods, folds, split, seeds, command),
                *(setting.device, setting.precision, setting.save_models, ablation),
            )
    for (prepared, _), _ in sections:
        _say_audit(directory, setting, prepared)
    todo = _outstanding(directory, keys, setting.retry_failed)
    labels = {key: spec.label for key, spec in trial_specs(directory).items()}
    feed = _MlflowFeed(directory, enabled=setting.mlflow)
    write_summary(directory)
    written = time.monotonic()

    def after_trial(key: str) -> None:
        nonlocal written
        # the table is derived from all trials: often enough to look at, not so often that it costs more than they do
        if time.monotonic() - written > SUMMARY_INTERVAL_S:
            write_summary(directory)
            written = time.monotonic()

    try:
        with (
            stop_on_signals() as stop,
            ConsoleListener({key: labels[key] for key in todo}, err, after_trial) as listener,
        ):
            LocalEngine().run(directory, todo, listener, stop)
    finally:
        summary = write_summary(directory)
    feed.track()
    _print_summary(summary[summary["key"].isin(keys)])
    out.print(f"results: {directory}   now: stbench report {directory}", soft_wrap=True)
    if (summary.loc[summary["key"].isin(keys), "state"] == "failed").any():
        raise typer.Exit(1)


def _prepared(setting: Setting, target: str) -> tuple[PreparedDataset, DataSpec]:
    """The dataset on a target, prepared, and said in a few lines."""
    from .prepare import prepare
    from .trial import DataSpec

    root = data_root(setting.data)
    opened = registry.dataset(setting.dataset, root)
    prepared = _with_bar(
        "preparing slices", lambda bar: prepare(opened, target, cache_root(), _slices(setting.slices), on_progress=bar)
    )
    _say_once([*prepared.notices, *(note for slide in prepared.slides.values() for note in slide.notes)])
    out.print(
        f"{prepared.title}: {prepared.coverage()} slices, {sum(s.n_spots for s in prepared.slides.values()):,} spots, "
        f"{len(prepared.genes)} genes; target {prepared.target.name}: {prepared.target.formula}",
        soft_wrap=True,
    )
    padded = sum(slide.n_padded for slide in prepared.slides.values())
    if padded:
        out.print(f"note: {padded} patches cross the border of their image; what lies outside is white", style="yellow")
    dataset = setting.dataset
    return prepared, DataSpec(
        dataset=dataset if dataset in registry.dataset_names() else str(Path(dataset).resolve()),
        name=prepared.name,
        root=None if root is None else str(root),
        cache=str(cache_root()),
        target=target,
        keys={name: slide.key for name, slide in prepared.slides.items()},
    )


def _folds(setting: Setting, prepared: PreparedDataset) -> dict[str, list[Fold]]:
    """Split to its folds."""
    from .splits import make_folds

    names = words(setting.split, "--split")
    return {name: list(make_folds(name, prepared.patients, k=setting.folds or 5, seed=0)) for name in names}


def _say_audit(directory: Path, setting: Setting, prepared: PreparedDataset) -> None:
    """Look at the data before anything is trained, and say what a reader of the numbers must know."""
    from .evidence import write_evidence

    opened = registry.dataset(setting.dataset, data_root(setting.data))
    audits = _with_bar(
        "looking at the data:",
        lambda bar: write_evidence(directory, prepared, opened, _folds(setting, prepared), on_progress=bar),
    )
    for found in audits:
        serious = [finding for finding in found.findings if finding.verdict in ("warning", "leak")]
        named = ", ".join(f"{finding.title} ({finding.count}/{finding.of})" for finding in serious)
        out.print(f"audit of {found.split}: {found.badge}{f'; {named}' if named else ''}", soft_wrap=True)


def _say_folds(
    setting: Setting, sections: Sequence[tuple[PreparedDataset, Sequence[MethodChoice]]], seeds: Sequence[int]
) -> None:
    """What a run would do."""
    n_trials = 0
    for prepared, methods in sections:
        for split, folds in _folds(setting, prepared).items():
            n_trials += len(folds) * len(methods) * len(seeds)
            if prepared is sections[0][0]:  # the folds are the same on every target
                for fold in folds:
                    out.print(f"{split}: {fold.statement()}")
    names = dict.fromkeys(choice.method.name for _, methods in sections for choice in methods)
    out.print(f"{n_trials} trials: {', '.join(names)}; seeds {', '.join(map(str, seeds))}", soft_wrap=True)


app.command(name="ablate")(ablate)
app.command(name="audit")(audit)
app.command(name="score")(score)
app.command(name="leaderboard")(leaderboard)


@app.command()
def trial(
    results: Annotated[Path, typer.Argument(metavar="RESULTS")],
    key: Annotated[str, typer.Argument(metavar="KEY")],
) -> None:
    """Run one planned trial, named by its key; what engines call."""
    from .interrupt import stop_on_signals
    from .trial import run_trial

    with stop_on_signals() as stop:
        state = run_trial(results, key, should_stop=stop)
    out.print(f"{key}: {state['state']}{' - ' + escape(state['reason']) if state['reason'] else ''}", soft_wrap=True)
    if state["state"] == "failed":
        raise typer.Exit(1)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS...")],
    directory: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write (RESULTS/report).")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="paper", help="Set the published numbers and claims beside the results.")
    ] = None,
    genes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Genes to draw over the tissue (the best predicted ones).")
    ] = None,
) -> None:
    """Tables, figures and one self-contained HTML page."""
    from stbench.reports import report as make_report

    from .results import read_run, write_summary

    for place in results:
        read_run(place)
        write_summary(place)
    if directory is None and len(results) > 1:
        raise UserError("a report over several results directories needs a place: give --out DIR")
    place = directory or results[0] / "report"
    if compare not in (None, "paper"):
        raise unknown("thing to compare with", compare, ["paper"])
    files = make_report(results, place, compare == "paper", words(genes, "--genes") if genes else ())
    for one in results:
        _MlflowFeed(one, enabled=(one / ".mlflow").is_file()).track(place)
    out.print(f"page:    {files.page}", soft_wrap=True)
    out.print(f"tables:  {place / 'tables'}   figures: {place / 'figures'}", soft_wrap=True)


@app.command()
def track(results: Annotated[list[Path], typer.Argument(metavar="RESULTS...")]) -> None:
    """Record in MLflow what is not recorded yet, e.g. after the server was away."""
    from .tracking import TrackingError, tracking_uri
    from .tracking import track as feed

    for place in results:
        try:
            page = place / "report"
            new = feed(place, page if page.is_dir() else None)
        except TrackingError as error:
            raise UserError(f"{error} - check MLFLOW_TRACKING_URI and run this again") from error
        out.print(f"{place}: {new} trials recorded in {tracking_uri(place)}", soft_wrap=True)


class _MlflowFeed:
    """Feeds MLflow after a run; when it cannot, says so once, and the run goes on."""

    def __init__(self, results: Path, enabled: bool) -> None:
        self.results = results
        self.enabled = enabled

    def track(self, page: Path | None = None) -> None:
        if not self.enabled:
            return
        from .tracking import TrackingError, track, tracking_uri

        (self.results / ".mlflow").touch()  # so that a later report is recorded too
        try:
            track(self.results, page)
        except TrackingError as error:
            err.print(
                f"warning: {escape(str(error))}; the results are safe, 'stbench track {self.results}' catches up",
                style="yellow",
                soft_wrap=True,
            )
        else:
            err.print(f"recorded in MLflow: {tracking_uri(self.results)}", soft_wrap=True)


def _choose_methods(
    names: str, preset: str, dataset: str, changes: list[str], weights: str | None, encoders: str | None
) -> list[MethodChoice]:
    from .results import MethodChoice

    chosen = registry.expand_methods(names)
    fields: dict[str, dict[str, Any]] = {name: {} for name in chosen}
    for change in changes:
        name, field, value = _parse_change(change)
        if name not in fields:
            raise unknown("method in --set", name, chosen, hint="it must be among --methods")
        fields[name][field] = value
    choices: list[MethodChoice] = []
    used = False
    grid = None if encoders is None else [encoder_fields(word) for word in words(encoders, "--encoders")]
    without: list[str] = []
    for name in chosen:
        method = registry.method(name)
        if method.name in [choice.method.name for choice in choices if choice.reference != name]:
            raise UserError(
                f"two of --methods call themselves '{method.name}' - rename one, results are told apart by it"
            )
        has_encoder = "encoder" in method.Config.model_fields
        if grid is not None and not has_encoder:
            without.append(name)
        if grid is not None and "encoder" in fields[name]:
            raise UserError(f"--set {name}.encoder and --encoders both choose an encoder - leave one of the two out")
        for encoder in grid if grid is not None and has_encoder else [{}]:
            own = fields[name] | encoder
            # weights have a column of their own
            labels = fields[name] | {"encoder": encoder["encoder"]} if encoder else fields[name]
            variant = ", ".join(f"{field}={value}" for field, value in labels.items())
            if weights is not None and "weights" in method.Config.model_fields and "weights" not in own:
                own["weights"] = weights
                used = True
            config = configure(method, preset, dataset, own)
            choices.append(MethodChoice(name, method, preset, variant, config))
            require_weights(config)
    if without:
        verb = "has no encoder and is" if len(without) == 1 else "have no encoder and are"
        out.print(f"{', '.join(without)} {verb} run once, whatever --encoders", soft_wrap=True)
    if without == chosen:
        raise UserError(f"--encoders {encoders} changes nothing: none of {', '.join(chosen)} has one - leave it out")
    if weights is not None and not used:
        raise UserError(
            f"--weights {weights} changes nothing: none of {', '.join(chosen)} has an encoder - leave it out"
        )
    return choices


def encoder_fields(word: str) -> dict[str, str]:
    """Settings of ``NAME`` or ``NAME@PATH``, an encoder with the weights of a file."""
    name, at, path = word.partition("@")
    if not name or (at and not path):
        raise UserError(f"'{word}' names no encoder - write NAME, or NAME@PATH for weights of a file")
    return {"encoder": name, "weights": path} if at else {"encoder": name}


def require_weights(*configs: MethodConfig) -> None:
    """Before anything runs: an encoder or weights that cannot be had stop the run with one line."""
    fields = [config.model_dump() for config in configs]
    for name, weights in dict.fromkeys(
        (one["encoder"], one.get("weights", "random")) for one in fields if "encoder" in one
    ):
        from .encoders import build_encoder

        build_encoder(name, weights)


def _parse_change(text: str) -> tuple[str, str, Any]:
    left, equals, value = text.partition("=")
    name, dot, field = left.rpartition(".")
    if not (equals and dot and name and field):
        raise UserError(f"--set {text} is not of the form METHOD.FIELD=VALUE, e.g. --set stnet.epochs=10")
    try:
        return name, field, json.loads(value)
    except json.JSONDecodeError:
        return name, field, value


def words(text: str, option: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UserError(f"{option} is empty - give at least one name")
    if len(set(words)) < len(words):
        raise UserError(f"{option} {text} names something twice - name each once")
    return words


def _slices(text: str | None) -> list[str] | None:
    return None if text is None else words(text, "--slices")


def _seeds(text: str) -> list[int]:
    listed = words(text, "--seeds")
    try:
        return [int(word) for word in listed]
    except ValueError:
        raise UserError(f"--seeds {text} is not a list of whole numbers, e.g. --seeds 0,1,2") from None


def _outstanding(results: Path, keys: list[str], retry_failed: bool) -> list[str]:
    """The trials still to run; says how many are reused."""
    import shutil
    from collections import Counter

    from .trial import FINAL_STATES, state_of

    states = {key: state_of(results, key)["state"] for key in keys}
    if retry_failed:
        for key in [key for key, state in states.items() if state == "failed"]:
            shutil.rmtree(results / "trials" / key)
            states[key] = "pending"
    counts = Counter(states.values())
    todo = [key for key in keys if states[key] not in FINAL_STATES]
    reused = ", ".join(f"{counts[state]} {state}" for state in FINAL_STATES if counts[state])
    again = f"; {counts['interrupted']} go on where they were interrupted" if counts["interrupted"] else ""
    out.print(f"{len(keys)} trials, {len(todo)} to run{again}{'; reused: ' + reused if reused else ''}", soft_wrap=True)
    if counts["failed"] and not retry_failed:
        out.print("failed trials are not run again without --retry-failed", style="yellow")
    return todo


def _print_summary(summary: pd.DataFrame) -> None:
    """Mean over slices a method, with k/n; narrow enough for 80 columns, the full tables are the report's."""
    for (split, target), section in summary.groupby(["split", "target"], sort=False):
        presets = sorted(set(section["preset"]))
        common = f", preset {presets[0]}" if len(presets) == 1 else ""
        title = f"{section['dataset'].iloc[0]}, {split}, {target}{common}: means over finished slices"
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
        table.add_column("method", overflow="fold")
        for name in ("slices", "PCC ACG", "PCC HEG", "MSE", "MAE", "fit s"):
            table.add_column(name, justify="right", no_wrap=True)
        order = section.groupby(["method", "preset", "variant", "weights"], sort=False, dropna=False)
        for (method, preset, variant, weights), rows in order:
            done = rows[rows["state"] == "finished"]
            labels = [
                str(method),
                "(oracle)" if rows["oracle"].any() else "",
                "" if common or preset == "published" else str(preset),
                str(variant),
                "(random weights)" if weights == "random" else "",
            ]
            cells = [_mean(done[metric]) for metric in ("pcc_acg", "pcc_heg", "mse", "mae")]
            name = escape(" ".join(label for label in labels if label))
            table.add_row(
                name,
                f"{len(done)}/{len(rows)}",
                *cells,
                f"{done['fit_s'].sum():.0f}" if done["fit_s"].notna().any() else "-",
            )
        out.print(table)


def _mean(values: pd.Series[float]) -> str:
    """The mean, or a dash where it is undefined for a slice (a constant prediction has no correlation)."""
    return "-" if values.empty or values.isna().any() else f"{values.mean():.4f}"


def _with_bar(text: str, work: Callable[[Callable[[int, int, str], None]], Any]) -> Any:
    from rich.progress import Progress

    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        return work(
            lambda done, total, name: progress.update(task, completed=done, total=total, description=f"{text} {name}")
        )


def _say_once(notes: list[str]) -> None:
    for note in dict.fromkeys(notes):
        err.print(f"note: {escape(note)}", style="yellow", soft_wrap=True)


# data ---------------------------------------------------------------------------------------------------------------


@data_app.command("list")
def data_list(data: DataOption = None) -> None:
    """Every dataset: slices present, spots, genes, place, and how to get what is missing."""
    from .inventory import list_dataset

    root = data_root(data)
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("dataset", "left"), ("title", "left"), ("slices", "right"), ("spots", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("genes", justify="right")
    table.add_column("place", overflow="fold")
    gaps = []
    for name in registry.dataset_names():
        listing = list_dataset(registry.dataset(name, root))
        spots = f"{listing.n_spots:,}" if listing.n_spots else "-"
        place = str(listing.place) if listing.place else ("made when asked for" if listing.present else "-")
        count = f"{len(listing.present)}/{listing.n_expected}"
        table.add_row(name, listing.title, count, spots, str(listing.n_genes), escape(place))
        if listing.missing:
            gaps.append(listing)
    out.print(table)
    out.print(f"looked under: {root or 'nowhere (no --data, no STBENCH_DATA, no user data folder)'}", soft_wrap=True)
    for listing in gaps:
        absent = [gone.id for gone in listing.missing]
        named = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
        out.print(f"[bold]{listing.name}[/bold] lacks {escape(named)}", soft_wrap=True)
        out.print(f"  {listing.missing[0].id}: {escape(listing.missing[0].reason)}", soft_wrap=True)
        out.print(f"  {escape(listing.how_to_get)}", soft_wrap=True)


@data_app.command("check")
def data_check(
    dataset: Annotated[str, typer.Argument(metavar="NAME|PATH")],
    slices: SlicesOption = None,
    data: DataOption = None,
    pictures: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="For the pictures (data-check/NAME).")
    ] = None,
) -> None:
    """Read every slice, validate it, and draw its spots over the tissue."""
    from stbench.reports.slide_picture import draw_slide

    from .inventory import check_dataset

    opened = registry.dataset(dataset, data_root(data))
    place = pictures or Path("data-check") / opened.name
    checked = _with_bar(
        "checking",
        lambda bar: check_dataset(
            opened,
            _slices(slices),
            draw=lambda slide: draw_slide(slide, place / f"{slide.id}.png"),
            on_progress=bar,
        ),
    )
    table = Table(
        title=f"{checked.title}: {len(checked.slices)}/{len(checked.slices) + len(checked.missing)} slices read"
    )
    for heading in ("slice", "patient", "spots", "genes", "µm/px", "image", "padded", "verdict"):
        table.add_column(heading, justify="left" if heading in ("slice", "patient", "image", "verdict") else "right")
    for one in checked.slices:
        size = f"{one.image_level} {one.image_size[0]}x{one.image_size[1]}" if one.image_size else "-"
        verdict = (
            "[red]errors[/red]" if one.errors else ("notices" if one.notices or one.notes else "[green]sound[/green]")
        )
        um = "unknown" if one.um_per_px is None else f"{one.um_per_px:.3f}"
        table.add_row(
            one.id, one.patient, _or_dash(one.n_spots), _or_dash(one.n_genes), um, size, _or_dash(one.n_padded), verdict
        )
    out.print(table)
    for problem in checked.problems:
        out.print(f"{problem.severity}: {escape(problem.text)}", soft_wrap=True)
    for one in checked.slices:
        for kind, texts in (("error", one.errors), ("notice", one.notices), ("note", one.notes)):
            for text in texts:
                named = text if text.startswith(f"{one.id}:") else f"{one.id}: {text}"
                out.print(f"{kind} {escape(named)}", style="red" if kind == "error" else "", soft_wrap=True)
    for gone in checked.missing[:3]:
        out.print(f"missing {gone.id}: {escape(gone.reason)}", soft_wrap=True)
    if len(checked.missing) > 3:
        out.print(f"and {len(checked.missing) - 3} more missing; {escape(opened.how_to_get)}", soft_wrap=True)
    if any(one.picture for one in checked.slices):
        out.print(f"pictures: {place} - look at them: spots must lie on tissue", soft_wrap=True)
    if not checked.sound:
        raise typer.Exit(1)


@data_app.command("prepare")
def data_prepare(
    dataset: Annotated[str, typer.Argument(metavar="NAME|PATH")],
    target: Annotated[str, typer.Option(help="Scale that is predicted.")] = "spot-log10-cp10k",
    slices: SlicesOption = None,
    data: DataOption = None,
) -> None:
    """Cut the patches and compute the target now, so that the first run need not."""
    from .prepare import prepare

    opened = registry.dataset(dataset, data_root(data))
    prepared = _with_bar(
        "preparing slices", lambda bar: prepare(opened, target, cache_root(), _slices(slices), on_progress=bar)
    )
    _say_once([*prepared.notices, *(note for slide in prepared.slides.values() for note in slide.notes)])
    n_spots = sum(slide.n_spots for slide in prepared.slides.values())
    n_padded = sum(slide.n_padded for slide in prepared.slides.values())
    out.print(
        f"{prepared.title}: {prepared.coverage()} slices, {n_spots:,} spots x {len(prepared.genes)} genes, "
        f"patches of {prepared.patch_px} px ({n_padded} cross a border), target {prepared.target.name}",
        soft_wrap=True,
    )
    out.print(f"prepared data: {cache_root()}", soft_wrap=True)


def _or_dash(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


# doctor -------------------------------------------------------------------------------------------------------------


@app.command()
def doctor(data: DataOption = None) -> None:
    """What is installed, which GPU, which data, which pretrained weights: what a bug report needs, in one screen."""
    import importlib.util

    import torch

    from .environment import machine, versions
    from .inventory import list_dataset

    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("versions", ", ".join(f"{name} {number}" for name, number in versions().items()))
    facts.add_row("machine", ", ".join(f"{name} {value}" for name, value in machine().items()))
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts.add_row("GPU", ", ".join(gpus) or "none: everything runs on the CPU, use --preset quick")
    root = data_root(data)
    facts.add_row("data", str(root or "no folder: give --data DIR or set STBENCH_DATA"))
    for name in registry.dataset_names():
        listing = list_dataset(registry.dataset(name, root))
        facts.add_row(f"  {name}", f"{len(listing.present)}/{listing.n_expected} slices")
    facts.add_row("cache", str(cache_root()))
    cached = sorted(path.name for path in Path(torch.hub.get_dir(), "checkpoints").glob("*.pth"))
    facts.add_row(
        "weights", ", ".join(cached) or "none in torch's cache: a first use downloads them, or --weights PATH"
    )
    extras = {"slurm": "submitit", "wsi": "openslide", "spatialdata": "spatialdata"}
    for extra, module in extras.items():
        there = importlib.util.find_spec(module) is not None
        facts.add_row(
            f"extra {extra}", "installed" if there else escape(f"not installed: pip install 'stbench[{extra}]'")
        )
    out.print(facts)


# methods ------------------------------------------------------------------------------------------------------------


@methods_app.command("list")
def methods_list() -> None:
    """The methods that are installed, controls set apart."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "title", "kind", "presets", "sees"):
        table.add_column(heading)
    for name in registry.expand_methods("all"):
        method = registry.method(name)
        presets = ", ".join(dict.fromkeys(["published", *(preset.split("/")[0] for preset in method.presets)]))
        needs = method(configure(method)).needs
        sees = [
            "whole slides" if needs.whole_slide else "single spots",
            *(["a slice of the same patient"] if needs.same_patient else []),
            *(["the test spots' depth (oracle)"] if needs.oracle else []),
        ]
        table.add_row(name, method.title, method.kind, presets, ", ".join(sees))
    out.print(table)
    out.print(
        "groups for --methods: all, published (kind method), controls (kind control); your own: path/to/file.py:Class"
    )


@methods_app.command("show")
def methods_show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    preset: Annotated[str, typer.Option(help="Show the values under this preset.")] = "published",
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="With what the preset changes for this dataset.")
    ] = "",
) -> None:
    """A method's settings: name, value under the preset, what it is and where it comes from."""
    method = registry.method(name)
    config = configure(method, preset, dataset)
    out.print(
        f"[bold]{escape(method.title)}[/bold]  ({method.kind} {method.name})  "
        f"preset {preset}{' for ' + dataset if dataset else ''}"
    )
    summary = (method.__doc__ or "").strip().split("\n\n")[0]
    out.print(escape(" ".join(summary.split())), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column("what it is")
    for field, info in type(config).model_fields.items():
        value = getattr(config, field)
        changed = "" if value == info.default else " *"
        table.add_row(escape(f"{field}"), escape(f"{value}{changed}"), escape(info.description or ""))
    out.print(table)
    out.print(f"* differs from the default; change one with --set {method.name}.SETTING=VALUE", soft_wrap=True)


@methods_app.command("check")
def methods_check(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """The battery of checks that every method must pass, on small made-up slides."""
    from .method_checks import run_checks

    failed = 0
    for name in registry.expand_methods(",".join(names)):
        for result in run_checks(registry.method(name)):
            failed += not result.passed
            verdict = "[green]ok  [/green]" if result.passed else "[red]FAIL[/red]"
            out.print(
                f"{verdict} {name}: {result.name}{'' if result.passed else ' - ' + escape(result.message)}",
                soft_wrap=True,
            )
    if failed:
        out.print(f"{failed} checks did not pass", style="red")
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
