"""Published checkpoints of THItoGene."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from stbench.training.encoders import read_weights

from ..thitogene import Softmax, THItoGeneNetwork
from .names import checkpoint_of, rename, transformer_names

# published state_dict name -> name here
PUBLISHED_NAMES = (
    (r"odconv2d\.weight", r"dynamic.weight"),
    (r"odconv2d\.attention\.fc\.weight", r"dynamic.squeeze.weight"),
    (r"odconv2d\.attention\.bn\.(\w+)", r"dynamic.norm.\1"),
    (r"odconv2d\.attention\.(channel|filter|spatial|kernel)_fc\.(\w+)", r"dynamic.\1.\2"),
    (r"caps_layer\.conv(\d)\.(\w+)", r"capsules.conv\1.\2"),
    (r"caps_layer\.batch_norm(\d)\.(\w+)", r"capsules.norm\1.\2"),
    (r"caps_layer\.primary_caps\.depthwise_conv\.(\w+)", r"capsules.primary.\1"),
    (r"caps_layer\.digit_caps\.W", r"capsules.routing.weight"),
    (r"caps_layer\.digit_caps\.b", r"capsules.routing.prior"),
    (r"([xy])_embed\.weight", r"\1_embedding.weight"),
    *transformer_names("vit.transformer.layers", attention="0", mlp="1"),
    (r"gene_head\.(\d)\.(\w+)", r"head.\1.\2"),
)


def from_published(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A published ``state_dict`` under the names used here; separate kernels and heads are stacked."""
    first_layer = sorted({int(match[1]) for name in state if (match := re.fullmatch(r"gat\.attention_(\d+)\.W", name))})
    renamed = rename({name: value for name, value in state.items() if not name.startswith("gat.")}, PUBLISHED_NAMES)
    renamed["dynamic.weight"] = renamed["dynamic.weight"].flatten(0, 1)
    renamed["graph.weight"] = torch.stack([state[f"gat.attention_{head}.W"] for head in first_layer])
    renamed["graph.score"] = torch.stack([state[f"gat.attention_{head}.a"][:, 0] for head in first_layer])
    renamed["graph_out.weight"] = state["gat.out_att.W"][None]
    renamed["graph_out.score"] = state["gat.out_att.a"].T
    return renamed


def load(path: Path, gat_softmax: Softmax = "official") -> THItoGeneNetwork:
    """The network of a published checkpoint, in eval mode; all sizes follow from the tensors (a head's width of 64 is
    fixed).

    Read without unpickling; raises ``UserError`` where the file is not one.
    """
    published = read_weights(path)
    with checkpoint_of("THItoGene checkpoint", path):
        state = from_published(published)
        capsules, _, _, capsule_width = state["capsules.routing.weight"].shape
        network = THItoGeneNetwork(
            len(state["head.3.bias"]),
            len(state["x_embedding.weight"]),
            capsules,
            capsule_width,
            sum(name.endswith(".qkv.weight") for name in state),
            len(state["blocks.0.qkv.weight"]) // (3 * 64),
            graph_heads=len(state["graph.weight"]),
            mlp_width=len(state["blocks.0.expand.weight"]),
            gat_softmax=gat_softmax,
        )
        network.load_state_dict(state)
    return network.eval()
