"""What the parts of a look at a GPU measure, on the smallest sections, and what is fitted to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import compiled
import fitted
import gpu
import gpu_tests
import memory_per_spot
import profiled
import published_loop
import slots
from counting import Operation

from stbench.errors import UserError
from stbench.trials.cards import read_cards

BENCHMARKS = Path(gpu.__file__).parent


def test_a_profile_names_kinds_of_kernels(tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    profiled.main(["--device", "cpu", "--tiny", "--methods", "histogene", "--out", str(out)])
    found = json.loads(out.read_text())["methods"]["histogene"]
    assert found["ms_by_kind"]["matrix products"] > 0
    assert found["ms_by_kind"]["optimiser"] > 0
    assert sum(found["ms_by_kind"].values()) == pytest.approx(1e3 * found["busy"] * found["batch_s"])
    assert len(found["top"]) == profiled.TOP


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("sm90_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x128x32", "convolutions"),
        (
            "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_s1688dgrad_tf32_128x128_32x3_nhwc>",
            "convolutions",
        ),
        (
            "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize128x128x8_stage3_warpsize2x2x1_ffma",
            "matrix products",
        ),
        (
            "void at::native::batch_norm_collect_statistics_channels_last_kernel<Var, float>",
            "normalisation",
        ),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::AddFunctor<float>>", profiled.ELEMENTWISE),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy_aligned16_contig<...>", "concatenation"),
        (
            "void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>",
            "optimiser",
        ),
        ("fmha_cutlassF_f32_aligned_64x64_rf_sm80(PyTorchMemEffAttention)", "attention"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("void RNN_blockPersist_fp_LSTM<float, float, float>", "LSTM"),
    ],
)
def test_kernels_are_sorted_by_their_names(kernel: str, kind: str) -> None:
    assert profiled.kind_of(kernel) == kind


def test_a_network_is_compared_with_itself_compiled(tmp_path: Path) -> None:
    """In a process of its own: no code can be compiled in which lines are counted."""
    out = tmp_path / "compiled.json"
    words = ["--device", "cpu", "--tiny", "--methods", "histogene", "--backend", "eager"]
    command = [sys.executable, str(BENCHMARKS / "compiled.py"), *words, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    found = json.loads(out.read_text())["methods"]["histogene"]
    assert found["compiled"]["loss"] == pytest.approx(found["eager"]["loss"], rel=1e-5)
    assert found["compile_s"] > 0  # traced at least
    assert found["ratio"] == pytest.approx(found["eager"]["batch_s"] / found["compiled"]["batch_s"])


def test_a_network_that_cannot_be_compiled_is_told_and_the_next_one_is_tried(tmp_path: Path) -> None:
    out = tmp_path / "compiled.json"
    words = ["--device", "cpu", "--tiny", "--methods", "histogene,thitogene", "--backend", "no_such_compiler"]
    compiled.main([*words, "--out", str(out)])
    found = json.loads(out.read_text())["methods"]
    assert list(found) == ["histogene", "thitogene"]
    assert all("no_such_compiler" in row["error"] for row in found.values())


def test_the_published_loop_sees_every_spot_and_learns() -> None:
    size = replace(gpu.TINY, side=64)
    found = published_loop.rates(size, 1, 200, "cpu", 1)
    assert min(found.loader + found.published + found.harness) > 0
    slides = gpu.made_up_slides(2, 5, 4, 64)
    spots = published_loop.PublishedSpots(slides, 64, 200)
    assert len(spots) == 10
    item = spots[7]
    assert item["image"].shape == (3, 64, 64)
    assert 0 <= float(item["image"].min()) < float(item["image"].max()) <= 1
    assert item["slide"] == 1
    assert np.array_equal(item["target"], slides[1].target[2])


class AnsweringSlot:
    """As a slot's process: it trains its spots in a time that grows with those beside it."""

    def __init__(self, error_beside: int = 99) -> None:
        self.asked: list[dict] = []
        self.error_beside = error_beside
        self.beside: list[AnsweringSlot] = []

    def tell(self, **words: Any) -> None:
        self.asked.append(words)

    def answer(self) -> dict[str, Any]:
        if "start" not in self.asked[-1]:
            return {"ready": True}
        beside = sum(1 for slot in self.beside if slot.asked and slot.asked[-1] == {"start": True})
        if beside >= self.error_beside:
            return {"error": "CUDA out of memory"}
        epochs = self.asked[-2]["epochs"]
        return {"spots": 100 * epochs, "seconds": epochs * (1 + 0.5 * (beside - 1)), "reserved_bytes": 2**30}


