"""Places that one may only read, and streams that hold ASCII alone."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import own_sections
import pytest

from stbench.cli import main
from stbench.system.file_system import abilities
from stbench.system.files import replacing_directory, write_text

ROOT = Path(__file__).parents[2]
MEAN = ("--methods", "training_mean", "--preset", "quick", "--no-mlflow")


@pytest.fixture
def results(tmp_path: Path, stbench_command: Callable) -> Path:
    manifest = own_sections.write_manifest(tmp_path / "data", {"S1": "p1", "S2": "p2"})
    done = stbench_command("run", *MEAN, "--dataset", manifest, "--out", tmp_path / "r")
    assert done.code == 0, done.err
    return tmp_path / "r"


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder read-only, also for root; any file made in it otherwise is found by :func:`_content`."""

    def forbid(folder: Path) -> None:
        real = os.open

        def opened(path: str | Path, flags: int, *more: object, **named: object) -> int:
            if flags & os.O_CREAT and folder in Path(os.fsdecode(path)).parents:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return real(path, flags, *more, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", opened)

    return forbid


def _content(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.usefixtures("unsaved_pictures")
def test_what_reads_results_needs_no_right_to_write_there(
    stale: bool, results: Path, tmp_path: Path, read_only: Callable, stbench_command: Callable
) -> None:
    expected = (results / "summary.csv").read_text()
    if stale:
        lines = expected.splitlines(keepends=True)
        (results / "summary.csv").write_text("".join(lines[:-1]))
    read_only(results)
    before = _content(results)
    report = stbench_command("report", results, "--out", tmp_path / "mine")
    assert report.code == 0, report.err
    assert "This is all 2 slices of 2 patients." in report.out
    assert (tmp_path / "mine" / "report.html").is_file()
    board = stbench_command("leaderboard", results, "--out", tmp_path / "board")
    assert board.code == 0, board.err
    assert (tmp_path / "board" / "leaderboard.html").is_file()
    assert _content(results) == before


@pytest.mark.usefixtures("unsaved_pictures")
def test_a_report_into_a_place_that_is_read_only_is_one_line(
    results: Path, read_only: Callable, stbench_command: Callable
) -> None:
    read_only(results)
    done = stbench_command("report", results)
    assert done.code == 2
    assert "the file system is read-only - choose another place (--out, STBENCH_CACHE)" in done.err


def test_prepared_slices_are_used_from_a_cache_that_is_read_only(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    manifest = own_sections.write_manifest(tmp_path / "data", {"S1": "p1", "S2": "p2"})
    assert stbench_command("data", "prepare", manifest).code == 0
    for lock in (tmp_path / "cache").rglob("*.lock"):
        lock.unlink()
    before = _content(tmp_path / "cache")
    for command in (("data", "prepare", manifest), ("audit", "--dataset", manifest)):
        done = stbench_command(*command)
        assert done.code == 0, done.err
    done = stbench_command("run", *MEAN, "--dataset", manifest, "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert _content(tmp_path / "cache") == before


def test_names_as_long_as_a_file_system_takes_are_no_trouble(tmp_path: Path, stbench_command: Callable) -> None:
    manifest = own_sections.write_manifest(tmp_path, {"S" * 200: "p1", "T" * 200: "p2"}, name="n" * 120)
    done = stbench_command("run", *MEAN, "--dataset", manifest, "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert "2/2" in done.out
    too_long = stbench_command("run", *MEAN, "--dataset", manifest, "--out", tmp_path / ("r" * 300))
    assert too_long.code == 2
    assert "name too long" in too_long.err


@pytest.fixture
def printed_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``printed_in(encoding, *words)``: what a command prints on streams of an encoding, as they are at a start."""

    def command(encoding: str, *words: object) -> str:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit):
            main([str(word) for word in words])
        for stream in streams:
            stream.flush()
        return b"".join(stream.buffer.getvalue() for stream in streams).decode(encoding)

    return command


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("ascii", "Grosse - \\u809d x2"), ("latin-1", "Größe - \\u809d ×2"), ("utf-8", "Größe − 肝 ×2")],
)
def test_a_stream_without_the_letters_gets_readable_ones(
    encoding: str, expected: str, tmp_path: Path, printed_in: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_sections.write_manifest(tmp_path, {"S1": "p1", "S2": "p2"}, title="Größe − 肝 ×2")
    checked = printed_in(encoding, "data", "check", "mine.toml")
    assert f"{expected}: 2/2 slices checked" in checked
    assert "pictures: data-check/mine" in checked
    ran = printed_in(encoding, "run", *MEAN, "--dataset", "mine.toml", "--out", "r")
    assert "2/2" in ran
    assert "results: r   now: stbench report r" in ran
    assert (
        "Größe − 肝 ×2"
        in json.loads((tmp_path / "r" / "run.json").read_text("utf-8"))["sections"][0]["dataset"]["title"]
    )


def test_bytes_that_are_no_text_are_printed_as_bytes(tmp_path: Path, printed_in: Callable) -> None:
    printed = printed_in("utf-8", "report", f"{tmp_path}/\udcff")
    assert f"{tmp_path}/\\xff is not a results directory" in printed


def test_files_are_utf_8_whatever_the_locale() -> None:
    """Without an encoding, text files are read and written in the locale's."""
    opens = re.compile(r"(\.(read_text|write_text)\(|(?<![\w.])open\(|fdopen\(|FileHandler\()")
    silent = [
        f"{path.name}: {line.strip()}"
        for folder in ("stbench", "methods", "datasets", "reports")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if opens.search(line) and not re.search(r"encoding=|def |\"[rw]\+?b\"|_text\((path|page|results)", line)
    ]
    assert not silent


def test_what_a_file_system_can_do_is_found_by_trying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, locks, renames = abilities(tmp_path / "not" / "there")
    assert room.endswith("GiB free")
    assert (locks, renames) == ("file locks", "renames that fail where something is")
    assert list(tmp_path.iterdir()) == []

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setattr("os.rename", lambda *_: None)
    _, locks, renames = abilities(tmp_path)
    assert locks.startswith("no file locks (no locks available)")
    assert "keep results elsewhere" in renames


def test_files_and_folders_are_as_readable_as_the_user_has_it(tmp_path: Path) -> None:
    """What the umask leaves, and the group of a folder that passes it on."""
    for mask in (0o022, 0o002, 0o077):
        place = tmp_path / oct(mask)
        place.mkdir()
        place.chmod(0o2775)
        before = os.umask(mask)
        try:
            write_text(place / "file", "text")
            with replacing_directory(place / "folder") as folder:
                (folder / "inside").touch()
        finally:
            os.umask(before)
        assert stat.S_IMODE((place / "file").stat().st_mode) == 0o666 & ~mask
        assert stat.S_IMODE((place / "folder").stat().st_mode) == 0o2777 & ~mask
        assert (place / "folder").stat().st_gid == place.stat().st_gid
