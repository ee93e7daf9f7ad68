"""Published checkpoints of HisToGene."""

from __future__ import annotations

from pathlib import Path

from stbench.training.encoders import read_weights

from ..histogene import HisToGeneNetwork
from .names import checkpoint_of, rename, transformer_names

# published state_dict name -> name here
PUBLISHED_NAMES = (
    (r"([xy])_embed\.weight", r"\1_embedding.weight"),
    *transformer_names("vit.transformer.layers", attention="0", mlp="1"),
    (r"gene_head\.(\d)\.(\w+)", r"head.\1.\2"),
)


def load(path: Path) -> HisToGeneNetwork:
    """The network of a published checkpoint, in eval mode; all sizes follow from the tensors (a head's width of 64 is
    fixed).

    Read without unpickling; raises ``UserError`` where the file is not one.
    """
    state = rename(read_weights(path), PUBLISHED_NAMES)
    with checkpoint_of("HisToGene checkpoint", path):
        width, n_pixels = state["patch_embedding.weight"].shape
        network = HisToGeneNetwork(
            round((n_pixels / 3) ** 0.5),
            len(state["head.1.bias"]),
            len(state["x_embedding.weight"]),
            width,
            sum(name.endswith(".qkv.weight") for name in state),
            len(state["blocks.0.qkv.weight"]) // (3 * 64),
        )
        network.load_state_dict(state)
    return network.eval()
