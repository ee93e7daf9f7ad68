"""Features of patches from a frozen image encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from stbench.method import Run, TestSlide
from stbench.training.encoder_input import EncoderInput
from stbench.training.encoders import build_encoder
from stbench.training.patch_bank import PatchBank

BATCH_SIZE = 128  # spots in a batch


def frozen_encoder(name: str, weights: str, draw: int, run: Run, input_px: int | None = None) -> nn.Module:
    """The encoder ``name`` on ``run.device``, for images of ``input_px``; with random weights the same network for the
    same ``draw``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Run(seed=draw).derive_seed("frozen encoder", name))
        module = build_encoder(name, weights, run, input_px=input_px).module
    return freeze(module, run.device)


def freeze(module: nn.Module, device: str) -> nn.Module:
    """The module without gradients, in eval mode, on ``device``, channels-last."""
    return module.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)


def encode(module: nn.Module, slide: TestSlide, patch_px: int, fed: EncoderInput) -> np.ndarray:
    """The (n_spots, n_features) float32 features of a slide's patches, computed in float32.

    A patch's centre ``patch_px`` pixels, or the whole where it is smaller, are what ``fed`` is made of.
    """
    device = next(module.parameters()).device
    side = min(patch_px, slide.patches.shape[1])
    # not resident: every patch is seen once, and what a torch method keeps on the device stays there
    bank = PatchBank([slide], patch_px, side, device, resident=False)
    groups = [slice(start, min(start + BATCH_SIZE, slide.n_spots)) for start in range(0, slide.n_spots, BATCH_SIZE)]
    with torch.inference_mode():
        parts = [module(fed(patches)).float().cpu() for _, patches in bank.stream(groups)]
    return torch.cat(parts).numpy()
