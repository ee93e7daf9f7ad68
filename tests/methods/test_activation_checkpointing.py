"""Activation checkpointing of the methods that learn whole slides: the same numbers in less memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stbench.cli.method_choices import choose_methods
from stbench.errors import Interrupted
from stbench.method import Run, configure
from stbench.methods.hist2st import Hist2ST
from stbench.methods.histogene import HisToGene
from stbench.methods.layers import checkpointing
from stbench.methods.layers.whole_slide import WholeSlideMethod
from stbench.methods.thitogene import THItoGene
from stbench.results.plan import described_once
from stbench.system.isolation import process_kept
from stbench.training import step_memory
from stbench.training.step_memory import step_bytes
from stbench.trials.counted import counted_memory

SMALL: dict[type[WholeSlideMethod], dict[str, Any]] = {
    HisToGene: {"width": 32, "n_layers": 2, "heads": 2, "input_px": 8},
    Hist2ST: {"channels": 8, "n_layers": 2, "n_mixers": 2, "heads": 2, "input_px": 14, "copies": 2},
    THItoGene: {
        "n_layers": 2, "heads": 2, "mlp_width": 32, "capsules": 2, "capsule_width": 4, "trunk": (2, 2, 2),
        "graph_heads": 2, "graph_widths": (4, 8),
    },
}  # fmt: skip
every_method = pytest.mark.parametrize("method_class", SMALL, ids=lambda method: method.name)


def small(method_class: type[WholeSlideMethod], **changes: Any) -> WholeSlideMethod:
    known = next(fields for known, fields in SMALL.items() if issubclass(method_class, known))
    fields = known | {"epochs": 2, "lr": 1e-3, "dropout": 0.3} | changes
    return method_class(configure(method_class, "quick", changes=fields))


def assert_same(one: WholeSlideMethod, other: WholeSlideMethod) -> None:
    """Weights, running statistics and how often BatchNorm saw a batch; and every loss of every epoch."""
    states = one.trained.state_dict(), other.trained.state_dict()
    assert list(states[0]) == list(states[1])
    assert [name for name in states[0] if not torch.equal(states[0][name], states[1][name])] == []
    losses = [[{**row, "seconds": 0} for row in method.history] for method in (one, other)]
    assert losses[0] == losses[1]


def stop_after(steps: int) -> Callable[[], bool]:
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= steps


@every_method
def test_what_is_computed_again_has_the_same_numbers(
    method_class: type[WholeSlideMethod], make_training_slides, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = make_training_slides(n_slides=3, n_spots=20)
    plain, again = (small(method_class, activation_checkpointing=setting) for setting in ("off", "on"))
    plain.fit(slides, Run(seed=3))
    parts: list[Any] = []
    checkpoint = checkpointing.checkpoint
    monkeypatch.setattr(
        checkpointing, "checkpoint", lambda part, *rest, **how: parts.append(part) or checkpoint(part, *rest, **how)
    )
    again.fit(slides, Run(seed=3))
    assert len(parts) >= 2 * 3 * 2  # epochs, slides, blocks
    assert_same(plain, again)
    assert (plain.execution, again.execution) == (
        {"activation_checkpointing": "off"},
        {"activation_checkpointing": "on"},
    )


def test_a_training_begun_without_goes_on_with_it(make_training_slides, tmp_path: Path) -> None:
    slides = make_training_slides(n_slides=3, n_spots=20)
    whole = small(Hist2ST, activation_checkpointing="off")
    whole.fit(slides, Run(seed=3))
    begun = small(Hist2ST, activation_checkpointing="off")
    with pytest.raises(Interrupted):
        begun.fit(slides, Run(seed=3, checkpoint_directory=tmp_path, should_stop=stop_after(2)))
    assert (tmp_path / "training.pt").is_file()
    ended, run = small(Hist2ST, activation_checkpointing="on"), Run(seed=3, checkpoint_directory=tmp_path)
    ended.fit(slides, run)
    assert not any("training started from the start" in note for note in run.notes)
    assert [row["epoch"] for row in ended.history] == [1, 2]
    assert_same(whole, ended)


@every_method
def test_auto_takes_it_where_a_step_would_not_fit(
    method_class: type[WholeSlideMethod], make_training_slides, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = make_training_slides(n_slides=2, n_spots=20)
    method = small(method_class, epochs=1)
    assert method.config.activation_checkpointing == "auto"
    size = slides[0].n_spots, len(slides[0].genes)
    moved: list[list[str]] = []
    with process_kept(moved.append):
        needed = step_bytes(method_class, method.config, *size)
    assert not any(moved)  # or a trial would say that its method had
    for share, chosen in ((1.05, "off"), (0.95, "on")):
        free = int(share * needed / 0.75)
        monkeypatch.setattr(checkpointing, "free_memory", lambda device, free=free: free)
        run = Run()
        method.fit(slides, run)
        assert method.execution == {"activation_checkpointing": chosen}
        told = [note for note in run.notes if "computed again in the backward pass" in note]
        assert len(told) == (chosen == "on")
        assert all("a step on the 20 spots of S0 takes about" in note for note in told)


def test_where_there_is_plenty_of_memory_nothing_is_counted(
    make_training_slides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise AssertionError("counted")

    monkeypatch.setattr(checkpointing, "free_memory", lambda device: 2**34)
    monkeypatch.setattr(checkpointing, "step_bytes", refuse)
    method = small(HisToGene, epochs=1)
    method.fit(make_training_slides(n_slides=1), Run())
    assert method.execution == {"activation_checkpointing": "off"}


@every_method
def test_on_a_visium_section_it_saves_what_the_documentation_says(method_class: type[WholeSlideMethod]) -> None:
    kept, again = (
        step_bytes(method_class, configure(method_class, changes={"activation_checkpointing": setting}), 4895, 785)
        for setting in ("off", "on")
    )
    assert again < {Hist2ST: 0.4, HisToGene: 0.7, THItoGene: 0.75}[method_class] * kept
    # what a run is planned with is counted too, at other sizes and once for all
    assert counted_memory(method_class.name, "published", 4895, 785) == pytest.approx(kept, rel=0.07)


def test_a_slide_of_very_many_spots_is_extrapolated(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(HisToGene, "quick", changes={"attention": "explicit", "input_px": 8})  # tables of all pairs
    counted = step_bytes(HisToGene, config, 6000, 20)
    monkeypatch.setattr(step_memory, "LARGEST", 2000)
    assert step_bytes(HisToGene, config, 6000, 20) == pytest.approx(counted, rel=0.02)


def test_what_cannot_be_counted_is_said(make_training_slides, monkeypatch: pytest.MonkeyPatch) -> None:
    class Waits(HisToGene):
        def loss(self, network: torch.nn.Module, batch: Any) -> dict[str, torch.Tensor]:
            losses = super().loss(network, batch)
            assert float(losses["loss"].detach()) >= 0  # asks for a value
            return losses

    monkeypatch.setattr(checkpointing, "free_memory", lambda device: 1)
    run = Run()
    method = small(Waits, epochs=1)
    method.fit(make_training_slides(n_slides=1), run)
    assert method.execution == {"activation_checkpointing": "off"}
    (note,) = [note for note in run.notes if "cannot be counted" in note]
    assert note.endswith("activation_checkpointing = auto is off")


def test_it_is_no_part_of_what_a_trial_is() -> None:
    """A trial that ended without it is not run again with it, and a table has one row for both."""
    (plain,), (asked,) = (
        choose_methods("hist2st", "quick", "demo", changes, None, None)
        for changes in ([], ["hist2st.activation_checkpointing=on"])
    )
    assert (asked.config.activation_checkpointing, asked.variant) == ("on", "")
    specs = [described_once(choice) for choice in (plain, asked)]
    assert [spec.pop("execution") for spec in specs] == [{}, {"activation_checkpointing": "on"}]
    assert specs[0] == specs[1]
    assert "activation_checkpointing" not in specs[0]["config"]


COMPILED_AND_CHECKPOINTED = """
import torch
from stbench.methods.histogene import HisToGeneNetwork
from stbench.methods.layers.checkpointing import checkpoint_activations

found = []
for on, compiled in ((False, False), (True, True)):
    torch.manual_seed(0)
    network = HisToGeneNetwork(8, 5, 8, width=16, n_layers=1, heads=2, head_width=8, dropout=0.3)
    checkpoint_activations(network, on)
    forward = torch.compile(network.forward, backend="aot_eager") if compiled else network.forward
    torch.manual_seed(1)
    loss = forward(torch.linspace(0, 1, 9 * 192).view(9, 192), torch.arange(18).view(9, 2) % 8).square().sum()
    loss.backward()
    found.append([parameter.grad for parameter in network.parameters()])
torch.testing.assert_close(*found)
"""


def test_compiled_networks_may_be_checkpointed() -> None:
    """Parts that are computed again stay as they are; the rest is compiled. In a process of its own: no code can be
    compiled in which lines are counted.
    """
    subprocess.run([sys.executable, "-c", COMPILED_AND_CHECKPOINTED], check=True)
