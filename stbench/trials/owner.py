"""One owner a results directory: the command that plans there and gives out its trials.

``RESULTS/.owner/TOKEN.json`` says who it is, and ``TOKEN.beat`` beside it that it lives. To become the owner of a
directory that has none is one rename of a folder, which fails where another came first. To take over from one that is
dead is one rename of its record to a name of one's own: it happens to that record and no other, and only once. Looking
needs neither.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DamagedFileError, Interrupted, UserError
from ..system.beats import PATIENCE_S, Beat, Observer
from ..system.files import read_object, write_json, writing_to
from ..system.processes import Process

FOLDER = ".owner"
LOOK_S = 0.5  # between two looks at another owner


class Owner(BaseModel):
    """Who owns a results directory."""

    model_config = ConfigDict(frozen=True)

    token: str
    process: Process
    since: float  # seconds since the epoch, by the owner's clock: to be shown, and compared with nothing
    command: str

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.process}, since {since}: {self.command}"


def require_free(results: Path) -> None:
    """Raise ``UserError`` where another command, which is seen to live, owns ``results``."""
    other = owner_of(results)
    if other is not None and other.process.is_alive():
        raise UserError(_refusal(results, other))


def owner_of(results: Path) -> Owner | None:
    """Who owns a results directory, dead or alive, as far as can be read now."""
    return next(filter(None, map(_read, _records(results))), None)


@contextmanager
def owning(
    results: Path,
    command: str,
    *,
    wait: bool = False,
    take_over: bool = False,
    say: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
    observer: Observer | None = None,
) -> Iterator[Callable[[], bool]]:
    """Own ``results`` within this context; what it gives tells whether the directory was taken away meanwhile.

    A dead owner is taken over: at once where its process can be seen to be gone, else when it gave no sign of life for
    ``PATIENCE_S``. ``wait``: wait for one that lives to end. ``take_over``: take the directory from whoever has it.
    Raises ``UserError`` where another owns it.
    """
    results = Path(results).absolute()  # a method may change the working folder
    is_new = not results.exists()
    me = Owner(token=secrets.token_hex(4), process=Process.here(), since=time.time(), command=command)
    with writing_to(results):
        results.mkdir(parents=True, exist_ok=True)
        observer = observer or Observer()
        told = False
        while not _claim(results, me):
            record = next(iter(_records(results)), None)
            if record is None:
                _remove_strays(results / FOLDER)
                continue
            other = _read(record)
            sight = observer.sees(None if other is None else other.process, record.with_suffix(".beat"))
            if sight == "dead" or (take_over and other is not None):
                if _succeed(record, me):
                    say(f"{results} is taken over from {other or 'an owner that left no record'}")
                    break
                continue
            if sight == "alive" and not wait:
                raise UserError(_refusal(results, other))
            if not told:
                told = True
                say(_waiting_for(results, other, sight == "alive"))
            if should_stop():
                raise Interrupted(f"stopped while waiting for {results}")
            time.sleep(LOOK_S)
    folder = results / FOLDER
    record, beat_file = folder / f"{me.token}.json", folder / f"{me.token}.beat"
    try:
        with Beat(beat_file) as beat:
            try:
                yield lambda: beat.is_lost() or not record.exists()
            finally:
                record.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # not empty: another owns it by now, or there are results
            folder.rmdir()
            if is_new:
                results.rmdir()


def _refusal(results: Path, other: Owner | None) -> str:
    return (
        f"another command works in {results} ({other or 'it left no record'}) - 'stbench status {results}' shows how "
        "far it is; --wait waits for it, another --out works beside it"
    )


def _waiting_for(results: Path, other: Owner | None, alive: bool) -> str:
    if alive:
        return f"waiting for {other}"
    return (
        f"{results} is owned by {other or 'a command that left no record'}; whether it lives cannot be seen from here: "
        f"it is watched for {PATIENCE_S:.0f} s, and taken over if it gives no sign of life (--take-over does not wait)"
    )


def _records(results: Path) -> list[Path]:
    """At most one, but for a moment; what is being written is not one yet."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path for path in (results / FOLDER).glob("*.json") if not path.name.startswith("."))
    return []


def _read(record: Path) -> Owner | None:
    """The owner whose record this is.

    ``None`` while it is taken over or given back: its name is the new owner's then, its content still the old one's.
    """
    try:
        owner = Owner.model_validate(read_object(record))
    except (DamagedFileError, ValidationError):
        return None
    return owner if owner.token == record.stem else None


def _remove_strays(folder: Path) -> None:
    """Remove what an owner left that died while it gave the directory back."""
    for path in folder.glob("*.beat"):
        if not path.with_suffix(".json").exists():
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or gone
        folder.rmdir()


def _claim(results: Path, me: Owner) -> bool:
    """Become the owner of a directory that has none."""
    prepared = results / f"{FOLDER}-{me.token}"
    prepared.mkdir()
    try:
        write_json(prepared / f"{me.token}.json", me.model_dump(mode="json"))
        os.rename(prepared, results / FOLDER)  # onto an empty folder, too: one that is being given back
        return True
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    finally:
        shutil.rmtree(prepared, ignore_errors=True)


def _succeed(record: Path, me: Owner) -> bool:
    """Take over from the owner with this record, unless another does so first."""
    mine = record.with_name(f"{me.token}.json")
    try:
        os.rename(record, mine)
    except FileNotFoundError:
        return False
    write_json(mine, me.model_dump(mode="json"))
    record.with_suffix(".beat").unlink(missing_ok=True)
    return True
