"""The table of published encoders: rows are built as large as published, and those that hide a default are refused."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
from published_layouts import as_in_file

from stbench.errors import DamagedFileError
from stbench.training import pretrained
from stbench.training.foundation.build import build
from stbench.training.foundation.networks import ClassAndMean
from stbench.training.foundation.renaming import layouts
from stbench.training.foundation.table import (
    FILE,
    PublishedEncoder,
    pathology_encoder,
    published_encoders,
    read_table,
    rows_of_architecture,
)

ROWS = published_encoders()
SLIDES = [row for row in ROWS.values() if row.images == "slides"]


@cache
def built(name: str) -> tuple[int, int, torch.Size, dict[str, torch.Tensor]]:
    """Parameters, features, what two images give, and the trunk's state."""
    row = ROWS[name]
    if row.positions_px is not None:  # parameters are counted with the file's positions
        row = row.model_copy(update={"arguments": {**row.arguments, "img_size": row.positions_px}})
    with torch.device("meta"), torch.no_grad():
        module, n_features = build(row)
        features = module.eval()(torch.empty(2, 3, row.input_px, row.input_px))
    state = (module.trunk if isinstance(module, ClassAndMean) else module).state_dict()  # type: ignore[operator]
    return sum(parameter.numel() for parameter in module.parameters()), n_features, features.shape, state


@pytest.mark.parametrize("row", SLIDES, ids=lambda row: row.name)
def test_every_row_is_built_with_the_published_number_of_parameters_and_gives_its_features(
    row: PublishedEncoder,
) -> None:
    """On the meta device: no memory is taken, however large the network."""
    like = ("builder", "arguments", "stem", "pooler", "pooling", "input_px", "positions_px")
    same = next(each for each in SLIDES if all(getattr(each, field) == getattr(row, field) for field in like))
    n_parameters, n_features, shape, state = built(same.name)
    assert (n_parameters, n_features, shape) == (row.parameters, row.features, (2, row.features))
    in_file = as_in_file(row, state)
    shapes = {(name, tuple(value.shape)) for name, value in [*state.items(), *in_file.items()]}
    # the github file of GPFM, whose blocks are in chunks, is looked at in test_foundation_files.py
    entries = {(name.removeprefix("backbone."), shape) for name, shape in row.entries if row.name != "gpfm"}
    assert not entries - shapes
    if row.n_entries is not None:
        assert row.n_entries in (len(state), len(in_file))


def test_networks_of_imagenet_are_torchvisions_and_told_only() -> None:
    assert [row.name for row in ROWS.values() if row.images == "photographs"] == ["resnet50", "densenet121"]
    for name in ("resnet50", "densenet121"):
        assert pathology_encoder(name) is None
        assert name in pretrained.TORCHVISION
        assert ROWS[name].file == pretrained.published_name(name)


def test_heads_and_blocks_are_the_builders_own_where_the_row_builds_its_plain_network() -> None:
    """Loading would not notice another number of heads: what rows say is held against timm's own networks."""
    plain = [row for row in SLIDES if row.is_transformer and row.name != "uni2-h"]  # whose width is another
    for architecture in dict.fromkeys(row.architecture for row in plain):
        with torch.device("meta"):
            block = timm.create_model(architecture, depth=1).blocks[0]  # type: ignore[index,union-attr]
        for row in plain:
            if row.architecture == architecture:
                assert row.arguments["num_heads"] == block.attn.num_heads
                if not row.name.startswith(("virchow", "h0", "hibou")):  # these are of SwiGLU, their builders of GELU
                    assert row.arguments["mlp_layer"].endswith(
                        type(block.mlp).__name__.replace("GluMlp", "SwiGLUPacked")
                    )
                    assert row.arguments["act_layer"].endswith(type(block.mlp.act).__name__)


def changed_table(folder: Path, name: str, pattern: str, replacement: str) -> Path:
    """The table with one row changed."""
    text = FILE.read_text(encoding="utf-8")
    heads = [found.start() for found in re.finditer(r"(?m)^\[", text)] + [len(text)]
    start = text.index(f"\n[{name}]\n") + 1
    stop = next(head for head in heads if head > start)
    row, n = re.subn(pattern, replacement, text[start:stop])
    assert n == 1
    path = folder / "encoders.toml"
    path.write_text(text[:start] + row + text[stop:], encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("uni2-h", r', "?act_layer"? = "torch.nn.SiLU"', "", "arguments lack act_layer"),
        ("virchow", "torch.nn.SiLU", "torch.nn.GELU", "SwiGLUPacked wants SiLU"),
        ("uni", "torch.nn.GELU", "torch.nn.SiLU", "Mlp GELU"),
        ("uni", r", num_heads = 16", "", "arguments lack num_heads"),
        ("uni", "mean = .*\n", "", "mean: Field required"),
        ("uni", 'title = "', 'titel = "x"\ntitle = "', "titel: Extra inputs"),
        ("conch", "pooler = .*\n", "", "a pooler and pooling = attention belong together"),
        ("uni", "input_px = 224", "input_px = 224\nresize_px = 200", "cannot be cut from 200 px"),
        ("uni", 'tcga = "no"', 'tcga = "maybe"', "tcga: Input should be"),
    ],
)
def test_rows_that_leave_out_what_loading_would_not_notice_are_refused_in_one_line(
    tmp_path: Path, name: str, pattern: str, replacement: str, message: str
) -> None:
    path = changed_table(tmp_path, name, pattern, replacement)
    with pytest.raises(DamagedFileError, match=re.escape(message)) as caught:
        read_table(path)
    assert f"[{name}]" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_no_toml_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[uni\n", encoding="utf-8")
    with pytest.raises(DamagedFileError, match="cannot be read as TOML") as caught:
        read_table(tmp_path / "t.toml")
    assert "\n" not in str(caught.value)


def test_rows_name_layouts_that_there_are_and_files_that_can_be_found() -> None:
    assert {layout for row in ROWS.values() for layout in row.layouts} == set(layouts())
    for row in ROWS.values():
        assert row.file
        assert row.source
        assert not row.sha256 or re.fullmatch("[0-9a-f]{64}", row.sha256)
        assert all(0 < value < 1 for value in (*row.mean, *row.std))
    assert all(row.hub for row in SLIDES)


def test_rows_whose_files_a_plain_network_would_take_are_known_by_its_name() -> None:
    def names(architecture: str) -> list[str]:
        return [row.name for row in rows_of_architecture(architecture)]

    assert names("vit_small_patch16_224") == ["kaiko-vits16", "lunit-vits16"]
    assert names("vit_base_patch16_224") == ["phikon", "kaiko-vitb16"]
    assert names("vit_large_patch14_reg4_dinov2") == ["kaiko-vitl14"]
    assert names("resnet50") == ["retccl"]
    for plain in ("vit_large_patch16_224", "vit_giant_patch14_reg4_dinov2", "swin_tiny_patch4_window7_224"):
        assert not names(plain)
