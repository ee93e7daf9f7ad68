"""Methods and datasets are found by name in entry points, or by path; what is wrong with them is said in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stbench import registry
from stbench.dataset import Dataset
from stbench.errors import UserError
from stbench.method import Method
from stbench.system import code_digest

CONTROLS = [
    *("colour_ridge", "depth_oracle", "feature_knn", "feature_pca_ridge", "feature_ridge"),
    *("nearest_replicate", "position_knn", "training_mean"),
]
MINE = """
from typing import ClassVar
import numpy as np
from stbench.method import MethodConfig, Needs

class Mine:
    name = "mine"
    title = "Mine"
    kind = "method"
    Config = MethodConfig
    presets: ClassVar[dict] = {}

    def __init__(self, config):
        self.config = config

    @property
    def needs(self):
        return Needs()

    @property
    def weights_label(self):
        return "none"

    def fit(self, slides, run):
        self.mean = slides[0].target.mean(0)

    def predict(self, slide):
        return np.tile(self.mean, (slide.n_spots, 1))

    def save(self, directory):
        np.save(directory / "mean.npy", self.mean)

    @classmethod
    def load(cls, directory, device="cpu"):
        method = cls(cls.Config())
        method.mean = np.load(directory / "mean.npy")
        return method
"""
DATASET = """
class Mine:
    name, title, slices, patch_px, how_to_get, citation = "mine", "Mine", ["a"], 224, "", ""

    def __init__(self, root=None):
        self.root = root

    def patient(self, slice_id):
        return "p"

    def panel(self):
        return ["G"]

    def find(self):
        return [], []

def open_path(path):
    return Mine(path)
"""

Install = Callable[[str, str, str], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install(package, source, entry_points)``: a distribution with one module of that source."""

    def install(package: str, source: str, entry_points: str) -> Path:
        site = tmp_path / f"site-{package}"
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)
        module = site / f"{package}.py"
        module.write_text(source)
        monkeypatch.syspath_prepend(str(site))
        return module

    return install


def test_the_members_that_are_asked_for_are_those_of_the_protocols() -> None:
    for protocol, members, on_instances_only in (
        (Method, registry.METHOD_MEMBERS, {"config"}),
        (Dataset, registry.DATASET_MEMBERS, set()),
    ):
        declared = {name for name in (*protocol.__annotations__, *vars(protocol)) if not name.startswith("_")}
        assert set(members) == declared - on_instances_only


def test_a_registered_method_is_found_by_its_name() -> None:
    found = registry.method("training_mean")
    assert (found.name, found.kind) == ("training_mean", "control")


def test_listing_names_imports_no_method_and_no_heavy_library() -> None:
    code = (
        "import sys; from stbench import registry; registry.method_names(); registry.dataset_names();"
        "assert not {'torch', 'anndata', 'stbench.methods', 'stbench.datasets'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_controls_import_no_torch() -> None:
    code = (
        "import sys; from stbench import registry\n"
        f"for name in {CONTROLS}: registry.source_digest(registry.method(name))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown method 'trainingmean' - did you mean 'training_mean'"):
        registry.method("trainingmean")
    with pytest.raises(UserError, match="unknown dataset 'her2' - did you mean 'her2st'"):
        registry.dataset("her2")
    with pytest.raises(UserError, match="did you mean 'controls'"):
        registry.expand_methods("control")


def test_controls_stands_for_every_control() -> None:
    assert registry.expand_methods("controls") == CONTROLS


def test_names_are_expanded_in_the_order_of_first_mention_without_duplicates() -> None:
    expanded = registry.expand_methods("position_knn, controls,position_knn")
    assert expanded == ["position_knn", *(name for name in CONTROLS if name != "position_knn")]


def test_all_is_every_method_and_then_every_control(install: Install) -> None:
    install("aardvark", MINE.replace('"mine"', '"zebra"'), "[stbench.methods]\nzebra = aardvark:Mine\n")
    kinds = [registry.method(name).kind for name in registry.expand_methods("all")]
    assert kinds == sorted(kinds, reverse=True)
    assert set(registry.expand_methods("all")) == set(registry.method_names())
    assert "zebra" in registry.expand_methods("published")
    assert not set(registry.expand_methods("published")) & set(CONTROLS)


def test_no_name_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="no method is named"):
        registry.expand_methods(" , ")


def test_another_package_adds_a_method(install: Install) -> None:
    install("badger", MINE, "[stbench.methods]\nmine = badger:Mine\n")
    assert registry.method("mine").title == "Mine"
    assert registry.expand_methods("mine") == ["mine"]


def test_what_is_installed_while_a_process_runs_is_found(install: Install) -> None:
    site = install("heron", MINE, "[stbench.methods]\nmine = heron:Mine\n").parent
    assert "later" not in registry.method_names()
    (site / "later-1.0.dist-info").mkdir()
    (site / "later-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: later\nVersion: 1.0\n")
    (site / "later-1.0.dist-info" / "entry_points.txt").write_text("[stbench.methods]\nlater = later:Later\n")
    assert {"mine", "later"} <= set(registry.method_names())


def test_an_entry_point_and_its_class_must_agree_on_the_name(install: Install) -> None:
    install("caiman", MINE, "[stbench.methods]\nother = caiman:Mine\n")
    with pytest.raises(UserError, match="method 'other' calls itself 'mine'"):
        registry.method("other")


