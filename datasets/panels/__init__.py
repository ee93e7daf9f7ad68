"""The gene panels of the published benchmark, one text file each, one symbol per line, in the official order.

The lists are data: no published description of how they were derived reproduces them. Their order has no meaning but
is that of published predictions and checkpoints, so it is kept.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from stbench.errors import UserError, unknown
from stbench.system.compressed import open_text


@cache
def _shipped() -> dict[str, tuple[str, ...]]:
    return {
        entry.name.removesuffix(".txt"): tuple(entry.read_text(encoding="utf-8").split())
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".txt")
    }


def panel(name: str) -> list[str]:
    """A shipped panel by its dataset's name: ``her2st`` (785 genes), ``cscc`` (171), ``alex10x`` (685)."""
    shipped = _shipped()
    if name not in shipped:
        raise unknown("panel", name, shipped)
    return list(shipped[name])


def read_panel(path: Path) -> list[str]:
    """A panel from a text file of one gene per line; blank lines and lines that begin with ``#`` are skipped."""
    with open_text(path) as text:
        lines = [line.strip() for line in text]
    genes = [line for line in lines if line and not line.startswith("#")]
    if not genes:
        raise UserError(f"{path} lists no gene - give one gene per line")
    spaced = next((gene for gene in genes if len(gene.split()) > 1), None)
    if spaced is not None:
        raise UserError(f"{path} is not a list of genes (it has the line '{spaced[:60]}') - give one gene per line")
    return unique_genes(genes, str(path))


def unique_genes(genes: list[str], place: str) -> list[str]:
    """``genes`` as they are, if none is named twice."""
    seen: set[str] = set()
    for gene in genes:
        if gene in seen:
            raise UserError(f"{place} names {gene} twice - name each gene once")
        seen.add(gene)
    return genes
