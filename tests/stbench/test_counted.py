"""What counted steps say of any size and card, and what trials are planned to take by them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import choice, experiment, made_up_data

from stbench.cli.console import out
from stbench.cli.costs import say_costs, say_on_a_card
from stbench.cli.engine_options import EngineOptions
from stbench.cli.planned_on import PlannedOn, on_a_card, planned_on
from stbench.errors import DamagedFileError, UserError
from stbench.results.plan import Execution, plan
from stbench.results.record import spec_at
from stbench.system.sharing import USABLE as STEP_SHARE
from stbench.training.patch_store import CUDA_SHARE
from stbench.trials.cards import Operations, card_here, card_named, default_card, read_cards
from stbench.trials.cost import REST_S, Costs, Size
from stbench.trials.cost_table import rate
from stbench.trials.counted import along, counted, counted_memory, read_steps, spot_bytes
from stbench.trials.effort import CONTEXT, RESIDENT, USABLE, Effort, Work
from stbench.trials.engines.serial import SerialEngine

PUBLISHED = ("stnet", "histogene", "hist2st", "thitogene", "bleep", "mclstexp")
OURS = Path(__file__).parents[2] / "methods" / "counted.json"
H200 = default_card()
spots = st.integers(1, 20_000)
genes = st.integers(1, 20_000)


# The model of a card --------------------------------------------------------------------------------------------------


def test_a_linear_layer_by_hand() -> None:
    """4096 rows of 1024 numbers times a matrix of 1024 by 2048, in float32: bound by arithmetic on this card."""
    layer = Operations(False, 1, flops=2 * 4096 * 1024 * 2048, n_bytes=4 * (4096 * 1024 + 1024 * 2048 + 4096 * 2048))
    assert (layer.flops, layer.n_bytes) == (17_179_869_184, 58_720_256)
    assert H200.bounds_s(layer) == pytest.approx(
        (17.179869184e9 / (0.75 * 67e12), 58.720256e6 / (0.8 * 4.8e12), 2.5e-6)
    )
    assert H200.gpu_s([layer]) == pytest.approx(341.9e-6, rel=1e-3)
    assert H200.gpu_s([layer], tf32_products=True) == pytest.approx(17.179869184e9 / (0.45 * 494e12))
    assert H200.gpu_s([layer._replace(convolve=True)]) == H200.gpu_s([layer], tf32_products=True)
    assert H200.limit_s([layer]) == pytest.approx(17.179869184e9 / 67e12)
    tiny = Operations(False, 100, flops=0, n_bytes=100)
    assert H200.gpu_s([tiny]) == pytest.approx(100 * 2.5e-6)
    assert H200.step_s([tiny]) == pytest.approx(100 * 5e-6)  # the host is slower
    assert H200.step_s([layer, tiny]) == pytest.approx(H200.gpu_s([layer]) + 100 * 2.5e-6)


# Between and beyond the sizes that were counted -----------------------------------------------------------------------


def test_what_was_counted_is_what_is_said() -> None:
    for step in read_steps(OURS):
        found = counted(step.method, step.preset, step.checkpointing)
        assert found.step_s(H200, step.n_spots, step.n_genes) == pytest.approx(H200.step_s(step.kinds), rel=1e-3)
        # weights outweigh what spots hold in the smallest networks, where that is not quite monotone
        near = 1e-3 if step.preset == "published" else 0.02
        assert found.peak_bytes(step.n_spots, step.n_genes) == pytest.approx(step.own_bytes, rel=near)


@given(st.sampled_from(PUBLISHED), st.sampled_from(["published", "quick"]), spots, spots, genes)
def test_more_spots_never_take_less(name: str, preset: str, one: int, other: int, n_genes: int) -> None:
    fewer, more = sorted((one, other))
    found = counted(name, preset)
    assert 0 < found.step_s(H200, fewer, n_genes) <= found.step_s(H200, more, n_genes) * (1 + 1e-9)
    assert 0 < found.peak_bytes(fewer, n_genes) <= found.peak_bytes(more, n_genes) + 1


@given(st.sampled_from(PUBLISHED), spots, genes, genes)
def test_more_genes_never_take_less(name: str, n_spots: int, one: int, other: int) -> None:
    fewer, more = sorted((one, other))
    found = counted(name, "published")
    assert found.step_s(H200, n_spots, fewer) <= found.step_s(H200, n_spots, more) * (1 + 1e-9)
    assert found.peak_bytes(n_spots, fewer) <= found.peak_bytes(n_spots, more) + 1


def test_a_whole_slide_costs_more_than_its_spots_in_proportion() -> None:
    found = counted("hist2st", "published")
    assert found.step_s(H200, 10_000, 785) > 2.5 * found.step_s(H200, 5000, 785) > 5 * found.step_s(H200, 1800, 785)


@given(st.floats(1, 100), st.floats(0, 1), st.floats(0, 0.1))
def test_a_quadratic_function_goes_on_as_one(start: float, slope: float, bend: float) -> None:
    def value(x: float) -> float:
        return start + slope * x + bend * x * x

    points = [(x, value(x)) for x in (10, 30, 70)]
    for x in (70, 71, 100, 1000):
        assert along(points, x) == pytest.approx(value(x))
    for x in range(11, 70):
        assert value(x) - 1e-9 <= along(points, x) <= value(x) + bend * 400 + 1e-6
    assert along([(10, 5.0)], 20) == 10.0
    assert along([(10, 1.0), (20, 11.0)], 5) == 0.5  # the line would be below nothing


def test_a_preset_without_counts_of_its_own_counts_as_the_published_one() -> None:
    assert counted("mclstexp", "paper") is counted("mclstexp", "published")
    assert counted("bleep", "released") is not counted("bleep", "published")
    assert counted("training_mean", "published") is None
    assert counted_memory("somebody_elses", "published", 100, 100) is None


def test_a_package_of_somebody_elses_has_counts_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "counted_plugin"
    (package / "inner").mkdir(parents=True)
    for folder in (package, package / "inner"):
        (folder / "__init__.py").touch()
    (package / "inner" / "mine.py").write_text("raise AssertionError('nobody imports the method')", encoding="utf-8")
    steps = [step for step in read_steps(OURS) if step.method == "stnet" and step.preset == "published"]
    lines = [step.model_copy(update={"method": "counted_mine"}).model_dump_json() for step in steps]
    (package / "counted.json").write_text(f'{{"torch": "2", "steps": [{", ".join(lines)}]}}', encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = EntryPoint("counted_mine", "counted_plugin.inner.mine:Mine", "stbench.methods")
    monkeypatch.setattr("stbench.trials.beside.entry_points", lambda group, name: [mine] if name == mine.name else [])
    assert counted_memory("counted_mine", "mine", 77, 785) == counted_memory("stnet", "published", 77, 785)


def test_a_file_of_counts_that_is_none_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "counted.json"
    for text, why in (("{}", "holds no steps"), ('{"steps": [{"method": "a"}]}', "counted.json: .*--update writes it")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(DamagedFileError, match=why):
            read_steps(path)


# What is planned by it ------------------------------------------------------------------------------------------------


SIZES = (361, 1100, 700, 40)  # of S0, S1, S2, S3


def planned_costs(results: Path, name: str, card: str = "h200", **changes: object) -> tuple[Costs, list]:
    data = made_up_data(len(SIZES), SIZES)
    keys = plan(experiment(data, [choice(name, **changes)]), Execution(results, "stbench run", "cuda"))
    sizes = {slide.key: Size(slide.n_spots, 785) for slide in data.slides.values()}
    (results / "run.json").unlink()  # where slides have two genes
    costs = Costs(results, sizes, card=card_named(card))
    return costs, [spec_at(results, key) for key in keys]


def test_a_run_of_a_whole_slide_method_is_the_sum_over_folds_epochs_and_slides(tmp_path: Path) -> None:
    costs, specs = planned_costs(tmp_path, "hist2st")
    found = counted("hist2st", "published")
    epochs = specs[0].config["epochs"]
    steps = {n: found.step_s(H200, n, 785) for n in SIZES}
    expected = 0.0
    for held_out in SIZES:
        expected += epochs * sum(steps[n] for n in SIZES if n != held_out) + 2 * steps[held_out] / 3 + REST_S
    assert sum(costs.of(spec).seconds for spec in specs) == pytest.approx(expected)
    largest = max(costs.of(spec).gpu_memory_bytes for spec in specs)
    data = sum(SIZES) * (3 * 112**2 + 8 * 785)
    assert largest == counted_memory("hist2st", "published", 1100, 785) + data + CONTEXT


def test_a_run_of_batches_is_the_sum_over_them(tmp_path: Path) -> None:
    costs, specs = planned_costs(tmp_path, "bleep", weights="random", batch_size=100)
    found = counted("bleep", "published")
    train = sum(SIZES[1:])  # 1840: eighteen batches and one of 40, of which four are a step of the optimiser
    epoch = (18 * found.step_s(H200, 100, 785) + found.step_s(H200, 40, 785)) / 4
    predicted = (3 * found.step_s(H200, 100, 785) + found.step_s(H200, 61, 785)) / 4
    assert train == 1840
    assert costs.of(specs[0]).seconds == pytest.approx(50 * epoch + 2 * predicted / 3 + REST_S)
    assert (
        costs.of(specs[0]).seconds
        < planned_costs(tmp_path / "l", "bleep", "l40s", weights="random")[0].of(specs[0]).seconds
    )


def test_precision_and_card_count(tmp_path: Path) -> None:
    costs, (spec, *_) = planned_costs(tmp_path, "histogene")
    in_tf32 = replace(spec, precision="tf32")
    assert costs.of(in_tf32).seconds - REST_S < (costs.of(spec).seconds - REST_S) / 2
    assert costs.of(in_tf32).gpu_memory_bytes == costs.of(spec).gpu_memory_bytes


def test_patches_that_do_not_fit_come_batch_by_batch() -> None:
    effort = Effort(rate("stnet", "published"), counted("stnet", "published"), card_named("rtx4090"))
    few = Work(train=(1000,), test=(100,), n_genes=785, epochs=1, batch_size=32)
    many = few._replace(train=(1000,) * 300)
    step = counted_memory("stnet", "published", 32, 785) + CONTEXT
    assert effort.gpu_bytes(few) == step + 1100 * spot_bytes(224, 785)
    assert effort.gpu_bytes(many) == step + 2 * 32 * spot_bytes(224, 785)
    assert RESIDENT == CUDA_SHARE
    assert STEP_SHARE["cuda"] == USABLE


def test_a_slide_that_is_too_large_for_the_card_is_computed_again_in_the_backward_pass() -> None:
    """As ``activation_checkpointing = auto`` does; it takes less memory, and longer."""
    kept, again = (counted("hist2st", "published", checkpointing) for checkpointing in (False, True))
    small, large = (Effort(rate("hist2st", "published"), kept, card_named(card), again) for card in ("rtx4090", "h200"))
    visium = Work(train=(4800,) * 3, test=(4800,), n_genes=785, epochs=1, checkpointing="auto")
    assert large.steps(visium) is kept
    assert small.steps(visium) is again
    assert small.steps(visium._replace(train=(400,) * 3)) is kept
    assert small.steps(visium._replace(checkpointing="off")) is kept
    assert large.steps(visium._replace(checkpointing="on")) is again
    assert (
        small.gpu_bytes(visium) < card_named("rtx4090").memory < small.gpu_bytes(visium._replace(checkpointing="off"))
    )
    assert small.fit_s(visium, on_gpu=True) > small.fit_s(visium._replace(checkpointing="off"), on_gpu=True)


# Which card -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program of that name at the front of PATH, which knows the GPUs that it is told: index, UUID, MiB, name."""

    def install(listing: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}\nEND\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr("stbench.trials.cost_table.has_gpu", lambda: True)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def test_the_card_that_is_here_is_counted_with(
    nvidia_smi: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi("0, GPU-11, 40960, NVIDIA A100-SXM4-40GB\n1, GPU-22, 24564, NVIDIA GeForce RTX 4090")
    found = planned_on(SerialEngine())
    assert (found.on_gpu, found.card.key, found.card.memory, found.note) == (True, "a100", 40960 * 2**20, "")
    for given_to_cuda in ("1", "GPU-2"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given_to_cuda)
        assert planned_on(SerialEngine()).card.key == "rtx4090"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    assert "cannot be seen" in card_here().note


def test_a_card_that_the_table_has_not_is_said(nvidia_smi: Callable[[str], None]) -> None:
    nvidia_smi("0, GPU-11, 15360, Tesla T4")
    found = planned_on(SerialEngine())
    assert (found.on_gpu, found.card) == (True, H200)
    assert found.note.startswith("the table of cards has no Tesla T4, so this one was taken: --card")
    assert planned_on(SerialEngine(), "l40s") == PlannedOn(True, read_cards()["l40s"])


def test_jobs_have_the_card_that_is_named() -> None:
    options = EngineOptions(engine="script", slurm=["gpus=1"])
    options.check("auto")
    found = planned_on(options.build("auto"))
    assert (found.on_gpu, found.card) == (True, H200)
    assert "--card" in found.note
    assert not planned_on(EngineOptions(engine="script").build("auto")).on_gpu
    assert EngineOptions(engine="script", card="a100").build("auto").layout.card == "a100"  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="unknown card 'h20' - did you mean 'h200'"):
        EngineOptions(card="h20").check("auto")


# What is printed ------------------------------------------------------------------------------------------------------


def test_it_is_said_for_which_card_was_counted_and_what_has_no_room(tmp_path: Path) -> None:
    costs, specs = planned_costs(tmp_path, "mclstexp", "rtx4090", weights="random", batch_size=256)
    rows = {"mclstexp": [costs.of(spec) for spec in specs]}
    with out.capture() as told:
        say_costs(rows, "roughly 1 h", PlannedOn(True, costs.card))
    text = " ".join(told.get().split())
    assert "counted for an NVIDIA RTX 4090, not measured" in text
    assert "warning: mclstexp needs 33." in text
    assert "an NVIDIA RTX 4090 has 22.4 GiB" in text
    assert "GPU hours" in text
    assert "a table" not in text
    with out.capture() as told:
        say_costs(rows, "roughly 1 h", PlannedOn(True, H200, at_a_time=4))
    assert "4 at a time 13" in " ".join(told.get().split())
    with out.capture() as told:
        say_on_a_card(rows | {"other": [replace(rows["mclstexp"][0], basis="table")]}, on_a_card())
    text = " ".join(told.get().split())
    assert "not counted: the trials of other methods, 1 in all" in text
    assert "counted for an NVIDIA H200, not measured" in text
