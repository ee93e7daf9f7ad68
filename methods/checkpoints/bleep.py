"""Published checkpoints of BLEEP."""

from __future__ import annotations

from pathlib import Path

from stbench.training.encoders import build_encoder, read_weights

from ..bleep import BLEEPNetwork
from .names import checkpoint_of, rename, without_wrapper

# published state_dict name -> name here
PUBLISHED_NAMES = ((r"image_encoder\.model\.(.+)", r"image_encoder.\1"),)


def load(path: Path, encoder: str = "resnet50.a1_in1k", dropout: float = 0.1) -> BLEEPNetwork:
    """The network of a published checkpoint, in eval mode; ``encoder`` is the one that it was trained with.

    Strips ``module.`` and renames the older ``well`` to ``spot``. Sizes follow from the tensors. Read without
    unpickling; raises ``UserError`` where the file is not one.
    """
    state = rename(without_wrapper(read_weights(path)), PUBLISHED_NAMES)
    with checkpoint_of(f"BLEEP checkpoint with {encoder}", path):
        n_dimensions, n_genes = state["spot_projection.projection.weight"].shape
        built = build_encoder(encoder)
        network = BLEEPNetwork(built.module, built.n_features, n_genes, n_dimensions, dropout)
        network.load_state_dict(state)
    return network.eval()
