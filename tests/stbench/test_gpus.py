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
from stbench.system.sharing import SHARED_BY, workers_on_device
from stbench.trials.engines import process, ray_tasks
from stbench.trials.engines.limits import Limits
from stbench.trials.engines.protocol import Quiet

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


def test_slots_know_how_many_share_their_device(
    nvidia_smi: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    nvidia_smi()

    def sharing(device: str = "auto", **options: object) -> list[int]:
        return [slot.sharing for slot in EngineOptions(**options).build(device).slots]  # type: ignore

    assert sharing(slots_per_gpu=4) == [4] * 8
    assert sharing(slots_per_gpu=1) == [1, 1]
    assert sharing(slots="3") == [2, 1, 2]  # on A, B and A
    assert sharing("cuda:1", slots="3") == [3] * 3  # all on that one
    assert sharing("cpu", slots="2") == [2, 2]  # the machine's memory
    assert sharing(trial_time="1h") == [1]
    monkeypatch.setattr("stbench.system.cores.usable_cores", lambda: 8)
    monkeypatch.setattr("stbench.system.cores.usable_memory", lambda: 40 * 2**30)
    fewer = EngineOptions(slots="auto")
    engine = fewer.within_memory(fewer.build("cpu"), 18 * 2**30)
    assert [slot.sharing for slot in engine.slots] == [2, 2]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("own", "sharing", "told"), [(None, 1, "1"), (None, 4, "4"), ("2", 1, "2"), ("2", 3, "6")])
def test_a_worker_is_told_how_many_share_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, sharing: int, told: str
) -> None:
    started: list[dict[str, str]] = []

    class Started:
        def __init__(self, command: list[str], env: dict[str, str], **options: object) -> None:
            started.append(env)

    monkeypatch.delenv(SHARED_BY, raising=False)
    if own is not None:  # the command itself is one of several on the device, as its user says
        monkeypatch.setenv(SHARED_BY, own)
    monkeypatch.setattr(process.subprocess, "Popen", Started)
    worker = process.WorkerProcess(tmp_path, process.Slot(1, "0", sharing))
    for descriptor in (worker._requests, worker._life, worker.replies):
        os.close(descriptor)
    assert started[0][SHARED_BY] == told
    assert workers_on_device(started[0]) == int(told)


@pytest.mark.parametrize("told", ["0", "-1", "two", "1.5", ""])
def test_what_is_no_number_of_workers_is_one_line(told: str) -> None:
    with pytest.raises(UserError, match=f"{SHARED_BY}={told} is no number of workers - give 1 or more, or unset it"):
        workers_on_device({SHARED_BY: told})


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


class FakeRay:
    """A cluster of nodes with so many cores each, and GPUs in all."""

    def __init__(self, cores: list[int], n_gpus: int = 0) -> None:
        self.cores, self.n_gpus = cores, n_gpus

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(sum(self.cores)), "GPU": float(self.n_gpus)}

    def nodes(self) -> list[dict]:
        gone = {"Alive": False, "Resources": {"CPU": 64.0}}
        return [*({"Alive": True, "Resources": {"CPU": float(n)}} for n in self.cores), gone]

    def remote(self, **options: object) -> Callable:
        return lambda task: task


@pytest.mark.parametrize(
    ("ray", "options", "sharing"),
    [
        (FakeRay([8, 8], n_gpus=2), {"slots_per_gpu": 2}, 2),  # each task has half of a card
        (FakeRay([8, 8], n_gpus=2), {}, 1),
        (FakeRay([8, 4]), {}, 8),  # a task for each core
        (FakeRay([8, 4]), {"max_parallel": 4}, 2),  # of three cores each
    ],
)
def test_a_task_of_ray_knows_how_many_share_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: FakeRay, options: dict, sharing: int
) -> None:
    run = ray_tasks._Run(ray_tasks.RayEngine(None, Limits(), **options), ray, tmp_path, tmp_path, [], Quiet())
    assert run.sharing == sharing
    engines: list[list[process.Slot]] = []

    class Engine:
        def __init__(self, slots: list[process.Slot], limits: Limits) -> None:
            engines.append(slots)

        def run(self, *words: object) -> None:
            pass

    monkeypatch.setattr(ray_tasks, "SlotsEngine", Engine)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    run.task(str(tmp_path), "KEY", str(tmp_path), run.threads, run.sharing, Limits())
    assert engines == [[process.Slot(run.threads, "1", sharing)]]
