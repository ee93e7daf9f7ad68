"""Image encoders by name (torchvision, timm), their pretrained weights, and an honest label for where these came from.

``densenet121``, ``resnet18``, ``resnet34``, ``resnet50`` and ``resnet101`` are torchvision's, with its IMAGENET1K_V1
weights; every other name is timm's, a tag included where one is given (``resnet50.a1_in1k``).
"""

from __future__ import annotations

import contextlib
import http.client
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import UserError, reason_of
from ..method import Run
from .pretrained import (
    INSTEAD,
    TORCHVISION,
    all_in_one_line,
    kept,
    published_name,
    require_reachable,
    source,
    unknown_encoder,
    weights_file,
    weights_label,
)

CLASSIFIER = {"densenet121": "classifier"}  # the name of torchvision's classifiers, where it is not "fc"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Pooling = Literal["native", "average"]  # native: as the network was made, which is a ViT's class token
CLASSIFIERS = ("classifier.", "fc.", "head.", "last_linear.")


@dataclass(frozen=True)
class Encoder:
    """``module`` maps (B, 3, S, S) to pooled (B, ``n_features``); ``label`` says where its weights came from."""

    module: nn.Module
    n_features: int
    label: str


def build_encoder(name: str, weights: str = "random", run: Run | None = None, pooling: Pooling = "native") -> Encoder:
    """An encoder without its classifier, with ``weights`` loaded: ``random``, ``imagenet`` or a file.

    ``pooling = "average"`` takes the mean over places (a ViT's: over its patch tokens, normalised after it, not before)
    in place of a class token; torchvision's networks average anyway.

    Random weights are drawn from torch's global generator; with them and a ``run``, the run is told so. The module is
    torchvision's or timm's own class, under its own key names.
    """
    if name in TORCHVISION:
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
    :func:`stbench.training.pretrained.require_reachable` has found that all of them can be.
    """
    pairs = list(dict.fromkeys(wanted))
    require_reachable(pairs)
    all_in_one_line(pairs, build_encoder)


def load_weights(module: nn.Module, name: str, weights: str, run: Run | None = None) -> str:
    """Load ``weights`` into an encoder made by :func:`build_encoder` for ``name``; the label."""
    if weights == "random":
        if run is not None:
            run.note(
                f"the image encoder ({name}) starts from random weights: its numbers are not those of a pretrained one"
            )
    elif weights == "imagenet":
        module.load_state_dict(_pooled_names(_published(name), list(module.state_dict())))
    else:
        _load_file(module, name, Path(weights))
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
            return {_modern_name(key): value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
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


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file by name, of its entry ``state_dict`` or ``model`` where it has one.

    Nothing but tensors and plain containers is ever unpickled. Raises ``UserError``.
    """
    state: object
    weights_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own words on a pickle advise to load it unsafely
        reason = "it is no file of tensors" if isinstance(error, pickle.UnpicklingError) else str(error)[:160]
        raise UserError(
            f"cannot read weights from {path} ({type(error).__name__}: {' '.join(reason.split())}) - a .pth or"
            " .safetensors file of plain tensors is needed, nothing else is unpickled"
        ) from error
    for key in ("state_dict", "model"):  # checkpoints keep the weights beside the optimiser's state
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict - save one with torch.save(model.state_dict(), path)")
    return dict(state)


def _load_file(module: nn.Module, name: str, path: Path) -> None:
    try:
        module.load_state_dict(_select(read_weights(path), list(module.state_dict())))
    except (KeyError, RuntimeError) as error:
        reason = reason_of(error)
        raise UserError(f"{path} does not hold the weights of {name}: {reason}") from error


def _select(state: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """The entries of ``state`` that belong to the trunk, under the names ``expected``, whatever stands before them.

    Found by the trunk's first entry: ``module.features.conv0.weight`` and ``conv0.weight`` are both
    ``features.conv0.weight``. What stands under another prefix (a projection head, another network) is not the trunk's.
    """
    state = {_modern_name(key): value for key, value in state.items()}
    first = expected[0]
    container, _, bare = first.partition(".") if first.startswith("features.") else ("", "", first)
    for anchor, added in ((first, ""), (bare, f"{container}." if container else "")):
        matches = [key for key in state if key == anchor or key.endswith("." + anchor)]
        if matches:
            prefix = min(matches, key=len).removesuffix(anchor)
            inside = {added + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            return _pooled_names(_without_classifier(inside, expected), expected)
    raise KeyError(f"no entry is named {first}; the first of the file is {next(iter(state))}")


def _without_classifier(state: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """``state`` without a classifier that the trunk does not have; what else is superfluous stays, to be refused."""
    return {key: value for key, value in state.items() if key in expected or not key.startswith(CLASSIFIERS)}


def _pooled_names(state: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """``state`` under the names ``expected``: a ViT that averages calls its last norm ``fc_norm``, files ``norm``."""
    if "fc_norm.weight" not in expected or "fc_norm.weight" in state:
        return dict(state)
    return {f"fc_{key}" if key in ("norm.weight", "norm.bias") else key: value for key, value in state.items()}


def _modern_name(key: str) -> str:
    """torchvision's published DenseNet files say ``denselayer1.norm.1.weight`` for ``denselayer1.norm1.weight``."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", key)
