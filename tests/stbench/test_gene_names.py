"""Names of genes: what kind they are, and why two lists do not match."""

from __future__ import annotations

import pytest

from stbench.slides.gene_names import kind, mismatch

SYMBOLS = ["TP53", "ACTB", "ENSA", "H2-K1", "7SK"]
IDS = ["ENSG00000141510", "ENSMUSG00000059552", "ensg00000075624"]
VERSIONED = [f"{name}.{number}" for number, name in enumerate(IDS, start=3)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (SYMBOLS, "symbols"),
        (IDS, "Ensembl identifiers"),
        (VERSIONED, "Ensembl identifiers with versions"),
        ([*IDS, "TP53"], "Ensembl identifiers"),
        (["ENSG00000141510-1", *IDS], "Ensembl identifiers"),
        ([], "symbols"),
    ],
)
def test_most_names_say_what_kind_they_are(names: list[str], expected: str) -> None:
    assert kind(names) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (SYMBOLS, IDS, "S1 names genes by symbols (TP53, ...), S2 by Ensembl identifiers (ENSG00000141510, ...)"),
        (VERSIONED, IDS, "S1 names genes by Ensembl identifiers with versions (ENSG00000141510.3, ...), S2 by"),
        (["Trp53", "Actb"], ["ACTB", "TP53"], "S1 writes Actb, S2 ACTB, as of mouse and human"),
        (["A", "B"], ["A", "C"], "S1 has B, ..., S2 C, ...: use the same kind of names"),
        (["A"], ["A"], "S1 has A, ..., S2 A, ..."),
    ],
)
def test_why_names_do_not_match_is_said(ours: list[str], theirs: list[str], words: str) -> None:
    assert words in mismatch(ours, theirs, "S1", "S2")
