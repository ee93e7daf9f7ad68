"""The authors' network and loop, imported from a clone beside this file, and what both scripts do with them."""

import sys
import types
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent / "mclSTExp"))
import model as authors
from train import train as train_epoch  # noqa: F401 - for train.py

TOGETHER = 32  # spots that attend to each other when keys are computed, as in the authors' evaluation


def use(device):
    """Their code calls ``.cuda()`` on everything; on a CPU that has to mean nothing."""
    if device == "cpu":
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor
        torch.use_deterministic_algorithms(True)
    return torch.device(device)


def network(settings, n_genes):
    """Their network with the arguments of their command line."""
    if settings["weights"] == "random":
        authors.DenseNet121_Weights = types.SimpleNamespace(DEFAULT=None)  # as torchvision says "none"
    return authors.mclSTExp_Attention(
        encoder_name="densenet121",
        temperature=1.0,
        image_dim=1024,
        spot_dim=n_genes,
        projection_dim=256,
        heads_num=8,
        heads_dim=64,
        head_layers=settings["layers"],
    )


def image(slide, spot):
    """A patch as their loader crops it: what lies outside the image is black."""
    patch = np.array(slide.patches[spot])
    if slide.margins is not None:
        left, top, right, bottom = slide.margins[spot]
        height, width = patch.shape[:2]
        patch[:top], patch[height - bottom :] = 0, 0
        patch[:, :left], patch[:, width - right :] = 0, 0
    return patch


@torch.no_grad()
def queries(net, slide, device):
    """(n_spots, 256): embeddings of a slide's patches."""
    found = []
    for start in range(0, len(slide.spots), TOGETHER):
        spots = range(start, min(start + TOGETHER, len(slide.spots)))
        batch = np.stack([image(slide, spot) for spot in spots]).transpose(0, 3, 1, 2)
        features = net.image_encoder(torch.from_numpy(batch).float().div(255).to(device))
        found.append(net.image_projection(features))
    return torch.cat(found)


@torch.no_grad()
def keys(net, slide, device):
    """(n_spots, 256): embeddings of a training slide's spots."""
    expression = torch.from_numpy(slide.target).to(device)
    places = torch.from_numpy(slide.array_xy).long().to(device)
    spots = expression + net.x_embed(places[:, 0]) + net.y_embed(places[:, 1])
    together = [net.spot_projection(net.spot_encoder(part[None]))[0] for part in spots.split(TOGETHER)]
    return torch.cat(together)
