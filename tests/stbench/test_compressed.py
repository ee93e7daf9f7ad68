"""Compression is told by content, whatever the file is called."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from stbench.errors import UserError
from stbench.system.compressed import is_gzipped, open_binary, open_text


@pytest.mark.parametrize("name", ["table.tsv", "table.tsv.gz"])
@pytest.mark.parametrize("zipped", [True, False])
def test_content_is_the_same_packed_or_not_under_either_name(tmp_path: Path, name: str, zipped: bool) -> None:
    content = "größe\tµm\r\n1\t2\n".encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert is_gzipped(path) == zipped
    with open_binary(path) as stream:
        assert stream.read() == content
    with open_text(path) as text:
        assert text.read() == "größe\tµm\n1\t2\n"
        text.seek(0)
        assert text.readline() == "größe\tµm\n"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_bytes(b"\xff\xd8\xff\xe0JFIF")
    with pytest.raises(UserError, match="not text"), open_text(path) as text:
        text.read()


def test_damage_that_shows_only_at_the_end_is_found(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv.gz"
    packed = bytearray(gzip.compress(b"1\t2\n" * 1000))
    packed[-6] ^= 0xFF  # the checksum
    path.write_bytes(packed)
    with pytest.raises(UserError, match="damaged gzip"), open_text(path) as text:
        text.read()
