"""Trials on a panel that was chosen fold by fold: each has its own genes, and nothing of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from own_sections import write_manifest

from stbench import registry
from stbench.data import cache
from stbench.data.panel import Panel, WithPanel, panel_path, read_panel_of
from stbench.data.prepare import prepare
from stbench.data.prepared import PreparedSlide
from stbench.errors import DamagedFileError
from stbench.system.locate import cache_root

PANEL = Panel(
    "few", "few genes", "drawn by lot", False, ("B", "A"), {"loso": {"S": ("A",), "T": ("B", "A")}}, ("note",)
)


def test_a_panel_comes_back_from_its_file(tmp_path: Path) -> None:
    PANEL.write(tmp_path)
    assert read_panel_of(tmp_path, PANEL.digest) == PANEL
    assert read_panel_of(tmp_path, PANEL.digest).of("loso", "S") == ("A",)
    path = panel_path(tmp_path, PANEL.digest)
    content = json.loads(path.read_text())
    for damaged in ({**content, "genes": ["C"]}, {"genes": 1}, {**content, "more": 1}, []):
        path.write_text(json.dumps(damaged))
        with pytest.raises(DamagedFileError, match=r"delete it and run the command again"):
            read_panel_of(tmp_path, PANEL.digest)
    path.unlink()
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_panel_of(tmp_path, PANEL.digest)


@pytest.mark.parametrize("target", ["spot-log10-cp10k", "gene-log10-cp10k", "lognorm", "stnet-logfreq"])
def test_some_genes_of_a_prepared_slide_are_as_if_prepared_alone(target: str) -> None:
    demo = registry.dataset("demo")
    genes = tuple(demo.panel()[5:40:3][::-1])
    data = prepare(demo, target, cache_root(), ["P1a"])
    part = data.on_genes(genes)
    alone = prepare(WithPanel(demo, Panel("few", "few", "", None, genes)), target, cache_root(), ["P1a"])
    assert part.genes == alone.genes == part.slides["P1a"].genes == genes
    np.testing.assert_array_equal(part.slides["P1a"].counts, alone.slides["P1a"].counts)
    np.testing.assert_array_equal(part.slides["P1a"].target, alone.slides["P1a"].target)
    assert not part.slides["P1a"].target.flags.writeable
    assert data.on_genes(data.genes) is data


GENES = [f"GENE{i}" for i in range(12)]


def test_another_panel_cuts_no_patch_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Patch files are the same, by their inode; a damaged one is linked by nobody."""
    demo = registry.dataset("demo")
    cuts = []
    write = cache.write_patches
    monkeypatch.setattr(cache, "write_patches", lambda *what: cuts.append(1) or write(*what))

    def prepared(*genes: str) -> PreparedSlide:
        few = WithPanel(demo, Panel("few", "few", "", None, genes))
        return prepare(few, "lognorm", tmp_path, ["P1a"]).slides["P1a"]

    def files() -> list[Path]:
        return sorted(tmp_path.glob("slides/*/patches.npy"))

    genes = demo.panel()
    first, second = prepared(genes[0], genes[1]), prepared(genes[2])
    assert len(cuts) == 1
    assert first.key != second.key
    assert first.patches_digest == second.patches_digest
    assert first.n_padded == second.n_padded
    assert files()[0].samefile(files()[1])
    with files()[0].open("r+b") as handle:  # both
        handle.truncate(1000)
    assert prepared(genes[3]).patches_digest == first.patches_digest
    assert len(cuts) == 2
    assert prepared(genes[2]).patches_digest == first.patches_digest  # made again, from the sound one
    assert len(cuts) == 2
    monkeypatch.setattr("os.link", _refused)
    assert prepared(genes[4]).patches_digest == first.patches_digest
    assert len(cuts) == 3


