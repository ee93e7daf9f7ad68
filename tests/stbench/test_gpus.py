"""Which GPUs there are, as CUDA counts them, and which slot gets which."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stbench.cli.engine_options import EngineOptions
from stbench.errors import UserError
from stbench.system import gpus
from stbench.system.gpus import visible_gpus

A, B = "GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000"
PART = "MIG-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
LISTING = f"""GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {B})
"""
CUT = f"""GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A})
  MIG 3g.20gb     Device  0: (UUID: {PART})
  MIG 3g.20gb     Device  1: (UUID: {PART[:-1]}f)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {B})
"""
MEMORY = f"{A}, 30000, 40960\n{B}, [N/A], 40960\n"


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A program of that name at the front of PATH, which prints what it is told to, or does worse."""

    def install(listing: str = LISTING, memory: str = MEMORY, before: str = "") -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "listing").write_text(listing)
        (folder / "memory").write_text(memory)
        program = folder / "nvidia-smi"
        program.write_text(
            f'#!/bin/sh\n{before}\ncase "$1" in -L) cat {folder}/listing;; *) cat {folder}/memory;; esac\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def tokens() -> list[str]:
    return [gpu.token for gpu in visible_gpus(os.environ)]


def test_all_gpus_are_seen_where_nothing_is_set(nvidia_smi: Callable) -> None:
    nvidia_smi()
    first, second = visible_gpus(os.environ)
    assert (first.token, first.free_bytes, first.total_bytes) == (A, 30000 * 2**20, 40960 * 2**20)
    assert (second.token, second.free_bytes) == (B, None)


def test_of_a_card_that_is_cut_the_parts_are_seen(nvidia_smi: Callable) -> None:
    nvidia_smi(CUT)
    assert tokens() == [PART, f"{PART[:-1]}f", B]


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("0", ["0"]),
        ("1, 0", ["1", "0"]),
        (A, [A]),
        ("GPU-1111", ["GPU-1111"]),
        (f"{PART},{B}", [PART, B]),
        ("MIG-GPU-1111/1/0", ["MIG-GPU-1111/1/0"]),
        ("0,-1,1", ["0"]),  # as CUDA: up to the first that is none
        ("0,none,1", ["0"]),
        ("0,0", []),  # and a list that names one twice is void
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
    ],
)
def test_a_given_list_is_read_as_cuda_reads_it_and_never_widened(
    nvidia_smi: Callable, monkeypatch: pytest.MonkeyPatch, given: str, seen: list[str]
) -> None:
    nvidia_smi()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert tokens() == seen


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("echo 'Unable to determine the device handle' >&2; exit 15", "failed (Unable to determine the device handle)"),
        ("exit 9", "failed (exit code 9)"),
        ("sleep 5", "did not answer within 0 s"),
    ],
)
def test_a_program_that_fails_or_hangs_is_one_line(
    nvidia_smi: Callable, monkeypatch: pytest.MonkeyPatch, before: str, reason: str
) -> None:
    nvidia_smi(before=before)
    monkeypatch.setattr(gpus, "CALL_S", 30.0 if "exit" in before else 0.2)
    with pytest.raises(UserError) as refused:
        tokens()
    assert reason in str(refused.value)
    assert "CUDA_VISIBLE_DEVICES" in str(refused.value)
    assert "\n" not in str(refused.value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # what is named needs no listing
    assert tokens() == ["0", "1"]


def slots_of(**options: object) -> list[tuple[int, str | None]]:
    chosen = EngineOptions(**options)  # type: ignore[arg-type]
    chosen.check("auto")
    return [(slot.threads, slot.gpu) for slot in chosen.build("auto").slots]  # type: ignore[attr-defined]


def test_slots_of_gpus(nvidia_smi: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    nvidia_smi()
    monkeypatch.setattr("stbench.system.cores.usable_cores", lambda: 8)
    assert slots_of(slots_per_gpu=2) == [(2, A), (2, B), (2, A), (2, B)]
    assert slots_of(slots="3") == [(2, A), (2, B), (2, A)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert slots_of(slots_per_gpu=1) == [(8, "1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots_of(slots="2") == [(4, None), (4, None)]
    with pytest.raises(UserError, match="there is no GPU here that may be used"):
        slots_of(slots_per_gpu=1)


def test_slots_are_no_more_than_memory_holds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("stbench.system.cores.usable_cores", lambda: 8)
    monkeypatch.setattr("stbench.system.cores.usable_memory", lambda: 40 * 2**30)

    def fitted(peak_gib: int, **options: object) -> list[int]:
        chosen = EngineOptions(**options)  # type: ignore[arg-type]
        engine = chosen.within_memory(chosen.build("cpu"), peak_gib * 2**30)
        return [slot.threads for slot in engine.slots]  # type: ignore[attr-defined]

    assert fitted(4, slots="auto") == [1] * 8
    assert capsys.readouterr().out == ""
    assert fitted(18, slots="auto") == [4, 4]
    assert "2 at a time, not 8: the largest takes about 18.0 GiB of memory" in capsys.readouterr().out
    assert fitted(60, slots="auto") == [8]
    assert fitted(18, slots="4") == [2] * 4
    assert "warning: 4 trials at a time may take too much" in " ".join(capsys.readouterr().out.split())
    assert fitted(18, slots="4", trial_memory="9G") == [2] * 4


def test_a_card_that_others_fill_is_told(nvidia_smi: Callable, capsys: pytest.CaptureFixture) -> None:
    nvidia_smi(memory=f"{A}, 1024, 40960\n")
    slots_of(slots_per_gpu=1)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"1 slots on each of 2 GPUs: {A}, {B}" in printed
    assert f"warning: {A} has 1.0 of its 40 GiB free: others use it" in printed


@pytest.mark.parametrize(
    ("options", "device", "message"),
    [
        ({"slots": "2", "slots_per_gpu": 1}, "auto", "are two ways to say how many"),
        ({"slots_per_gpu": 1}, "cpu", "leave out --device cpu"),
        ({"slots_per_gpu": 1}, "cuda:1", "leave out --device cuda:1"),
    ],
)
def test_contradictions_are_refused(options: dict, device: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        EngineOptions(**options).check(device)
