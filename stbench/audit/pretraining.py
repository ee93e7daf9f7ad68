"""What an image encoder may have seen before: declared by the kind and name of its weights, not measured."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..training.foundation.table import PublishedEncoder, pathology_encoder
from .record import Finding, Verdict, some

# What is published about models of pathology that are not in the table of encoders, and about files of its encoders
# under other names, by a word of their file's or model's name. None of the publications lists every slide, hence "may".
PATHOLOGY = {
    "ctranspath": "public slides of TCGA and PAIP",
    "retccl": "public slides of TCGA and PAIP",
    "phikon": "public slides of TCGA",
    "kimianet": "public slides of TCGA",
    "hipt": "public slides of TCGA",
    "lunit": "public slides of TCGA",
    "quilt": "public pictures and videos of pathology",
    "plip": "public pictures of pathology",
    "conch": "public pictures of pathology with captions",
    "uni": "slides of its makers' hospitals and GTEx",
    "uni2": "slides of its makers' hospitals and GTEx",
    "gigapath": "slides of its makers' hospitals",
    "virchow": "slides of its makers' hospitals",
    "virchow2": "slides of its makers' hospitals",
}
NATURAL = re.compile(r"in1k|in12k|in21k|in22k|densenet121-|resnet\d+-|resnet50-a1")


def seen(label: str) -> tuple[Verdict, str]:
    """What weights may have seen of the slides, by their label: of weights used elsewhere there is nothing else."""
    if label in ("", "none"):
        return "ok", "no pretrained encoder"
    if label == "random":
        return "ok", "random weights have seen nothing"
    row = pathology_encoder(label.partition(" (")[0])
    if row is not None:
        return "warning", _published(row)
    words = set(re.split(r"[^a-z0-9]+", label.lower()))
    known = next((what for name, what in PATHOLOGY.items() if name in words), None)
    if known is not None:
        return "warning", f"pretrained on {known}, which may hold slides of this dataset"
    if label.startswith("imagenet") and NATURAL.search(label):
        return "ok", "ImageNet holds photographs, no pathology"
    return "note", "what it was pretrained on is not known, so it may have seen these slides"


def _published(row: PublishedEncoder) -> str:
    """What the table says of an encoder's pretraining and licence, and what follows for a dataset's slides."""
    tcga = {"yes": "it saw TCGA", "no": "TCGA is not among it", "not known": "whether TCGA is among it is not known"}
    which = (
        "its slides are listed: a dataset's can be looked up"
        if row.slides_are_listed
        else "its slides are not listed, so this dataset's cannot be ruled out"
    )
    return f"pretrained on {row.pretraining}; {tcga[row.tcga]}; {which}; {row.known_by}"


def exposure(encoders: Mapping[str, str]) -> Finding:
    """``encoders``: a method's title to its weights label. Counted: methods whose encoder may have seen the slides."""
    said = {title: seen(label) for title, label in encoders.items()}
    doubtful = {title: verdict for title, (verdict, _) in said.items() if verdict != "ok"}
    lines = [f"{title}: {label} - {said[title][1]}" for title, label in encoders.items() if label not in ("", "none")]
    return Finding(
        "encoders",
        "Encoders whose pretraining may have seen the slides",
        "warning" if "warning" in doubtful.values() else "note" if doubtful else "ok",
        len(doubtful),
        len(encoders),
        "An encoder that was pretrained on test slides knows their pictures; this is what is published or declared of "
        "the weights, not a measurement.",
        some(lines),
    )
