"""How much of a device a worker may take.

How many workers compute on one, their engine knows and says in their environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import UserError

SHARED_BY = "STBENCH_DEVICE_SHARED_BY"

# How much of a worker's share of the free memory resident patches may take. The rest of a GPU's is for weights and
# activations; main memory is shared with other processes, and the operating system caches the memory-mapped file there
# anyway.
CUDA_SHARE = 0.5
CPU_SHARE = 0.25
# Share of what is free that a training step may take by its count: what is not counted needs room, too. On a CPU a step
# of Hist2ST on 250 spots was measured to take 1.3 times as much as a GPU is counted to.
USABLE = {"cuda": 0.9, "cpu": 0.75}


def workers_on_device(environment: Mapping[str, str] = os.environ) -> int:
    """Workers that share the GPU of this process, or the machine where it uses none; 1 where nothing is said.

    Raises ``UserError`` for what is no such number.
    """
    told = environment.get(SHARED_BY, "1").strip()
    if not (told.isascii() and told.isdigit() and int(told)):
        raise UserError(f"{SHARED_BY}={told} is no number of workers - give 1 or more, or unset it")
    return int(told)
