"""Published checkpoints of STnet."""

from __future__ import annotations

from pathlib import Path

from stbench.training.encoders import build_encoder, read_weights

from ..stnet import STNetwork
from .names import checkpoint_of, rename

# published state_dict name -> name here
PUBLISHED_NAMES = (
    (r"(?:module\.)?classifier\.(.+)", r"head.\1"),
    (r"(?:module\.)?(.+)", r"encoder.\1"),
)


def load(path: Path) -> STNetwork:
    """The network of an official checkpoint (its entry ``model``), in eval mode.

    The checkpoint does not hold the run's input statistics: set ``input_mean`` and ``input_std``; FIXED_MEAN and
    FIXED_STD are near them on the authors' sections. Read without unpickling; raises ``UserError`` where the file is
    not one.
    """
    state = rename(read_weights(path), PUBLISHED_NAMES)
    with checkpoint_of("STnet checkpoint", path):
        network = STNetwork(build_encoder("densenet121"), len(state["head.weight"]))
        network.load_state_dict(state | {"input_mean": network.input_mean, "input_std": network.input_std})
    return network.eval()
