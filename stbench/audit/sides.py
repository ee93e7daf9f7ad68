"""Which slices stand on both sides of a fold, and which spots have a copy on the other side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from ..data.prepared import PreparedSlide
from ..data.splits import Fold
from .record import Finding, some

MOST_OF_A_SECTION = 0.5  # share of the smaller slice's spots with a copy in the other, above which both are one section


class Spot(NamedTuple):
    """A spot by its slice and its row in the slice's arrays."""

    slice: str
    row: int


Group = tuple[Spot, ...]  # spots that are copies of each other


@dataclass(frozen=True)
class Sides:
    """``across``: (test slice, training slice) for every fold that separates them."""

    slices: frozenset[str]
    tested: frozenset[str]
    across: frozenset[tuple[str, str]]

    @staticmethod
    def of(folds: Sequence[Fold]) -> Sides:
        return Sides(
            slices=frozenset(name for fold in folds for name in (*fold.test, *fold.train)),
            tested=frozenset(name for fold in folds for name in fold.test),
            across=frozenset((test, train) for fold in folds for test in fold.test for train in fold.train),
        )

    def separate(self, one: str, other: str) -> bool:
        """Whether some fold trains on one of the slices and tests on the other."""
        return (one, other) in self.across or (other, one) in self.across

    def leaked(self, groups: Iterable[Group]) -> set[Spot]:
        """Spots of test slices that have a copy in a training slice of the same fold."""
        found = set()
        for group in groups:
            slices = {spot.slice for spot in group}
            found |= {spot for spot in group if any((spot.slice, other) in self.across for other in slices)}
        return found

    def copies(
        self,
        check: str,
        title: str,
        groups: Sequence[Group],
        slides: Mapping[str, PreparedSlide],
        reason: str,
    ) -> Finding:
        """A leak where a spot has a copy across a fold; a note where copies are on one side only."""
        leaked = self.leaked(groups)
        of = sum(slides[name].n_spots for name in self.tested)
        if leaked:
            pairs = [group for group in groups if not leaked.isdisjoint(group)]
            return Finding(
                check, title, "leak", len(leaked), of, reason, some([_named(pair, slides) for pair in pairs])
            )
        kept = {spot for group in groups for spot in group}
        if kept:
            examples = some([_named(group, slides) for group in groups])
            aside = (
                f"{len(kept)} spots have a copy, but never on the other side of a fold, so no test label is given away."
            )
            return Finding(check, title, "note", 0, of, aside, examples)
        return Finding(check, title, "ok", 0, of, reason)

    def repeated_sections(self, slides: Mapping[str, PreparedSlide], groups: Sequence[Group]) -> Finding:
        """Pairs of slices of which most spots are copies of each other (by patch or by expression)."""
        shared: Counter[tuple[str, str]] = Counter()
        for pair, spots in _spots_shared(groups).items():
            shared[pair] = min(len({spot for spot in spots if spot.slice == name}) for name in pair)
        same = {
            pair: count / min(slides[name].n_spots for name in pair)
            for pair, count in shared.items()
            if count >= MOST_OF_A_SECTION * min(slides[name].n_spots for name in pair)
        }
        across = [pair for pair in same if self.separate(*pair)]
        examples = some([f"{one} = {other}: {share:.0%} of the spots" for (one, other), share in same.items()])
        return Finding(
            "repeated-sections",
            "The same section under two names",
            "leak" if across else "note" if same else "ok",
            len(across or same),
            len(slides) * (len(slides) - 1) // 2,
            f"Of two slices that are one section, at least {MOST_OF_A_SECTION:.0%} of the smaller one's spots would be "
            "copies, by patch or by expression; with one in training the other is known by heart.",
            examples,
        )


def _spots_shared(groups: Iterable[Group]) -> dict[tuple[str, str], set[Spot]]:
    """(slice, slice), in alphabetical order, to the spots of both that have a copy in the other."""
    shared: dict[tuple[str, str], set[Spot]] = {}
    for group in groups:
        for one, other in combinations(sorted({spot.slice for spot in group}), 2):
            shared.setdefault((one, other), set()).update(spot for spot in group if spot.slice in (one, other))
    return shared


def _named(group: Group, slides: Mapping[str, PreparedSlide]) -> str:
    shown = [f"{spot.slice} spot {slides[spot.slice].spot_ids[spot.row]}" for spot in sorted(group)]
    return " = ".join(shown[:2]) + (f" = {len(shown) - 2} more" if len(shown) > 2 else "")
