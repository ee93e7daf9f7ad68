"""Names as MLflow takes them, and back.

In names of metrics, parameters and tags MLflow takes letters, digits, blanks and ``_-.:/``, and it reads them as paths.
Whatever else stands in a name is written as its code point, as Office Open XML does (``ST_Xstring``): ``A+B`` becomes
``A_x2B_B``. No two names become one, and every name can be read back.
"""

from __future__ import annotations

import hashlib
import re

LONGEST = 250  # characters of a name
WRITTEN = re.compile(r"_x([0-9A-F]{2,6})_")


def written(name: str) -> str:
    """``name`` as one part of an MLflow name.

    >>> written("A+B"), written("P1/a"), written("S1"), written("_x2B_")
    ('A_x2B_B', 'P1_x2F_a', 'S1', '_x5F_x2B_')
    """
    return "".join(letter if _may_stand(name, place) else f"_x{ord(letter):02X}_" for place, letter in enumerate(name))


def _may_stand(name: str, place: int) -> bool:
    letter = name[place]
    if letter == "_":  # unless it begins what looks like a code point
        return not re.match(r"x[0-9A-F]{2}", name[place + 1 :])
    if letter == ".":  # a part of dots alone is a folder
        return bool(name.strip("."))
    if letter == " ":  # databases forget blanks at an end
        return 0 < place < len(name) - 1
    return letter.isalnum() or letter in "-:"


def read(part: str) -> str:
    """What :func:`written` was given."""
    return WRITTEN.sub(lambda found: chr(int(found.group(1), 16)), part)


def joined(*parts: str) -> str:
    """``parts``, as written, with slashes between them; what is longer than MLflow allows ends in a digest instead."""
    name = "/".join(map(written, parts))
    if len(name) <= LONGEST:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{name[: LONGEST - len(digest) - 1].rstrip(' ./')}-{digest}"
