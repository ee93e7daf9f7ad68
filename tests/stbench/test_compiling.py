"""Training steps compiled or not: what is measured, what is chosen, what is recorded, and that no number moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from stbench.errors import Interrupted, UserError
from stbench.method import Run, TrainingSlide, configure
from stbench.results import summary
from stbench.results.tracking import content
from stbench.system.isolation import process_kept
from stbench.torch_method import Batch, SpotBatchConfig, TestBatch, TorchConfig, TorchMethod, TrainingData
from stbench.training import augment, compile_record, compiling
from stbench.training.compile_record import CompileRecord
from stbench.training.compiling import CompiledSteps, MeasuredSteps, Steps
from stbench.trials.state import EndedState

EAGER_S, COMPILE_S = 100.0, 300.0  # of a batch, of a graph, on the clock of these tests


class Config(SpotBatchConfig, TorchConfig):
    epochs: int = 8
    batch_size: int = 6
    lr: float = 1e-2
    patch_px: int = 8
    accumulate: int = 1


class Network(nn.Module):
    """Batch norm and dropout: a batch that were computed twice, or not at all, would show."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.norm, self.dropout, self.head = nn.BatchNorm1d(3), nn.Dropout(0.4), nn.Linear(3, n_genes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(images.amax((2, 3)))))


class Tiny(TorchMethod):
    name: ClassVar[str] = "tiny"
    title: ClassVar[str] = "Tiny"
    Config = Config
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published": {}}
    batching = "spots"
    compiler: Compiler | None = None  # where "auto" measures on a CPU

    def describe(self, data: TrainingData) -> dict[str, Any]:
        return {"n_genes": data.n_genes}

    def network(self, shape: Mapping[str, Any]) -> nn.Module:
        return Network(shape["n_genes"])

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        if self.compiler is not None:
            self.compiler.seconds += EAGER_S
        turned = augment.flip_and_quarter_turn(batch.patches, batch.generator)
        return {"loss": (network(augment.to_float(turned)) - batch.target).square().mean()}

    def optimiser(self, network: nn.Module, device: torch.device) -> Any:
        return torch.optim.AdamW(network.parameters(), self.config.lr), None

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        return network(augment.to_float(batch.patches))

    @property
    def accumulate(self) -> int:
        return self.config.accumulate

    def _compiling(self, network: nn.Module, device: torch.device, run: Run) -> Steps:
        if self.compiler is None:
            return super()._compiling(network, device, run)
        if self.config.compile is True:
            return CompiledSteps(network, device, self.name, self.compiler, self.compiler.clock)
        of_slides = self.batching == "slides"
        return MeasuredSteps(network, device, self.name, run.note, of_slides, self.compiler, self.compiler.clock)


class TinySlides(Tiny):
    batching = "slides"


