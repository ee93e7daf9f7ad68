"""The three readings of THItoGene."""

from __future__ import annotations

from stbench.readings import Beyond, Readings, Source

from .benchmark import PANEL, SECTIONS, TEXT_TARGET, WINDOW_IN_TEXT, target_source

READINGS = Readings(
    code="github.com/yrjia1015/THItoGene, commit of 2025-04-09 (Python sources of 2023-11-02)",
    text="mclSTExp's supplement; THItoGene's abstract, workflow figure and README (its full text was not at hand)",
    targets={"paper": TEXT_TARGET},
    sources={
        "target": target_source("the loaders: per spot over the panel, 10,000, log10, as recommended"),
        "epochs": Source("the training script's 300", paper="the README's recipe: 200"),
        "n_layers": Source(
            "as the training script has them: 4, and 8 on cSCC", released="the same", paper="the README's recipe: 4"
        ),
        "patch_px": Source("the released code's 112", paper=f"{WINDOW_IN_TEXT}; resized to the network's 112"),
        "gat_softmax": Source(
            "the released code's, which published numbers and weights need: a sender's weights sum to 1",
            paper="figure: graph attention, whose own definition lets a receiver's weights sum to 1",
        ),
        "self_loops": Source(
            "none, as in the released code",
            paper="figure: graph attention, in whose own definition a spot attends to itself",
        ),
    },
    beyond=(
        Beyond(
            "device of the routing's scale",
            "a plain number",
            released="a tensor on the CPU: the code as published does not run on a GPU",
        ),
        Beyond("seeds", "set for every fold", released="set once, so that a fold depends on those before it"),
        Beyond(
            "ties between neighbours",
            "by distance, then index",
            released="an unstable sort: 11 % of HER2+ spots have other neighbours with another NumPy",
        ),
        Beyond("border windows", "white outside the image", released="an error"),
        Beyond("position tables on Alex+10x", "128 rows", released="64 rows: an index error; it was never run there"),
        PANEL,
        SECTIONS,
    ),
)
