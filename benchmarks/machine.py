"""What a measurement has to say of the machine that it was made on."""

from __future__ import annotations

import datetime
import subprocess
from typing import Any

from stbench.system.cores import usable_cores

CALL_S = 20.0  # that nvidia-smi may take


def facts(device: str) -> dict[str, Any]:
    """The device by its name, its memory, the versions of driver, torch and CUDA, the host's threads, and the date.

    ``device`` is a torch device: ``cuda:0`` or ``cpu``.
    """
    import torch  # here, as tables are made without it

    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else device,
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "capability": list(torch.cuda.get_device_capability(device)) if on_gpu else None,
        "driver": driver() if on_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def driver() -> str:
    """The version of NVIDIA's driver, ``unknown`` where ``nvidia-smi`` does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=CALL_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return next(iter(done.stdout.split()), "unknown")


def in_words(machine: dict[str, Any]) -> str:
    """A line for people: ``NVIDIA H200 (139 GiB), driver 580.1, torch 2.15.0, CUDA 13.0, 16 cores, 2026-11-30``."""
    memory = machine.get("memory_bytes")
    parts = [
        f"{machine['device']} ({memory / 2**30:.0f} GiB)" if memory else machine["device"],
        *([f"driver {machine['driver']}"] if machine.get("driver") else []),
        f"torch {machine['torch']}",
        *([f"CUDA {machine['cuda']}"] if memory and machine.get("cuda") else []),
        f"{machine['cores']} cores",
        machine["date"][:10],
    ]
    return ", ".join(parts)
