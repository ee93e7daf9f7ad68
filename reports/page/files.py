"""What is written, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportFiles:
    """What a report consists of. ``headlines``: for each section its name and what it says in plain words."""

    directory: Path
    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    headlines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LeaderboardFiles:
    """What a leaderboard consists of. ``headlines``: for each section its name and its finding in one sentence."""

    directory: Path
    page: Path
    table: Path
    headlines: tuple[tuple[str, str], ...]
