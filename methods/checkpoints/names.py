"""What loading published checkpoints has in common: names, and one error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from stbench.errors import UserError, reason_of

# (regular expression for a published name, its replacement) pairs, of which the first full match counts
Renames = Sequence[tuple[str, str]]


def transformer_names(layers: str, attention: str, mlp: str, blocks: str = "blocks") -> Renames:
    """Names of a pre-norm transformer whose published layers are ``layers.N``, here ``blocks.N``.

    ``attention`` and ``mlp``: what its two parts are called in a layer.
    """
    layer = rf"{re.escape(layers)}\.(\d+)"
    return (
        (rf"{layer}\.{attention}\.norm\.(\w+)", rf"{blocks}.\1.attention_norm.\2"),
        (rf"{layer}\.{attention}\.fn\.to_qkv\.weight", rf"{blocks}.\1.qkv.weight"),
        (rf"{layer}\.{attention}\.fn\.to_out\.0\.(\w+)", rf"{blocks}.\1.out.\2"),
        (rf"{layer}\.{mlp}\.norm\.(\w+)", rf"{blocks}.\1.mlp_norm.\2"),
        (rf"{layer}\.{mlp}\.fn\.net\.0\.(\w+)", rf"{blocks}.\1.expand.\2"),
        (rf"{layer}\.{mlp}\.fn\.net\.3\.(\w+)", rf"{blocks}.\1.contract.\2"),
    )


def rename(state: Mapping[str, torch.Tensor], renames: Renames) -> dict[str, torch.Tensor]:
    """``state`` under the names used here; a name that no rule matches stays as it is."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in renames:
            if re.fullmatch(pattern, name):
                name = re.sub(pattern, replacement, name)
                break
        renamed[name] = value
    return renamed


def without_wrapper(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` without the ``module.`` of training on several GPUs; what older files call ``well`` is ``spot``."""
    return rename(rename(state, [(r"module\.(.+)", r"\1")]), [(r"(.*)well(.*)", r"\1spot\2")])


@contextmanager
def checkpoint_of(what: str, path: Path) -> Iterator[None]:
    """Raise ``UserError`` where tensors turn out not to be those of a published checkpoint of ``what``."""
    try:
        yield
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not a published {what}: {reason_of(error)}") from error
