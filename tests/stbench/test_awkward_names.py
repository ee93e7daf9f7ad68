"""Slices, patients, genes, titles and paths keep their names from the manifest to the table, terminal and report."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import own_sections
import pandas as pd
import pytest

RIDGE = ("--methods", "colour_ridge", "--preset", "quick", "--no-mlflow")
TITLE = "Liver [ffpe] [frozen/FFPE] [/B] $x_1$ :smile: <b>"


def _rows(results: Path) -> list[dict[str, str]]:
    with open(results / "summary.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.usefixtures("unsaved_pictures")
def test_a_run_under_awkward_names_has_the_numbers_of_one_under_plain_names(
    tmp_path: Path, stbench_command: Callable
) -> None:
    means = {}
    for name, patients in {
        "plain": {"S1": "p1", "S2": "p2", "S3": "p3", "S4": "p4"},
        "odd": {"NA": "None", "01": "nan", "1e3": "NA", "null": "1"},
    }.items():
        manifest = own_sections.write_manifest(tmp_path / name, patients, name)
        done = stbench_command("run", *RIDGE, "--dataset", manifest, "--out", tmp_path / f"r-{name}")
        assert done.code == 0, done.err
        assert re.search(r"^colour_ridge .* 4/4 ", done.out, re.MULTILINE), done.out
        rows = _rows(tmp_path / f"r-{name}")
        assert {row["slice"]: row["patient"] for row in rows} == patients
        means[name] = [float(row["mse"]) for row in rows]
    report = stbench_command("report", tmp_path / "r-odd")
    assert "This is all 4 slices of 4 patients." in report.out
    # the seed of a trial hangs on the fold's name, and this control draws nothing
    assert means["odd"] == pytest.approx(means["plain"], rel=1e-12)


def test_genes_keep_their_names_to_the_report(tmp_path: Path, stbench_command: Callable) -> None:
    genes = ["NA", "nan", "1-Mar", "inf", "None", "x y", "HLA-A/B", "<b>x</b>", "1", "true", "a_b", "$g$", "[g]", "肝"]
    manifest = own_sections.write_manifest(tmp_path, {"S1": "p1", "S2": "p2"}, genes=genes)
    results = tmp_path / "r"
    assert stbench_command("run", *RIDGE, "--dataset", manifest, "--out", results).code == 0
    for path in results.glob("trials/*/genes.parquet"):
        assert sorted(pd.read_parquet(path)["gene"]) == sorted(genes)
    done = stbench_command("report", results, "--genes", "NA,HLA-A/B,$g$,[g]")
    assert done.code == 0, done.err
    page = (results / "report" / "report.html").read_text(encoding="utf-8")
    assert "<b>x</b>" not in page


@pytest.mark.usefixtures("unsaved_pictures")
def test_titles_and_paths_with_brackets_are_printed_as_they_are(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own_sections.write_manifest(tmp_path, {"S1": "p1", "S2": "p2"}, title=TITLE)
    assert f"{TITLE}: 2/2 slices checked" in stbench_command("data", "check", "mine.toml").out
    assert f"{TITLE}: 2/2 slices, " in stbench_command("data", "prepare", "mine.toml").out
    assert f"{TITLE}, 2/2 slices, loso: " in stbench_command("audit", "--dataset", "mine.toml").out
    done = stbench_command("run", *RIDGE, "--dataset", "mine.toml", "--out", "results [old]")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "results: results [old]   now: stbench report 'results [old]'"
    report = stbench_command("report", "results [old]")
    assert f"{TITLE}, leave one slice out" in report.out
    assert "page:    results [old]/report/report.html" in report.out
    missing = stbench_command("report", "results [/B]")
    assert missing.err.startswith("stbench: results [/B] is not a results directory")


def test_the_regions_of_a_section_keep_their_names(tmp_path: Path) -> None:
    from stbench.datasets.manifest import open_dataset_path

    labels = ["NA", "1", "01", "None", "stroma", ""]
    manifest = own_sections.write_manifest(tmp_path, {"S1": "p1"}, labels=labels)
    slide = open_dataset_path(manifest).find()[0][0].read()
    assert slide.adata.obs["label"].astype(object).where(slide.adata.obs["label"].notna(), "").tolist()[:6] == labels
    assert any("6 spots are labelled NA, which is taken for a region's name" in note for note in slide.notes)


def test_no_command_reads_markup() -> None:
    """Where the consoles read markup, whoever prints a title must remember to escape it; somebody always forgets."""
    from stbench.cli import console

    for one in (console.out, console.err):
        with one.capture() as printed:
            one.print("[bold]a[/bold] [/B] :smile:")
        assert printed.get() == "[bold]a[/bold] [/B] :smile:\n"
    sources = (Path(__file__).parents[2] / "stbench").rglob("*.py")
    assert not [path for path in sources if "rich.markup" in path.read_text(encoding="utf-8")]
