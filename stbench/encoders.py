"""Image encoders by name (torchvision, timm), their pretrained weights, and an honest label for where these came from.

``densenet121``, ``resnet18``, ``resnet34``, ``resnet50`` and ``resnet101`` are torchvision's, with its IMAGENET1K_V1
weights; every other name is timm's, a tag included where one is given (``resnet50.a1_in1k``).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pickle
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
INSTEAD = "give it with --weights PATH, or use --weights random, which labels every number"
ANSWER_S = 5.0  # how long a server is waited for before its files count as out of reach
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
        module = getattr(torchvision.models, name)(weights=None)
        classifier = TORCHVISION[name][1]
        n_features = getattr(module, classifier).in_features
        setattr(module, classifier, nn.Identity())
    else:
        import timm

        if not timm.is_model(name):
            raise _unknown_encoder(name)
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

    ``wanted``: name and weights as :func:`build_encoder` takes them. Each distinct pair is looked at once: first at
    names and files, then at whether the servers of what is missing answer, and only then is anything loaded.
    """
    pairs = list(dict.fromkeys(wanted))
    _in_one_line(pairs, _require_named)
    missing = list(dict.fromkeys(name for name, weights in pairs if weights == "imagenet" and _kept(name) is None))
    reasons = _out_of_reach(missing)
    if reasons:
        raise UserError(_cannot_be_downloaded(reasons))
    _in_one_line(pairs, build_encoder)


def _in_one_line(pairs: Iterable[tuple[str, str]], look: Callable[[str, str], object]) -> None:
    """Look at all pairs, and then raise what was wrong with any of them."""
    wrong: dict[str, UserError] = {}
    for name, weights in pairs:
        try:
            look(name, weights)
        except UserError as error:
            wrong.setdefault(str(error), error)
    if len(wrong) == 1:
        raise next(iter(wrong.values()))
    if wrong:
        raise UserError(f"{len(wrong)} encoders cannot be had: {'; '.join(wrong)}")


def _require_named(name: str, weights: str) -> None:
    """An encoder that is known, weights that have a name or are a file: nothing is loaded."""
    if name not in TORCHVISION:
        import timm

        if not timm.is_model(name):
            raise _unknown_encoder(name)
    weights_label(name, weights)


def _unknown_encoder(name: str) -> UserError:
    return unknown("encoder", name, TORCHVISION, hint="or any name that timm.list_models() gives")


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


def _source(name: str) -> str:
    """Where the published weights are, for people to get them."""
    if name in TORCHVISION:
        return str(TORCHVISION[name][0].url)
    import huggingface_hub

    return f"{huggingface_hub.constants.ENDPOINT}/timm/{_published_name(name)}"


def _kept(name: str) -> Path | None:
    """The published weights in the cache of the library that they come with; None where they are not there yet."""
    if name in TORCHVISION:
        path = Path(torch.hub.get_dir()) / "checkpoints" / _published_name(name)
        return path if path.is_file() else None
    import huggingface_hub
    import timm

    configuration = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if configuration is None or not configuration.hf_hub_id:
        return None
    files = (
        [configuration.hf_hub_filename] if configuration.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    )
    cache = huggingface_hub.constants.HF_HUB_CACHE
    found = (huggingface_hub.try_to_load_from_cache(configuration.hf_hub_id, file, cache_dir=cache) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _out_of_reach(names: Iterable[str]) -> dict[str, str]:
    """Encoders whose weights cannot be downloaded now, each with the reason; their servers are asked all at once."""
    import huggingface_hub

    reasons: dict[str, str] = {}
    waiting: dict[str, threading.Thread] = {}
    answers: dict[str, str] = {}  # source to what is wrong; empty: it answers
    for name in names:
        if name not in TORCHVISION and huggingface_hub.constants.HF_HUB_OFFLINE:
            reasons[name] = "HF_HUB_OFFLINE is set"
            continue
        source = _source(name)
        waiting[name] = threading.Thread(target=lambda at=source: answers.update({at: _answer(at)}), daemon=True)
        waiting[name].start()
    until = time.monotonic() + ANSWER_S
    for name, thread in waiting.items():
        thread.join(max(0.0, until - time.monotonic()))
        host = urllib.parse.urlsplit(_source(name)).netloc
        wrong = answers.get(_source(name), f"none within {ANSWER_S:g} s")
        if wrong:
            reasons[name] = f"no answer from {host}: {wrong}"
    return reasons


def _answer(url: str) -> str:
    """Empty where a server answers, whatever it says; else what is wrong. One try, no retries."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_S):
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, http.client.HTTPException) as error:
        return " ".join(str(getattr(error, "reason", error)).split())[:120] or type(error).__name__


def _cannot_be_downloaded(reasons: Mapping[str, str]) -> str:
    """One line for all of them."""
    why = "; ".join(dict.fromkeys(reasons.values()))
    if len(reasons) == 1:
        (name,) = reasons
        file = _published_name(name)
        return (
            f"the pretrained weights {file} could not be downloaded ({why}) - get it from {_source(name)} and {INSTEAD}"
        )
    files = ", ".join(f"{_published_name(name)} ({_source(name)})" for name in reasons)
    return (
        f"pretrained weights could not be downloaded ({why}): {files} - get them and give each with "
        "--set METHOD.weights=PATH, or use --weights random, which labels every number"
    )


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
    import huggingface_hub.errors

    errors: tuple[type[Exception], ...] = (OSError, http.client.HTTPException, huggingface_hub.errors.HfHubHTTPError)
    try:  # recent releases of the hub's client speak HTTP through httpx, whose errors are not OSErrors
        import httpx

        errors = (*errors, httpx.HTTPError)
    except ImportError:
        pass
    file = _published_name(name)
    cache = torch.hub.get_dir() + "/checkpoints" if name in TORCHVISION else "the Hugging Face cache"
    remedy = f"get it from {_source(name)} and {INSTEAD}"
    try:
        if name in TORCHVISION:
            state = TORCHVISION[name][0].get_state_dict(progress=False, check_hash=True, weights_only=True)
            return {_modern_name(key): value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
        import timm

        kept = _kept(name)  # the hub's client would ask the network first, also for what it has
        overlay = None if kept is None else {"file": str(kept)}
        with _quiet_hub():
            model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
        return model.state_dict()
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
