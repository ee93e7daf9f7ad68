"""Published checkpoints of Hist2ST."""

from __future__ import annotations

from pathlib import Path

from stbench.training.encoders import read_weights

from ..hist2st import Hist2STNetwork
from .names import checkpoint_of, rename, transformer_names

# published state_dict name -> name here
PUBLISHED_NAMES = (
    (r"([xy])_embed\.weight", r"\1_embedding.weight"),
    (r"vit\.transformer\.layer1\.(\d+)\.dw\.0\.(\w+)", r"mixers.\1.depthwise1.\2"),
    (r"vit\.transformer\.layer1\.(\d+)\.dw\.1\.(\w+)", r"mixers.\1.norm1.\2"),
    (r"vit\.transformer\.layer1\.(\d+)\.dw\.3\.(\w+)", r"mixers.\1.depthwise2.\2"),
    (r"vit\.transformer\.layer1\.(\d+)\.dw\.4\.(\w+)", r"mixers.\1.norm2.\2"),
    (r"vit\.transformer\.layer1\.(\d+)\.pw\.0\.(\w+)", r"mixers.\1.pointwise.\2"),
    (r"vit\.transformer\.layer1\.(\d+)\.pw\.2\.(\w+)", r"mixers.\1.norm3.\2"),
    (r"vit\.transformer\.down\.0\.(\w+)", r"reduction.\1"),
    *transformer_names("vit.transformer.layer2", attention="attn", mlp="ff"),
    (r"vit\.transformer\.layer3\.(\d+)\.weight", r"neighbourhoods.\1.lin_l.weight"),
    (r"vit\.transformer\.jknet\.0\.(\w+)", r"across_layers.\1"),
    (r"(mean|disp|pi)\.0\.(\w+)", r"zinb.\1.\2"),
    (r"h([rp])\.(\w+)", r"nb.\1.\2"),
    (r"coef\.(\d)\.(\w+)", r"scorer.\1.\2"),
    (r"gene_head\.(\d)\.(\w+)", r"head.\1.\2"),
)


def load(path: Path, side: int = 112) -> Hist2STNetwork:
    """The network of a published checkpoint, in eval mode; sizes follow from the tensors and the ``side`` of the
    patches.

    Read without unpickling; raises ``UserError`` where the file is not one.
    """
    state = rename(read_weights(path), PUBLISHED_NAMES)
    with checkpoint_of(f"Hist2ST checkpoint for patches of {side} px", path):
        channels, _, patch, _ = state["patch_embedding.weight"].shape
        network = Hist2STNetwork(
            side,
            len(state["head.1.bias"]),
            len(state["x_embedding.weight"]),
            patch,
            channels,
            state["mixers.0.depthwise1.weight"].shape[-1],
            sum(name.endswith(".depthwise1.weight") for name in state),
            sum(name.endswith(".qkv.weight") for name in state),
            sum(name.endswith(".lin_l.weight") for name in state),
            len(state["blocks.0.qkv.weight"]) // (3 * 64),
            counts_likelihood="zinb" if "zinb.mean.weight" in state else "nb" if "nb.r.weight" in state else "none",
            with_scorer="scorer.0.weight" in state,
        )
        network.load_state_dict(state)
    return network.eval()
