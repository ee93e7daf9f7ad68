"""`stbench score`: predictions made elsewhere get the numbers that the same predictions made here get, or one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import upstream
from scipy import sparse

from stbench.external.prediction_checks import EQUAL, SCALE
from stbench.results.summary_schema import METRICS

SLICES = ("P1a", "P1b", "P2a")
DEMO = ("--dataset", "demo", "--slices", ",".join(SLICES))
SCORES = [*METRICS, "n_spots", "n_genes", "n_constant_truth", "n_constant_prediction", "same_patient_training_slices"]


@pytest.fixture(scope="module")
def made_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a control; its exported predictions play somebody else's."""
    from stbench.cli import main

    results = tmp_path_factory.mktemp("made") / "run"
    words = ("--methods", "colour_ridge,training_mean", "--preset", "quick", "--no-mlflow", "--out", str(results))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "stbench-cache"))
        with pytest.raises(SystemExit) as left:
            main(["run", *DEMO, *words])
    assert not left.value.code
    return results


def _rows(results: Path, method: str) -> pd.DataFrame:
    summary = pd.read_csv(results / "summary.csv", dtype={"slice": str})
    return summary[summary["method"] == method].set_index("slice").sort_index()


@pytest.fixture
def files(made_here: Path, tmp_path: Path) -> dict[str, Path]:
    """One file a slice, called after it, with nothing in it that only stbench would write."""
    place = tmp_path / "theirs"
    place.mkdir()
    paths = {}
    for name, key in _rows(made_here, "colour_ridge")["key"].items():
        paths[str(name)] = place / f"{name}.h5ad"
        adata = anndata.read_h5ad(made_here / "trials" / key / "predictions" / f"{name}.h5ad")
        del adata.uns["stbench"], adata.layers["truth"]
        adata.write_h5ad(paths[str(name)])
    return paths


@pytest.fixture
def score(stbench_command: Callable, tmp_path: Path) -> Callable:
    def command(*paths: Path, out: Path | None = None, words: tuple[str, ...] = DEMO):
        return stbench_command("score", *paths, "--name", "mine", *words, "--out", out or tmp_path / "scored")

    return command


def _change(path: Path, change: Callable[[anndata.AnnData], anndata.AnnData | None]) -> None:
    adata = anndata.read_h5ad(path)
    changed = change(adata)
    (adata if changed is None else changed).write_h5ad(path)


def _assert_same_scores(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left[SCORES], right[SCORES])


def _trial(results: Path, name: str) -> Path:
    return results / "trials" / str(_rows(results, "mine").loc[name, "key"])


def test_exported_predictions_get_the_scores_that_they_were_exported_with(
    made_here: Path, files: dict, score: Callable, tmp_path: Path
) -> None:
    done = score(*files.values())
    assert done.code == 0, done.err
    assert "3 of 3 folds scored" in done.out
    mine = _rows(tmp_path / "scored", "mine")
    _assert_same_scores(mine, _rows(made_here, "colour_ridge"))
    assert set(mine["preset"]) == {"external"}
    assert set(mine["weights"]) == {"unknown"}
    assert mine[["fit_s", "predict_s", "peak_mem_mb", "n_parameters"]].isna().all(axis=None)
    theirs = made_here / "trials" / _rows(made_here, "colour_ridge").loc["P1a", "key"]
    ours = _trial(tmp_path / "scored", "P1a")
    assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
    pd.testing.assert_frame_equal(pd.read_parquet(ours / "genes.parquet"), pd.read_parquet(theirs / "genes.parquet"))
    state = json.loads((ours / "state.json").read_text())
    assert any("is declared by whoever made them" in note for note in state["notes"])
    assert state["alarms"] == []


@pytest.mark.usefixtures("unsaved_pictures")
def test_scores_join_a_run_and_its_report_and_its_next_run(
    made_here: Path, files: dict, score: Callable, stbench_command: Callable, tmp_path: Path
) -> None:
    results = tmp_path / "joined"
    shutil.copytree(made_here, results)
    before = _rows(results, "colour_ridge")
    done = score(*files.values(), out=results, words=("--dataset", "demo", "--title", "My method"))
    assert done.code == 0, done.err
    assert "slices as in" in done.out  # the run's slices, without their being named again
    again = stbench_command(
        *("run", *DEMO, "--methods", "colour_ridge,training_mean", "--preset", "quick", "--no-mlflow"),
        *("--out", results),
    )
    assert "0 to run; reused: 6 finished" in again.out
    pd.testing.assert_frame_equal(_rows(results, "colour_ridge"), before, check_dtype=False)  # of columns without text
    reported = stbench_command("report", results)
    assert reported.code == 0, reported.err
    page = (results / "report" / "report.html").read_text()
    assert (
        "My method (external): predictions made elsewhere; that no test slice of a fold was trained on is declared"
        in page
    )
    assert "Preset external" not in page


