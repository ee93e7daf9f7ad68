"""The parts of a report, in the order in which the page shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..sections.section import Section
from . import (
    alarms,
    audit,
    claims,
    common_trials,
    correlation,
    cost,
    encoder_grid,
    gene_maps,
    gene_ranking,
    image,
    readings,
    replicate_gap,
    sharpness,
    targets,
)
from .ablation import part as ablation
from .ablation.study import study_of
from .ceiling import part
from .domains import part as domains
from .part import Context, Part
from .significance import part as significance

PARTS: Sequence[Callable[[Section, Context], Part | None]] = (
    common_trials.part,
    audit.part,
    part.part,
    significance.part,
    image.part,
    replicate_gap.part,
    targets.part,
    readings.part,
    encoder_grid.part,
    gene_maps.part,
    gene_ranking.part,
    correlation.part,
    domains.part,
    sharpness.part,
    alarms.part,
    cost.part,
    claims.part,
)

# of an ablation study, whose entries are variants of one method: what ranks or draws methods says nothing there
PARTS_OF_A_STUDY: Sequence[Callable[[Section, Context], Part | None]] = (
    ablation.part,
    audit.part,
    alarms.part,
    cost.part,
)


def parts(section: Section) -> Sequence[Callable[[Section, Context], Part | None]]:
    """What makes the parts of a section; one that has nothing to work with makes none."""
    return PARTS if study_of(section) is None else PARTS_OF_A_STUDY
