"""What mclSTExp's paper and supplement say of all six methods: the text that every ``paper`` preset follows."""

from __future__ import annotations

from stbench.readings import Beyond, Source

TEXT_TARGET = "spot-ln-cpm"
TARGET_IN_TEXT = (
    "mclSTExp, Note 2: divide by the spot's total, times 1,000,000, natural log(1 + x); in no released code"
)
WINDOW_IN_TEXT = "mclSTExp, Note 2: 224 x 224 px around the spot, for all methods"

PANEL = Beyond(
    "gene panel",
    "the dataset's panel, the same for all methods",
    released="a fixed list that was chosen with the test slices",
    paper="Note 2: chosen from the training data's sections",
)
SECTIONS = Beyond(
    "order of the training slices",
    "the dataset's order, shuffled with a seed",
    released="through a Python set of names: another order in every process",
)


def target_source(released: str = "") -> Source:
    """Of the target: the benchmark's recommendation, the released code's scale, the text's."""
    return Source(
        "one scale for all methods, which HisToGene, Hist2ST, THItoGene and mclSTExp train on", released, TARGET_IN_TEXT
    )
