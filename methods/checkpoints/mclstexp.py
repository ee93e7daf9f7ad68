"""Published checkpoints of mclSTExp."""

from __future__ import annotations

from pathlib import Path

from stbench.training.encoders import build_encoder, read_weights

from ..mclstexp import LearnablePositions, MclSTExpNetwork, SignedDenseNet
from .names import checkpoint_of, rename, transformer_names, without_wrapper

# published state_dict name -> name here
PUBLISHED_NAMES = (
    (r"([xy]_embed\.weight)", r"positions.\1"),
    (r"image_encoder\.model\.0\.(.+)", r"image_encoder.features.\1"),
    *transformer_names("spot_encoder", attention="attn", mlp="ff", blocks="spot_encoder"),
)


def load(path: Path, heads: int = 8) -> MclSTExpNetwork:
    """The network of a published DenseNet-121 checkpoint, in eval mode.

    Strips ``module.`` and renames the older ``well`` to ``spot``. All sizes follow from the tensors but the number
    of attention ``heads``, which they do not show. Read without unpickling; raises ``UserError`` where the file is
    not one.
    """
    state = rename(without_wrapper(read_weights(path)), PUBLISHED_NAMES)
    with checkpoint_of("mclSTExp checkpoint with DenseNet-121", path):
        n_positions, n_genes = state["positions.x_embed.weight"].shape
        n_dimensions, n_features = state["image_projection.projection.weight"].shape
        inner = state["spot_encoder.0.qkv.weight"].shape[0] // 3
        layers = sum(name.endswith(".qkv.weight") for name in state)
        encoder = SignedDenseNet(build_encoder("densenet121").module)
        network = MclSTExpNetwork(
            encoder,
            n_features,
            LearnablePositions(n_positions, n_genes),
            n_genes,
            n_dimensions,
            heads,
            inner // heads,
            layers,
        )
        network.load_state_dict(state)
    return network.eval()
