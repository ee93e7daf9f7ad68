"""Half-written files are never seen, and content is named by its digest."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from stbench.errors import UserError, unknown
from stbench.files import read_json, replacing, replacing_directory, value_digest, write_json, writing_to


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


def test_json_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"run\.json is not valid JSON"):
        read_json(path)


def test_json_never_holds_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


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
