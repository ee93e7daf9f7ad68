"""What kind of names genes have, and why two lists of them do not match."""

from __future__ import annotations

import re
from collections.abc import Sequence

# with the letters of the species (ENSMUSG: mouse) and a version that may follow
ENSEMBL = re.compile(r"ENS[A-Z]{0,4}G\d+(?P<version>\.\d+)?(?:-\d+)?", re.IGNORECASE)


def kind(names: Sequence[str]) -> str:
    """``Ensembl identifiers``, ``Ensembl identifiers with versions`` or ``symbols``: what most of ``names`` are."""
    matches = [found for name in names if (found := ENSEMBL.fullmatch(name))]
    if 2 * len(matches) <= len(names):
        return "symbols"
    versioned = sum(found["version"] is not None for found in matches)
    return "Ensembl identifiers with versions" if 2 * versioned > len(matches) else "Ensembl identifiers"


def mismatch(ours: Sequence[str], theirs: Sequence[str], us: str, them: str) -> str:
    """Why few of ``ours`` are among ``theirs``, and what to do, in words; ``us`` and ``them`` say whose they are.

    Examples
    --------
    >>> mismatch(["TP53", "ACTB"], ["ENSG00000141510", "ENSG00000075624"], "S1", "the panel")
    'S1 names genes by symbols (TP53, ...), the panel by Ensembl identifiers (ENSG00000141510, ...): name them alike'
    >>> mismatch(["Trp53", "Actb"], ["TP53", "ACTB"], "S1", "the panel")
    'S1 writes Actb, the panel ACTB, as of mouse and human: compare one species'
    """
    known, mine = set(theirs), set(ours)
    first = next((name for name in ours if name not in known), ours[0])
    second = next((name for name in theirs if name not in mine), theirs[0])
    kinds = kind(ours), kind(theirs)
    if kinds[0] != kinds[1]:
        return f"{us} names genes by {kinds[0]} ({first}, ...), {them} by {kinds[1]} ({second}, ...): name them alike"
    plain = {name.casefold(): name for name in theirs if name not in mine}
    other = next((name for name in ours if name not in known and name.casefold() in plain), None)
    if other is not None:
        return f"{us} writes {other}, {them} {plain[other.casefold()]}, as of mouse and human: compare one species"
    return f"{us} has {first}, ..., {them} {second}, ...: use the same kind of names in both"
