"""Switches of HisToGene: the tables of array positions, and the Transformer over all spots of a slide."""

from __future__ import annotations

from stbench.switches import Switch, Variant

SWITCHES = (
    Switch(
        "position-tables",
        "Tables of array positions",
        (
            Variant("learnt", "a learnt row per array coordinate", {"positions": "learnt"}),
            Variant("none", "no position: spots are a set of patches", {"positions": "none"}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "depth",
        "Transformer blocks",
        (
            Variant("0 blocks", "no spot sees another", {"n_layers": 0}),
            Variant("2 blocks", "two blocks", {"n_layers": 2}),
            Variant("4 blocks", "four blocks: class and README", {"n_layers": 4}),
            Variant("8 blocks", "eight blocks: notebook", {"n_layers": 8}),
        ),
        "claimed by its paper",
        {
            "quick": (
                Variant("0 blocks", "no spot sees another", {"n_layers": 0}),
                Variant("1 block", "one block", {"n_layers": 1}),
                Variant("2 blocks", "two blocks", {"n_layers": 2}),
                Variant("4 blocks", "four blocks", {"n_layers": 4}),
            )
        },
    ),
    Switch(
        "augmentation",
        "Augmentation",
        (
            Variant("none", "patches as they are", {"augment": "none"}),
            Variant("symmetries", "random flips and quarter turns of every patch", {"augment": "d4"}),
        ),
    ),
)
