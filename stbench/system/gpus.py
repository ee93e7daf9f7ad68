"""The GPUs that this process may use, by the names that CUDA gives them; found without importing torch.

``CUDA_VISIBLE_DEVICES`` is read as CUDA reads it: numbers, and identifiers that may be cut short, up to the first one
that is none. What it lists is passed on as it stands, and never widened: numbers in it may count the devices of a
control group, where those of ``nvidia-smi`` are the machine's.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
CALL_S = 30.0  # that nvidia-smi may take: on a sick card it hangs
TOKEN = re.compile(r"\d+|GPU-[0-9a-fA-F-]+|MIG-\S+")
LISTED = re.compile(r"^\s*(?:GPU \d+|MIG .*?Device +\d+): .*\(UUID: ((?:GPU|MIG)-[^)]+)\)\s*$")


@dataclass(frozen=True)
class Gpu:
    """``token``: as ``CUDA_VISIBLE_DEVICES`` takes it. ``free_bytes``: None where it cannot be said."""

    token: str
    free_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True)
class NamedGpu:
    """As the driver calls it."""

    name: str
    total_bytes: int | None


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that a process with this environment sees, in CUDA's order; of a card cut into MIG parts, the parts.

    Raises ``UserError`` where they cannot be listed: no ``nvidia-smi``, or one that fails or hangs. Where there is none
    to be seen (an empty list, ``-1``, ``NoDevFiles``) the answer is an empty list.
    """
    given = environment.get(VISIBLE)
    if given is not None:
        tokens = _tokens(given)
        memory = _memory_by_token() if tokens else {}
        return [Gpu(token, *memory.get(token, (None, None))) for token in tokens]
    tokens = _listed(_asked("-L"))
    memory = _memory_by_token() if tokens else {}
    return [Gpu(token, *memory.get(token, (None, None))) for token in tokens]


def first_gpu(environment: Mapping[str, str] = os.environ) -> NamedGpu | None:
    """The first GPU that a process with this environment sees; ``None`` where it cannot be told, as of a MIG part."""
    given = environment.get(VISIBLE)
    tokens = _tokens(given) if given is not None else None
    if tokens == []:
        return None
    try:
        answer = _asked("--query-gpu=index,uuid,memory.total,name", "--format=csv,noheader,nounits")
    except UserError:  # nothing is decided by it alone
        return None
    for line in answer.splitlines():
        words = [word.strip() for word in line.split(",", 3)]
        if len(words) == 4 and (tokens is None or tokens[0] == words[0] or _short_for(tokens[0], words[1])):
            return NamedGpu(words[3], _mib(words[2]))
    return None


def _short_for(token: str, uuid: str) -> bool:
    return token.startswith("GPU-") and uuid.startswith(token)


def _tokens(given: str) -> list[str]:
    """Up to the first that is no device; one that is named twice makes the whole list void, as in CUDA."""
    found: list[str] = []
    for word in given.split(","):
        token = word.strip()
        if not TOKEN.fullmatch(token):
            break
        if token in found:
            return []
        found.append(token)
    return found


def _listed(listing: str) -> list[str]:
    """UUIDs of ``nvidia-smi -L``; of a card that is cut into parts, those of its parts alone."""
    found: list[str] = []
    card = ""
    for line in listing.splitlines():
        match = LISTED.match(line)
        if match is None:
            continue
        token = match[1]
        if token.startswith("GPU-"):
            card = token
        elif card in found:
            found.remove(card)
        found.append(token)
    return found


def _memory_by_token() -> dict[str, tuple[int | None, int | None]]:
    """Free and total bytes by UUID; by number too, where the numbers of CUDA and ``nvidia-smi`` are the same.

    Empty where ``nvidia-smi`` does not say: free memory is a help to the user, nothing is decided by it alone.
    """
    try:
        answer = _asked("--query-gpu=uuid,memory.free,memory.total", "--format=csv,noheader,nounits")
    except UserError:
        return {}
    found: dict[str, tuple[int | None, int | None]] = {}
    for line in answer.splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == 3:
            found[words[0]] = _mib(words[1]), _mib(words[2])
    return found


def _mib(text: str) -> int | None:
    return int(text) * 2**20 if text.isdigit() else None  # or [N/A]


def _asked(*options: str) -> str:
    way_out = f"name the devices in {VISIBLE}, or leave out --slots-per-gpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", *options], capture_output=True, text=True, errors="replace", timeout=CALL_S, check=False
        )
    except FileNotFoundError as error:
        raise UserError(f"no GPU can be listed: there is no nvidia-smi - {way_out}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"no GPU can be listed: nvidia-smi did not answer within {CALL_S:.0f} s - {way_out}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise UserError(f"no GPU can be listed: nvidia-smi failed ({said}) - {way_out}")
    return done.stdout
