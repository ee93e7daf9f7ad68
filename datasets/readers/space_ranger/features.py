"""Which rows of a matrix are genes: beside them stand antibodies, controls and probes that bind to other genes, too."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.system.compressed import open_text
from stbench.system.wording import that

GENES = "Gene Expression"
DEPRECATED = "DEPRECATED_"  # in front of the ids of probes that 10x Genomics withdrew


@dataclass(frozen=True)
class Features:
    """The rows of a matrix."""

    names: list[str]
    ids: list[str] | None = None  # None where the file knows one name of each only
    kinds: list[str] | None = None  # None where the file knows genes only

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, rows: np.ndarray) -> Features:
        ids = None if self.ids is None else [self.ids[row] for row in rows]
        kinds = None if self.kinds is None else [self.kinds[row] for row in rows]
        return Features([self.names[row] for row in rows], ids, kinds)


def genes_of(
    features: Features, place: Path, excluded: frozenset[str] = frozenset()
) -> tuple[np.ndarray, Counter[str], list[str]]:
    """The rows that are genes, the types of those that are not, and notes on genes that are left out nevertheless.

    ``excluded`` are ids of genes to be left out.
    """
    notes: list[str] = []
    others: Counter[str] = Counter()
    is_gene = np.ones(len(features), dtype=bool)
    if features.kinds is not None:
        others = Counter(kind for kind in features.kinds if kind != GENES)
        is_gene = np.array([kind == GENES for kind in features.kinds], dtype=bool)
        if not is_gene.any():
            there = ", ".join(f"'{kind}'" for kind in list(others)[:4])
            raise UserError(f"{place} has no feature of type '{GENES}' (but {there}) - it is not a matrix of genes")
    if features.ids is not None:
        withdrawn = is_gene & np.array([name.startswith(DEPRECATED) for name in features.ids], dtype=bool)
        if withdrawn.any():
            notes.append(
                f"{that(int(withdrawn.sum()), 'deprecated probe', 'is', 'are')} left out (ids in {DEPRECATED}...)"
            )
        unspecific = is_gene & ~withdrawn & np.array([name in excluded for name in features.ids], dtype=bool)
        if unspecific.any():
            left_out = that(int(unspecific.sum()), "gene", "is", "are")
            notes.append(
                f"{left_out} left out, as Space Ranger does by default: a probe of theirs binds "
                "to other genes, too (included = FALSE in the probe set)"
            )
        is_gene &= ~withdrawn & ~unspecific
        if not is_gene.any():
            raise UserError(f"{place} has no genes but those of deprecated or excluded probes - fetch it again")
    return np.flatnonzero(is_gene), others, notes


def note_of_others(others: Counter[str]) -> list[str]:
    """A note on features that are no genes, where there are any."""
    numbers = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
    n = sum(others.values())
    what = "1 feature is no gene and is" if n == 1 else f"{n} features are no genes and are"
    return [f"{what} left out ({numbers})"] if others else []


def excluded_genes(path: Path) -> frozenset[str]:
    """Ids of the genes with a probe that ``probe_set.csv`` does not include."""
    import pandas as pd

    with open_text(path) as text:
        try:
            frame = pd.read_csv(text, comment="#", dtype=str, keep_default_na=False)
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise UserError(f"{path} is not a table of probes ({reason_of(error)}) - fetch it again") from error
    if "gene_id" not in frame or "included" not in frame:  # the first versions said nothing of the kind
        return frozenset()
    return frozenset(frame["gene_id"][frame["included"].str.strip().str.upper() == "FALSE"])
