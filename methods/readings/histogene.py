"""The three readings of HisToGene."""

from __future__ import annotations

from stbench.readings import Beyond, Readings, Source

from .benchmark import PANEL, SECTIONS, TEXT_TARGET, WINDOW_IN_TEXT, target_source

READINGS = Readings(
    code="github.com/maxpmx/HisToGene, commit 44ff75b (tutorial.ipynb, the path that works)",
    text="mclSTExp's supplement, which gives no hyper-parameters; HisToGene's preprint was not at hand",
    targets={"paper": TEXT_TARGET},
    sources={
        "target": target_source("the loaders: per spot over the panel, 10,000, log10, as recommended"),
        "patch_px": Source("the released code's 112", paper=WINDOW_IN_TEXT),
        "emulate_skin_bug": Source(
            "mended, as Hist2ST and THItoGene mended it in their copies",
            released="the cSCC loader returns inside its loop: all patches but a slide's first stay black",
        ),
    },
    beyond=(
        Beyond("border windows", "white outside the image", released="an error"),
        Beyond("position tables on Alex+10x", "128 rows", released="64 rows: an index error; it was never run there"),
        PANEL,
        SECTIONS,
    ),
)