class Compiler:
    """A compiler of :func:`torch.compile`, and the clock that its networks are timed by."""

    def __init__(self, gain_s: float = 0.0, fails: Callable[[int], bool] = lambda graph: False) -> None:
        self.seconds, self.gain_s, self.fails = 0.0, gain_s, fails
        self.n_graphs = 0
        self.batches: list[int] = []  # sizes of those that went through

    def clock(self) -> float:
        return self.seconds

    def __call__(self, graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        self.n_graphs += 1
        self.seconds += COMPILE_S
        if self.fails(self.n_graphs):
            raise RuntimeError("no kernel\nfor this graph")
        return lambda *values: self.computed(graph, *values)

    def computed(self, graph: torch.fx.GraphModule, *values: Any) -> Any:
        self.seconds -= self.gain_s
        self.batches += [len(value) for value in values if isinstance(value, Tensor) and value.ndim == 4]
        return graph.forward(*values)


@pytest.fixture
def slides(make_training_slides) -> list[TrainingSlide]:
    return make_training_slides(n_slides=4, n_spots=4, n_genes=5, side=8)


def fitted(
    slides: list[TrainingSlide],
    compiler: Compiler | None = None,
    run: Run | None = None,
    kind: type[Tiny] = Tiny,
    **changes: Any,
) -> Tiny:
    method = kind(Config(**{"compile": "auto" if compiler else False} | changes))
    method.compiler = compiler
    method.fit(slides, run or Run(seed=7))
    return method


def assert_same_training(one: Tiny, other: Tiny) -> None:
    for (name, a), (_, b) in zip(one.trained.state_dict().items(), other.trained.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert [row["loss"] for row in one.history] == [row["loss"] for row in other.history]


# What is chosen -------------------------------------------------------------------------------------------------------


def test_the_faster_way_is_measured_and_used_for_the_rest(slides):
    compiler = Compiler(gain_s=4.0)
    method = fitted(slides, compiler)  # 16 spots: batches of 6, 6 and 4, eight times
    record = method.compiled
    assert (record.choice, record.why, record.steps, record.problem) == ("compiled", "faster", 3, "")
    assert (record.eager_s, record.compiled_s) == (EAGER_S, EAGER_S - 4)
    assert record.gain == pytest.approx(0.04)
    # the smaller last batch is another graph; both are told
    assert compiler.n_graphs == 2
    assert record.compile_s == 2 * (COMPILE_S + EAGER_S - 4)
    assert compiler.batches == 6 * [6, 6, 4]  # two epochs as they are, all others compiled
    assert_same_training(method, fitted(slides))


def test_what_does_not_pay_is_left_after_the_measurement(slides):
    compiler = Compiler(gain_s=-1.0)
    method = fitted(slides, compiler)
    record = method.compiled
    assert (record.choice, record.why, record.compiled_s) == ("eager", "not_faster", EAGER_S + 1)
    assert record.gain == pytest.approx(-0.01)
    assert record.compile_s == 2 * (COMPILE_S + EAGER_S + 1)
    assert len(compiler.batches) == 6  # of two epochs
    assert_same_training(method, fitted(slides))


def test_nothing_is_compiled_where_too_little_remains(slides):
    compiler = Compiler(gain_s=4.0)
    method = fitted(slides, compiler, epochs=5)  # after four epochs of measuring three steps would be left
    assert method.compiled == CompileRecord(choice="eager", why="too_short", eager_s=EAGER_S)
    assert not compiler.n_graphs
    assert fitted(slides, compiler, epochs=1).compiled == CompileRecord(choice="eager", why="too_short")


def test_the_rules_are_those_that_are_written_down():
    steps = round(compile_record.EXPECTED_COMPILE_S / compile_record.EXPECTED_GAIN)
    assert [compile_record.worth_trying(n, 1.0) for n in (steps, steps - 1)] == [True, False]
    assert [compile_record.worth_keeping(1.0, seconds) for seconds in (0.98, 0.99)] == [True, False]


def test_every_slide_comes_once_in_what_is_timed(make_training_slides):
    slides = [
        make_training_slides(n_slides=1, n_spots=n_spots, n_genes=5, side=8, seed=n_spots)[0] for n_spots in (3, 5, 9)
    ]
    compiler = Compiler(gain_s=4.0)
    method = fitted(slides, compiler, kind=TinySlides)
    record = method.compiled
    assert (record.choice, record.steps, record.compiled_s) == ("compiled", 3, EAGER_S - 4)
    epochs = [sorted(compiler.batches[start : start + 3]) for start in range(0, len(compiler.batches), 3)]
    assert epochs == 6 * [[3, 5, 9]]
    assert compiler.n_graphs == 2  # the first slide, then any number of spots
    assert_same_training(method, fitted(slides, kind=TinySlides))


def test_blocks_of_spots_leave_out_the_smaller_last_batch(slides, monkeypatch):
    monkeypatch.setattr(compiling, "BLOCK_STEPS", 2)
    compiler = Compiler(gain_s=4.0)
    record = fitted(slides, compiler, batch_size=3).compiled  # batches of 3, 3, 3, 3 and 4
    assert (record.choice, record.steps, record.eager_s, record.compiled_s) == ("compiled", 2, EAGER_S, EAGER_S - 4)


# What goes wrong ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("graph", [1, 2])
def test_a_training_goes_on_from_the_batch_at_which_compiling_failed(slides, graph, accumulate):
    compiler, run = Compiler(fails=lambda n: n == graph), Run(seed=7)
    method = fitted(slides, compiler, run, accumulate=accumulate, epochs=10)
    record = method.compiled
    # three batches are three steps, or two
    assert (record.choice, record.why, record.eager_s) == ("eager", "failed", EAGER_S * (1 if accumulate == 1 else 1.5))
    assert "RuntimeError: no kernel for this graph" in record.problem
    (note,) = run.notes
    assert note.startswith(f"the network could not be compiled ({record.problem})")
    assert "\n" not in note
    assert_same_training(method, fitted(slides, accumulate=accumulate, epochs=10))


def test_a_batch_of_a_size_that_went_well_may_be_compiled_again_and_fail(slides):
    class FailsSecond(Compiler):
        def computed(self, graph: torch.fx.GraphModule, *values: Any) -> Any:
            result = super().computed(graph, *values)
            if self.batches == [6, 6]:
                raise RuntimeError("no kernel for these strides")
            return result

    method = fitted(slides, FailsSecond())
    assert (method.compiled.choice, method.compiled.why) == ("eager", "failed")
    assert_same_training(method, fitted(slides))


class FailingBackward(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        raise RuntimeError("no kernel for the backward")


def test_a_backward_that_cannot_be_compiled_adds_no_gradient_twice(slides):
    class OfForwards(Compiler):
        def computed(self, graph: torch.fx.GraphModule, *values: Any) -> Any:
            return tuple(map(FailingBackward.apply, super().computed(graph, *values)))

    method = fitted(slides, OfForwards(), accumulate=2, epochs=10)
    assert method.compiled.why == "failed"
    assert method.compiled.problem == "no kernel for the backward"
    assert_same_training(method, fitted(slides, accumulate=2, epochs=10))


def test_what_is_not_compilings_fault_is_told_as_without_it(slides):
    class Broken(Tiny):
        def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
            if batch.epoch > 2:
                raise ValueError("a fault of the method")
            return super().loss(network, batch)

    with pytest.raises(ValueError, match="a fault of the method"):
        fitted(slides, Compiler(), kind=Broken)


def test_compiling_that_was_asked_for_and_fails_is_one_line(slides):
    said = r"the network of tiny cannot be compiled \(.*no kernel for this graph\) - .*--set tiny.compile=false"
    with pytest.raises(UserError, match=said) as caught:
        fitted(slides, Compiler(fails=lambda graph: graph == 2), compile=True)
    assert "\n" not in str(caught.value)


# Going on -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [3, 5])
def test_an_interrupted_training_keeps_what_was_decided_and_measures_again_where_nothing_was(slides, tmp_path, epoch):
    asked = iter(range(1, 1000))
    stop = Run(seed=7, checkpoint_directory=tmp_path, should_stop=lambda: next(asked) == 3 * epoch)
    with pytest.raises(Interrupted):
        fitted(slides, Compiler(gain_s=4.0), stop)
    compiler = Compiler(gain_s=1.0)
    method = fitted(slides, compiler, Run(seed=7, checkpoint_directory=tmp_path))
    record = method.compiled
    if epoch == 5:  # four decide it
        assert (record.choice, record.why, record.compiled_s) == ("compiled", "faster", EAGER_S - 4)
        assert record.compile_s == 2 * (COMPILE_S + EAGER_S - 4) + 2 * (COMPILE_S + EAGER_S - 1)
        assert compiler.batches == 3 * [6, 6, 4]
    else:
        assert record == CompileRecord(choice="eager", why="too_short", eager_s=EAGER_S)
    assert_same_training(method, fitted(slides))


def test_another_device_measures_anew(slides):
    steps = MeasuredSteps(Network(5), torch.device("cpu"), "tiny", print, False, Compiler())
    kept = {"record": CompileRecord(choice="eager", why="not_faster").model_dump(), "device": "a card"}
    steps.restore(kept)
    assert steps.to_dict() is None
    steps.restore(kept | {"device": "cpu"})
    assert steps.to_dict() == kept | {"device": "cpu"}


# What is asked and recorded ------------------------------------------------------------------------------------------


def test_a_cpu_compiles_only_where_that_is_asked_for(slides):
    method = fitted(slides, compile="auto", epochs=1)
    assert method.compiled == CompileRecord(choice="eager", why="on_cpu")
    assert fitted(slides, epochs=1).compiled is None
    compiler = Compiler()
    assert fitted(slides, compiler, compile=True, epochs=1).compiled.why == "asked"
    assert compiler.batches == [6, 6, 4]


def test_only_training_is_compiled(slides, hide_expression, tmp_path):
    compiler = Compiler()
    method = fitted(slides, compiler, compile=True, epochs=1)
    plain = fitted(slides, epochs=1)
    n_graphs, test = compiler.n_graphs, hide_expression(slides[0])
    assert (method.predict(test) == plain.predict(test)).all()
    method.save(tmp_path)
    assert (Tiny.load(tmp_path).predict(test) == plain.predict(test)).all()
    assert compiler.n_graphs == n_graphs


def test_settings_of_older_results_are_valid_and_the_default_is_written_as_it_was():
    assert Config().model_dump(mode="json")["compile"] is False
    assert [Config(compile=value).compile for value in (True, False, "auto")] == [True, False, "auto"]
    assert configure(Tiny, changes={"compile": "auto"}).compile == "auto"
    with pytest.raises(UserError, match=r"tiny.compile = 'always' is not valid"):
        configure(Tiny, changes={"compile": "always"})


def test_the_record_stands_in_the_state_of_a_trial(tmp_path):
    record = CompileRecord(choice="compiled", why="faster", eager_s=0.04, compiled_s=0.03, compile_s=80.0, steps=50)
    ended = {"state": "finished", "reason": "", "started": 1.0, "ended": 2.0}
    EndedState(**ended, compiled=record).write(tmp_path)
    text = (tmp_path / "state.json").read_text(encoding="utf-8")
    assert EndedState.model_validate_json(text).compiled == record
    assert EndedState.model_validate(json.loads(text)).compiled.gain == pytest.approx(0.25)
    assert EndedState(**ended).compiled is None  # of a version that recorded none


def test_choice_and_gain_are_told_to_mlflow_and_stand_in_the_summary(tmp_path):
    record = CompileRecord(choice="compiled", why="faster", eager_s=0.04, compiled_s=0.03)
    ended = {"state": "skipped", "reason": "", "started": 1.0, "ended": 2.0}
    state, without = EndedState(**ended, compiled=record), EndedState(**ended)
    spec: Any = SimpleNamespace(name="tiny", weights="none", trained_by="", data=SimpleNamespace(keys={}))
    assert content.tags_of(spec, state)["stbench.compiled"] == "compiled"
    assert "stbench.compiled" not in content.tags_of(spec, without)
    rows = pd.DataFrame(columns=[*content.METRICS, *content.EXCHANGED], dtype=float)
    gains = [
        [point.value for point in content.scores_of(rows, each) if point.name == "compile_gain"]
        for each in (state, without)
    ]
    assert gains == [[pytest.approx(0.25)], []]
    place = summary.PLACE["compiled"]
    assert [summary._with_outcome([summary.BLANK], each, tmp_path)[0][place] for each in (state, without)] == [
        "compiled",
        "",
    ]


# A real compiler -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch's compiler for CPUs writes C++, and there is no g++")
def test_compiled_by_inductor_a_training_differs_by_rounding_alone(slides):
    moved: list[str] = []
    with process_kept(moved.extend, seed=0):
        compiled = fitted(slides, compile=True)
    assert not moved  # which a trial's notes would say of the method
    plain = fitted(slides)  # with dropout: the same masks are drawn
    losses = [[row["loss"] for row in method.history] for method in (compiled, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert list(compiled.trained.state_dict()) == list(plain.trained.state_dict())


@pytest.mark.gpu
def test_on_a_gpu_auto_measures_both_ways(slides, monkeypatch):
    monkeypatch.setattr(compile_record, "EXPECTED_COMPILE_S", 0.0)
    method = fitted(slides, run=Run(seed=7, device="cuda"), compile="auto")
    record = method.compiled
    assert record.why in ("faster", "not_faster")
    assert min(record.eager_s, record.compiled_s, record.compile_s) > 0
    plain = fitted(slides, run=Run(seed=7, device="cuda"))
    losses = [[row["loss"] for row in each.history] for each in (method, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
