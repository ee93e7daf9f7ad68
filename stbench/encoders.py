"""Image encoders by name (torchvision, timm), their pretrained weights, and an honest label for where these came from.

``densenet121``, ``resnet18``, ``resnet34``, ``resnet50`` and ``resnet101`` are torchvision's, with its IMAGENET1K_V1
weights; every other name is timm's, a tag included where one is given (``resnet50.a1_in1k``).
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from .compressed import existing
from .errors import UserError, unknown
from .files import file_digest
from .method import Run

TORCHVISION = {  # name: its pinned weights, the name of its classifier
    "densenet121": (torchvision.models.DenseNet121_Weights.IMAGENET1K_V1, "classifier"),
    "resnet18": (torchvision.models.ResNet18_Weights.IMAGENET1K_V1, "fc"),
    "resnet34": (torchvision.models.ResNet34_Weights.IMAGENET1K_V1, "fc"),
    "resnet50": (torchvision.models.ResNet50_Weights.IMAGENET1K_V1, "fc"),
    "resnet101": (torchvision.models.ResNet101_Weights.IMAGENET1K_V1, "fc"),
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLASSIFIERS = ("classifier.", "fc.", "head.", "last_linear.")


@dataclass(frozen=True)
class Encoder:
    """``module`` maps (B, 3, S, S) to pooled (B, ``n_features``); ``label`` says where its weights came from."""

    module: nn.Module
    n_features: int
    label: str


def build_encoder(name: str, weights: str = "random", run: Run | None = None) -> Encoder:
    """An encoder without its classifier, with ``weights`` loaded: ``random``, ``imagenet`` or a file.

    Random weights are drawn from torch's global generator; with them and a ``run``, the run is told so. The module is
    torchvision's or timm's own class, under its own key names.
    """
    if name in TORCHVISION:
        module = getattr(torchvision.models, name)(weights=None)
        classifier = TORCHVISION[name][1]
        n_features = getattr(module, classifier).in_features
        setattr(module, classifier, nn.Identity())
    else:
        import timm

        if not timm.is_model(name):
            raise unknown("encoder", name, TORCHVISION, hint="or any name that timm.list_models() gives")
        # a ViT would refuse images of another size than it was trained on; it interpolates its positions instead
        vision_transformer = timm.models.is_model_in_modules(name, ["vision_transformer"])
        any_size: dict[str, Any] = {"dynamic_img_size": True, "dynamic_img_pad": True} if vision_transformer else {}
        module = timm.create_model(name, pretrained=False, num_classes=0, **any_size)
        # of what comes out: some networks (MobileNetV3) widen their features between the pooling and the classifier
        n_features = getattr(module, "head_hidden_size", module.num_features)
    return Encoder(module, n_features, load_weights(module, name, weights, run))


def load_weights(module: nn.Module, name: str, weights: str, run: Run | None = None) -> str:
    """Load ``weights`` into an encoder made by :func:`build_encoder` for ``name``; the label."""
    if weights == "random":
        if run is not None:
            run.note(
                f"the image encoder ({name}) starts from random weights: its numbers are not those of a pretrained one"
            )
    elif weights == "imagenet":
        module.load_state_dict(_published(name))
    else:
        _load_file(module, name, Path(weights))
    return weights_label(name, weights)


def weights_label(name: str, weights: str) -> str:
    """``random``, ``imagenet (densenet121-a639ec97)`` or ``file (NAME DIGEST8)``, without loading anything."""
    if weights == "random":
        return "random"
    if weights == "imagenet":
        return f"imagenet ({_published_name(name).removesuffix('.pth')})"
    path = _weights_file(Path(weights))
    return f"file ({path.name} {file_digest(path)[:8]})"


def _weights_file(path: Path) -> Path:
    """``path``, if it is a file that can be read and is no pointer to one. Raises ``UserError``."""
    if not os.path.exists(path):
        raise UserError(
            f"there is no weights file {path} - give the path of a .pth or .safetensors file, 'imagenet' or 'random'"
        )
    return existing(path)


def _published_name(name: str) -> str:
    if name in TORCHVISION:
        return str(TORCHVISION[name][0].url.rsplit("/", 1)[1])
    import timm

    configuration = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if configuration is None or not configuration.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {name} - use --weights random or --weights PATH, or name a tag"
        )
    return f"{configuration.architecture}.{configuration.tag}" if configuration.tag else str(configuration.architecture)


def _published(name: str) -> Mapping[str, Tensor]:
    """The published ImageNet weights of an encoder, from the libraries' cache or their download."""
    import http.client

    import huggingface_hub.errors

    errors: tuple[type[Exception], ...] = (OSError, http.client.HTTPException, huggingface_hub.errors.HfHubHTTPError)
    try:  # recent releases of the hub's client speak HTTP through httpx, whose errors are not OSErrors
        import httpx

        errors = (*errors, httpx.HTTPError)
    except ImportError:
        pass
    file = _published_name(name)
    where = TORCHVISION[name][0].url if name in TORCHVISION else f"https://huggingface.co/timm/{file}"
    cache = torch.hub.get_dir() + "/checkpoints" if name in TORCHVISION else "the Hugging Face cache"
    remedy = f"get it from {where} and give it with --weights PATH, or use --weights random, which labels every number"
    try:
        if name in TORCHVISION:
            state = TORCHVISION[name][0].get_state_dict(progress=False, check_hash=True, weights_only=True)
            return {_modern_name(key): value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
        import timm

        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except errors as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"the pretrained weights {file} could not be downloaded ({reason}) - {remedy}") from error
    except Exception as error:  # a digest that does not match, or whatever reading a damaged file of the cache raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"the pretrained weights {file} in {cache} are damaged ({reason}) - delete them, or {remedy}"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file by name, of its entry ``state_dict`` or ``model`` where it has one.

    Nothing but tensors and plain containers is ever unpickled. Raises ``UserError``.
    """
    state: object
    _weights_file(path)
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
        reason = " ".join(str(error).split())[:240]
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
            return _without_classifier(inside, expected)
    raise KeyError(f"no entry is named {first}; the first of the file is {next(iter(state))}")


def _without_classifier(state: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """``state`` without a classifier that the trunk does not have; what else is superfluous stays, to be refused."""
    return {key: value for key, value in state.items() if key in expected or not key.startswith(CLASSIFIERS)}


def _modern_name(key: str) -> str:
    """torchvision's published DenseNet files say ``denselayer1.norm.1.weight`` for ``denselayer1.norm1.weight``."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", key)
