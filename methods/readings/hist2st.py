"""The three readings of Hist2ST."""

from __future__ import annotations

from stbench.readings import Beyond, Readings, Source

from .benchmark import PANEL, SECTIONS, TEXT_TARGET, WINDOW_IN_TEXT, target_source

READINGS = Readings(
    code="github.com/biomed-AI/Hist2ST, last commit of 2022-04-27",
    text="mclSTExp's supplement; Hist2ST's abstract, workflow figure and README (its full text was not at hand)",
    targets={"paper": TEXT_TARGET},
    sources={
        "target": target_source("the loaders: per spot over the panel, 10,000, log10, as recommended"),
        "patch_px": Source("the released code's 112", paper=f"{WINDOW_IN_TEXT}; resized to the network's 112"),
        "predict_from": Source(
            "the head that is trained by squared error, which the released code evaluates",
            paper="abstract and README: expression is predicted following ZINB",
        ),
        "zinb_scale": Source(paper="the scale of the text's target; used by predict_from = zinb_mean alone"),
        "include_self": Source(
            "neighbours alone, as in the released code",
            paper="GraphSAGE by name, in whose own definition a node is its own neighbour",
        ),
    },
    beyond=(
        Beyond(
            "isolated spots",
            "receive nothing (isolated = zero), equal wherever the released code is finite",
            released="0 / 0: every spot of the slide becomes NaN; only where pruning leaves a spot alone",
        ),
        Beyond(
            "ties between neighbours",
            "by distance, then index",
            released="an unstable sort: 11 % of HER2+ spots have other neighbours with another NumPy",
        ),
        Beyond(
            "mixer, after it, and the head",
            "the released code's",
            paper="figure: one depthwise convolution, GELU before BatchNorm; MLPs after the mixer and as head",
        ),
        Beyond(
            "pruning on cSCC",
            "none, as in the released notebooks",
            released="the training script's default is a grid, whose isolated spots make NaN of all weights",
        ),
        Beyond("border windows", "white outside the image", released="an error"),
        Beyond("position tables on Alex+10x", "128 rows", released="64 rows: an index error; it was never run there"),
        PANEL,
        SECTIONS,
    ),
)
