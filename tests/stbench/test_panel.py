"""Trials on a panel that was chosen fold by fold: each has its own genes, and nothing of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from stbench import registry
from stbench.data.panel import Panel, WithPanel, panel_path, read_panel_of
from stbench.data.prepare import prepare
from stbench.errors import DamagedFileError
from stbench.system.locate import cache_root

DEMO = ("--dataset", "demo", "--preset", "quick", "--device", "cpu", "--no-mlflow", "--slices", "P1a,P2a,P3a")
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


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("panels")


def test_every_fold_is_scored_on_its_own_genes(run_folder: Path, stbench_command: Callable) -> None:
    results = run_folder / "hvg"
    words = ("run", "--methods", "colour_ridge", "--panel", "hvg:30", "--out", results, *DEMO)
    done = stbench_command(*words)
    assert done.code == 0, done.err
    assert "Demo, hvg:30 of training slices: 3/6 slices" in done.out
    assert "is chosen on the training slices of each fold and has 30 genes" in done.err
    (file,) = (results / "panels").iterdir()
    panel = read_panel_of(results, file.stem)
    summary = pd.read_csv(results / "summary.csv").set_index(["method", "fold"])
    assert set(summary["n_genes"]) == {30}
    assert set(summary["dataset"]) == {"demo-hvg30"}
    assert len(panel.genes) > 30  # folds differ, or the test is void
    for (_, fold), key in summary["key"].items():
        predicted = anndata.read_h5ad(results / "trials" / key / "predictions" / f"{fold}.h5ad")
        assert tuple(predicted.var_names) == panel.of("loso", fold)
    again = stbench_command(*words)
    assert "0 to run" in again.out

    # the same numbers as with the fold's genes in a file
    genes = run_folder / "fold.txt"
    genes.write_text("\n".join(panel.of("loso", "P2a")))
    done = stbench_command(
        "run", "--methods", "colour_ridge", "--panel", genes, "--only-folds", "P2a", "--out", run_folder / "file", *DEMO
    )
    assert done.code == 0, done.err
    alone = pd.read_csv(run_folder / "file" / "summary.csv").set_index(["method", "fold"])
    for name in ("pcc_acg", "pcc_heg", "mse", "mae", "strict_pcc_acg", "strict_pcc_heg"):
        assert alone.loc[("colour_ridge", "P2a"), name] == pytest.approx(
            summary.loc[("colour_ridge", "P2a"), name], rel=1e-6
        )
    assert set(alone["key"]).isdisjoint(summary["key"])


@pytest.mark.slow
def test_the_report_says_how_the_panel_was_chosen(run_folder: Path, stbench_command: Callable) -> None:
    done = stbench_command("report", run_folder / "hvg")
    assert done.code == 0, done.err
    page = (run_folder / "hvg/report/report.html").read_text(encoding="utf-8")
    assert "Demo, hvg:30 of training slices" in page
    assert "means over genes are of other genes in other folds" in page
    assert "of the training slices, chosen anew in every fold" in page  # the audit's finding


def test_a_panel_that_is_lost_stops_the_run_and_no_trial_fails(run_folder: Path, stbench_command: Callable) -> None:
    results = run_folder / "hvg"
    (file,) = (results / "panels").iterdir()
    text = file.read_text()
    key = next((results / "trials").iterdir()).name
    moved = (results / "trials" / key).rename(run_folder / "aside")
    try:
        file.write_text(text.replace("POS-", "NEG-"))
        done = stbench_command("trial", results, key)
        assert done.code == 2
        assert "was changed after trials were planned with it" in done.err
    finally:
        file.write_text(text)
        moved.rename(results / "trials" / key)


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
    done = stbench_command("run", "--methods", "training_mean", "--panel", "hgv:30", "--out", tmp_path / "r", *DEMO)
    assert done.code == 2
    assert "--panel hgv:30 is neither a file nor a panel that is known" in done.err
    assert not (tmp_path / "r").exists()
