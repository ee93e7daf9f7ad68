"""The files of a HEST sample, found from its AnnData file or from the folder of the collection."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stbench.errors import UserError
from stbench.system.compressed import existing
from stbench.system.user_paths import unset_variables
from stbench.system.wording import shortened

EXPRESSION = ("st", "adata")  # of HEST-1k, of the benchmark
WSI_SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi")
SHOWN = 6


@dataclass(frozen=True)
class HestFiles:
    """The files of one sample; what is not there is ``None``, and of image and patches at most one is used."""

    sample: str
    expression: Path
    image: Path | None
    patches: Path | None
    metadata: Path | None

    def paths(self) -> tuple[Path, ...]:
        """Every file that the slide depends on."""
        others = (self.image, self.patches if self.image is None else None, self.metadata)
        return (self.expression, *(path for path in others if path is not None))


def is_sample(path: Path) -> bool:
    """Whether ``path`` is the AnnData file of a sample: in ``st/`` or ``adata/``, with another part of it beside."""
    return path.suffix.lower() == ".h5ad" and path.parent.name in EXPRESSION and path.is_file() and _has_others(path)


def _has_others(expression: Path) -> bool:
    root, sample = expression.absolute().parent.parent, expression.stem
    return (
        (root / "metadata" / f"{sample}.json").is_file()
        or (root / "patches" / f"{sample}.h5").is_file()
        or _wsi(root, sample) is not None
    )


def is_collection(folder: Path) -> bool:
    """Whether ``folder`` holds ``st/`` or ``adata/`` with samples in it."""
    return folder.is_dir() and any(
        is_sample(path) for name in EXPRESSION for path in sorted((folder / name).glob("*.h5ad"))[:1]
    )


def expression_of(place: Path, sample: str) -> Path:
    """The AnnData file: ``place`` itself, or that of ``sample`` in the collection ``place``. Raises ``UserError``."""
    if not place.is_dir():
        return existing(place)
    found = [place / name / f"{sample}.h5ad" for name in EXPRESSION if (place / name / f"{sample}.h5ad").is_file()]
    if found:
        return found[0]
    samples = samples_in(place)
    listed = shortened(samples, SHOWN)
    raise UserError(
        f"{place} has no sample {sample} (st/{sample}.h5ad) - name one of its {len(samples)} by --slice or as the "
        f"path of its file ({listed})"
    )


def samples_in(place: Path) -> list[str]:
    """The samples of a collection."""
    return sorted({path.stem for name in EXPRESSION for path in (place / name).glob("*.h5ad")})


def find(place: Path, sample: str, image: Path | None = None) -> HestFiles:
    """The files of a sample; ``image`` is used instead of ``wsis/``. Raises ``UserError`` where there is no picture."""
    if not place.exists():
        raise UserError(f"{place} does not exist{unset_variables(place)} - check the path")
    expression = expression_of(place, sample)
    root, name = expression.absolute().parent.parent, expression.stem
    chosen = existing(image) if image is not None else _wsi(root, name)
    patches = root / "patches" / f"{name}.h5"
    if chosen is None and not patches.is_file():
        raise UserError(
            f"neither wsis/{name}.tif nor patches/{name}.h5 is in {root} - fetch one of them, or give the image with "
            "--image (with --reader h5ad windows are cut from the small picture inside the file)"
        )
    metadata = root / "metadata" / f"{name}.json"
    return HestFiles(
        name,
        expression,
        None if chosen is None else existing(chosen),
        existing(patches) if chosen is None else None,
        existing(metadata) if metadata.is_file() else None,
    )


def _wsi(root: Path, sample: str) -> Path | None:
    places = [root / "wsis" / f"{sample}{suffix}" for suffix in WSI_SUFFIXES]
    return next((path for path in places if path.is_file()), None)