def _refused(*_: object) -> None:
    raise PermissionError("no links here")


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sections of two patients, beside which results lie."""
    return write_manifest(tmp_path_factory.mktemp("mine"), {"A1": "A", "A2": "A", "B1": "B"}, genes=GENES)


def run_words(mine: Path, panel: object, out: str, *more: object) -> tuple[object, ...]:
    words = ("run", "--methods", "colour_ridge", "--device", "cpu", "--no-mlflow", "--dataset", mine)
    return (*words, "--panel", panel, "--out", mine.parent / out, *more)


def test_every_fold_is_scored_on_its_own_genes(mine: Path, stbench_command: Callable) -> None:
    done = stbench_command(*run_words(mine, "hvg:5", "hvg"))
    assert done.code == 0, done.err
    assert "mine, hvg:5 of training slices: 3/3 slices" in done.out
    assert "is chosen on the training slices of each fold and has 5 genes" in done.err
    results = mine.parent / "hvg"
    (file,) = (results / "panels").iterdir()
    panel = read_panel_of(results, file.stem)
    summary = pd.read_csv(results / "summary.csv").set_index("fold")
    assert set(summary["n_genes"]) == {5}
    assert set(summary["dataset"]) == {"mine-hvg5"}
    assert len(panel.genes) > 5  # folds differ, or the test is void
    for fold, key in summary["key"].items():
        predicted = anndata.read_h5ad(results / "trials" / key / "predictions" / f"{fold}.h5ad")
        assert tuple(predicted.var_names) == panel.of("loso", fold)
    assert "0 to run" in stbench_command(*run_words(mine, "hvg:5", "hvg")).out

    # the same numbers as with the fold's genes in a file
    genes = mine.parent / "fold.txt"
    genes.write_text("\n".join(panel.of("loso", "B1")))
    done = stbench_command(*run_words(mine, genes, "file", "--only-folds", "B1"))
    assert done.code == 0, done.err
    alone = pd.read_csv(mine.parent / "file" / "summary.csv").set_index("fold")
    assert set(alone["dataset"]) == {"mine-fold"}
    for name in ("pcc_acg", "pcc_heg", "mse", "mae", "strict_pcc_acg", "strict_pcc_heg"):
        assert alone.loc["B1", name] == pytest.approx(summary.loc["B1", name], rel=1e-6)
    assert set(alone["key"]).isdisjoint(summary["key"])


@pytest.mark.slow
@pytest.mark.usefixtures("unsaved_pictures")
def test_the_report_says_how_the_panel_was_chosen(mine: Path, stbench_command: Callable) -> None:
    assert stbench_command(*run_words(mine, "hvg:5", "hvg")).code == 0
    done = stbench_command("report", mine.parent / "hvg")
    assert done.code == 0, done.err
    page = (mine.parent / "hvg/report/report.html").read_text(encoding="utf-8")
    assert "mine, hvg:5 of training slices" in page
    assert "means over genes are of other genes in other folds" in page
    assert "of the training slices, chosen anew in every fold" in page  # the audit's finding


def test_a_panel_that_is_changed_stops_the_trial(mine: Path, stbench_command: Callable) -> None:
    assert stbench_command(*run_words(mine, "hvg:5", "changed", "--only-folds", "A1")).code == 0
    results = mine.parent / "changed"
    (file,) = (results / "panels").iterdir()
    key = next(path.stem for path in (results / "specs").iterdir() if not (results / "trials" / path.stem).exists())
    file.write_text(file.read_text().replace("GENE", "OTHER"))
    done = stbench_command("trial", results, key)
    assert done.code == 2
    assert "was changed after trials were planned with it" in done.err


def test_predictions_are_scored_on_a_list_that_is_chosen(mine: Path, stbench_command: Callable) -> None:
    genes = mine.parent / "three.txt"
    genes.write_text("GENE7\nGENE2\nGENE4\n")
    assert stbench_command(*run_words(mine, genes, "three")).code == 0
    results = mine.parent / "three"
    key = pd.read_csv(results / "summary.csv").set_index("slice").loc["B1", "key"]
    file = results / "trials" / key / "predictions" / "B1.h5ad"
    words = ("score", file, "--dataset", mine, "--name", "copy", "--out", results)
    done = stbench_command(*words, "--panel", genes)
    assert done.code == 0, done.err
    summary = pd.read_csv(results / "summary.csv").query("slice == 'B1'").set_index("method")
    assert set(summary["dataset"]) == {"mine-three"}
    assert summary.loc["copy", "pcc_acg"] == pytest.approx(summary.loc["colour_ridge", "pcc_acg"])
    done = stbench_command(*words, "--panel", "hvg:3")
    assert done.code == 2
    assert "has other genes in every fold" in done.err


def test_a_panel_that_saw_all_slices_is_a_warning(stbench_command: Callable, tmp_path: Path) -> None:
    found = tmp_path / "audit.json"
    done = stbench_command(
        "audit", "--dataset", "demo", "--panel", "svg:20", "--panel-from", "all", "--json", found, "--slices", "P1a,P2a"
    )
    assert done.code == 0, done.err
    (audit,) = json.loads(found.read_text())
    panel = next(finding for finding in audit["findings"] if finding["check"] == "panel")
    assert panel["verdict"] == "warning"
    assert "Moran's I over neighbouring spots of all slices" in panel["reason"]
    assert done.out.startswith("Demo, svg:20 of all slices")


def test_what_is_no_panel_ends_the_command(stbench_command: Callable, tmp_path: Path) -> None:
    done = stbench_command(
        "run", "--methods", "training_mean", "--dataset", "demo", "--panel", "hgv:30", "--out", tmp_path / "r"
    )
    assert done.code == 2
    assert "--panel hgv:30 is neither a file nor a panel that is known" in done.err
    assert not (tmp_path / "r").exists()


def test_data_are_checked_and_prepared_on_another_panel(mine: Path, stbench_command: Callable) -> None:
    done = stbench_command("data", "prepare", mine, "--panel", "svg:4", "--panel-from", "all")
    assert done.code == 0, done.err
    assert "mine, svg:4 of all slices: 3/3 slices, 108 spots x 4 genes" in done.out
    done = stbench_command("data", "prepare", mine, "--panel", "svg:4")
    assert done.code == 2
    assert "has other genes in every fold, and slides are prepared for one list" in done.err
    done = stbench_command("data", "check", mine, "--panel", "cscc", "--out", mine.parent / "pictures")
    assert done.code == 2
    assert "none of the 171 panel genes is among its 12 genes" in done.out
