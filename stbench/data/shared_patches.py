"""Patches that do not depend on the panel: entries of one slide with other genes are links to the same files.

``CACHE/patches/KEY`` names the entry that has the patches of a key, which is what a slide's key is but for the panel.
Nothing else is kept there, so that a cache is emptied by removing entries.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..system.files import file_digest, write_text
from .patch_files import GEOMETRY, NUMBERS, PATCHES, TILES


def link_patches(directory: Path, slides: Path, key: str) -> int | None:
    """Link the patch files of another entry into ``directory``.

    Parameters
    ----------
    directory : Path
        Of an entry that is being written, without patches.
    slides : Path
        Where entries are.
    key : str
        Digest of what determines the patches.

    Returns
    -------
    int or None
        How many windows cross the image's border; ``None`` where no sound entry has these patches, or where files
        cannot be linked here: they are to be cut then.
    """
    try:
        other = slides / _index(slides, key).read_text(encoding="utf-8").strip()
        digests = json.loads((other / "digests.json").read_text(encoding="utf-8"))
        if other.parent != slides or file_digest(other / "facts.json") != digests["facts.json"]:
            return None
        facts = json.loads((other / "facts.json").read_text(encoding="utf-8"))
        names = [name for name in (PATCHES, TILES, NUMBERS, GEOMETRY) if name in digests]
        for name in names:
            os.link(other / name, directory / name)
        if names and all(file_digest(directory / name) == digests[name] for name in names):
            return int(facts["n_padded"])
    except (OSError, ValueError, KeyError, TypeError):  # damaged, gone meanwhile, or a file system without links
        pass
    for name in (PATCHES, TILES, NUMBERS, GEOMETRY):
        (directory / name).unlink(missing_ok=True)
    return None


def remember_patches(entry: Path, key: str) -> None:
    """Other entries may link the patches of ``entry``, which is complete."""
    write_text(_index(entry.parent, key), entry.name)


def _index(slides: Path, key: str) -> Path:
    return slides.parent / "patches" / key