def test_memory_is_counted_with_and_without_checkpointing(tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    memory_per_spot.main(["--device", "cpu", "--tiny", "--methods", "thitogene", "--out", str(out)])
    rows = json.loads(out.read_text())["methods"]["thitogene"]
    assert [(row["spots"], row["checkpointing"]) for row in rows] == [(12, "off"), (12, "on"), (24, "off"), (24, "on")]
    kept, again = (sum(row["counted_bytes"] for row in rows if row["checkpointing"] == how) for how in ("off", "on"))
    assert again < kept
    assert all(row["seconds"] > 0 and row["taken_bytes"] is None for row in rows)


def test_a_step_for_which_memory_runs_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: object, *_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(gpu.METHODS["histogene"], "fit", fit)
    found = memory_per_spot.taken("histogene", 12, "off", gpu.TINY, "cpu")
    assert found["error"] == "out of GPU memory (9.00 GiB more were wanted)"
    assert found["counted_bytes"] > 0


def test_slots_side_by_side_are_compared_with_one() -> None:
    several = [AnsweringSlot() for _ in range(4)]
    for slot in several:
        slot.beside = several
        slot.asked = [{}]
    rows = slots.rows_of(several, "stnet", (1,), 4.0)  # type: ignore[arg-type]
    assert rows[0]["epochs"] == round(4.0 / (2.5 / 4))
    assert rows[0]["gain"] == 1.0
    full = [AnsweringSlot(error_beside=1) for _ in range(2)]
    for slot in full:
        slot.beside = full
    assert slots.rows_of(full, "stnet", (1, 2), 4.0) == [{"slots": 1, "error": "CUDA out of memory"}]  # type: ignore[arg-type]


def test_tests_for_a_gpu_are_found_and_kept(tmp_path: Path) -> None:
    found = {path.name for path in gpu_tests.files()}
    own = {path.name for path in (gpu_tests.ROOT / "tests" / "gpu").glob("test_*.py")}
    assert len(own) >= 4
    assert {"test_method_checks.py", *own} <= found
    assert "test_look.py" not in found
    report: dict[str, Any] = {"tests": {}}
    kept = gpu_tests.Kept(tmp_path / "tests.json", report)
    source = tmp_path / "tests" / "test_three.py"
    source.parent.mkdir()
    source.write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 1 == 2, 'one is not two'\n"
        "@pytest.mark.skip(reason='no card')\ndef test_left_out(): pass\n"
    )
    command = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import gpu_tests, pytest, pathlib; "
    command += f"report = {{'tests': {{}}}}; kept = gpu_tests.Kept(pathlib.Path({str(kept.out)!r}), report); "
    command += f"pytest.main(['-q', {str(source)!r}], plugins=[kept])"
    # a worker that counts lines tells pytest in its children to count some, too
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLIPCOVER_")}
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True, cwd=tmp_path, env=environment)
    tests = json.loads(kept.out.read_text())["tests"]
    assert {name.rpartition("::")[2]: test["outcome"] for name, test in tests.items()} == {
        "test_good": "passed",
        "test_bad": "failed",
        "test_left_out": "skipped",
    }
    reasons = {name.rpartition("::")[2]: test["reason"] for name, test in tests.items()}
    assert "one is not two" in reasons["test_bad"]
    assert "no card" in reasons["test_left_out"]


# Counted against measured --------------------------------------------------------------------------------------------


# as the six steps are: bound by products, by convolutions, by traffic, by issuing, and mixed
STEPS = {
    "products": {Operation("mm", 10**12, 10**9): 10, Operation("add", 0, 10**7): 50},
    "convolutions": {Operation("convolution", 10**12, 10**8): 40, Operation("relu", 0, 10**9): 20},
    "traffic": {Operation("add", 0, 10**9): 200, Operation("mm", 10**10, 10**8): 10},
    "issuing": {Operation("add", 0, 10**5): 3000},
    "kernels": {Operation("add", 0, 10**6): 500, Operation("cat", 0, 10**10): 2},
    "mixed": {Operation("mm", 10**11, 10**9): 20, Operation("convolution", 10**11, 10**9): 30},
}


def test_constants_that_made_the_times_are_found_again() -> None:
    today = read_cards()["h200"]
    changed = {"products": 0.5, "convolutions": 0.3, "traffic": 0.6, "host_s": 9e-6}
    true = replace(today, **changed)
    steps = [fitted.Timed(name, operations, 0.0) for name, operations in STEPS.items()]
    steps = [replace(step, seconds=step.modelled(true)) for step in steps]
    fit = fitted.fitted(steps, today)
    assert fit.error_before > 0.2
    assert fit.error < 0.03
    for step in steps:
        assert step.modelled(fit.card) == pytest.approx(step.seconds, rel=0.05)
    for name, value in changed.items():
        assert getattr(fit.card, name) == pytest.approx(value, rel=0.1)
    fast = [replace(step, seconds=step.seconds / 5) for step in steps]
    shares = fitted.fitted(fast, today).card
    assert max(shares.products, shares.convolutions, shares.traffic) <= 1  # of a peak, whatever was measured


def test_a_constant_on_which_nothing_hangs_stays_and_is_named() -> None:
    today = read_cards()["h200"]
    moved = {Operation("add", 0, 10**9): 1000}
    step = fitted.Timed("adder", moved, 2 * fitted.Timed("adder", moved, 0.0).modelled(today))
    fit = fitted.fitted([step], today)
    assert fit.card.traffic == pytest.approx(0.4, rel=0.02)
    assert fit.card.products == pytest.approx(today.products)
    lines = dict(line.split(" = ") for line in fitted.suggestion(fit).split("\n")[1:])
    assert lines["traffic"] == "0.40"
    assert lines["products"].endswith("# hardly determined by these steps")


def test_a_card_is_found_by_its_name_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    assert fitted.card_called("NVIDIA H200").key == "h200"  # type: ignore[union-attr]
    assert fitted.card_called("NVIDIA GeForce RTX 4090").key == "rtx4090"  # type: ignore[union-attr]
    report = {"device": "NVIDIA T4", "torch": "2.15.0", "cuda": "13.2", "precision": "fp32", "steps": 32, "size": {}}
    cost = {"batch_s": 0.1, "bare_batch_s": 0.1, "share": 1.0, "rounds_s": [0.1], "bare_rounds_s": [0.1]}
    cost["peak_memory_bytes"] = 1
    report |= {"meaningless": False, "failed": {}, "methods": {"stnet": cost}}
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(report))
    with pytest.raises(UserError, match=r"cards\.toml is called NVIDIA T4"):
        fitted.main(["--measured", str(path), "--out", str(tmp_path / "out.json")])