def test_two_packages_with_one_name_are_both_named(install: Install) -> None:
    install("dingo", MINE, "[stbench.methods]\nmine = dingo:Mine\n")
    install("emu", MINE, "[stbench.methods]\nmine = emu:Mine\n")
    with pytest.raises(
        UserError, match=r"two installed packages register a method 'mine'.*uninstall or rename"
    ) as caught:
        registry.method("mine")
    assert "dingo" in str(caught.value)
    assert "emu" in str(caught.value)


def test_a_package_that_cannot_be_imported_is_named_with_the_reason(install: Install) -> None:
    install("ferret", "import no_such_library\n", "[stbench.methods]\nmine = ferret:Mine\n")
    with pytest.raises(UserError, match=r"cannot load method 'mine' .ferret:Mine of ferret.*No module named"):
        registry.method("mine")


def test_a_method_is_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    name = f"{tmp_path / 'mine.py'}:Mine"
    assert registry.method(name).title == "Mine"
    assert registry.method(name) is registry.method(name)
    assert registry.expand_methods(f"training_mean,{name}") == ["training_mean", name]


def test_a_file_that_changed_is_loaded_again_under_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    before = registry.method(f"{file}:Mine")
    file.write_text(MINE.replace('"Mine"', '"Mine, improved"'))
    after = registry.method(f"{file}:Mine")
    assert after.title == "Mine, improved"
    assert registry.source_digest(after) != registry.source_digest(before)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x = 1\nraise RuntimeError('no\\nluck')\n", "line 2: RuntimeError: no luck"),
        ("import no_such_library\n", "line 1: ModuleNotFoundError: No module named 'no_such_library'"),
        ("x = 1\n\ndef f(:\n", "line 3: SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_line_and_reason(tmp_path: Path, source: str, reason: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)
    with pytest.raises(UserError) as caught:
        registry.method(f"{file}:Mine")
    assert str(caught.value).startswith(f"cannot load {file}: {reason}")
    assert "\n" not in str(caught.value)


def test_loading_a_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    registry.method(f"{tmp_path / 'mine.py'}:Mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_class_that_is_not_in_the_file_is_answered_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    with pytest.raises(UserError, match=r"unknown class in .*mine.py 'Mined' - did you mean 'Mine'"):
        registry.method(f"{file}:Mined")


@pytest.mark.parametrize("name", ["missing.py:Mine", "folder/missing:Mine", "missing.py"])
def test_a_path_that_names_no_class_in_a_file_says_how_to_write_it(name: str) -> None:
    with pytest.raises(UserError, match=r"write path/to/file.py:Class"):
        registry.method(name)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("    def predict(", "    def predicted(", "lacks predict"),
        ('    title = "Mine"\n    kind = "method"\n', "", "lacks title, kind"),
        ('"method"', '"sorcery"', "kind = 'sorcery'"),
        ("Config = MethodConfig", "Config = dict", "Config that is not a pydantic model"),
        ("class Mine:", "def Mine():\n    pass\n\nclass Other:", "is not a class"),
    ],
)
def test_a_class_that_is_no_method_is_refused_by_what_it_lacks(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert old in MINE
    (tmp_path / "mine.py").write_text(MINE.replace(old, new))
    with pytest.raises(UserError, match=complaint):
        registry.method(f"{tmp_path / 'mine.py'}:Mine")


def test_the_digest_follows_a_methods_own_package_and_stbench(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    for i, layer in enumerate(("width = 1\n", "width = 2\n")):
        package = tmp_path / str(i) / "gecko"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "layer.py").write_text(layer)
        (package / "mine.py").write_text("from . import layer\n" + MINE)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(package.parent))
            for name in [name for name in sys.modules if name.partition(".")[0] == "gecko"]:
                patch.delitem(sys.modules, name)
            from gecko.mine import Mine

            digests.add(registry.source_digest(Mine))
            for name in [name for name in sys.modules if name.partition(".")[0] == "gecko"]:
                del sys.modules[name]
    assert len(digests) == 2


def test_the_digest_of_a_registered_method_covers_the_layers_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    digest = code_digest.file_digest
    monkeypatch.setattr(code_digest, "file_digest", lambda path: read.append(path) or digest(path))
    registry.source_digest.__wrapped__(registry.method("feature_ridge"))
    assert {"image.py", "ridge.py", "frozen_features.py", "encoders.py", "method.py"} <= {path.name for path in read}
    assert not any(path.parent.name in ("cli", "readings", "switches") for path in read)
    assert {path.name for path in read if path.parent.name == "system"} == {"precision.py"}


def test_a_dataset_is_found_by_its_name_and_given_its_root(install: Install, tmp_path: Path) -> None:
    install("heron", DATASET, "[stbench.datasets]\nmine = heron:Mine\n")
    assert "mine" in registry.dataset_names()
    assert registry.dataset("mine", tmp_path).root == tmp_path  # type: ignore[attr-defined]


def test_a_dataset_is_opened_from_a_path_by_the_registered_reader(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("ibis", DATASET, "[readers_under_test]\npath = ibis:open_path\n")
    monkeypatch.setattr(registry, "DATASET_READERS", "readers_under_test")
    assert registry.dataset(str(tmp_path)).root == tmp_path  # type: ignore[attr-defined]


def test_a_dataset_path_that_does_not_exist_is_named() -> None:
    with pytest.raises(UserError, match=r"there is no file or folder nowhere/mine.toml"):
        registry.dataset("nowhere/mine.toml")


def test_a_dataset_without_a_member_is_refused_by_what_it_lacks(install: Install) -> None:
    install("jackal", DATASET.replace("def panel", "def panes"), "[stbench.datasets]\nmine = jackal:Mine\n")
    with pytest.raises(UserError, match="dataset 'mine' lacks panel"):
        registry.dataset("mine")
