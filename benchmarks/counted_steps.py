"""What is counted of each method, and the files that hold it: ``methods/counted.json``, from which runs are planned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import stbench  # noqa: F401 - before torch, which reads then how its threads are to wait

# isort: split

import torch
from counted_step import Counts, Step, harness
from counting import exactly
from plain_step import METHODS, configured

from stbench.errors import DamagedFileError, UserError
from stbench.system.files import read_object, write_text
from stbench.trials.cards import alike, default_card
from stbench.trials.counted import CountedStep, read_steps

TORCH = torch.__version__.partition("+")[0]
COUNTED = Path(__file__).parents[1] / "methods" / "counted.json"
SPOTS, GENES = 361, 785  # of a mean section of HER2+, and its panel
OTHER_GENES = (100, 4000)
SLIDES = (50, SPOTS, 1000, 2500, 5000)  # spots: from a section of HER2+ to one of Visium, of which all spots are tissue
BATCHES = (8, 32, 128, 256)
NOTHING = 0.02  # share of time and memory by which presets may differ and count as one


def batch_of(name: str, preset: str) -> int | None:
    """Spots in a batch; ``None`` where a method learns a whole slide at a time."""
    method = configured(name, preset, {})
    return method.batch_size if method.batching == "spots" else None


def typical(name: str, preset: str) -> Step:
    """The step that tables show: a section of HER2+, or a batch of the method's own size."""
    return Step(name, preset, batch_of(name, preset) or SPOTS, GENES)


def sizes(first: Step) -> Iterator[Step]:
    """All that is counted of a method and preset: ``first``, then other sizes with as many genes, then more genes."""
    yield first
    whole = batch_of(first.method, first.preset) is None
    for n_spots in SLIDES if whole else BATCHES:
        if n_spots != first.n_spots:
            yield replace(first, n_spots=n_spots)
    for n_genes in OTHER_GENES:
        for n_spots in (SPOTS, 2500) if whole else (32, 128):
            yield replace(first, n_spots=n_spots, n_genes=n_genes)


def step_of(counted: CountedStep) -> Step:
    """What was counted."""
    return Step(counted.method, counted.preset, counted.n_spots, counted.n_genes, counted.checkpointing)


def counted_step(step: Step, counts: Counts) -> CountedStep:
    """``counts`` of the harness's step, as the package keeps them."""
    method = configured(step.method, step.preset, {})
    return CountedStep(
        **asdict(step),
        batching=method.batching,
        input_px=method.input_px,
        accumulate=method.accumulate,
        operations=counts.n,
        flops=counts.flops,
        n_bytes=counts.n_bytes,
        peak_bytes=counts.peak_bytes,
        kinds=tuple(alike(exactly(counts.operations))),
    )


def count_all(names: Iterable[str]) -> Iterator[CountedStep]:
    """Every size of the published preset of ``names``, and of every other that costs something else."""
    for name in names:
        published = _counted(first := typical(name, "published"))
        yield from _others(first, published)
        if "activation_checkpointing" in METHODS[name].Config.model_fields:
            yield from map(_counted, sizes(replace(first, checkpointing=True)))
        for preset in METHODS[name].presets:
            if preset == "published" or "/" in preset:
                continue
            at_that_size = replace(first, preset=preset)
            found = _counted(at_that_size)
            if _costs_otherwise(found, published):
                yield from _others(at_that_size, found)


def _costs_otherwise(step: CountedStep, published: CountedStep) -> bool:
    """Whether it is worth lines of its own: of what has none, the published preset's are taken."""
    if (step.input_px, step.accumulate) != (published.input_px, published.accumulate):
        return True
    card = default_card()
    seconds = card.step_s(step.kinds) / card.step_s(published.kinds)
    return max(abs(seconds - 1), abs(step.peak_bytes / published.peak_bytes - 1)) > NOTHING


def _others(first: Step, found: CountedStep) -> Iterator[CountedStep]:
    yield found
    for step in sizes(first):
        if step != first:
            yield _counted(step)


def _counted(step: Step) -> CountedStep:
    return counted_step(step, harness(step))


def update(names: Sequence[str], path: Path = COUNTED) -> int:
    """Count ``names`` anew and keep what the file holds of others, if it was counted with this torch; how many steps.

    All are counted where it was another, as steps of two versions are no table.
    """
    kept: list[CountedStep] = []
    if path.exists() and torch_of(path) == TORCH:
        kept = [step for step in read_steps(path) if step.method not in names]
    else:
        names = list(METHODS)
    order = list(METHODS)
    steps = sorted([*kept, *count_all(names)], key=lambda step: order.index(step.method))
    write(path, steps)
    return len(steps)


def write(path: Path, steps: Iterable[CountedStep]) -> None:
    """A step on a line, so that what changed is seen."""
    lines = ",\n".join(step.model_dump_json() for step in steps)
    write_text(path, f'{{"torch": {json.dumps(TORCH)}, "steps": [\n{lines}\n]}}\n')


def torch_of(path: Path) -> str:
    """The version of torch that a file was counted with."""
    try:
        return str(read_object(path)["torch"])
    except KeyError as error:
        raise DamagedFileError(f"{path} does not say which torch it was counted with - make it by --out") from error


def read_counts(path: Path) -> list[CountedStep]:
    """The steps of a file that ``--out`` or ``--update`` wrote.

    Raises ``UserError`` if it is none, or was counted with another version of torch, which may issue other operations.
    """
    try:
        steps = list(read_steps(path))
    except UserError as error:
        raise UserError(f"{path} holds no counts of benchmarks/roofline.py ({error})") from error
    if torch_of(path) != TORCH:
        raise UserError(f"{path} was counted with torch {torch_of(path)}, this is {TORCH} - count it anew by --out")
    return steps
