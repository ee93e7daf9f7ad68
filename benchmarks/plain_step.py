"""A training step of each published method as plain PyTorch has it: its network and its objective, and no harness.

The networks are the methods' own classes, so that what is compared is how a step is run, not how a network is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from stbench.method import Run, TrainingSlide, configure
from stbench.methods.bleep import BLEEP
from stbench.methods.hist2st import Hist2ST, distil, zinb_loss
from stbench.methods.histogene import HisToGene
from stbench.methods.layers.whole_slide import WholeSlideMethod
from stbench.methods.mclstexp import MclSTExp
from stbench.methods.stnet import STNet
from stbench.methods.thitogene import THItoGene
from stbench.torch_method import TorchMethod
from stbench.training import augment
from stbench.training.batches import Batch, TrainingData
from stbench.training.patch_bank import Group, PatchBank

METHODS: Mapping[str, type[TorchMethod]] = {
    method.name: method for method in (STNet, HisToGene, Hist2ST, THItoGene, BLEEP, MclSTExp)
}


def made_up_slides(n_slides: int, n_spots: int, n_genes: int, side: int, seed: int = 0) -> list[TrainingSlide]:
    """Slides of noise with the shapes of real ones: what a step costs does not depend on what the patches show."""
    rng = np.random.default_rng(seed)
    columns = int(np.ceil(np.sqrt(n_spots)))
    array_xy = np.stack([np.arange(n_spots) % columns, np.arange(n_spots) // columns], axis=1).astype(np.int64)
    slides = []
    for i in range(n_slides):
        counts = rng.poisson(1.0, (n_spots, n_genes)).astype(np.int32)
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        slides.append(
            TrainingSlide(
                id=f"S{i}",
                patient=f"P{i}",
                patches=rng.integers(0, 256, (n_spots, side, side, 3), dtype=np.uint8),
                array_xy=array_xy,
                pixel_xy=array_xy * 100.0,
                um_per_px=None,
                genes=tuple(f"GENE{gene}" for gene in range(n_genes)),
                target=np.log10(1 + 1e4 * share).astype(np.float32),
                counts=counts,
                total_counts=counts.sum(axis=1).astype(np.int64),
            )
        )
    return slides


def configured(name: str, preset: str, changes: Mapping[str, Any]) -> TorchMethod:
    """The method of that name with random encoder weights, every spot trained on, and ``changes`` where it has them."""
    method = METHODS[name]
    fixed = {"weights": "random", "validation": "none", **changes}
    known = {field: value for field, value in fixed.items() if field in method.Config.model_fields}
    return method(configure(method, preset, "her2st", known))


@dataclass(frozen=True)
class Opened:
    """A method at the first step of its training, built as ``TorchMethod.fit`` builds it."""

    method: TorchMethod
    network: nn.Module
    data: TrainingData
    optimiser: torch.optim.Optimizer
    groups: Sequence[Group]  # the batches of an epoch, in the slides' order


def opened(method: TorchMethod, slides: Sequence[TrainingSlide], device: str) -> Opened:
    """The network is in training mode and torch's own memory format."""
    bank = PatchBank(slides, method.config.patch_px, method.input_px, device)
    data = TrainingData(slides, bank)
    method.shape = method.describe(data)
    torch.manual_seed(0)
    network = method.network(method.shape)
    method.start(network, data, Run(device=device))
    network.to(device).train()
    if method.batching == "slides":
        constants = [method.slide_constants(slide) for slide in slides]
        data.constants = tuple({name: value.to(device) for name, value in of.items()} for of in constants)
        groups: list[Group] = list(data.whole_slides())
    else:
        groups = list(torch.arange(data.n_spots).split(method.batch_size))
    optimiser, _ = method.optimiser(network, torch.device(device))
    return Opened(method, network, data, optimiser, groups)


def ready_images(method: TorchMethod, batch: Batch) -> Tensor:
    """What the network takes of a batch's patches, unaugmented, as float32 on the device."""
    return method.pixels(batch.patches) if isinstance(method, WholeSlideMethod) else augment.to_float(batch.patches)


def plain_loss(method: TorchMethod, network: nn.Module, views: Sequence[Tensor], batch: Batch) -> Tensor:
    """The published objective, written out. ``views``: the batch's images, and their augmented copies for Hist2ST."""
    images, target, constants = views[0], batch.target, batch.constants
    match method.name:
        case "stnet":
            return (network(images).float() - target).square().sum() / target.shape[1]
        case "histogene":
            return F.mse_loss(network(images, constants["positions"]).float(), target)
        case "thitogene":
            graph = (constants["edges"], constants["unreferenced"])
            return F.mse_loss(network(images, constants["positions"], *graph).float(), target)
        case "hist2st":
            output = network(views, constants["positions"], constants["edges"])
            prediction = output.prediction.float()
            loss = F.mse_loss(prediction, target)
            loss = loss + 0.25 * zinb_loss(batch.counts.float(), output.zinb, constants["size_factors"])
            teacher = distil(output.copies.float(), output.scores.float())
            return loss + 0.5 * F.mse_loss(teacher, prediction)
        case "bleep":
            spots, images = (embedding.float() for embedding in network(images, target))
            logits = spots @ images.T
            targets = F.softmax((images @ images.T + spots @ spots.T) / 2, dim=-1)
            spot_loss = (-targets * F.log_softmax(logits, dim=-1)).sum(1)
            image_loss = (-targets.T * F.log_softmax(logits.T, dim=-1)).sum(1)
            return ((spot_loss + image_loss) / 2).mean()
        case "mclstexp":
            spots, images = network(images, target, batch.array_xy, batch.slide)
            logits = spots.float() @ images.float().T
            own = torch.arange(len(logits), device=logits.device)
            return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    raise ValueError(f"no plain step is written for {method.name}")
