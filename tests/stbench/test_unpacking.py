"""Archives that nobody vouches for: only what is wanted comes out, into its place, and no more than it should be."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbench.errors import UserError
from stbench.fetching import archives
from stbench.fetching.encrypted import Passwords
from stbench.fetching.patterns import Pattern
from stbench.fetching.unpacking import safe_path, unpack

WANTED = [
    Pattern("spatial/positions.csv", "A", required=True),
    Pattern("*_A.tsv.gz", "A", required=True),
    Pattern("note_*.txt", "A", required=False),
]
FILES = {"spatial/positions.csv": b"x,y\n" * 1000, "GSM1_A.tsv.gz": gzip.compress(b"counts"), "note_1.txt": b"note"}
OTHERS = {"GSM2_B.tsv.gz": b"of another slice", "raw/GSM1_A.tsv.gz": b"deeper", "spatial/fiducials.jpg": b"jpg"}


def tar_bytes(files: dict[str, bytes], *odd: tarfile.TarInfo, zipped: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if zipped else "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in odd:
            tar.addfile(info)
    return buffer.getvalue()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


WRITERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "tar": tar_bytes,
    "tar.gz": lambda files: tar_bytes(files, zipped=True),
    "zip": zip_bytes,
}


class Unpacker:
    def __init__(self, folder: Path) -> None:
        self.archive, self.into, self.work = folder / "archive", folder / "data" / "in", folder / "data" / ".work"

    def __call__(self, content: bytes, passwords: Passwords | None = None) -> dict[str, bytes]:
        self.archive.write_bytes(content)
        before = self.there()
        try:
            done = unpack(self.archive, self.into, self.work, WANTED, passwords)
        except UserError:
            assert self.there() == before, "half unpacked"
            raise
        finally:
            assert not list(self.work.iterdir())
        assert {one.path: one.bytes for one in done} == {path: len(self.there()[path]) for path in self.there()}
        return self.there()

    def there(self) -> dict[str, bytes]:
        files = [path for path in self.into.rglob("*") if path.is_file() or path.is_symlink()]
        return {str(path.relative_to(self.into)): path.read_bytes() for path in files}


@pytest.fixture
def run(tmp_path: Path) -> Unpacker:
    return Unpacker(tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_only_what_is_wanted_comes_out(run: Unpacker, kind: str) -> None:
    assert run(WRITERS[kind]({**OTHERS, **FILES})) == FILES
    assert run(WRITERS[kind]({f"./{name}": content for name, content in FILES.items()})) == FILES  # and replaces


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_lacking_is_named_and_nothing_is_left(run: Unpacker, kind: str) -> None:
    content = WRITERS[kind]({name: content for name, content in FILES.items() if not name.startswith("GSM1")})
    with pytest.raises(UserError, match=r"holds no \*_A\.tsv\.gz, which slice A needs"):
        run(content)
    assert run(WRITERS[kind]({name: content for name, content in FILES.items() if name != "note_1.txt"}))


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    "name", ["../evil", "spatial/../../evil", "/etc/evil", "C:evil", "C:\\evil", "..\\evil", "a\nb", "\\\\host\\evil"]
)
def test_an_archive_with_a_name_that_leads_out_is_not_used(run: Unpacker, kind: str, name: str) -> None:
    with pytest.raises(UserError, match="would be put elsewhere"):
        run(WRITERS[kind]({**FILES, name: b"evil"}))


@given(st.text(st.sampled_from("ab./\\:C\x00\n~ "), max_size=12))
def test_a_safe_path_stays_below_its_folder(name: str) -> None:
    try:
        path = safe_path(name, Path("archive"))
    except UserError:
        return
    inside = os.path.normpath(os.path.join("/data/in", path))
    assert inside == "/data/in" or inside.startswith("/data/in/")


def odd(kind: bytes, name: str = "spatial/positions.csv", target: str = "/etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("kind", "word"),
    [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.CHRTYPE, "device"), (tarfile.FIFOTYPE, "device")],
)
def test_links_and_devices_are_never_made(run: Unpacker, kind: bytes, word: str) -> None:
    rest = {name: content for name, content in FILES.items() if name != "spatial/positions.csv"}
    with pytest.raises(UserError, match=f"is a {word}, not a file"):
        run(tar_bytes(rest, odd(kind)))
    assert run(tar_bytes(FILES, odd(kind, "elsewhere"))) == FILES  # not wanted: it stays in the archive


def test_a_folder_through_a_link_is_not_written_to(run: Unpacker, tmp_path: Path) -> None:
    """The archive first makes ``spatial`` a link to a place outside, then puts a file below it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(odd(tarfile.SYMTYPE, "spatial", str(outside)))
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert run(buffer.getvalue()) == FILES
    assert not list(outside.iterdir())


def test_a_link_of_a_zip_is_no_file(run: Unpacker) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        info = zipfile.ZipInfo("spatial/positions.csv")
        info.external_attr = 0o120777 << 16
        opened.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        run(buffer.getvalue())


