"""Text on streams that cannot hold all of it: said in letters that they have, never an error."""

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
    """What stands for the characters that an encoding lacks: their spelling, else the letter without its accent, else
    their code point (``\\u809d``), which names the character without doubt.

    Bytes of a path that are no text (lone surrogates) are shown as bytes (``\\xff``).
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
    """Let standard output and standard error take any text, whatever the terminal, scheduler or container set."""
    codecs.register_error(READABLE, readable)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a caller put in its place may take any text anyway
            stream.reconfigure(errors=READABLE)
