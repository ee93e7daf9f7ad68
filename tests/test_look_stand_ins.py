"""What the parts of a look at a GPU do there and not on a CPU, with stand-ins for what a card and its driver answer."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu
import machine
import precision
import profiled

from stbench.system.precision import tf32_flags
from stbench.system.torch_state import torch_precisions


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A card as torch and ``nvidia-smi`` tell of one; the program can be written anew."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    memory = SimpleNamespace(total_memory=150_754_820_096)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: memory)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.159.03\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program


def test_a_card_is_told_with_its_driver(card: Path) -> None:
    found = machine.facts("cuda:0")
    assert found["device"] == "NVIDIA H200"
    assert found["capability"] == [9, 0]
    assert found["driver"] == "580.159.03"
    assert machine.in_words(found).startswith("NVIDIA H200 (140 GiB), driver 580.159.03, torch ")
    for worse in ("exit 9", "echo"):
        card.write_text(f"#!/bin/sh\n{worse}\n")
        assert machine.facts("cuda:0")["driver"] == "unknown"
    card.unlink()
    assert machine.facts("cpu")["driver"] is None


def event(key: str, us: float, count: int, on_gpu: bool = True, annotation: bool = False) -> Any:
    device = DeviceType.CUDA if on_gpu else DeviceType.CPU
    times = {"self_device_time_total": us if on_gpu else 0.0, "self_cpu_time_total": 0.0 if on_gpu else us}
    return SimpleNamespace(key=key, count=count, device_type=device, is_user_annotation=annotation, **times)


def test_kernels_launches_and_waits_are_told_apart() -> None:
    events = [
        event("sm90_xmma_fprop_implicit_gemm_tf32f32", 6000.0, 40),
        event("void at::native::vectorized_elementwise_kernel<4, add>", 2000.0, 80),
        event("Optimizer.step#Adam.step", 8000.0, 4, annotation=True),  # spans kernels that are there already
        event("aten::conv2d", 500.0, 40, on_gpu=False),
        event("cudaLaunchKernel", 300.0, 120, on_gpu=False),
        event("cudaStreamSynchronize", 10.0, 3, on_gpu=False),
    ]
    found = profiled.summed(events, True, 0.01)
    assert found["busy"] == pytest.approx(0.8)
    assert found["kernels"] == 120 / profiled.BATCHES
    assert found["launches"] == 120 / profiled.BATCHES
    assert found["waits_in_epoch"] == {"cudaStreamSynchronize": 3}
    assert found["ms_by_kind"] == {
        "convolutions": 6.0 / profiled.BATCHES,
        profiled.ELEMENTWISE: 2.0 / profiled.BATCHES,
    }
    with pytest.raises(RuntimeError, match="CUPTI"):
        profiled.summed(events[2:], True, 0.01)


class TrainedOnACard:
    """As much of a trained method as its precision needs: it predicts what torch may compute in TF32."""

    precision = "fp32"
    trained = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda"))]))

    def predict(self, slide: object) -> np.ndarray:
        with tf32_flags(self.precision):
            return np.array([torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32])


def test_on_a_card_precisions_are_its_own_and_exact_is_without_tf32() -> None:
    before = torch_precisions()
    method: Any = TrainedOnACard()
    found = {asked: precision.predict(method, None, asked).tolist() for asked in (None, "fp32", "tf32")}  # type: ignore[arg-type]
    assert found == {None: [False, False], "fp32": [True, False], "tf32": [True, True]}
    assert method.precision == "fp32"
    assert torch_precisions() == before


def test_a_method_that_a_card_is_too_small_for_is_told_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = gpu.measure

    def too_small(name: str, *rest: Any) -> gpu.Cost:
        if name == "stnet":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
        return measure(name, *rest)

    monkeypatch.setattr(gpu, "measure", too_small)
    monkeypatch.setattr(gpu, "MEASURED_EPOCHS", 1)
    out = tmp_path / "measured.json"
    words = ["--device", "cpu", "--tiny", "--steps", "1", "--methods", "stnet,histogene", "--out", str(out)]
    assert gpu.main(words) == 1
    printed = capsys.readouterr().out
    assert "stnet was not measured: out of GPU memory (2.00 GiB more were wanted)." in printed
    assert "| histogene | " in printed
    assert list(gpu.comparison.read_report(out)["methods"]) == ["histogene"]
