"""One look at a GPU: all that is to be measured on one, in under ten minutes, and the tables of it.

    python benchmarks/look.py --out look        # with a card
    python benchmarks/look.py --out look --tiny --device cpu    # does it work? Its numbers mean nothing
    python benchmarks/look.py --again look/look.json    # the tables of an earlier look, on any machine

It needs what ``gpu.py`` needs, and pytest for the tests; no data, no pretrained weights, no network. Every part is a
process with a time limit of its own, the most important first. A part that fails or takes too long leaves what it had
measured by then, and the others go on. Written are ``look.json``, after every part; ``look.md``; ``measured.json``, for
``gpu.py --compare`` later on; and ``log.txt``, what the parts printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
import look_tables

from stbench.errors import UserError
from stbench.system.files import read_json, write_json, write_text

HERE = Path(__file__).parent
LEAST_S = 15.0  # a part is not begun with less left
MINUTES = 9.5
LOOK, MEASURED, LOG = "look.json", "measured.json", "log.txt"
REFUSED = 2  # the exit code of bad input


@dataclass(frozen=True)
class Part:
    """A script of this folder, and what it may take."""

    name: str
    script: str
    limit_s: float
    words: tuple[str, ...] = ()  # beside --out, --device and --tiny
    tiny: tuple[str, ...] = ()  # in place of the words, where --tiny
    own: bool = True  # takes --device and --tiny


# in the order in which they are wanted; those of one line run side by side: neither is timed
PARTS: tuple[tuple[Part, ...], ...] = (
    (Part("measured", "gpu.py", 230, tiny=("--steps", "1")),),
    (Part("tests", "gpu_tests.py", 140), Part("counted", "fitted.py", 140, own=False)),
    (Part("published_loop", "published_loop.py", 70),),
    (Part("profile", "profiled.py", 70),),
    (Part("memory", "memory_per_spot.py", 100),),
    (Part("slots", "slots.py", 90, tiny=("--methods", "histogene")),),
    (Part("precision", "precision.py", 60, ("--made-up",), ("--epochs", "1")),),
    (Part("compiled", "compiled.py", 240, tiny=("--methods", "histogene", "--backend", "aot_eager")),),
)


@dataclass
class Running:
    part: Part
    process: subprocess.Popen[bytes]
    out: Path
    started: float
    ends: float

    def stop(self) -> None:
        """With all that it started: its group is its own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def look(
    out: Path, device: str, tiny: bool, minutes: float, groups: Sequence[Sequence[Part]] = PARTS
) -> dict[str, Any]:
    """Run the parts, and return what ``look.json`` holds: of every part how it ended, its seconds and its results.

    Raises ``UserError`` where ``out`` holds a look already, and where the first part refuses the device.
    """
    out = out.absolute()
    if (out / LOOK).exists():
        raise UserError(f"{out} holds an earlier look - name another folder by --out")
    out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    report: dict[str, Any] = {"device": device, "meaningless": tiny, "parts": {}}
    log_path = out / LOG
    for old in (log_path, out / MEASURED):  # of a look that was killed
        old.unlink(missing_ok=True)
    for group in groups:
        left = 60 * minutes - (time.monotonic() - begun)
        running: list[Running] = []
        try:
            for part in group:
                if left < LEAST_S:
                    report["parts"][part.name] = {"ended": "not begun: no time was left", "seconds": 0.0, "found": None}
                else:
                    running.append(_begun(part, out, log_path, device, tiny, min(left, part.limit_s)))
            for each in running:
                report["parts"][each.part.name] = _ended(each, out)
        finally:  # after Ctrl-C too
            for each in running:
                if each.process.poll() is None:
                    each.stop()
                if each.part.name not in report["parts"]:
                    seconds = time.monotonic() - each.started
                    report["parts"][each.part.name] = _kept("interrupted", seconds, each, out)
                each.out.unlink(missing_ok=True)
            write_json(out / LOOK, report)
        if running and group is groups[0] and all(each.process.returncode == REFUSED for each in running):
            (out / LOOK).unlink()  # nothing was looked at
            raise _refusal(log_path)
        for part in group:
            told = report["parts"][part.name]
            print(f"[{time.monotonic() - begun:.0f} s] {part.name}: {told['ended']}", flush=True)
    return report


def _refusal(log_path: Path) -> UserError:
    """What the first part, and so every other, has against the device."""
    lines = [line for line in log_path.read_text(encoding="utf-8").splitlines() if line.startswith("error: ")]
    return UserError(lines[-1].removeprefix("error: ") if lines else f"the first part refused - see {log_path}")


def _begun(part: Part, out: Path, log_path: Path, device: str, tiny: bool, limit_s: float) -> Running:
    result = (out / f"{part.name}.part.json").absolute()
    result.unlink(missing_ok=True)
    words = [sys.executable, str(HERE / part.script), "--out", str(result)]
    words += ["--device", device, *(["--tiny"] if tiny else [])] if part.own else ["--measured", str(out / MEASURED)]
    words += part.tiny if tiny else part.words
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each part would compile torch's sources anew
    with log_path.open("ab") as log:
        log.write(f"\n=== {part.name}: {' '.join(words)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment, cwd=HERE.parent
        )
    now = time.monotonic()
    return Running(part, process, result, now, now + limit_s)


def _ended(running: Running, out: Path) -> dict[str, Any]:
    """Wait for a part, at most until its time is over; what it found stands in its file, as far as it came."""
    try:
        code = running.process.wait(timeout=max(0.0, running.ends - time.monotonic()))
        ended = "finished" if code == 0 else f"failed with exit code {code} - see {LOG}"
    except subprocess.TimeoutExpired:
        running.stop()
        ended = f"stopped after {running.ends - running.started:.0f} s - see {LOG}"
    return _kept(ended, time.monotonic() - running.started, running, out)


def _kept(ended: str, seconds: float, running: Running, out: Path) -> dict[str, Any]:
    found = None
    if running.out.exists():
        found = json.loads(running.out.read_text(encoding="utf-8"))  # parts write it in one piece
        if running.part.name == "measured":
            write_json(out / MEASURED, found)
    return {"ended": ended, "seconds": round(seconds, 1), "found": found}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("look"), help="the folder to write (look)")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="quick presets on tiny sections: does it work?")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for all parts together ({MINUTES})")
    parser.add_argument("--again", type=Path, metavar="JSON", help="print the tables of an earlier look")
    options = parser.parse_args(words)
    if options.again is not None:
        report = read_json(options.again, "name the look.json of an earlier look")
        if not isinstance(report, dict) or "parts" not in report:
            raise UserError(f"{options.again} is no result of benchmarks/look.py - name its look.json")
        print(look_tables.markdown(report))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # parts are ended with this process
    report = look(options.out, options.device, options.tiny, options.minutes)
    text = look_tables.markdown(report)
    write_text(options.out / "look.md", text + "\n")
    print(f"\n{text}\n\nwritten: {options.out}/{LOOK}, look.md, {MEASURED}, {LOG}")
    return 0 if all(part["ended"] == "finished" for part in report["parts"].values()) else 1


if __name__ == "__main__":
    command.end(main)
