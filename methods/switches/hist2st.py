"""Switches of Hist2ST: its three modules, the likelihood of counts, the distillation."""

from __future__ import annotations

from stbench.switches import Switch, Variant

SWITCHES = (
    Switch(
        "convmixer",
        "Convolutional mixer",
        (
            Variant("with", "mixer blocks on every patch"),
            Variant("without", "a patch's first convolution goes straight on", {"n_mixers": 0}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "transformer",
        "Transformer",
        (
            Variant("with", "every spot attends to every other"),
            Variant("without", "no attention between spots", {"n_layers": 0}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "graph",
        "Graph network",
        (
            Variant("with", "means over neighbouring spots, layer by layer"),
            Variant("without", "the LSTM reads the Transformer's output alone", {"n_graph_layers": 0}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "counts-loss",
        "Likelihood of raw counts",
        (
            Variant("ZINB", "zero-inflated negative binomial", {"counts_loss": "zinb"}),
            Variant("NB", "negative binomial, a variant of the code", {"counts_loss": "nb"}),
            Variant("none", "squared error alone", {"counts_loss": "none"}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "distillation",
        "Self-distillation",
        (
            Variant("with", "augmented copies of the slide teach"),
            Variant("without", "no copies, no teacher", {"copies": 0}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "positions",
        "Tables of array positions",
        (
            Variant("learnt", "a learnt row per array coordinate", {"positions": "learnt"}),
            Variant("none", "no position but the graph's", {"positions": "none"}),
        ),
    ),
    Switch(
        "neighbours",
        "Neighbours in the graph",
        tuple(Variant(f"k = {k}", f"the {k} nearest spots", {"k": k}) for k in (2, 4, 8)),
    ),
)
