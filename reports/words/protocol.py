"""Under which protocol numbers were made, in words."""

from __future__ import annotations

from ..sections.section import Section

SPLITS = {"loso": "leave one slice out", "lopo": "leave one patient out", "kfold": "k-fold over slices"}
INCOMPLETE = "†"


def split_title(split: str) -> str:
    return SPLITS.get(split, split)


def protocol(section: Section) -> str:
    """What every number must be read with: dataset, slices, split and target, in one line."""
    return f"{section.title}, {section.coverage}, {split_title(section.split)}, target {section.target}"


def caption(section: Section, what: str) -> str:
    return f"{protocol(section)}: {what}"
