"""Settings that torch methods have in common."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..method import MethodConfig
from .encoders import Pooling
from .windows import Padding


class TorchConfig(MethodConfig):
    """The settings that every torch method has. A method gives its own defaults and says where they come from."""

    epochs: int = Field(50, ge=1, description="passes over the training slides")
    lr: float = Field(1e-4, gt=0, description="learning rate")
    patch_px: int = Field(224, ge=2, description="side of the window around a spot, in full-resolution pixels")
    input_px: int | None = Field(
        None, ge=2, description="side of the image that the network sees: the window is resized to it; none: patch_px"
    )
    padding: Padding = Field(
        "white", description="colour of what lies outside the image in a window at its border: white or black"
    )
    compile: Literal[True, False, "auto"] = Field(
        False,
        description="training steps by torch.compile: true, false, or auto (on a GPU, where it is measured to pay)",
    )


class SpotBatchConfig(MethodConfig):
    """Settings of methods that learn from batches of spots (a mixin to :class:`TorchConfig`)."""

    batch_size: int = Field(32, ge=1, description="spots in a training batch, drawn over all training slides")


class EncoderConfig(MethodConfig):
    """Settings of methods with a pretrained image encoder (a mixin to :class:`TorchConfig`)."""

    encoder: str = Field(
        "densenet121", description="image encoder: of 'stbench encoders list', or torchvision's or timm's"
    )
    weights: str = Field(
        "imagenet",
        description="its initial weights: pretrained (as published), imagenet, random, or a .pth or .safetensors file",
    )
    pooling: Pooling = Field(
        "native",
        description="of its last features: native (a ViT's class token, or as 'stbench encoders show' has it) or"
        " average (over places)",
    )