def test_external_trials_are_tracked_like_others(
    files: dict, score: Callable, stbench_command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    score(*files.values())
    first = stbench_command("track", tmp_path / "scored")
    assert first.code == 0, first.err
    assert ": 3 trials recorded in sqlite:" in first.out
    assert ": 0 trials recorded in sqlite:" in stbench_command("track", tmp_path / "scored").out


def test_scoring_the_same_files_again_changes_nothing(files: dict, score: Callable, tmp_path: Path) -> None:
    score(*files.values())
    results = tmp_path / "scored"
    stamps = {path: path.stat().st_mtime_ns for path in (results / "trials").rglob("*")}
    summary = (results / "summary.csv").read_bytes()
    again = score(*files.values())
    assert "(3 already were)" in again.out
    assert {path: path.stat().st_mtime_ns for path in (results / "trials").rglob("*")} == stamps
    assert (results / "summary.csv").read_bytes() == summary


def test_a_new_version_replaces_the_older_and_says_what_stays(files: dict, score: Callable, tmp_path: Path) -> None:
    score(*files.values())
    before = _rows(tmp_path / "scored", "mine")
    _change(files["P1b"], _doubled)
    done = score(files["P1b"])
    after = _rows(tmp_path / "scored", "mine")
    assert list(after.index) == list(SLICES)
    assert after.loc["P1b", "mse"] > before.loc["P1b", "mse"]
    assert after.loc["P1b", "pcc_acg"] == pytest.approx(before.loc["P1b", "pcc_acg"])
    pd.testing.assert_frame_equal(after.drop("P1b"), before.drop("P1b"), check_dtype=False)  # of columns without text
    assert "earlier scores under this name stay on P1a, P2a" in done.err


def _doubled(adata: anndata.AnnData) -> anndata.AnnData:
    adata.X = np.asarray(adata.X) * 2
    return adata


def _shuffled(adata: anndata.AnnData) -> anndata.AnnData:
    rng = np.random.default_rng(0)
    return adata[rng.permutation(adata.n_obs)][:, rng.permutation(adata.n_vars)].copy()


def _with_other_names(adata: anndata.AnnData) -> anndata.AnnData:
    adata = _shuffled(adata)
    adata.obs_names = [f"spot-{i}" for i in range(adata.n_obs)]
    adata.obs = adata.obs.astype({"array_row": float})  # as concatenation with a file without them leaves it
    return adata


def _wide(adata: anndata.AnnData) -> anndata.AnnData:
    adata.X = np.asarray(adata.X).astype(np.float64)
    return adata


def _sparse(adata: anndata.AnnData) -> anndata.AnnData:
    adata.X = sparse.csc_matrix(np.asarray(adata.X))
    return adata


def _with_more(adata: anndata.AnnData) -> anndata.AnnData:
    """A spot and a gene that the slide and the panel do not have, without values."""
    X = np.pad(np.asarray(adata.X), ((0, 1), (0, 1)), constant_values=np.nan)
    obs = pd.DataFrame(index=[*adata.obs_names, "off the tissue"])
    return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=[*adata.var_names, "NOT-IN-PANEL"]))


@pytest.mark.parametrize("change", [_shuffled, _with_other_names, _wide, _sparse, _with_more])
def test_order_names_type_and_surplus_change_no_score(
    made_here: Path, files: dict, score: Callable, tmp_path: Path, change: Callable
) -> None:
    for path in files.values():
        _change(path, change)
    done = score(*files.values())
    assert done.code == 0, done.err
    _assert_same_scores(_rows(tmp_path / "scored", "mine"), _rows(made_here, "colour_ridge"))
    assert ("1 predicted genes that are not in the panel are ignored" in done.err) == (change is _with_more)
    assert ("1 predicted spots that the slide does not have are ignored" in done.err) == (change is _with_more)


