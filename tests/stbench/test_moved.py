"""A plug-in written for 0.1 still runs, and is told where its imports are now."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib import import_module

import pytest

from stbench import moved

# what the documentation of 0.1 told plug-ins to import, and what its own methods imported
OF_OLD = {
    "stbench.augment": ("hflip", "rotate"),
    "stbench.batches": ("Batch", "TestBatch", "TrainingData"),
    "stbench.compressed": ("existing", "open_text"),
    "stbench.encoders": ("build_encoder", "read_weights", "weights_label"),
    "stbench.image": ("SlideImage",),
    "stbench.locate": ("cache_root", "data_root"),
    "stbench.metrics": ("UnscorableError", "score_slide"),
    "stbench.patch_bank": ("PatchBank", "release_resident_patches"),
    "stbench.precision": ("autocast", "float32", "resolve_precision"),
    "stbench.prepare": ("PreparedDataset", "PreparedSlide", "prepare", "slide_key"),
    "stbench.slide": ("Slide", "validate", "check_slide"),
    "stbench.targets": ("target", "DEFAULT_TARGET"),
    "stbench.training": ("train", "resolve_device", "Checkpoints"),
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in OF_OLD.items() for name in names])
def test_an_old_import_gives_the_same_object_and_one_warning(module: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is stbench.*; the old name goes in 0.3") as told:
        exec(f"from {module} import {name} as found", namespace := {})
    assert {warning.filename for warning in told} == {"<string>"}  # where it is imported, not here
    place = str(told[0].message).split(" is ")[1].split(" ")[0].rpartition(".")[0]
    assert namespace["found"] is getattr(import_module(place), name)


def test_every_moved_module_is_tried() -> None:
    assert set(OF_OLD) == {*moved.MOVED, "stbench.training"}


def test_what_never_was_there_is_still_not_there() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImportError, match="cannot import name 'nothing' from"):
            exec("from stbench.slide import nothing")
        with pytest.raises(ModuleNotFoundError):
            import_module("stbench.nothing")


def test_nothing_of_stbench_uses_an_old_name() -> None:
    """The suite ignores deprecations of other libraries; one of ours would be an error."""
    strict = (sys.executable, "-W", "error:stbench:DeprecationWarning", "-c")  # a process that has imported nothing yet
    modules = "stbench.methods.stnet, stbench.methods.controls, stbench.datasets.manifest, stbench.cli"
    subprocess.run([*strict, f"import {modules}"], check=True)
    old = subprocess.run([*strict, "from stbench.compressed import open_text"], capture_output=True, text=True)
    assert "DeprecationWarning: stbench.compressed.open_text is" in old.stderr
    assert old.returncode == 1
