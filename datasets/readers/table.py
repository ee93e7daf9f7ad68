"""All formats that are read. A new one is a module with a ``READER``, and its line here."""

from __future__ import annotations

from pathlib import Path

from stbench.errors import UserError, unknown

from . import legacy_st
from .h5ad import entry as h5ad
from .hest import entry as hest
from .reader import Reader
from .space_ranger import entry as space_ranger
from .spatial_data import entry as spatial_data
from .xenium import entry as xenium

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        legacy_st.READER,
        space_ranger.READER,
        h5ad.READER,
        xenium.READER,
        hest.READER,
        spatial_data.READER,
    )
}


def reader_named(name: str, place: str) -> Reader:
    """The reader of a name; ``place`` says where the name stands, for the message."""
    if name not in READERS:
        raise unknown(f"reader in {place}:", name, READERS)
    return READERS[name]


def recognised(path: Path) -> tuple[Reader, str] | None:
    """The reader whose format ``path`` is, and why, in words; ``None`` where no reader knows it.

    Raises ``UserError`` where more than one does.
    """
    claims = [(reader, why) for reader in READERS.values() if (why := reader.recognises(path)) is not None]
    if len(claims) > 1:
        said = "; ".join(f"{reader.name}: {why}" for reader, why in claims)
        choice = " or ".join(f"--reader {reader.name}" for reader, _ in claims)
        raise UserError(f"{path} is of more than one format ({said}) - say which: {choice}")
    return claims[0] if claims else None
