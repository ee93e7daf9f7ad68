"""An AnnData as the content of a file, which is then written in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..system.hdf5_content import hdf5_content

if TYPE_CHECKING:
    import h5py
    from anndata import AnnData


def h5ad_content(table: AnnData) -> bytes:
    """What an ``.h5ad`` file of the table holds; older versions of anndata read it too."""
    from anndata.io import write_elem

    def fill(file: h5py.File) -> None:
        write_elem(file, "/", table, dataset_kwargs={"compression": "gzip"})
        if "raw" in file:  # a null, which anndata before 0.12 does not read
            del file["raw"]

    return hdf5_content(fill)
