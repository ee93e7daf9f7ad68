"""Printing on streams whose encoding lacks some characters: these are spelt in others, and are never an error."""

from __future__ import annotations

import codecs
import sys
import unicodedata

READABLE = "stbench.readable"  # name of the error handler

SPELT = {
    "×": "x",
    "·": "*",
    "±": "+/-",
    "−": "-",
    "–": "-",
    "—": "-",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "…": "...",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "µ": "u",
    "λ": "lambda",
    "σ": "sigma",
    "δ": "delta",
    "τ": "tau",
    "π": "pi",
    "ß": "ss",
    "ø": "o",
    "Ø": "O",
    "æ": "ae",
    "Æ": "AE",
    "ł": "l",
    "Ł": "L",
}


def readable(error: UnicodeError) -> tuple[str, int]:
    """Error handler that replaces characters that an encoding lacks: by their spelling, else by the letter without its
    accent, else by the code point (``\\u809d``), which identifies the character.

    Bytes of a path that are not text (lone surrogates) are shown as bytes (``\\xff``).
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_spelt(letter, error.encoding) for letter in error.object[error.start : error.end]), error.end


def _spelt(letter: str, encoding: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    if "\u2500" <= letter <= "\u257f":  # frames of tables
        return "-" if letter in "─━╌╍┄┅┈┉═" else "|" if letter in "│┃┆┇┊┋║" else "+"
    base = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    for candidate in (SPELT.get(letter, ""), base):
        if candidate and candidate.isascii():
            return candidate
    return letter.encode("ascii", "backslashreplace").decode()


def make_readable() -> None:
    """Let standard output and standard error accept any text, whatever encoding the terminal or scheduler has set."""
    codecs.register_error(READABLE, readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a replacement by the caller may accept any text anyway
            stream.reconfigure(errors=READABLE)
