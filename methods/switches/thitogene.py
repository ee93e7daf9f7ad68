"""Switches of THItoGene: dynamic convolution, capsules, Transformer, graph attention."""

from __future__ import annotations

from stbench.switches import Switch, Variant

SWITCHES = (
    Switch(
        "dynamic-convolution",
        "First convolution",
        (
            Variant("dynamic", "kernels mixed for each patch by what it looks like", {"convolution": "dynamic"}),
            Variant("plain", "one kernel for all patches", {"convolution": "plain"}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "capsules",
        "Capsules",
        (
            Variant("capsules", "primary capsules and routing", {"patch_features": "capsules"}),
            Variant("pooled", "mean of the feature maps, then a linear layer", {"patch_features": "pooled"}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "graph-attention",
        "Graph attention",
        (
            Variant("neighbours", "a spot receives from its neighbours", {"graph": "neighbours"}),
            Variant("self", "from itself alone: linear layers", {"graph": "self", "self_loops": False}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "graph-softmax",
        "Normalisation of the graph attention",
        (
            Variant("as published", "over the spots that a spot sends to", {"gat_softmax": "official"}),
            Variant("textbook", "over the spots that a spot receives from", {"gat_softmax": "neighbours"}),
        ),
    ),
    Switch(
        "transformer",
        "Transformer blocks",
        (
            Variant("4 blocks", "four blocks: HER2+", {"n_layers": 4}),
            Variant("8 blocks", "eight blocks: cSCC", {"n_layers": 8}),
            Variant("none", "no attention over the slide", {"n_layers": 0}),
        ),
        "claimed by its paper",
        {
            "quick": (
                Variant("none", "no attention over the slide, as the quick preset", {"n_layers": 0}),
                Variant("1 block", "one block", {"n_layers": 1}),
            )
        },
    ),
    Switch(
        "positions",
        "Tables of array positions",
        (
            Variant("learnt", "a learnt row per array coordinate", {"positions": "learnt"}),
            Variant("none", "no position but the graph's", {"positions": "none"}),
        ),
    ),
)
