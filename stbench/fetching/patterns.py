"""Which members of an archive are wanted."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Pattern:
    """The path of a member, in which ``*`` stands for any characters but ``/``.

    Examples
    --------
    >>> counts = Pattern("*_P2_ST_rep1_stdata.tsv.gz", "P2_ST_rep1", required=True)
    >>> counts.matches("GSM4284316_P2_ST_rep1_stdata.tsv.gz"), counts.matches("raw/GSM4284316_P2_ST_rep1_stdata.tsv.gz")
    (True, False)
    """

    text: str
    slice: str  # that needs it
    required: bool

    def matches(self, path: str) -> bool:
        return re.fullmatch("[^/]*".join(map(re.escape, self.text.split("*"))), path) is not None
