"""Half-written files are never seen, and content is named by its digest."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stbench.errors import UserError, unknown
from stbench.system import files
from stbench.system.files import (
    file_digest,
    read_json,
    replacing,
    replacing_directory,
    value_digest,
    write_json,
    writing_to,
)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new, but")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_directory_leaves_the_old_one_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.mkdir()
    (path / "a").write_text("old")

    def fail() -> None:
        with replacing_directory(path) as temporary:
            (temporary / "a").write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    path.mkdir()
    (path / "gone").write_text("old")
    with replacing_directory(path) as temporary:
        (temporary / "a").write_text("new")
    assert [entry.name for entry in path.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_names_the_place(tmp_path: Path) -> None:
    message = r"cannot write .*table.csv: the disk is full"
    with pytest.raises(UserError, match=message) as caught, writing_to(tmp_path / "table.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("free_files", "message"), [(0, "its inodes are used up"), (1000, "the disk is full")])
def test_a_file_system_without_inodes_is_no_full_disk(
    free_files: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)
    found = SimpleNamespace(f_files=1000, f_favail=free_files, f_bavail=2**20, f_frsize=real.f_frsize)
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    with pytest.raises(UserError, match=message), writing_to(tmp_path / "new" / "table.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_used_up_quota_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the quota \(of disk space or of files\) is used up"), writing_to(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_json_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"run\.json is not valid JSON"):
        read_json(path)


def test_json_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to be hashed; files count as settled at once."""
    seen: list[str] = []
    read = hashlib.file_digest

    def counting(handle: Any, digest: Any) -> Any:
        seen.append(Path(handle.name).name)
        return read(handle, digest)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    monkeypatch.setattr(files, "SETTLED_S", -1.0)
    return seen


def test_a_file_is_read_once_for_its_digest(tmp_path: Path, reads: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"content")
    expected = hashlib.blake2b(b"content", digest_size=16).hexdigest()
    assert [file_digest(tmp_path / "a") for _ in range(3)] == [expected] * 3
    assert reads == ["a"]


@pytest.mark.parametrize("with_times_set_back", [False, True])
def test_a_file_whose_content_changed_has_another_digest(
    tmp_path: Path, reads: list[str], with_times_set_back: bool
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    before, stat = file_digest(path), path.stat()
    while True:  # until the clock of the file system has ticked
        path.write_bytes(b"after!")  # of the same size
        if path.stat().st_ctime_ns != stat.st_ctime_ns:
            break
    if with_times_set_back:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_digest(path) == hashlib.blake2b(b"after!", digest_size=16).hexdigest() != before


def test_another_file_in_its_place_has_another_digest(tmp_path: Path, reads: list[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    first, second = file_digest(tmp_path / "a"), file_digest(tmp_path / "b")
    os.replace(tmp_path / "b", tmp_path / "a")
    assert file_digest(tmp_path / "a") == second != first


def test_a_file_that_has_just_changed_is_read_every_time(tmp_path: Path, reads: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(files, "SETTLED_S", 60.0)
    (tmp_path / "a").write_bytes(b"content")
    for _ in range(2):
        file_digest(tmp_path / "a")
    assert reads == ["a", "a"]


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert value_digest({"a": 1, "b": [2]}) == value_digest({"b": [2], "a": 1})
    assert value_digest({"a": 1}) != value_digest({"a": 2})


def test_an_unknown_name_comes_with_its_nearest_match() -> None:
    assert "did you mean 'stnet'" in str(unknown("method", "stnett", ["bleep", "stnet"]))
    assert "did you mean" not in str(unknown("method", "xyzzy", ["bleep", "stnet"]))
    assert "(choose from: bleep, stnet)" in str(unknown("method", "stnett", ["bleep", "stnet"]))


def test_hundreds_of_choices_are_counted_so_that_the_message_stays_a_line() -> None:
    message = str(unknown("gene", "GNASS", ["GNAS", *(f"GENE{i}" for i in range(784))]))
    assert message == "unknown gene 'GNASS' - did you mean 'GNAS'? (785 are known)"
