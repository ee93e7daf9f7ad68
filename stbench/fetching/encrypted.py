"""Zip archives that want a password: the user's, never one that is written here."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

AES = 99  # the compression method that stands for "encrypted with AES" (WinZip, 7-Zip)
ASKED = 3  # times


class WrongPassword(Exception):  # noqa: N818 - becomes a UserError where the archive is named
    """No password that is known opens the archive."""


@dataclass
class Passwords:
    """What the user gave, and a way to ask for more.

    Parameters
    ----------
    given : list of str
        Tried in turn on every archive: a dataset may have several passwords.
    printed : str, optional
        Where the publisher prints them.
    ask : callable, optional
        Asks for the password of an archive, and returns it or ``None``; absent where there is nobody to ask.
    """

    given: list[str] = field(default_factory=list)
    printed: str | None = None
    ask: Callable[[str], str | None] | None = None

    def words(self, archive: Path) -> Iterator[str]:
        yield from list(self.given)
        for _ in range(ASKED if self.ask is not None else 0):
            word = self.ask(archive.name) if self.ask is not None else None
            if not word:
                return
            self.given.append(word)
            yield word


def is_aes(info: zipfile.ZipInfo) -> bool:
    return info.compress_type == AES


def open_aes(archive: Path, passwords: Passwords) -> zipfile.ZipFile:
    """A zip archive whose members are encrypted with AES, which Python's own zipfile cannot read."""
    try:
        import pyzipper
    except ImportError as error:
        raise UserError(
            f"{archive} is encrypted with AES - install stbench[encrypted], or unpack it there with 7-Zip (7z x "
            f"{archive.name}{_printed(passwords)})"
        ) from error
    return pyzipper.AESZipFile(archive)


def broken_aes() -> tuple[type[Exception], ...]:
    """What the AES-capable library raises of a damaged archive, if it was used: a type of its own."""
    library = sys.modules.get("pyzipper")
    return () if library is None else (library.BadZipFile,)


def unlock(opened: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path, passwords: Passwords) -> None:
    """Set the password that opens ``info``, the one that was set already included."""
    if opened.pwd and _opens(opened, info):
        return
    tried = 0
    for word in passwords.words(archive):
        opened.setpassword(word.encode())
        tried += 1
        if _opens(opened, info):
            return
    how = f"give it with --password or STBENCH_ARCHIVE_PASSWORD{_printed(passwords)}"
    wrong = f"and {'the one' if tried == 1 else f'none of {tried}'} given opens it" if tried else "and none was given"
    raise WrongPassword(f"{archive} wants a password, {wrong} - {how}")


def _opens(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    try:
        with opened.open(info) as handle:
            handle.read(1)
    except RuntimeError:  # as both libraries tell of a wrong password
        return False
    return True


def _printed(passwords: Passwords) -> str:
    return f"; passwords are printed in {passwords.printed}" if passwords.printed else ""
