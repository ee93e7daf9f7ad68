"""The three readings of BLEEP."""

from __future__ import annotations

from stbench.readings import Beyond, Readings, Source

from .benchmark import TEXT_TARGET, target_source

LEGACY = "the code of all published results (until October 2024; the code since then does not run)"

READINGS = Readings(
    code="github.com/bowang-lab/BLEEP, commit 2395967, and its history",
    text="mclSTExp's supplement, which gives no hyper-parameters; BLEEP's own paper as remembered, not at hand",
    targets={"released": "lognorm", "paper": TEXT_TARGET},
    sources={
        "target": target_source("preprocessing: Scanpy's normalize_total over all genes, then ln(1 + x)"),
        "epochs": Source(
            "its users report the best model at epoch 30 to 38",
            released="the command line's default 4",
            paper="150, as remembered of BLEEP's paper; not verified",
        ),
        "batch_size": Source(
            "the maintainers: published runs had 128 on each of 4 devices", released="the command line's default 256"
        ),
        "accumulate": Source(
            "the published runs' 4 devices, whose gradients are averaged", released="one device: every batch is a step"
        ),
        "pixels": Source(
            "the code as it was meant: RGB with ImageNet's mean and deviation",
            released=f"{LEGACY}: OpenCV's BGR, 0 to 255, into a network pretrained on normalised RGB",
        ),
        "augment_at_test": Source(
            "patches are augmented in training alone",
            released=f"{LEGACY}: validation patches and queries are flipped and turned at random",
        ),
        "reshuffle": Source(
            "new batches every epoch",
            released="the distributed sampler is never reseeded: the same batches every epoch",
        ),
    },
    beyond=(
        Beyond(
            "Harmony",
            "none: the raw counts' own scale",
            released="expression of all slices, the held-out one too, is corrected together: a leak into the truth",
        ),
        Beyond(
            "depth in the target",
            "10,000 counts a spot (lognorm), the same for all slices",
            released="the slice's median total",
        ),
        Beyond("genes", "the dataset's panel", released="1,000 variable genes of every slice, the held-out one too"),
        Beyond("several devices", "accumulate", released="gradients are averaged, then summed and divided once more"),
        Beyond("border windows", "white outside the image", released="an empty or smaller patch, then an error"),
    ),
)
