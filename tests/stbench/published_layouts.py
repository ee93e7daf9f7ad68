"""Files of published encoders as their authors wrote them, made of networks, and forwards of their own names."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stbench.training.foundation.table import PublishedEncoder

State = Mapping[str, Tensor]


def small(row: PublishedEncoder, **arguments: object) -> PublishedEncoder:
    """A relative of few narrow layers: the same builder, blocks, tokens and layouts."""
    if row.is_transformer:
        arguments = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 4 * patch(row)} | arguments
    update: dict[str, object] = {"arguments": {**row.arguments, **arguments}}
    if row.pooler is not None:
        update["pooler"] = row.pooler.model_copy(update={"width": 16, "context": 48, "heads": 4})
    return row.model_copy(update=update)


def patch(row: PublishedEncoder) -> int:
    found = re.search(r"patch(\d+)", row.architecture)
    return int(row.arguments.get("patch_size", found[1] if found else 0))


def with_class_position(state: State) -> dict[str, Tensor]:
    """Positions of patches alone, and one of the class token that its value came from."""
    position = torch.full_like(state["cls_token"], 0.25)
    return {
        **state,
        "cls_token": state["cls_token"] - position,
        "pos_embed": torch.cat([position, state["pos_embed"]], dim=1),
    }


def as_transformers(state: State, dinov2: bool, swiglu: bool = False) -> dict[str, Tensor]:
    """Of timm's names: those of transformers' ViT or DINOv2."""
    registers = "reg_token" in state
    if registers:
        state = with_class_position(state)
    done: dict[str, Tensor] = {}
    for name, value in state.items():
        new = re.sub(r"^blocks\.(\d+)\.", r"encoder.layer.\1.", name)
        new = new.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        new = re.sub(r"^(cls_token)$", r"embeddings.\1", new).replace("reg_token", "embeddings.register_tokens")
        new = new.replace("pos_embed", "embeddings.position_embeddings").replace("attn.proj", "attention.output.dense")
        new = re.sub(r"^norm\.", "layernorm.", new)
        new = re.sub(r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1", new)
        if dinov2:
            if swiglu:
                new = new.replace("mlp.fc1", "mlp.weights_in").replace("mlp.fc2", "mlp.weights_out")
        else:
            new = new.replace(".norm1.", ".layernorm_before.").replace(".norm2.", ".layernorm_after.")
            new = new.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        if ".attn.qkv." in new:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                done[new.replace("attn.qkv", f"attention.attention.{part}")] = piece
        else:
            done[new] = value
    if dinov2:
        done["embeddings.mask_token"] = torch.zeros_like(state["cls_token"][0])
    else:
        done["pooler.dense.weight"] = torch.zeros_like(done["encoder.layer.0.attention.output.dense.weight"])
    return done


def as_dinov2(state: State, swiglu: bool = False, chunks: int = 0) -> dict[str, Tensor]:
    """Of timm's names: DINOv2's own, its blocks in so many chunks."""
    state = with_class_position(state) if "reg_token" in state else dict(state)
    n_blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))

    def renamed(name: str) -> str:
        name = name.replace("reg_token", "register_tokens")
        if swiglu:
            name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        if chunks:
            per_chunk = -(-n_blocks // chunks)
            name = re.sub(r"^blocks\.(\d+)", lambda found: f"blocks.{int(found[1]) // per_chunk}.{found[1]}", name)
        return name

    done = {renamed(name): value for name, value in state.items()}
    return done | {"mask_token": torch.zeros_like(state["cls_token"][0])}


def as_swin_of_2021(state: State) -> dict[str, Tensor]:
    """Of timm's names of today: those of before its stages began with what merges patches."""
    done = {
        re.sub(r"^layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name): value
        for name, value in state.items()
    }
    like = state["norm.weight"]
    for layer, depth in enumerate((2, 2, 6, 2)):
        for block in range(depth):
            name = f"layers.{layer}.blocks.{block}"
            done[f"{name}.attn.relative_position_index"] = torch.zeros(49, 49, device=like.device)
            if block % 2 and layer < 3:  # the last stage is one window
                done[f"{name}.attn_mask"] = torch.zeros(64 // 4**layer, 49, 49, device=like.device)
    return done


def as_conch(state: State) -> dict[str, Tensor]:
    """The visual tower among what else CONCH's file holds."""
    like = state["ln_contrast.weight"]
    width = len(like)
    beside = {
        "logit_scale": torch.zeros((), device=like.device),
        "text.cls_emb": torch.zeros(8, device=like.device),
        "visual.proj_contrast": torch.zeros(width, width, device=like.device),
        "visual.attn_pool_caption.query": torch.zeros(1, width, device=like.device),
        "visual.ln_caption.weight": torch.zeros(width, device=like.device),
    }
    return {f"visual.{name}": value for name, value in state.items()} | beside


def as_in_file(row: PublishedEncoder, state: State) -> dict[str, Tensor]:
    """A trunk's state in the first of the row's layouts."""
    swiglu = "SwiGLU" in str(row.arguments.get("mlp_layer"))
    match row.layouts[:1]:
        case ("transformers-vit",):
            return {
                name: value
                for name, value in as_transformers(state, dinov2=False).items()
                if not name.startswith("pooler")
            }
        case ("transformers-dinov2",):
            return as_transformers(state, dinov2=True, swiglu=swiglu)
        case ("dinov2",):
            return as_dinov2(state, swiglu)
        case ("swin-2021",):
            return as_swin_of_2021(state)
        case ("conch",):
            return as_conch(state)
    return dict(state)


# Forwards written against the files' own names -----------------------------------------------------------------------


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def norm(state: State, name: str, x: Tensor, eps: float = 1e-6) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Softmax of scaled dot products, head by head."""
    width = query.shape[-1] // heads
    parts = []
    for head in range(heads):
        at = slice(head * width, (head + 1) * width)
        scores = query[..., at] @ key[..., at].transpose(-1, -2) / width**0.5
        parts.append(scores.softmax(-1) @ value[..., at])
    return torch.cat(parts, dim=-1)


def transformers_tokens(state: State, images: Tensor, heads: int, side: int | None = None) -> Tensor:
    """Tokens after the last norm, of a file with transformers' names: ViT (GELU) or DINOv2 (GELU or SwiGLU).

    ``side``: the grid of the images, where positions are resampled to it.
    """
    kernel = state["embeddings.patch_embeddings.projection.weight"]
    bias = state["embeddings.patch_embeddings.projection.bias"]
    patches = F.conv2d(images, kernel, bias, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    positions = state["embeddings.position_embeddings"]
    if side is not None:
        old = int((positions.shape[1] - 1) ** 0.5)
        grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        positions = torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    x = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), patches], dim=1) + positions
    if "embeddings.register_tokens" in state:
        registers = state["embeddings.register_tokens"].expand(len(images), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
    n_layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder."))
    for layer in (f"encoder.layer.{i}" for i in range(n_layers)):
        dinov2 = f"{layer}.layer_scale1.lambda1" in state
        first, second = ("norm1", "norm2") if dinov2 else ("layernorm_before", "layernorm_after")
        inner = norm(state, f"{layer}.{first}", x)
        parts = [linear(state, f"{layer}.attention.attention.{part}", inner) for part in ("query", "key", "value")]
        mixed = linear(state, f"{layer}.attention.output.dense", attention(*parts, heads))
        x = x + (mixed * state[f"{layer}.layer_scale1.lambda1"] if dinov2 else mixed)
        inner = norm(state, f"{layer}.{second}", x)
        if f"{layer}.mlp.weights_in.weight" in state:
            gate, value = linear(state, f"{layer}.mlp.weights_in", inner).chunk(2, dim=-1)
            inner = linear(state, f"{layer}.mlp.weights_out", F.silu(gate) * value)
        else:
            names = ("mlp.fc1", "mlp.fc2") if dinov2 else ("intermediate.dense", "output.dense")
            inner = linear(state, f"{layer}.{names[1]}", F.gelu(linear(state, f"{layer}.{names[0]}", inner)))
        x = x + (inner * state[f"{layer}.layer_scale2.lambda1"] if dinov2 else inner)
    return norm(state, "layernorm", x)


def pooled_by_conch(state: State, tokens: Tensor, heads: int) -> Tensor:
    """What CONCH's or CONCH v1.5's entries make of a trunk's tokens."""
    pool = "attn_pool_contrast"
    keys = norm(state, f"{pool}.ln_k", tokens, 1e-5)
    query = norm(state, f"{pool}.ln_q", state[f"{pool}.query"], 1e-5).expand(len(tokens), 1, -1)
    if f"{pool}.to_q.weight" in state:
        key, value = linear(state, f"{pool}.to_kv", keys).chunk(2, dim=-1)
        pooled = linear(state, f"{pool}.to_out", attention(linear(state, f"{pool}.to_q", query), key, value, heads))
    else:
        biases = state[f"{pool}.attn.in_proj_bias"].chunk(3)
        projected = [
            F.linear(x, state[f"{pool}.attn.{part}_proj_weight"], bias)
            for x, part, bias in zip((query, keys, keys), "qkv", biases, strict=True)
        ]
        pooled = linear(state, f"{pool}.attn.out_proj", attention(*projected, heads))
    return norm(state, "ln_contrast", pooled[:, 0], 1e-5)
