"""Switches of STnet: augmentation, initialisation, how deep it is fine-tuned."""

from __future__ import annotations

from stbench.switches import Switch, Variant

SWITCHES = (
    Switch(
        "augmentation",
        "Augmentation",
        (
            Variant("symmetries", "the 8 symmetries of the square, in training and averaged in prediction"),
            Variant("in training alone", "predictions see the patch as it is", {"tta": "none"}),
            Variant("none", "neither in training nor in prediction", {"augment": "none", "tta": "none"}),
        ),
    ),
    Switch(
        "initialisation",
        "Initial weights of the encoder",
        (
            Variant("preset", "the preset's weights: ImageNet's"),
            Variant("random", "from nothing", {"weights": "random"}),
        ),
        under={"quick": (Variant("random", "from nothing: the quick preset has no other", {"weights": "random"}),)},
    ),
    Switch(
        "head",
        "Initial head",
        (
            Variant("means", "zero weights, the genes' means as bias", {"head_init": "zero_mean"}),
            Variant("default", "torch's random initialisation", {"head_init": "default"}),
        ),
    ),
    Switch(
        "fine-tuning",
        "Parts of the encoder that are trained",
        (
            Variant("all", "the whole encoder", {"trained_parts": None, "freeze_trunk": False}),
            Variant(
                "last block", "the last dense block, its norm and the head", {"trained_parts": 2, "freeze_trunk": False}
            ),
            Variant("head", "the head alone, on a frozen encoder", {"freeze_trunk": True, "trained_parts": None}),
        ),
        under={
            "quick": (
                Variant("all", "the whole encoder", {"trained_parts": None, "freeze_trunk": False}),
                Variant(
                    "last stage",
                    "the last stage of the small ResNet and the head",
                    {"trained_parts": 1, "freeze_trunk": False},
                ),
                Variant("head", "the head alone, on a frozen encoder", {"freeze_trunk": True, "trained_parts": None}),
            )
        },
    ),
)
