"""How many workers compute on one device: their engine knows it and says so in their environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import UserError

SHARED_BY = "STBENCH_DEVICE_SHARED_BY"


def workers_on_device(environment: Mapping[str, str] = os.environ) -> int:
    """Workers that share the GPU of this process, or the machine where it uses none; 1 where nothing is said.

    Raises ``UserError`` for what is no such number.
    """
    told = environment.get(SHARED_BY, "1").strip()
    if not (told.isascii() and told.isdigit() and int(told)):
        raise UserError(f"{SHARED_BY}={told} is no number of workers - give 1 or more, or unset it")
    return int(told)
