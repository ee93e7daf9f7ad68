"""A method whose trials do what ``RESULTS/troubles.json`` says of their keys: raise, die, hang, take memory."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from stbench.errors import Interrupted, PlaceError
from stbench.method import MethodConfig, Needs, Run, TestSlide, TrainingSlide

CROWDED = (  # as torch says it
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of which 1.25 GiB is "
    "free. Process 4321 has 61.90 GiB memory in use. Including non-PyTorch memory, this process has 16.00 GiB memory "
    "in use. Of the allocated memory 14.20 GiB is allocated by PyTorch."
)


class Troubled:
    name: ClassVar[str] = "troubled"
    title: ClassVar[str] = "Troubled"
    kind: ClassVar[Literal["method", "control"]] = "method"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}
    needs = Needs()
    weights_label = "none"

    def __init__(self, config: MethodConfig) -> None:
        self.mean = np.zeros(0, dtype=np.float32)

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        rng = run.numpy_generator("noise")
        self.mean = np.concatenate([slide.target for slide in slides]).mean(axis=0)
        self.mean = self.mean + rng.normal(0, 0.01, self.mean.shape).astype(np.float32)
        trial = run.checkpoint_directory.parents[1]
        with open(trial.parents[1] / "begun.txt", "a") as begun:
            begun.write(f"{trial.name} {os.environ.get('OMP_NUM_THREADS')}\n")
        troubles = trial.parents[1] / "troubles.json"
        trouble = json.loads(troubles.read_text()).get(trial.name) if troubles.is_file() else None
        if trouble == "raise":
            raise RuntimeError("the method was asked to raise")
        if trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        begun_once = len((trial.parents[1] / "begun.txt").read_text().split(trial.name)) == 2
        if trouble == "break once" and begun_once:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")
        if trouble == "crowded" or (trouble == "crowded once" and begun_once):
            raise RuntimeError(CROWDED)
        if trouble == "leave once" and begun_once:
            os.kill(os.getpid(), signal.SIGTERM)
            trouble = "wait"
        if trouble == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        if trouble == "hold":  # the interpreter's lock, and have a child that ignores what it is asked
            subprocess.Popen(["/bin/sh", "-c", "trap '' TERM HUP INT; sleep 600; sleep 600"])
            ctypes.PyDLL(None).sleep(600)
        if trouble == "allocate":
            hoard = []
            for _ in range(300):
                hoard.append(np.ones(2**23))  # 64 MiB
                time.sleep(0.02)
        if trouble == "place":
            begun = trial.parents[1] / "begun.txt"
            while len(begun.read_text().splitlines()) < 2:  # until the other trial is at work
                time.sleep(0.05)
            raise PlaceError("there is no room on this node")
        if trouble == "wait":
            until = time.monotonic() + 600
            while time.monotonic() < until:
                time.sleep(0.05)
                run.progress(1, 2, "waiting")
                if run.check_interrupt():
                    raise Interrupted("saved what there is")

    def predict(self, slide: TestSlide) -> np.ndarray:
        brightness = slide.patches.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] / 255
        return np.repeat(self.mean[None], slide.n_spots, axis=0) + brightness

    def save(self, directory: Path) -> None:
        np.save(directory / "mean.npy", self.mean)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Troubled:
        method = cls(MethodConfig())
        method.mean = np.load(directory / "mean.npy")
        return method
