"""What became of a trial, so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DamagedFileError
from ..system.files import read_object
from ..system.locks import is_locked
from . import outcome


def state_of(results: Path, key: str) -> dict[str, Any]:
    """The recorded state of a trial: of its finished directory, else of the attempt at work, else ``pending``.

    Raises ``DamagedFileError`` where an ended trial's files are not what it wrote.
    """
    ended = outcome.read_ended(results / "trials" / key)
    if ended is not None:
        return ended
    attempt = results / "running" / key / "state.json"
    if not attempt.is_file():
        return {"state": "pending", "reason": ""}
    try:
        state = read_object(attempt)
    except (
        DamagedFileError
    ) as error:  # nothing is lost: the attempt goes on from its checkpoint, which is checked apart
        state = {"state": "running", "reason": f"its state cannot be read: {error}"}
    if is_locked(results / "running" / f".{key}.lock"):
        return state | {"state": "running", "reason": ""}
    said = str(state.get("reason") or "the process that worked on it ended without a word")
    return state | {"state": "interrupted", "reason": said}