@pytest.mark.parametrize("column", ["slice", "section"])
def test_one_file_may_hold_all_slices(
    made_here: Path, files: dict, score: Callable, tmp_path: Path, column: str
) -> None:
    parts = {name: anndata.read_h5ad(path) for name, path in files.items()}
    together = anndata.concat(parts, label=column, index_unique="-")
    together.write_h5ad(tmp_path / "all.h5ad")
    named = () if column == "slice" else ("--slice-column", column)
    done = score(tmp_path / "all.h5ad", words=(*DEMO, *named))
    assert done.code == 0, done.err
    _assert_same_scores(_rows(tmp_path / "scored", "mine"), _rows(made_here, "colour_ridge"))


def test_a_slice_may_be_named_inside_its_file(files: dict, score: Callable, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(files["P1a"])
    adata.uns["slice"] = "P1a"
    adata.write_h5ad(tmp_path / "anything.h5ad")
    done = score(tmp_path / "anything.h5ad")
    assert done.code == 0, done.err
    assert "1 of 3 folds scored" in done.out
    assert list(_rows(tmp_path / "scored", "mine").index) == ["P1a"]


def test_missing_genes_are_scored_as_the_training_mean_and_counted(
    made_here: Path, files: dict, score: Callable, tmp_path: Path
) -> None:
    _change(files["P1a"], lambda adata: adata[:, 12:].copy())
    done = score(*files.values())
    assert done.code == 0, done.err
    assert "P1a: 12 of 114 genes are missing: " in done.err
    genes = pd.read_parquet(_trial(tmp_path / "scored", "P1a") / "genes.parquet")
    full = pd.read_parquet(made_here / "trials" / _rows(made_here, "colour_ridge").loc["P1a", "key"] / "genes.parquet")
    mean = pd.read_parquet(made_here / "trials" / _rows(made_here, "training_mean").loc["P1a", "key"] / "genes.parquet")
    assert genes["r"].iloc[:12].isna().all()
    assert (genes["strict_r"].iloc[:12] == 0).all()
    pd.testing.assert_frame_equal(genes.iloc[12:], full.iloc[12:])
    np.testing.assert_allclose(genes["mean_prediction"].iloc[:12], mean["mean_prediction"].iloc[:12], rtol=1e-6)
    row = _rows(tmp_path / "scored", "mine").loc["P1a"]
    assert row["n_constant_prediction"] == 12
    assert row["strict_pcc_acg"] < row["pcc_acg"] == pytest.approx(full["r"].iloc[12:].mean())
    notes = json.loads((_trial(tmp_path / "scored", "P1a") / "state.json").read_text())["notes"]
    assert any(note.startswith("12 of 114 genes are missing") for note in notes)


def _with_nan(adata: anndata.AnnData) -> anndata.AnnData:
    adata.X = np.asarray(adata.X)
    adata.X[3, 5] = np.nan
    return adata


def _with_gene_twice(adata: anndata.AnnData) -> anndata.AnnData:
    adata.var_names = [*adata.var_names[:-1], adata.var_names[0]]
    return adata


def _with_spot_twice(adata: anndata.AnnData) -> anndata.AnnData:
    adata.obs_names = [*adata.obs_names[:-1], adata.obs_names[0]]
    return adata[:, :].copy()


def _of_other_target(adata: anndata.AnnData) -> anndata.AnnData:
    adata.uns["stbench"] = {"target": "lognorm"}
    return adata


def _of_other_split(adata: anndata.AnnData) -> anndata.AnnData:
    adata.uns["stbench"] = {"split": "lopo"}
    return adata


def _without_places(change: Callable) -> Callable:
    def changed(adata: anndata.AnnData) -> anndata.AnnData:
        adata.obs = adata.obs[[]]
        return change(adata)

    return changed


BAD = {
    "missing spots": (lambda adata: adata[5:].copy(), "5 of 104 spots of slice P1a have no prediction"),
    "transposed": (lambda adata: anndata.AnnData(np.asarray(adata.X).T, obs=adata.var, var=adata.obs), "transpose it"),
    "other gene names": (lambda adata: anndata.AnnData(np.asarray(adata.X), obs=adata.obs), "none of the 114 panel"),
    "not a number": (_with_nan, "1 predicted values of slice P1a are NaN or infinite (first: spot "),
    "a gene twice": (_with_gene_twice, "several columns for gene"),
    "a spot twice": (_without_places(_with_spot_twice), "occur more than once by name"),
    "another target": (_of_other_target, "states the target lognorm, not spot-log10-cp10k - give --target lognorm"),
    "another split": (_of_other_split, "states the split lopo, not loso"),
    "no values": (lambda adata: anndata.AnnData(obs=adata.obs, var=adata.var), "holds no predictions"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_bad_predictions_are_one_line_and_nothing_is_written(
    files: dict, score: Callable, tmp_path: Path, case: str
) -> None:
    change, expected = BAD[case]
    _change(files["P1a"], change)
    _assert_refused(score(*files.values()), expected)
    assert not (tmp_path / "scored").exists()


def test_a_value_that_float32_cannot_hold_is_refused(files: dict, score: Callable) -> None:
    def huge(adata: anndata.AnnData) -> anndata.AnnData:
        adata.X = np.asarray(adata.X).astype(np.float64)
        adata.X[0, 0] = 1e300
        return adata

    _change(files["P1a"], huge)
    _assert_refused(score(files["P1a"]), "NaN or infinite")


def test_unknown_and_repeated_slices_and_files_that_are_none_are_one_line(
    files: dict, score: Callable, tmp_path: Path
) -> None:
    shutil.copy(files["P1a"], tmp_path / "P1x.h5ad")
    (tmp_path / "text.h5ad").write_text("not HDF5")
    _assert_refused(score(tmp_path / "P1x.h5ad"), "unknown slice of demo 'P1x' - did you mean")
    _assert_refused(score(files["P1a"], files["P1a"]), "slice P1a is predicted in")
    _assert_refused(score(tmp_path / "text.h5ad"), "is not an .h5ad file")
    _assert_refused(score(tmp_path / "none.h5ad"), "none.h5ad")
    _assert_refused(score(files["P1a"], words=(*DEMO, "--slice-column", "secton")), "unknown column of obs")
    _assert_refused(score(files["P1a"], words=(*DEMO, "--split", "lopo")), "fold P1 of lopo is predicted in part: P1b")
    _assert_refused(score(files["P1a"], words=(*DEMO, "--split", "loso,lopo")), "several splits")
    _assert_refused(score(files["P1a"], words=(*DEMO, "--name", "a/b")), "--name 'a/b' is not a name")


def test_the_slices_of_the_dataset_can_be_chosen_and_others_are_refused_beside_a_run(
    made_here: Path, files: dict, score: Callable, tmp_path: Path
) -> None:
    few = ("--dataset", "demo", "--slices", "P1a,P2a")
    done = score(*files.values(), words=few)
    assert done.code == 0, done.err
    assert list(_rows(tmp_path / "scored", "mine").index) == ["P1a", "P2a"]
    results = tmp_path / "joined"
    shutil.copytree(made_here, results)
    _assert_refused(score(*files.values(), out=results, words=few), "other folds of demo, loso")


def test_an_external_trial_cannot_be_run(
    files: dict, score: Callable, stbench_command: Callable, tmp_path: Path
) -> None:
    score(*files.values())
    results = tmp_path / "scored"
    key = _trial(results, "P1a").name
    assert "finished" in stbench_command("trial", results, key).out
    shutil.rmtree(results / "trials" / key)
    _assert_refused(stbench_command("trial", results, key), "was scored from predictions made elsewhere")
    assert score(*files.values()).code == 0
    assert "finished" in stbench_command("trial", results, key).out


def test_an_interruption_leaves_the_table_as_it_was(
    files: dict, score: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stbench.external import submission as module

    score(*files.values())
    results = tmp_path / "scored"
    before = {path.name: path.read_bytes() for path in results.glob("*.*")}
    trials = sorted(path.name for path in (results / "trials").iterdir())
    for path in files.values():
        _change(path, _doubled)

    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "score_predictions", interrupted)
        assert score(*files.values()).code == 130
    assert {path.name: path.read_bytes() for path in results.glob("*.*")} == before
    assert sorted(path.name for path in (results / "trials").iterdir()) == trials


def _assert_refused(done, expected: str) -> None:
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.strip() and not line.startswith("note: ")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("stbench: ")
    assert expected in lines[0]


# --- predictions that are not what they seem ---------------------------------------------------------------------


@pytest.fixture
def square(tmp_path: Path) -> Path:
    """A manifest of two first-generation sections on a square array, 5 x 5 spots named <x>x<y>."""
    return _first_generation(tmp_path / "square", 5, 5)


@pytest.fixture
def oblong(tmp_path: Path) -> Path:
    return _first_generation(tmp_path / "oblong", 6, 4)


GENES = [f"GENE{i}" for i in range(10)]


def _first_generation(place: Path, nx: int, ny: int) -> Path:
    rng = np.random.default_rng(0)
    xy = [(x, y) for x in range(1, nx + 1) for y in range(1, ny + 1)]
    text = f'name = "{place.name}"\npatch_px = 8\npanel = {json.dumps(GENES)}\n'
    for name in ("Q1", "Q2"):
        counts = rng.poisson(rng.gamma(2, 4, len(GENES)) + 0.5, (len(xy), len(GENES)))
        upstream.write_text(place / f"{name}.tsv", upstream.table_text([f"{x}x{y}" for x, y in xy], GENES, counts))
        pixels = 20.0 * np.array(xy)
        upstream.write_text(place / f"{name}_spots.tsv", upstream.spot_table_text(np.array(xy), np.array(xy), pixels))
        upstream.write_picture(place / f"{name}.jpg", upstream.tissue_image(20 * nx + 20, 20 * ny + 20, rng))
        text += f'[[slide]]\nid = "{name}"\npatient = "{name}"\nreader = "legacy-st"\n'
        text += f'counts = "{name}.tsv"\nspots = "{name}_spots.tsv"\nimage = "{name}.jpg"\n'
    return upstream.write_text(place / "m.toml", text)


def _truth(manifest: Path, name: str = "Q1") -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
    """x and y of every spot, the truth on the default target, and the counts."""
    table = pd.read_csv(manifest.parent / f"{name}.tsv", sep="\t", index_col=0)
    counts = table.to_numpy()
    xy = [(int(x), int(y)) for x, y in (spot.split("x") for spot in table.index)]
    return xy, np.log10(1 + 1e4 * counts / counts.sum(axis=1, keepdims=True)), counts


def _write(path: Path, values: np.ndarray, names: list[str], row: list[int] | None, col: list[int] | None) -> Path:
    obs = pd.DataFrame(index=names) if row is None else pd.DataFrame({"array_row": row, "array_col": col}, index=names)
    path.parent.mkdir(parents=True, exist_ok=True)
    anndata.AnnData(values.astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


@pytest.mark.parametrize("shape", ["square", "oblong"])
def test_hest_s_names_and_exchanged_axes_get_the_scores_of_the_same_predictions(
    shape: str, request: pytest.FixtureRequest, score: Callable, tmp_path: Path
) -> None:
    manifest = request.getfixturevalue(shape)
    xy, truth, _ = _truth(manifest)
    noisy = truth + np.random.default_rng(1).normal(0, 0.2, truth.shape)
    x, y = map(list, zip(*xy, strict=True))
    plain = _write(tmp_path / "plain/Q1.h5ad", noisy, [f"{a}x{b}" for a, b in xy], y, x)
    hest = _write(tmp_path / "hest/Q1.h5ad", noisy, [f"{a:03d}x{b:03d}" for a, b in xy], x, y)
    columns = _write(tmp_path / "columns/Q1.h5ad", noisy, [f"spot{i}" for i in range(len(xy))], y, x)
    tables = {}
    for path in (plain, hest, columns):
        done = score(path, out=tmp_path / path.parent.name / "scored", words=("--dataset", manifest))
        assert done.code == 0, done.err
        tables[path.parent.name] = _rows(tmp_path / path.parent.name / "scored", "mine").dropna(subset="pcc_acg")
        assert ("array_row holds x and array_col y, as HEST-1k writes them" in done.err) == (path == hest)
        assert ("which fit either way round" in done.err) == (path == columns and shape == "square")
    _assert_same_scores(tables["hest"], tables["plain"])
    _assert_same_scores(tables["columns"], tables["plain"])


def test_exchanged_columns_without_names_that_tell_are_refused_where_it_can_be_seen(
    oblong: Path, score: Callable, tmp_path: Path
) -> None:
    xy, truth, _ = _truth(oblong)
    x, y = map(list, zip(*xy, strict=True))
    path = _write(tmp_path / "Q1.h5ad", truth, [f"spot{i}" for i in range(len(xy))], x, y)
    _assert_refused(score(path, words=("--dataset", oblong)), "array_row and array_col of slice Q1 are exchanged")


def test_spots_that_do_not_match_are_named_from_both_sides_without_numpy_s_types(
    oblong: Path, score: Callable, tmp_path: Path
) -> None:
    xy, truth, _ = _truth(oblong)
    path = _write(tmp_path / "Q1.h5ad", truth, [f"AB{i}" for i in range(len(xy))], None, None)
    _assert_refused(score(path, words=("--dataset", oblong)), "have no prediction (first: 1x1; the file has AB0)")
    twice = [1] * len(xy)
    _write(path, truth, [f"AB{i}" for i in range(len(xy))], twice, twice)
    refused = score(path, words=("--dataset", oblong))
    _assert_refused(refused, "have no prediction (first: 1x1; the file has AB0)")
    assert "np." not in refused.err


SUSPECT = {
    "the truth": (lambda truth, counts: truth, "predictions equal the truth: Q1: in 10 of 10 genes"),
    "one gene of the truth": (
        lambda truth, counts: np.column_stack([truth[:, :1], np.full_like(truth[:, 1:], truth.mean())]),
        "predictions equal the truth: Q1: in 1 of 10 genes",
    ),
    "the truth but for scale": (lambda truth, counts: 0.5 * truth + 0.3, "is the truth but for its scale"),
    "the counts": (lambda truth, counts: counts, "has the measured value, on the scale raw counts"),
    "standardised": (lambda truth, counts: _noisy(truth - truth.mean(axis=0)), "as if standardised"),
    "noisy counts": (lambda truth, counts: counts + _noise(counts), "levels are those of raw counts"),
    "natural logarithms": (lambda truth, counts: _noisy(truth * np.log(10)), "another scale than the target"),
    "a hundred times": (lambda truth, counts: 100 * _noisy(truth), "another scale than the target"),
}


def _noise(values: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).normal(0, 0.3, values.shape)


def _noisy(values: np.ndarray) -> np.ndarray:
    return values + _noise(values)


@pytest.mark.parametrize("case", SUSPECT)
def test_predictions_on_another_scale_or_equal_to_the_truth_ring_an_alarm(
    case: str, oblong: Path, score: Callable, stbench_command: Callable, tmp_path: Path
) -> None:
    make, said = SUSPECT[case]
    xy, truth, counts = _truth(oblong)
    path = _write(tmp_path / "Q1.h5ad", make(truth, counts), [f"{a}x{b}" for a, b in xy], None, None)
    done = score(path, words=("--dataset", oblong))
    assert done.code == 0, done.err
    assert said in done.err
    alarms = json.loads((_trial(tmp_path / "scored", "Q1") / "state.json").read_text())["alarms"]
    assert [alarm["kind"] for alarm in alarms] == [next(kind for kind in (EQUAL, SCALE) if kind in done.err)]
    if case == "the truth":
        assert stbench_command("report", tmp_path / "scored").code == 0
        assert EQUAL in (tmp_path / "scored/report/report.html").read_text()


def test_poor_predictions_on_the_right_scale_ring_none(oblong: Path, score: Callable, tmp_path: Path) -> None:
    xy, truth, _ = _truth(oblong)
    other = _truth(oblong, "Q2")[1].mean(axis=0) + 0.2 * _noise(truth)  # knows the other section's means alone
    path = _write(tmp_path / "Q1.h5ad", other, [f"{a}x{b}" for a, b in xy], None, None)
    done = score(path, words=("--dataset", oblong))
    assert EQUAL not in done.err
    assert SCALE not in done.err
    assert json.loads((_trial(tmp_path / "scored", "Q1") / "state.json").read_text())["alarms"] == []


def test_what_r_writes_as_vectors_of_one_is_read(oblong: Path, score: Callable, tmp_path: Path) -> None:
    xy, truth, _ = _truth(oblong)
    path = _write(tmp_path / "mine.h5ad", _noisy(truth), [f"{a}x{b}" for a, b in xy], None, None)

    def named(adata: anndata.AnnData) -> None:
        adata.uns["slice"] = np.array(["Q1"], dtype=object)
        adata.uns["stbench"] = {"dataset": np.array(["oblong"], dtype=object)}

    _change(path, named)
    done = score(path, words=("--dataset", oblong))
    assert done.code == 0, done.err
    _change(path, lambda adata: adata.uns.update(stbench={"dataset": np.array(["other"], dtype=object)}))
    _assert_refused(score(path, words=("--dataset", oblong)), "states the dataset other, not oblong")
