"""The three readings of mclSTExp."""

from __future__ import annotations

from stbench.readings import Beyond, Readings, Source

from .benchmark import PANEL, SECTIONS, TEXT_TARGET, target_source

READINGS = Readings(
    code="github.com/shizhiceng/mclSTExp, commit fdd3ab1",
    text="Min et al. 2024 and its supplement of July 2024",
    targets={"released": "gene-log10-cp10k", "paper": TEXT_TARGET},
    sources={
        "target": target_source(
            "evaluation scripts: values and truth are the hvg_* matrices, each gene scaled over the slice's spots"
        ),
        "expression": Source(
            "the spot encoder sees what is predicted",
            released="the dataset class scales per spot on HER2+ and cSCC, though values and truth are per "
            "gene; on Alex+10x all are per gene",
        ),
        "epochs": Source(
            "90, and the supplement's 15 on Alex+10x",
            released="the default 90 for every dataset",
            paper="Note 4: 90, 90, 15",
        ),
        "optimiser": Source("the released code's", released="Adam with L2", paper="Note 4: AdamW"),
        "pixels": Source(
            "RGB in [0, 1] on all datasets", released="the Visium loader reads with OpenCV: BGR, 0 to 255, on Alex+10x"
        ),
        "augmentation": Source(
            "one recipe for all datasets", released="the Visium loader: flips and quarter turns on Alex+10x"
        ),
        "augment_at_test": Source(
            "in training alone", released="the Visium loader augments every pass: queries on Alex+10x are random"
        ),
        "normalise": Source("the released code's plain dot product", paper="cosine similarity in the loss"),
        "k": Source(
            "200 everywhere: each dataset has one source for it",
            released="evaluation scripts: 200, 600 on cSCC, 200",
            paper="Note 7: 200, 200, 2400 on Alex+10x",
        ),
        "distance": Source("L2, the text's and two of three scripts'", released="the HER2+ evaluation script: L1"),
        "key_context": Source(
            "runs of 32 inside a training slice: nothing of a test slice is seen",
            released="evaluation scripts embed all slices one after the other, the test slice at its place, 32 spots "
            "at a time: about 30 keys of a fold share a run with test spots and attend to their expression: a leak",
            paper="runs of training's size, inside a slice",
        ),
        "key_chunk": Source(
            "the released code's 32",
            released="evaluation scripts: batches of 32",
            paper="N spots, consistent with training",
        ),
    },
    beyond=(
        Beyond(
            "attention",
            "as in the released code: separate projections, pre-norm",
            paper="V = Q = K; post-norm in Figure 1",
        ),
        Beyond(
            "initial weights of the encoder",
            "ImageNet, as in the released code and the main text",
            paper="Note 4: trained from scratch; --weights random is that",
        ),
        Beyond(
            "border windows on Alex+10x",
            "black outside the image (padding), as PIL crops on HER2+ and cSCC",
            released="an empty or smaller patch, then an error",
        ),
        Beyond(
            "running it", "runs", released="as released none of the scripts runs: unknown keywords, undefined names"
        ),
        PANEL,
        SECTIONS,
    ),
)
