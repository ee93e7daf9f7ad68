"""A user's morning: real commands on whole (miniature) datasets in their upstream layouts, and on real sections."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import upstream

WRITERS = {
    "her2st": (upstream.write_her2st, 32),
    "cscc": (upstream.write_cscc, 12),
    "alex10x": (upstream.write_alex10x, 9),
}


@pytest.mark.parametrize(
    ("dataset", "chosen"),
    [
        ("her2st", "training_mean,colour_ridge"),
        pytest.param("cscc", "training_mean,colour_ridge,nearest_replicate,depth_oracle", marks=pytest.mark.slow),
        pytest.param("alex10x", "training_mean,colour_ridge,nearest_replicate,depth_oracle", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("unsaved_pictures")
def test_controls_run_on_a_whole_dataset_as_it_comes(
    dataset: str, chosen: str, tmp_path: Path, stbench_command: Callable
) -> None:
    write, n_slices = WRITERS[dataset]
    write(tmp_path / "data")
    command = ("run", "--methods", chosen, "--preset", "quick", "--dataset", dataset, "--data", tmp_path / "data")
    done = stbench_command(*command, "--out", tmp_path / "r", "--no-mlflow")
    assert done.code == 0, done.err
    summary = pd.read_csv(tmp_path / "r" / "summary.csv")
    (section,) = json.loads((tmp_path / "r" / "run.json").read_text())["sections"]
    assert f"{n_slices}/{n_slices} slices" in done.out
    for method, rows in summary.groupby("method"):
        assert list(rows["slice"]) == section["dataset"]["slices_expected"], method
        if method != "nearest_replicate":  # it needs a second slice of the patient, which not every slice has
            assert set(rows["state"]) == {"finished"}, rows["reason"].tolist()
    finished = summary[summary["state"] == "finished"]
    assert finished["mse"].notna().all()
    # the miniature tissue is dark on one half, and half of the genes follow it: looking at colour must pay
    means = finished.groupby("method")["strict_pcc_acg"].mean()
    assert means["colour_ridge"] > means["training_mean"] + 0.05
    done = stbench_command("report", tmp_path / "r")
    assert done.code == 0, done.err
    assert "Only controls were run. The best of them by PCC (ACG) is" in done.out
    page = (tmp_path / "r" / "report" / "report.html").read_text()
    assert f"{n_slices}/{n_slices}" in page
    assert section["target"]["formula"].split(" ")[0] in page


@pytest.mark.usefixtures("unsaved_pictures")
def test_slides_of_ones_own_run_and_report_under_their_own_name(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.write_cscc(tmp_path)
    base = tmp_path / "GSE144240_RAW"
    lines = ['name = "mine"', 'title = "My sections"', "patch_px = 64", 'panel = "all"']
    for slice_id in ("P2_ST_rep1", "P5_ST_rep1"):
        (counts,), (image,) = base.glob(f"*_{slice_id}_stdata.tsv.gz"), base.glob(f"*_{slice_id}.jpg.gz")
        (spots,) = base.glob(f"*spot*{slice_id}.tsv.gz")
        files = [f'{what} = "{path}"' for what, path in (("counts", counts), ("spots", spots), ("image", image))]
        lines += ["[[slide]]", f'id = "{slice_id}"', f'patient = "{slice_id[:2]}"', 'reader = "legacy-st"', *files]
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    command = ("run", "--methods", "training_mean,colour_ridge", "--dataset", "mine.toml", "--no-mlflow")
    done = stbench_command(*command)
    assert done.code == 0, done.err
    results = tmp_path / "results" / "mine-published"
    summary = pd.read_csv(results / "summary.csv")
    assert set(summary["dataset"]) == {"mine"}
    monkeypatch.chdir("/")  # a trial can be run again from anywhere
    key = summary["key"].iloc[0]
    assert stbench_command("trial", results, key).out.strip() == f"{key}: finished"
    assert stbench_command("report", results).code == 0
    assert "My sections" in (results / "report" / "report.html").read_text()


@pytest.mark.slow
def test_the_published_methods_run_on_a_whole_visium_dataset(tmp_path: Path, stbench_command: Callable) -> None:
    upstream.write_alex10x(tmp_path / "data")
    command = ("run", "--methods", "published", "--preset", "quick", "--dataset", "alex10x")
    done = stbench_command(*command, "--data", tmp_path / "data", "--out", tmp_path / "r", "--no-mlflow")
    assert done.code == 0, done.err
    summary = pd.read_csv(tmp_path / "r" / "summary.csv")
    assert len(summary) == 6 * 9
    assert set(summary["state"]) == {"finished"}
    assert np.isfinite(summary[["mse", "mae", "strict_pcc_acg"]]).all().all()


@pytest.mark.data
def test_the_training_mean_on_the_real_sections_equals_pandas(
    data_root: Path, tmp_path: Path, stbench_command: Callable
) -> None:
    """An independent computation from the raw tables, by pandas alone."""
    names = ("B4", "C2", "C3")
    command = ("run", "--methods", "training_mean", "--dataset", "her2st", "--data", data_root)
    done = stbench_command(*command, "--slices", ",".join(names), "--out", tmp_path / "r", "--no-mlflow")
    assert done.code == 0, done.err
    assert "3/32 slices" in done.out
    summary = pd.read_csv(tmp_path / "r" / "summary.csv").set_index("slice")
    panel = (Path(__file__).parents[2] / "datasets" / "panels" / "her2st.txt").read_text().split()
    logged = {}
    for name in names:
        counts = pd.read_csv(data_root / "her2st" / "data" / "ST-cnts" / f"{name}.tsv.gz", sep="\t", index_col=0)[panel]
        logged[name] = np.log10(1 + 1e4 * counts.div(counts.sum(axis=1).replace(0, 1), axis=0))
    assert list(summary.index) == list(logged)
    for held_out, truth in logged.items():
        mean = pd.concat([table for name, table in logged.items() if name != held_out]).mean()
        assert summary.loc[held_out, "mse"] == pytest.approx(((truth - mean) ** 2).to_numpy().mean(), abs=1e-6)
        assert summary.loc[held_out, "mae"] == pytest.approx((truth - mean).abs().to_numpy().mean(), abs=1e-6)


@pytest.mark.data
def test_one_real_section_of_alex10x_says_that_two_are_needed(
    data_root: Path, tmp_path: Path, stbench_command: Callable
) -> None:
    command = ("run", "--methods", "training_mean", "--dataset", "alex10x", "--data", data_root)
    done = stbench_command(*command, "--out", tmp_path / "r", "--no-mlflow")
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("stbench: ")]
    assert "leave-one-slice-out needs two slices" in line


# her2st's 32 slices are read by the run above, and take half a minute to be drawn
@pytest.mark.parametrize("dataset", [pytest.param("her2st", marks=pytest.mark.slow), "cscc", "alex10x"])
def test_data_commands_on_a_whole_dataset(dataset: str, tmp_path: Path, stbench_command: Callable) -> None:
    write, n_slices = WRITERS[dataset]
    write(tmp_path / "data")
    listed = stbench_command("data", "list", "--data", tmp_path / "data")
    assert listed.code == 0
    assert f"{n_slices}/{n_slices}" in listed.out
    checked = stbench_command("data", "check", dataset, "--data", tmp_path / "data", "--out", tmp_path / "pictures")
    assert checked.code == 0, checked.out + checked.err
    assert len(list((tmp_path / "pictures").glob("*.png"))) == n_slices
    prepared = stbench_command("data", "prepare", dataset, "--data", tmp_path / "data")
    assert prepared.code == 0
    assert f"{n_slices}/{n_slices} slices" in prepared.out


def test_doctor_says_what_is_here(stbench_command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STBENCH_DATA", raising=False)
    done = stbench_command("doctor")
    assert done.code == 0
    for word in ("torch", "GPU", "her2st", "cache", "encoders", "stbench[wsi]"):
        assert word in done.out


def test_methods_can_be_listed_shown_and_checked(stbench_command: Callable) -> None:
    listed = stbench_command("methods", "list")
    assert "stnet" in listed.out
    assert "training_mean" in listed.out
    shown = stbench_command("methods", "show", "stnet", "--preset", "quick")
    assert shown.code == 0
    assert "epochs" in shown.out
    checked = stbench_command("methods", "check", "training_mean")
    assert checked.code == 0, checked.out
    assert "FAIL" not in checked.out
