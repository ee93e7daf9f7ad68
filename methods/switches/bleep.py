"""Switches of BLEEP: its soft targets, its encoder, and how neighbours are summed up."""

from __future__ import annotations

from stbench.switches import Switch, Variant

SWITCHES = (
    Switch(
        "soft-targets",
        "Soft targets",
        (
            Variant("soft", "similar spots count as partly right, with gradients through that", {"targets": "code"}),
            Variant("detached", "soft targets without gradients through them", {"targets": "detached"}),
            Variant("one-hot", "only the own spot is right: the usual CLIP loss", {"targets": "one-hot"}),
        ),
        "claimed by its paper",
    ),
    Switch(
        "image-encoder",
        "Image encoder",
        (
            Variant("ResNet-50", "timm's ResNet-50", {"encoder": "resnet50.a1_in1k"}),
            Variant("ResNet-101", "timm's ResNet-101", {"encoder": "resnet101.a1h_in1k"}),
            Variant("ViT", "timm's ViT-B on patches of 32 pixels", {"encoder": "vit_base_patch32_224"}),
            Variant("DenseNet-121", "torchvision's DenseNet-121", {"encoder": "densenet121"}),
        ),
        under={
            "quick": (
                Variant(
                    "ResNet-10-T",
                    "small relative on 32-pixel images, in place of ResNet-50",
                    {"encoder": "resnet10t", "input_px": 32},
                ),
                Variant(
                    "ViT-Ti",
                    "small relative on 32-pixel images, in place of ViT-B",
                    {"encoder": "vit_tiny_patch16_224", "input_px": 32},
                ),
            )
        },
    ),
    Switch(
        "top-k",
        "Number of neighbours",
        tuple(Variant(f"k = {k}", f"{k} nearest training spots", {"k": k}) for k in (1, 10, 50, 100, 200)),
        under={
            "quick": tuple(Variant(f"k = {k}", f"{k} nearest training spots", {"k": k}) for k in (1, 5, 20, 50, 100))
        },
    ),
    Switch(
        "aggregation",
        "How neighbours are summed up",
        (
            Variant("average", "plain mean", {"aggregation": "average"}),
            Variant("nearest", "the nearest one alone", {"aggregation": "nearest"}),
            Variant("exponential", "weights fall exponentially", {"aggregation": "exponential"}),
            Variant("inverse square", "weights distance^-2, as mclSTExp", {"aggregation": "inverse-square"}),
        ),
    ),
    Switch(
        "temperature",
        "Temperature",
        (
            Variant("T = 1", "as the code", {"temperature": 1.0}),
            Variant("T = 16", "softer targets and logits", {"temperature": 16.0}),
        ),
    ),
)