def test_a_member_that_is_there_twice_is_refused(run: Unpacker) -> None:
    first = tar_bytes({"spatial/positions.csv": b"1"}).rstrip(b"\0")
    with pytest.raises(UserError, match="twice"):
        run(first + bytes(-len(first) % 512) + tar_bytes(FILES))


@pytest.fixture
def small_bombs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 16)
    monkeypatch.setattr(archives, "LARGEST_HEADER", 1 << 16)
    monkeypatch.setattr(archives, "MOST_MEMBERS", 50)


@pytest.mark.usefixtures("small_bombs")
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_bombs_do_not_go_off(run: Unpacker, kind: str) -> None:
    with pytest.raises(UserError, match="more than 300 times its size"):
        run(WRITERS[kind]({**FILES, "spatial/positions.csv": bytes(20 << 20)}))
    if kind == "tar.gz":  # what is not wanted is unpacked on the way to what is
        with pytest.raises(UserError, match="more than 300 times its size"):
            run(WRITERS[kind]({"zeros": bytes(20 << 20), **FILES}))
    with pytest.raises(UserError, match="to 50 files"):
        run(WRITERS[kind]({**{f"{i}": b"" for i in range(60)}, **FILES}))


@pytest.mark.usefixtures("small_bombs")
def test_a_header_does_not_fill_the_memory(run: Unpacker) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("spatial/positions.csv")
        info.pax_headers = {"comment": "x" * (1 << 20)}
        tar.addfile(info)
    with pytest.raises(UserError, match="do not use this archive"):
        run(buffer.getvalue())


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_is_one_line(run: Unpacker, kind: str) -> None:
    good = WRITERS[kind]({**OTHERS, **FILES})
    half = len(good.rstrip(b"\0")) // 2
    for content in (good[:half], good[:100], b"<html>no</html>", b"PK\x03\x04", b"\x1f\x8b", b"x", good[50:]):
        with pytest.raises(UserError, match=r"damaged|holds no|fewer bytes"):
            run(content)
    flipped = bytearray(good)
    flipped[half] ^= 0xFF
    with contextlib.suppress(UserError):  # a picture's bytes have no checksum in a tar
        run(bytes(flipped))


def test_a_zip_whose_members_begin_before_it_is_damaged(run: Unpacker) -> None:
    content = bytearray(zip_bytes(FILES))
    place = len(content) - 6  # where its end says that the list of members begins
    content[place : place + 4] = (int.from_bytes(content[place : place + 4], "little") + 1000).to_bytes(4, "little")
    with pytest.raises(UserError, match="damaged"):
        run(bytes(content))


@given(st.data())
def test_no_damage_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(WRITERS)))
    content = bytearray(WRITERS[kind](FILES))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    run = Unpacker(tmp_path_factory.mktemp("damaged"))
    with contextlib.suppress(UserError):
        run(bytes(content))


def aes_bytes(files: dict[str, bytes], password: str) -> bytes:
    pyzipper = pytest.importorskip("pyzipper", reason="pip install stbench[encrypted]")
    buffer = io.BytesIO()
    with pyzipper.AESZipFile(buffer, "w", compression=pyzipper.ZIP_DEFLATED, encryption=pyzipper.WZ_AES) as opened:
        opened.setpassword(password.encode())
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def test_an_encrypted_archive_opens_with_one_of_the_passwords_given(run: Unpacker) -> None:
    content = aes_bytes({**OTHERS, **FILES}, "right")
    assert run(content, Passwords(["wrong", "right"])) == FILES


def test_a_password_is_asked_for_where_there_is_somebody(run: Unpacker) -> None:
    content = aes_bytes(FILES, "right")
    answers = iter(["wrong", "right", "never asked"])
    passwords = Passwords(ask=lambda archive: next(answers))
    assert run(content, passwords) == FILES
    assert run(content, Passwords(passwords.given)) == FILES  # of the next archive it is known
    assert next(answers) == "never asked"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "and none was given"),
        (["wrong"], "and the one given opens it"),
        (["a", "b"], "and none of 2 given opens it"),
    ],
)
def test_without_the_password_one_line_says_where_it_is_printed(run: Unpacker, given: list[str], says: str) -> None:
    content = aes_bytes(FILES, "right")
    with pytest.raises(UserError, match=f"{says} - give it with --password .* printed in the README"):
        run(content, Passwords(given, printed="the README"))


def test_without_the_library_7_zip_is_named(run: Unpacker, monkeypatch: pytest.MonkeyPatch) -> None:
    content = aes_bytes(FILES, "right")
    monkeypatch.setitem(sys.modules, "pyzipper", None)
    with pytest.raises(UserError, match=r"encrypted with AES - install stbench\[encrypted\].*7-Zip \(7z x archive"):
        run(content, Passwords(["right"]))


def test_a_damaged_encrypted_archive_is_one_line(run: Unpacker) -> None:
    content = bytearray(aes_bytes(FILES, "right"))
    content[200] ^= 0xFF
    with pytest.raises(UserError, match="damaged"):
        run(bytes(content), Passwords(["right"]))
