"""The three readings of STnet."""

from __future__ import annotations

from stbench.readings import Beyond, Readings, Source

from .benchmark import TEXT_TARGET, target_source

READINGS = Readings(
    code="github.com/bryanhe/ST-Net, commit 2406344",
    text="mclSTExp's supplement: DenseNet-121, then fully connected layers to genes, and nothing more; ST-Net's own "
    "article was not at hand",
    targets={"released": "stnet-logfreq", "paper": TEXT_TARGET},
    sources={
        "target": target_source("the published command line (--norm, log): ln((1 + c) / (n + Z)) over all genes"),
        "select": Source(
            "50 epochs and the last one: one training per fold, and no choice to explain",
            released="the driver: the epoch of lowest error in an inner 4-fold cross-validation over training patients",
        ),
        "padding": Source(
            "white as the glass around tissue", released="the reader (OpenSlide): black outside the slide"
        ),
    },
    beyond=(
        Beyond(
            "window's centre",
            "rounded down, for all methods; patches are cut once",
            released="rounded to the nearest pixel",
        ),
        Beyond(
            "spots near the border",
            "kept, and what lies outside is padded",
            released="left out where the window of 224 px leaves the image, or where a spot has no label",
        ),
        Beyond(
            "gene panel",
            "the dataset's panel",
            released="the 250 genes of highest mean over all patients, tested ones too",
        ),
        Beyond("split", "what --split says; --split lopo is the published one", released="one patient held out"),
        Beyond(
            "n in the target",
            "number of genes that the slice's own file lists",
            released="number of genes in the union of all sections",
        ),
    ),
)
