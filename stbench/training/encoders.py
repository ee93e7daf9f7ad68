"""Image encoders by name, their pretrained weights, and an honest label for where these came from.

``densenet121``, ``resnet18``, ``resnet34``, ``resnet50`` and ``resnet101`` are torchvision's, with its IMAGENET1K_V1
weights; encoders of pathology are what the table of :mod:`stbench.training.foundation.table` says of them (``uni``,
``virchow2``); every other name is timm's, a tag included where one is given (``resnet50.a1_in1k``).
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError, reason_of
from ..method import Run
from .foundation.table import pathology_encoder, rows_of_architecture
from .pretrained import (
    INSTEAD,
    TORCHVISION,
    all_in_one_line,
    file_of,
    kept,
    kind_of_weights,
    published_name,
    require_reachable,
    source,
    unknown_encoder,
    weights_label,
)
from .weights_files import pooled_names, published_names, read_weights, select

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Encoder",
    "Pooling",
    "build_encoder",
    "load_weights",
    "read_weights",
    "require_encoders",
    "weights_label",
]

CLASSIFIER = {"densenet121": "classifier"}  # the name of torchvision's classifiers, where it is not "fc"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Pooling = Literal["native", "average"]  # native: as the network was made, which is a ViT's class token


@dataclass(frozen=True)
class Encoder:
    """``module`` maps (B, 3, S, S) to pooled (B, ``n_features``); ``label`` says where its weights came from."""

    module: nn.Module
    n_features: int
    label: str


def build_encoder(
    name: str,
    weights: str = "random",
    run: Run | None = None,
    pooling: Pooling = "native",
    input_px: int | None = None,
) -> Encoder:
    """An encoder without its classifier, with ``weights`` loaded: ``random``, ``pretrained``, ``imagenet`` or a file.

    ``pooling = "average"`` takes the mean over places (a ViT's: over its patch tokens, normalised after it, not before)
    in place of a class token; networks without one are the same under both. ``input_px``: side of the images that it
    will be given; ``UserError`` where it cannot take these.

    Random weights are drawn from torch's global generator; with them and a ``run``, the run is told so. The module is
    torchvision's or timm's own class, under its own key names, but for the table's encoders that these do not have.
    """
    row = pathology_encoder(name)
    module: Any
    if row is not None:
        if row.only_px is not None and input_px not in (None, row.only_px):
            raise UserError(
                f"{name} takes images of {row.only_px} px, not of {input_px} px - set input_px to {row.only_px}"
            )
        from .foundation.build import build

        module, n_features = build(row, pooling)
    elif name in TORCHVISION:
        import torchvision  # slow, as timm is: only who builds an encoder waits for them

        module = getattr(torchvision.models, name)(weights=None)
        classifier = CLASSIFIER.get(name, "fc")
        n_features = getattr(module, classifier).in_features
        setattr(module, classifier, nn.Identity())
    else:
        import timm

        if not timm.is_model(name):
            raise unknown_encoder(name)
        # a ViT would refuse images of another size than it was trained on; it interpolates its positions instead
        vision_transformer = timm.models.is_model_in_modules(name, ["vision_transformer"])
        any_size: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True} if vision_transformer else {}
        averaged: dict[str, Any] = {"global_pool": "avg"} if pooling == "average" else {}
        module = timm.create_model(name, pretrained=False, num_classes=0, **any_size, **averaged)
        # of what comes out: some networks (MobileNetV3) widen their features between the pooling and the classifier
        n_features = getattr(module, "head_hidden_size", module.num_features)
    return Encoder(module, n_features, load_weights(module, name, weights, run))


def require_encoders(wanted: Iterable[tuple[str, str]]) -> None:
    """``UserError``, in one line for all, where encoders or their weights cannot be had; what is missing is downloaded.

    ``wanted``: name and weights as :func:`build_encoder` takes them. Nothing is loaded before
    :func:`stbench.training.pretrained.require_reachable` has found that all of them can be. One with random weights,
    for which there is nothing to load, is not built: that takes seconds, and whether there is one of its name is known.
    """
    pairs = list(dict.fromkeys(wanted))
    require_reachable(pairs)
    all_in_one_line([pair for pair in pairs if kind_of_weights(pair[1]) != "random"], build_encoder)


def load_weights(module: nn.Module, name: str, weights: str, run: Run | None = None) -> str:
    """Load ``weights`` into an encoder made by :func:`build_encoder` for ``name``; the label."""
    kind = kind_of_weights(weights)
    if kind == "random":
        if run is not None:
            run.note(
                f"the image encoder ({name}) starts from random weights: its numbers are not those of a pretrained one"
            )
    elif kind == "file" or pathology_encoder(name) is not None:
        path = file_of(name, weights)
        _load_file(module, name, path)
        namesakes = rows_of_architecture(name) if run is not None and pathology_encoder(name) is None else []
        if run is not None and namesakes:
            run.note(
                f"{path.name} is read as weights of the plain network {name}, about whose scaling of pixels a file says"
                f" nothing: if it is that of {' or '.join(row.name for row in namesakes)}, name that encoder instead,"
                " which brings its own"
            )
    else:
        module.load_state_dict(pooled_names(_published(name), list(module.state_dict())))
    return weights_label(name, weights)


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """The hub's client tells of every retry; what it makes of them in the end is said once, by whoever asked."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _published(name: str) -> Mapping[str, Tensor]:
    """The published ImageNet weights of an encoder, from the libraries' cache or their download."""
    import httpx
    import huggingface_hub.errors

    # the hub's client speaks HTTP through httpx, whose errors are not OSErrors
    errors = (OSError, http.client.HTTPException, huggingface_hub.errors.HfHubHTTPError, httpx.HTTPError)
    file = published_name(name)
    cache = torch.hub.get_dir() + "/checkpoints" if name in TORCHVISION else "the Hugging Face cache"
    remedy = f"get it from {source(name)} and {INSTEAD}"
    try:
        if name in TORCHVISION:
            state = torch.hub.load_state_dict_from_url(
                TORCHVISION[name], progress=False, check_hash=True, weights_only=True
            )
            return published_names(state)
        import timm

        file_kept = kept(name)  # the hub's client would ask the network first, also for what it has
        overlay = None if file_kept is None else {"file": str(file_kept)}
        with _quiet_hub():
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
        return model.state_dict()
    except errors as error:
        reason = reason_of(error)
        raise UserError(f"the pretrained weights {file} could not be downloaded ({reason}) - {remedy}") from error
    except Exception as error:  # a digest that does not match, or whatever reading a damaged file of the cache raises
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise UserError(
            f"the pretrained weights {file} in {cache} are damaged ({reason}) - delete them, or {remedy}"
        ) from error


def _load_file(module: nn.Module, name: str, path: Path) -> None:
    row = pathology_encoder(name)
    try:
        if row is not None:
            from .foundation.build import load

            load(module, row, read_weights(path))
        else:
            module.load_state_dict(select(read_weights(path), list(module.state_dict())))
    except (KeyError, RuntimeError) as error:
        reason = reason_of(error)
        raise UserError(f"{path} does not hold the weights of {name}: {reason}") from error
