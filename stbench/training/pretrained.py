"""Where the pretrained weights of encoders are, and whether they can be had.

Nothing here builds a network, and what the papers' methods ask for is looked up without importing torchvision or timm:
that weights are missing is said before anybody waits for these.
"""

from __future__ import annotations

import http.client
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from ..errors import UserError, unknown
from ..system.compressed import existing
from ..system.files import file_digest
from .foundation.hub_cache import file_in_cache
from .foundation.table import PublishedEncoder, pathology_encoder, published_encoders

TORCHVISION = {  # name: its pinned weights (IMAGENET1K_V1, with eight digits of their SHA-256)
    "densenet121": "https://download.pytorch.org/models/densenet121-a639ec97.pth",
    "resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
}
TIMM = ("resnet50.a1_in1k",)  # the papers' own, in full: what timm would say of their names and weights is known
SMALLEST = "test_resnet"  # timm's smallest ResNet, which presets for small machines train from random weights
INSTEAD = "give it with --weights PATH, or use --weights random, which labels every number"
WeightsKind = Literal["random", "pretrained", "imagenet", "file"]
ANSWER_S = 5.0  # how long a server is waited for before its files count as out of reach


def require_reachable(wanted: Iterable[tuple[str, str]]) -> None:
    """``UserError``, in one line for all, where encoders or their weights cannot be had; nothing is downloaded.

    ``wanted``: name and weights as :func:`stbench.training.encoders.build_encoder` takes them. Each distinct pair is
    looked at once: first at names and files, then at whether the servers of what is missing answer.
    """
    pairs = list(dict.fromkeys(wanted))
    all_in_one_line(pairs, require_named)
    published = [name for name, weights in pairs if kind_of_weights(weights) in ("pretrained", "imagenet")]
    missing = [name for name in dict.fromkeys(published) if pathology_encoder(name) is None and kept(name) is None]
    reasons = _out_of_reach(missing)
    if reasons:
        raise UserError(_cannot_be_downloaded(reasons))


def all_in_one_line(pairs: Iterable[tuple[str, str]], look: Callable[[str, str], object]) -> None:
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


def require_named(name: str, weights: str) -> None:
    """An encoder that is known, weights that have a name or are a file: nothing is loaded."""
    if name not in (*TORCHVISION, *TIMM, SMALLEST) and pathology_encoder(name) is None:
        import timm

        if not timm.is_model(name):
            raise unknown_encoder(name)
    weights_label(name, weights)


def unknown_encoder(name: str) -> UserError:
    known = dict.fromkeys([*TORCHVISION, *published_encoders()])
    return unknown("encoder", name, known, hint="or any name that timm.list_models() gives")


def kind_of_weights(weights: str) -> WeightsKind:
    """What the setting ``weights`` asks for; anything but the three names is the path of a file.

    ``pretrained`` and ``imagenet`` are the same for the libraries' encoders: what these are published with. Encoders
    of pathology are published with other weights than ImageNet's.
    """
    named: dict[str, WeightsKind] = {"random": "random", "pretrained": "pretrained", "imagenet": "imagenet"}
    return named.get(weights, "file")


def weights_label(name: str, weights: str) -> str:
    """``random``, ``imagenet (densenet121-a639ec97)``, ``file (NAME DIGEST8)``, or of an encoder of pathology
    ``uni (NAME DIGEST8)``; without loading anything.
    """
    kind = kind_of_weights(weights)
    if kind == "random":
        return "random"
    if kind != "file" and pathology_encoder(name) is None:
        return f"imagenet ({published_name(name).removesuffix('.pth')})"
    path = file_of(name, weights)
    return f"{'file' if pathology_encoder(name) is None else name} ({path.name} {file_digest(path)[:8]})"


def file_of(name: str, weights: str) -> Path:
    """The file that ``weights`` names, or, of an encoder of pathology, the published one in the hub's cache.

    Such weights are never downloaded. Raises ``UserError`` where there is no file.
    """
    kind, row = kind_of_weights(weights), pathology_encoder(name)
    if kind == "file" or row is None:
        return weights_file(Path(weights))
    if kind == "imagenet":
        raise UserError(
            f"{name} has no weights of ImageNet - give its own by --encoders {name}@PATH or --weights PATH, or take "
            "them from the hub's cache by --weights pretrained"
        )
    path = file_in_cache(row)
    if path is None:
        raise UserError(_not_in_the_cache(row))
    return existing(path)


