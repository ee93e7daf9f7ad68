"""A cohort on disk: ``<data>/cohorts/NAME/cohort.toml``, and below ``slides/`` what was copied."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stbench import registry
from stbench.errors import PlaceError, UserError
from stbench.system.compressed import existing, open_text
from stbench.system.files import write_text, writing_to
from stbench.system.locate import COHORTS, MANIFEST, NAME
from stbench.system.locks import locked

from ..manifest import DEFAULT_PATCH_PX, read_manifest
from .manifest_text import new_text, with_slides

Entry = Mapping[str, Any]
SETTLED_S, TRIES = 0.2, 5  # between writing a manifest and looking whether it stayed, and how often it is written


@dataclass(frozen=True)
class Cohort:
    """A cohort as it is named for an import; ``title`` and ``patch_px`` are of one that is new."""

    root: Path  # the data folder
    name: str
    title: str | None = None
    patch_px: int | None = None

    @property
    def home(self) -> Path:
        return self.root / COHORTS / self.name

    @property
    def manifest(self) -> Path:
        return self.home / MANIFEST

    def require_usable(self) -> None:
        """Refuse a name that no folder may have or that means something else, and a place that takes no files."""
        if not NAME.fullmatch(self.name):
            raise UserError(
                f"--as '{self.name}' may hold only letters, digits and . _ + - (it becomes a folder's name)"
            )
        if self.name in registry.dataset_names():
            raise UserError(f"--as {self.name} is the name of a dataset of stbench - choose another name")
        if self.patch_px is not None and (self.patch_px < 2 or self.patch_px % 2):
            raise UserError(f"--patch-px {self.patch_px} is not an even number of pixels - give for example 224")
        present = next(place for place in (self.home, *self.home.parents) if place.exists())
        if not present.is_dir():
            raise UserError(
                f"{present} is a file, where the cohort's folder would be - choose another name or --data DIR"
            )
        if not os.access(present, os.W_OK | os.X_OK):
            raise UserError(
                f"{present} may not be written to, and cohorts are kept below the data folder - name another one with "
                "--data DIR, here and in the commands that use the cohort"
            )

    def entries(self) -> list[Entry]:
        """The slides that the cohort has now, as entries that have been checked; none where it does not exist."""
        return list(read_manifest(self.manifest).entries) if self.manifest.exists() else []

    def chosen_patch_px(self) -> int:
        return read_manifest(self.manifest).patch_px if self.manifest.exists() else self.patch_px or DEFAULT_PATCH_PX

    def add(self, entries: Sequence[Entry], replace_old: bool) -> int:
        """Write ``entries`` into the manifest, and return how many slides the cohort has then.

        Another import may be at work: the manifest is read again under a lock and replaced in one step, and looked at
        once more afterwards, as not every file system keeps a lock between machines.
        """
        made = not self.home.exists()
        try:
            with writing_to(self.manifest):
                self.home.mkdir(parents=True, exist_ok=True)
                for attempt in range(TRIES):
                    with locked(self.home.parent / f".{self.name}.lock"):
                        text = self._text()
                        if not attempt and not replace_old:
                            self.require_new(entries)
                        write_text(self.manifest, with_slides(text, entries, self.manifest))
                    time.sleep(SETTLED_S)
                    present = self.entries()
                    if all(entry in present for entry in entries):
                        return len(present)
        except BaseException:
            if made and not any(self.home.iterdir()):
                self.home.rmdir()
            raise
        raise PlaceError(
            f"{self.manifest} is written by others at the same time, and each loses what the other wrote - "
            "import one after the other"
        )

    def require_new(self, entries: Sequence[Entry]) -> None:
        """Refuse slices that the cohort has."""
        known = {entry["id"] for entry in self.entries()}
        again = [entry["id"] for entry in entries if entry["id"] in known]
        if again:
            raise UserError(
                f"{self.name} has the slice{'s' * (len(again) > 1)} {', '.join(again)} already - name it otherwise "
                "(--slice), or give --replace"
            )

    def _text(self) -> str:
        """The manifest as it is now; that of a cohort without slides where there is none yet."""
        if not self.manifest.exists():
            return new_text(self.name, self.title or self.name, self.patch_px or DEFAULT_PATCH_PX)
        present = read_manifest(self.manifest)
        stated = (("--title", self.title, present.title), ("--patch-px", self.patch_px, present.patch_px))
        for option, wanted, given in stated:
            if wanted not in (None, given):
                raise UserError(f"{option} {wanted}: {self.name} has {given} already - edit {self.manifest}")
        with open_text(existing(self.manifest)) as text:
            return text.read()
