"""Switches of mclSTExp: everything that its supplement ablates, and what it leaves out."""

from __future__ import annotations

from stbench.switches import NOT_PUBLISHED, Switch, Variant


def _neighbours(*counts: int) -> tuple[Variant, ...]:
    return tuple(
        Variant(f"k = {k}", "the nearest training spot alone" if k == 1 else f"mean of {k} training spots", {"k": k})
        for k in counts
    )


SMALL_ENCODER = "small relative on 32-pixel images, in place of"  # minutes, not hours, on two cores

SWITCHES = (
    Switch(
        "position-encoding",
        "Position encoding",
        (
            Variant("none", "no position enters the spot branch", {"position_encoding": "none"}),
            Variant("sinusoidal", "sines and cosines of the coordinates", {"position_encoding": "sinusoidal"}),
            Variant("naive", "a linear layer on the coordinates, scaled per slice", {"position_encoding": "naive"}),
            Variant("learnable", "a learnt row per array coordinate", {"position_encoding": "learnable"}),
        ),
        "Table S4",
    ),
    Switch(
        "image-encoder",
        "Image encoder",
        (
            Variant("ResNet-18", "not reported, but in the code", {"encoder": "resnet18"}),
            Variant("ResNet-50", "torchvision's ResNet-50", {"encoder": "resnet50"}),
            Variant("ResNet-101", "not reported, but in the code", {"encoder": "resnet101"}),
            Variant("ViT", "timm's ViT-B on patches of 32 pixels", {"encoder": "vit_base_patch32_224"}),
            Variant("DenseNet-121", "torchvision's DenseNet-121", {"encoder": "densenet121"}),
        ),
        "Table S5",
        {
            "quick": (
                Variant("ResNet-10-T", f"{SMALL_ENCODER} ResNet-18", {"encoder": "resnet10t", "input_px": 32}),
                Variant("ResNet-14-T", f"{SMALL_ENCODER} ResNet-50", {"encoder": "resnet14t", "input_px": 32}),
                Variant("ViT, 0.3 M", f"{SMALL_ENCODER} ViT-B", {"encoder": "test_vit", "input_px": 32}),
                Variant(
                    "DenseNet-121",
                    "the paper's DenseNet-121, on 32-pixel images",
                    {"encoder": "densenet121", "input_px": 32},
                ),
            )
        },
    ),
    Switch(
        "distance",
        "Distance that weighs the neighbours",
        (
            Variant("cosine", "weights (1 - cosine similarity)^-2", {"distance": "cosine"}),
            Variant("L1", "weights (sum of absolute differences)^-2", {"distance": "l1"}),
            Variant("L2", "weights (Euclidean distance)^-2", {"distance": "l2"}),
        ),
        "Table S6",
    ),
    Switch(
        "loss-balance",
        "Balance of the two loss terms",
        (
            Variant("λ = 0", "which image belongs to this spot, alone", {"balance": 0.0}),
            Variant("λ = 0.5", "both questions, half and half", {"balance": 0.5}),
            Variant("λ = 1", "which spot belongs to this image, alone", {"balance": 1.0}),
        ),
        "Table S7",
    ),
    Switch(
        "top-k",
        "Number of neighbours",
        _neighbours(1, 200, 400, 600, 800, 1000),  # the figure's first tick says 0, which cannot be
        "Figure S4",
        {
            "published/alex10x": _neighbours(1, 400, 800, 1200, 1600, 2000, 2400, 2800, 3200),
            # a few hundred training spots
            "quick": _neighbours(1, 10, 50, 100, 200, 400),
        },
    ),
    Switch(
        "spot-transformer",
        "Spot Transformer",
        (
            Variant("two blocks", "spots of a batch attend to each other", {"layers": 2}),
            Variant("none", "projection straight on expression plus position", {"layers": 0}),
        ),
        NOT_PUBLISHED,
    ),
    Switch(
        "objective",
        "What is learnt",
        (
            Variant("contrastive", "spots and patches in one space, then retrieval", {"objective": "contrastive"}),
            Variant("regression", "expression straight from the image, by squared error", {"objective": "regression"}),
        ),
        NOT_PUBLISHED,
    ),
    Switch(
        "fine-tuning",
        "Training of the image encoder",
        (
            Variant("trained", "the whole encoder learns", {"freeze_encoder": False}),
            Variant("frozen", "the encoder stays as it was loaded", {"freeze_encoder": True}),
        ),
        NOT_PUBLISHED,
    ),
    Switch(
        "spot-expression",
        "Expression in the spot branch",
        (
            Variant("expression", "a spot is its expression plus its position", {"expression": "target"}),
            Variant("position alone", "a spot is nothing but its position", {"expression": "none"}),
        ),
        NOT_PUBLISHED,
    ),
    Switch(
        "target",
        "Scale that is predicted",
        (
            Variant("per spot", "counts as shares of the spot's sum", target="spot-log10-cp10k"),
            Variant("per gene", "counts as shares of the gene's sum over the slice", target="gene-log10-cp10k"),
        ),
        NOT_PUBLISHED,
    ),
    Switch(
        "key-context",
        "Who attends to whom when keys are made",
        (
            Variant("runs", "runs of 32 spots of one slice", {"key_context": "chunks"}),
            Variant("slice", "all spots of a slice", {"key_context": "slice"}),
            Variant("straddling", "runs of 32 across slices, as the code", {"key_context": "straddling"}),
        ),
        NOT_PUBLISHED,
    ),
    Switch(
        "temperature",
        "Temperature and cosine",
        (
            Variant("dot product, T = 1", "as the code", {"temperature": 1.0, "normalise": False}),
            Variant("dot product, T = 16", "softer: logits near 16 times smaller", {"temperature": 16.0}),
            Variant("cosine, T = 0.07", "unit vectors, as CLIP starts with", {"temperature": 0.07, "normalise": True}),
        ),
        NOT_PUBLISHED,
    ),
)