def _not_in_the_cache(row: PublishedEncoder) -> str:
    import huggingface_hub.constants

    if not row.hub:
        return (
            f"the weights of {row.name} ({row.file}) are on no hub ({row.known_by}) - get them from {row.source} and "
            f"give --encoders {row.name}@PATH or --weights PATH"
        )
    places = " or ".join(dict.fromkeys(f"{each.page} ({each.file})" for each in row.hub))
    return (
        f"the weights of {row.name} are not in the Hugging Face cache {huggingface_hub.constants.HF_HUB_CACHE} "
        f"({row.known_by}) - get them from {places} and give --encoders {row.name}@PATH or --weights PATH; such "
        "weights are never downloaded"
    )


def weights_file(path: Path) -> Path:
    """``path``, if it is a file that can be read and is no pointer to one. Raises ``UserError``."""
    if not os.path.exists(path):
        raise UserError(
            f"there is no weights file {path} - give the path of a .pth or .safetensors file, 'pretrained', "
            "'imagenet' or 'random'"
        )
    return existing(path)


def published_name(name: str) -> str:
    """The name of the published weights: torchvision's file, timm's architecture and tag. Raises ``UserError``."""
    if name in TORCHVISION:
        return TORCHVISION[name].rsplit("/", 1)[1]
    if name in TIMM:
        return name
    import timm

    configuration = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if configuration is None or not configuration.has_weights:
        raise UserError(
            f"timm has no pretrained weights for {name} - use --weights random or --weights PATH, or name a tag"
        )
    return f"{configuration.architecture}.{configuration.tag}" if configuration.tag else str(configuration.architecture)


def source(name: str) -> str:
    """Where the published weights are, for people to get them."""
    if name in TORCHVISION:
        return TORCHVISION[name]
    import huggingface_hub.constants

    return f"{huggingface_hub.constants.ENDPOINT}/timm/{published_name(name)}"


def kept(name: str) -> Path | None:
    """The published weights in the cache of the library that they come with; None where they are not there yet."""
    if name in TORCHVISION:
        import torch

        path = Path(torch.hub.get_dir()) / "checkpoints" / published_name(name)
        return path if path.is_file() else None
    import huggingface_hub
    import huggingface_hub.constants

    hub_id, files = f"timm/{name}", ["model.safetensors", "pytorch_model.bin"]
    if name not in TIMM:
        import timm

        configuration = timm.get_pretrained_cfg(name, allow_unregistered=False)
        if configuration is None or not configuration.hf_hub_id:
            return None
        hub_id = configuration.hf_hub_id
        if configuration.hf_hub_filename:
            files = [configuration.hf_hub_filename]
    cache = huggingface_hub.constants.HF_HUB_CACHE
    found = (huggingface_hub.try_to_load_from_cache(hub_id, file, cache_dir=cache) for file in files)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def _out_of_reach(names: Iterable[str]) -> dict[str, str]:
    """Encoders whose weights cannot be downloaded now, each with the reason; their servers are asked all at once."""
    import huggingface_hub.constants

    reasons: dict[str, str] = {}
    waiting: dict[str, threading.Thread] = {}
    answers: dict[str, str] = {}  # source to what is wrong; empty: it answers
    for name in names:
        if name not in TORCHVISION and huggingface_hub.constants.HF_HUB_OFFLINE:
            reasons[name] = "HF_HUB_OFFLINE is set"
            continue
        waiting[name] = threading.Thread(target=lambda at=source(name): answers.update({at: _answer(at)}), daemon=True)
        waiting[name].start()
    until = time.monotonic() + ANSWER_S
    for name, thread in waiting.items():
        thread.join(max(0.0, until - time.monotonic()))
        host = urllib.parse.urlsplit(source(name)).netloc
        wrong = answers.get(source(name), f"none within {ANSWER_S:g} s")
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
        file = published_name(name)
        return (
            f"the pretrained weights {file} could not be downloaded ({why}) - get it from {source(name)} and {INSTEAD}"
        )
    files = ", ".join(f"{published_name(name)} ({source(name)})" for name in reasons)
    return (
        f"pretrained weights could not be downloaded ({why}): {files} - get them and give each with "
        "--set METHOD.weights=PATH, or use --weights random, which labels every number"
    )
