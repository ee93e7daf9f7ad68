"""Networks of the table's rows, and their files read into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from ..weights_files import pooled_names, select
from .networks import AttentionPooled, ClassAndMean, ConvolutionalStem
from .renaming import translated, with_positions_of
from .table import PublishedEncoder

CLASS_TOKEN_AND_MEAN = "class token and mean of patch tokens"


def build(row: PublishedEncoder, pooling: Literal["native", "average"] = "native") -> tuple[nn.Module, int]:
    """The network of a row, randomly initialised, and how many features it returns.

    ``pooling = "average"`` takes the mean of a ViT's patch tokens, normalised after it, in place of what its row has;
    networks without a class token are the same under both.
    """
    if row.library == "torchvision":
        import torchvision

        module: Any = getattr(torchvision.models, row.architecture)(weights=None)
        n_features = module.fc.in_features
        module.fc = nn.Identity()
        return module, n_features
    import timm

    arguments = {name: _class(value) if name.endswith("_layer") else value for name, value in row.arguments.items()}
    if row.is_transformer:
        average = pooling == "average" and row.pooling != "attention"
        whole_tokens = not average and row.pooling != "class token"
        # a size that is no multiple of the patch is padded: only a method's own input size can be one
        arguments |= {"global_pool": "avg" if average else "" if whole_tokens else "token", "dynamic_img_pad": True}
        trunk: Any = timm.create_model(row.architecture, pretrained=False, num_classes=0, **arguments)
        if row.pooler is not None:
            return AttentionPooled(trunk, row.pooler), row.pooler.width
        if whole_tokens:
            return ClassAndMean(trunk), 2 * trunk.embed_dim
        return trunk, trunk.embed_dim
    module = timm.create_model(row.architecture, pretrained=False, num_classes=0, **arguments)
    if row.stem == "convolutions":
        module.patch_embed = ConvolutionalStem(module.embed_dim)
    return module, module.num_features


def load(module: nn.Module, row: PublishedEncoder, state: Mapping[str, Tensor]) -> None:
    """Load a file's ``state``, in one of the row's layouts or the network's own, into what :func:`build` made.

    Raises ``KeyError`` or ``RuntimeError`` where it is another network's.
    """
    target: Any = module.trunk if isinstance(module, ClassAndMean) else module
    expected = target.state_dict()
    named = translated(state, row.layouts, expected)
    named = select(state, list(expected)) if named is None else pooled_names(named, list(expected))
    if row.positions_px is not None:
        named = with_positions_of(named, expected, "trunk.pos_embed" if row.pooler else "pos_embed")
    target.load_state_dict(named)


def _class(name: str) -> Any:
    """A layer's class by the name that the table has for it, which its reader has checked."""
    import timm.layers

    return getattr(nn if name.startswith("torch.nn.") else timm.layers, name.rpartition(".")[2])
