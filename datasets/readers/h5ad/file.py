"""An ``.h5ad`` file opened, and the parts of Scanpy's and Squidpy's layout in it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from stbench.errors import UserError, reason_of, unknown
from stbench.system.compressed import existing, is_gzipped, locked_hdf5
from stbench.system.scalars import as_number
from stbench.system.user_paths import expanded

from ..assemble import check_sparse

if TYPE_CHECKING:
    from anndata import AnnData
IN_LIBRARY = ("images", "scalefactors", "metadata")


def open_file(path: Path) -> AnnData:
    """All of an object, whose sparse matrices are sound: names of spots may repeat where it holds several sections."""
    import anndata

    with open_hdf5(path):
        pass
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Observation names are not unique")  # of one section they must be, below
            adata = anndata.read_h5ad(path)
        _check_matrices(adata)
    except Exception as error:  # what anndata raises for an encoding that it does not know is private to it
        reason = reason_of(error)
        raise UserError(f"{path} cannot be read as AnnData ({reason}) - write it again with anndata") from error
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise UserError(f"{path} has {adata.n_obs} spots and {adata.n_vars} genes - give a file with both")
    return adata


def _check_matrices(adata: AnnData) -> None:
    """Raise ``ValueError`` for a sparse matrix whose arrays contradict each other: compiled code does not look."""
    for matrix in (adata.X, *adata.layers.values(), None if adata.raw is None else adata.raw.X):
        if hasattr(matrix, "check_format"):
            check_sparse(matrix)


def require_unique(path: Path, adata: AnnData, library: str | None) -> None:
    """Refuse a section that names a spot twice; two sections of one object may have the same barcodes."""
    if adata.obs_names.is_unique:
        return
    twice = adata.obs_names[adata.obs_names.duplicated()][0]
    place = f"library {library} of {path}" if library is not None else str(path)
    raise UserError(
        f"{place} names the spot {twice} more than once - make obs_names unique or, if these are several sections, "
        "choose one with --library (in a manifest: library)"
    )


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    import h5py

    if not h5py.is_hdf5(existing(path)):
        packed = " (it is gzipped: unpack it)" if is_gzipped(path) else ""
        raise UserError(f"{path} is not an .h5ad file (not HDF5) - give a file written by AnnData{packed}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except BlockingIOError as error:
        raise locked_hdf5(path) from error
    except OSError as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:200]}) - fetch it again") from error


def beside(path: Path, named: str | None) -> Path | None:
    """The file as named, or one of that name beside the object: paths of another machine lead nowhere here."""
    if named is None:
        return None
    # an absolute path stays what it is
    places = (path.parent / expanded(named), path.parent / PureWindowsPath(named).name)
    return next((place for place in places if place.is_file()), None)


def libraries_of(spatial: Any, prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """The sections of ``uns["spatial"]``, in memory or still in the file, by their keys.

    A key with a slash was written as one group inside another, ``a/b``.
    """
    libraries: dict[str, Mapping[str, Any]] = {}
    for name, content in spatial.items() if isinstance(spatial, Mapping) else ():
        if not isinstance(content, Mapping):
            continue  # CELLxGENE's flag is_single stands beside the library
        inner = {} if any(part in content for part in IN_LIBRARY) else libraries_of(content, f"{prefix}{name}/")
        libraries |= inner or {f"{prefix}{name}": content}
    return libraries


def part_of(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping inside a library; empty where there is none, or ``None``."""
    part = content.get(name)
    return part if isinstance(part, Mapping) else {}


def numbers_of(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of ``values`` that are one number each, be it written as text or as a vector of one."""
    numbers = {}
    for name, value in values.items():
        number = as_number(value)
        if number is not None:
            numbers[name] = number
    return numbers


def library_of(path: Path, libraries: Mapping[str, Any], in_obs: Collection[str], wanted: str | None) -> str | None:
    """The section to be read: the one that is ``wanted``, or the only one. ``in_obs``: those that obs tells apart."""
    if wanted is not None:
        if wanted not in libraries and wanted not in in_obs:
            raise unknown(f"library in {path}", wanted, {*libraries, *in_obs})
        return wanted
    if len(libraries) > 1:
        raise UserError(
            f"{path} holds several sections ({', '.join(sorted(libraries))}) - choose one with --library (in a "
            "manifest: library), and import each as a slice of its own"
        )
    return next(iter(libraries), None)
