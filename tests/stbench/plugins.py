"""Methods of somebody's own, as files, with one strange statement at one place."""

from __future__ import annotations

from pathlib import Path
from string import Template

SOURCE = Template("""\
import numpy as np
from stbench.method import MethodConfig, Needs

$on_import


class Settings(MethodConfig):
    strength: float = 1.0


class Mine:
    title, kind, Config, presets = "Mine", "$kind", Settings, {"quick": {}}
    name = "$name"

    def __init__(self, config):
        self.config = config
        $on_init

    @property
    def needs(self):
        $on_needs
        return Needs()

    @property
    def weights_label(self):
        $on_label
        return "none"

    def fit(self, slides, run):
        self.mean = np.concatenate([slide.target for slide in slides]).mean(axis=0)
        $on_fit

    def predict(self, slide):
        grey = slide.patches.mean(axis=(1, 2, 3))[:, None] / 255
        prediction = (self.mean + $factor * grey).astype(np.float32)
        $on_predict
        return prediction

    def save(self, directory):
        np.save(directory / "mean.npy", self.mean)
        (directory / "config.json").write_text(self.config.model_dump_json())
        $on_save

    @classmethod
    def load(cls, directory, device="cpu"):
        method = cls(Settings.model_validate_json((directory / "config.json").read_text()))
        method.mean = np.load(directory / "mean.npy")
        $on_load
        return method
""")
PLACES = ("on_import", "on_init", "on_needs", "on_label", "on_fit", "on_predict", "on_save", "on_load")


def plugin(path: Path, name: str = "mine", kind: str = "method", factor: float = 1.0, **at: str) -> str:
    """Write a method with, say, ``on_fit="raise SystemExit"`` and return what ``--methods`` calls it."""
    filled = {place: at.pop(place, "pass") for place in PLACES}
    assert not at, at
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SOURCE.substitute(filled, name=name, kind=kind, factor=factor))
    return f"{path}:Mine"
