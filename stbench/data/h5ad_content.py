"""An AnnData as the content of a file, which is then written in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def h5ad_content(table: AnnData) -> bytes:
    """What an ``.h5ad`` file of the table holds; older versions of anndata read it too."""
    import h5py
    from anndata.io import write_elem

    # made in memory: on a disk that is full HDF5 goes on complaining long after its error was caught
    with h5py.File("table.h5ad", "w", driver="core", backing_store=False) as file:
        write_elem(file, "/", table, dataset_kwargs={"compression": "gzip"})
        if "raw" in file:  # a null, which anndata before 0.12 does not read
            del file["raw"]
        file.flush()
        content: bytes = file.id.get_file_image()
    return content
