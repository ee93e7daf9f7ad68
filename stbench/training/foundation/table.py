"""The table of published encoders, ``encoders.toml``: what each field means, and rows that leave out too much refused.

Only the table is read here, so what is known of an encoder can be told without importing torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ...errors import DamagedFileError, first_problem
from ...system.files import file_digest, value_digest

FILE = Path(__file__).parent / "encoders.toml"
LAYOUTS = FILE.with_name("layouts.toml")
Pooling = Literal["class token", "class token and mean of patch tokens", "mean", "attention"]
Channels = tuple[float, float, float]
# the blocks that there are; with another activation a file would load as well, and compute otherwise
GELU_MLP = ("timm.layers.Mlp", "torch.nn.GELU")
SWIGLU_MLP = ("timm.layers.SwiGLUPacked", "torch.nn.SiLU")
# arguments of a transformer that no entry of a file's shows: a builder's default may be another network's
UNSEEN_BY_LOADING = ("num_heads", "mlp_layer", "act_layer")

# what features are computed with; all else is only told
COMPUTED_WITH = {
    *("builder", "arguments", "stem", "pooler", "pooling", "layouts", "positions_px"),
    *("input_px", "resize_px", "interpolation", "mean", "std"),
}


class Row(BaseModel):
    """Base of what a row holds: no field that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HubFile(Row):
    """A file on the Hugging Face hub."""

    repository: str
    file: str
    kind: Literal["model", "dataset", "space"] = "model"

    @property
    def page(self) -> str:
        """Where people get it."""
        folder = "" if self.kind == "model" else f"{self.kind}s/"
        return f"https://huggingface.co/{folder}{self.repository}"


class Pooler(Row):
    """The attention by which CONCH pools all tokens into one: a learnt query of ``width``, tokens of ``context``."""

    kind: Literal["multi-head", "separate"]
    width: int
    context: int
    heads: int


class PublishedEncoder(Row):
    """One row: an encoder, its file, and what is known of them.

    ``parameters`` counts the network without classifier and mask token, with positions for images of ``positions_px``.
    ``entries`` are some names and shapes of its file, ``n_entries`` how many there are. ``proof``: ``exact`` (the
    published count of parameters), ``numeric`` (outputs equal the published network's, from the same random weights),
    ``strict`` (arguments with which its authors or public loaders load it strictly), ``layout`` (names and shapes).
    """

    name: str
    title: str
    images: Literal["slides", "photographs"] = "slides"  # that it was trained on
    builder: Annotated[str, Field(pattern=r"^(timm|torchvision):\w+$")]
    arguments: Mapping[str, Any] = {}
    stem: Literal["", "convolutions"] = ""  # convolutions: CTransPath's in place of Swin's patch embedding
    pooler: Pooler | None = None
    pooling: Pooling
    features: int
    parameters: int
    layouts: tuple[str, ...] = ()  # of its files, beside the network's own: see layouts.toml
    positions_px: int | None = None  # the file's positions may be for such images: resampled once, when it is loaded
    input_px: int
    resize_px: int = 0  # patches are resized to it, and the centre is cut out; 0: to input_px, and nothing is cut
    interpolation: Literal["bilinear", "bicubic"]
    mean: Channels
    std: Channels
    licence: str
    gated: Literal["yes", "no", "unclear"]  # whether its hub page asks for an account or an approval
    tcga: Literal["yes", "no", "not known"]  # whether slides of TCGA were among those of its pretraining
    slides_are_listed: bool  # whether it can be looked up which slides it saw
    pretraining: str
    um_per_px: tuple[float, ...]
    scale: str
    file: str
    source: str
    hub: tuple[HubFile, ...] = ()  # the published file first, then mirrors
    sha256: str = ""  # of one of its files, as a public loader has it
    proof: Literal["exact", "numeric", "strict", "layout"]
    proved_by: str
    entries: tuple[tuple[str, tuple[int, ...]], ...]
    n_entries: int | None = None

    @property
    def library(self) -> str:
        return self.builder.partition(":")[0]

    @property
    def architecture(self) -> str:
        """The builder's name in its library."""
        return self.builder.partition(":")[2]

    @property
    def is_transformer(self) -> bool:
        """A ViT, which takes images of any size."""
        return self.architecture.startswith("vit_")

    @property
    def only_px(self) -> int | None:
        """The one side of images that the network takes; ``None``: it takes any."""
        return self.input_px if self.architecture.startswith("swin_") else None

    @cached_property
    def digest(self) -> str:
        """Of what features are computed with: trials with another one are others."""
        return value_digest([self.model_dump(mode="json", include=COMPUTED_WITH), file_digest(LAYOUTS)])

    @property
    def known_by(self) -> str:
        """Its licence and how it is got, in a few words."""
        access = {"yes": "access on request", "no": "open", "unclear": "access may have to be asked for"}[self.gated]
        return f"{access}; licence: {self.licence}"

    @model_validator(mode="after")
    def _leaves_nothing_to_a_default(self) -> Self:
        if not self.is_transformer:
            return self
        missing = [argument for argument in UNSEEN_BY_LOADING if argument not in self.arguments]
        if missing:
            raise ValueError(
                f"arguments lack {', '.join(missing)}: a file would load whatever they are, and compute otherwise"
            )
        block = (self.arguments["mlp_layer"], self.arguments["act_layer"])
        if block not in (GELU_MLP, SWIGLU_MLP):
            raise ValueError(f"{block[0]} with {block[1]} is no known block: SwiGLUPacked wants SiLU, and Mlp GELU")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.pooler is not None) != (self.pooling == "attention"):
            raise ValueError("a pooler and pooling = attention belong together")
        if self.resize_px and self.resize_px < self.input_px:
            raise ValueError(f"a centre of {self.input_px} px cannot be cut from {self.resize_px} px")
        return self


def read_table(path: Path = FILE) -> dict[str, PublishedEncoder]:
    """The rows of a table, by name.

    Raises
    ------
    DamagedFileError
        If the file is no TOML, or a row lacks something, holds something unknown, or leaves to a builder's default what
        strict loading would not notice.
    """
    again = "restore it, or install stbench again"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DamagedFileError(f"{path} cannot be read as TOML ({error}) - {again}") from error
    rows = {}
    for name, fields in content.items():
        try:
            rows[name] = PublishedEncoder(name=name, **fields)
        except ValidationError as error:
            raise DamagedFileError(f"{path}: [{name}] {first_problem(error)} - {again}") from error
    return rows


@cache
def published_encoders() -> Mapping[str, PublishedEncoder]:
    """All rows by name, in the table's order."""
    return read_table()


def published_encoder(name: str) -> PublishedEncoder | None:
    """The row of an encoder, ``None`` where the table has none."""
    return published_encoders().get(name)


def pathology_encoder(name: str) -> PublishedEncoder | None:
    """The row of an encoder that was trained on slides: it is built, loaded and fed as its row says.

    ``None`` for all others, among them the table's two of ImageNet, which are torchvision's.
    """
    row = published_encoder(name)
    return row if row is not None and row.images == "slides" else None


def rows_of_architecture(name: str) -> list[PublishedEncoder]:
    """Encoders trained on slides that are the plain network ``name`` of a library, which takes their files."""
    own_px = 518 if name.endswith("dinov2") else 224
    return [
        row
        for row in published_encoders().values()
        if (row.images, row.architecture, row.stem, row.pooler) == ("slides", name, "", None)
        and row.arguments.get("img_size", own_px) == own_px
        and not row.arguments.keys() - {"img_size", "dynamic_img_size", *UNSEEN_BY_LOADING}
    ]
