"""Cohorts of the user's own: what is imported, refused, replaced and copied, and found by its name afterwards."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upstream

from stbench import registry
from stbench.data.inventory import check_dataset
from stbench.datasets.cohorts.cohort import Cohort
from stbench.datasets.readers.table import READERS
from stbench.errors import UserError

Command = Callable[..., Any]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """``sources/V1`` and ``sources/V2``: Space Ranger folders; ``sources/st``: a first-generation section."""
    folder = tmp_path / "sources"
    for seed, name in enumerate(("V1", "V2")):
        section = upstream.VisiumSection(name, 12, np.random.default_rng(seed))
        section.write_h5(folder / name / "filtered_feature_bc_matrix.h5")
        section.write_spatial(folder / name / "spatial")
    upstream.write_text(folder / "st/counts.tsv", "\tA\tB\n1x1\t11\t0\n2x1\t3\t12\n1x2\t4\t0\n")
    spots = "x\ty\tpixel_x\tpixel_y\n1\t1\t100\t100\n2\t1\t200\t100\n1\t2\t100\t200\n"
    upstream.write_text(folder / "st/spots.tsv", spots)
    upstream.write_picture(folder / "st/image.jpg", upstream.tissue_image(300, 300, np.random.default_rng(0)))
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("STBENCH_DATA", str(folder))
    return folder


@pytest.fixture
def import_(stbench_command: Command, root: Path) -> Command:
    """``import_(PATH, ...)``: ``stbench data import PATH --as mine ...``."""
    return lambda path, *words: stbench_command("data", "import", path, "--as", "mine", *words)


def manifest_of(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "cohorts/mine/cohort.toml").read_text())


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(".lock"))


def test_a_section_is_imported_checked_listed_and_found_by_its_name(
    sources: Path, root: Path, import_: Command, stbench_command: Command
) -> None:
    done = import_(sources / "V1", "--patient", "P1", "--title", "My sections")
    assert done.code == 0, done.err
    for words in ("1 slice imported, 1 in all", "12 spots", "pitch of 100 µm)", "hires image"):
        assert words in done.out
    assert manifest_of(root)["slide"] == [
        {"id": "V1", "patient": "P1", "reader": "space-ranger", "folder": str(sources / "V1")}
    ]
    assert import_(sources / "V2", "--patient", "P2", "--slice", "second", "--um-per-px", "2.5").code == 0
    opened = registry.dataset("mine", root)
    assert (opened.title, opened.slices, opened.patient("second")) == ("My sections", ("V1", "second"), "P2")
    assert opened.find()[0][1].read().um_per_px == 2.5
    listed = stbench_command("data", "list").out
    assert re.search(r"mine +My sections +2/2", listed)
    assert check_dataset(opened).sound
    assert registry.dataset_origin("mine", root) == str((root / "cohorts/mine/cohort.toml").resolve())


def test_a_section_of_several_files_is_imported_by_options(sources: Path, root: Path, import_: Command) -> None:
    st = sources / "st"
    done = import_(st / "counts.tsv", "--patient", "P1", "--image", st / "image.jpg")
    assert (done.code, "--option spots=...: is missing" in done.err) == (2, True)
    words = ("--option", f"spots={st / 'spots.tsv'}", "--pitch-um", 200, "--image", st / "image.jpg")
    assert import_(st / "counts.tsv", "--patient", "P1", *words).code == 0
    assert manifest_of(root)["slide"][0]["pitch_um"] == 200


REFUSALS = {
    "no patient": (("V1",), "--patient: is missing"),
    "a patient that is no name": (("V1", "--patient", "a b"), "may hold only letters"),
    "nothing there": (("V9", "--patient", "P1"), "V9 does not exist"),
    "no format": (("st/image.jpg", "--patient", "P1"), "is of no format that is read"),
    "an unknown reader": (("V1", "--patient", "P1", "--reader", "spaceranger"), "did you mean 'space-ranger'?"),
    "a key of another format": (("V1", "--patient", "P1", "--layer", "counts"), "unknown key for the reader"),
    "an option without a value": (("V1", "--patient", "P1", "--option", "spots"), "is not KEY=VALUE"),
    "no number": (("V1", "--patient", "P1", "--um-per-px", "0,5"), "write a point for the decimal comma"),
    "no size": (("V1", "--patient", "P1", "--um-per-px", "-1"), "not a positive number"),
    "a folder of sections": ((".", "--patient", "P1"), "name one, or list them in a manifest"),
    "an odd window": (("V1", "--patient", "P1", "--patch-px", "33"), "not an even number"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_imported_is_one_line_and_writes_nothing(
    case: str, sources: Path, root: Path, import_: Command
) -> None:
    (path, *words), message = REFUSALS[case]
    done = import_(sources / path, *words)
    assert done.code == 2
    assert message in done.err
    assert everything_in(root) == []


def test_a_section_that_is_unsound_is_refused_at_import(sources: Path, root: Path, import_: Command) -> None:
    positions = next((sources / "V1/spatial").glob("tissue_positions*"))
    lines = [line.split(",") for line in positions.read_text().splitlines()]
    positions.write_text("\n".join(",".join([*line[:4], line[4] + "000", line[5]]) for line in lines))
    done = import_(sources / "V1", "--patient", "P1")
    assert (done.code, "lie outside" in done.err) == (2, True), done.err
    assert everything_in(root) == []


def test_names_of_datasets_are_refused_and_a_place_that_takes_no_files_is_said(
    sources: Path, root: Path, stbench_command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = stbench_command("data", "import", sources / "V1", "--as", "her2st", "--patient", "P1")
    assert (done.code, "is the name of a dataset of stbench" in done.err) == (2, True)
    with monkeypatch.context() as patched:
        patched.setattr("stbench.datasets.cohorts.cohort.os.access", lambda *_: False)
        done = stbench_command("data", "import", sources / "V1", "--as", "mine", "--patient", "P1")
    assert (done.code, "may not be written to" in done.err, "--data DIR" in done.err) == (2, True, True)
    (root / "cohorts").write_text("")
    done = stbench_command("data", "import", sources / "V1", "--as", "mine", "--patient", "P1")
    assert (done.code, "--data DIR" in done.err) == (2, True)


def test_a_slice_is_imported_twice_only_to_replace_it(sources: Path, root: Path, import_: Command) -> None:
    assert import_(sources / "V1", "--patient", "P1").code == 0
    again = import_(sources / "V2", "--patient", "P1", "--slice", "V1")
    assert (again.code, "has the slice V1 already" in again.err, "--replace" in again.err) == (2, True, True)
    twice = import_(sources / "V1", "--patient", "P1", "--slice", "other")
    assert (twice.code, "is read from the same files as V1 of the cohort" in twice.err) == (2, True)
    path = root / "cohorts/mine/cohort.toml"
    path.write_text(path.read_text() + "# the good one\n")
    assert import_(sources / "V2", "--patient", "P2").code == 0
    replaced = import_(sources / "V1", "--patient", "P7", "--um-per-px", "0.5", "--replace")
    assert (replaced.code, "(replaced: V1)" in replaced.out) == (0, True)
    assert [(slide["id"], slide["patient"]) for slide in manifest_of(root)["slide"]] == [("V1", "P7"), ("V2", "P2")]
    assert "# the good one\n" in path.read_text()  # what a person wrote stays


def test_copies_are_read_in_place_of_the_originals(sources: Path, root: Path, import_: Command) -> None:
    assert import_(sources / "V1", "--patient", "P1", "--copy").code == 0
    (sources / "V1").rename(sources / "gone")
    (source,) = registry.dataset("mine", root).find()[0]
    assert source.read().n_spots == 12
    assert all(path.is_relative_to(root / "cohorts/mine/slides") for path in source.files)
    before = everything_in(root / "cohorts/mine/slides")
    assert import_(sources / "gone", "--patient", "P1", "--slice", "V1", "--copy", "--replace").code == 0
    after = everything_in(root / "cohorts/mine/slides")
    assert len(after) == len(before)
    assert not set(after) & set(before)


def test_a_failed_copy_leaves_nothing(sources: Path, root: Path, import_: Command) -> None:
    next((sources / "V1/spatial").glob("*hires*")).write_bytes(b"no picture")
    assert import_(sources / "V1", "--patient", "P1", "--copy").code == 2
    assert everything_in(root) in ([], ["cohorts"])


def test_files_that_moved_afterwards_are_said_with_what_to_do(
    sources: Path, root: Path, import_: Command, stbench_command: Command
) -> None:
    assert import_(sources / "V1", "--patient", "P1").code == 0
    (sources / "V1").rename(sources / "elsewhere")
    done = stbench_command("data", "check", "mine", "--out", root / "pictures")
    assert done.code == 2
    assert "cohort.toml, or import the section again with --replace" in done.out
    listed = stbench_command("data", "list")
    assert (listed.code, "--replace" in listed.out) == (0, True)


TABLES = {
    "commas": "path,slice,patient,um_per_px\nV1,A,P1,0.5\nV2,B,P2,\n",
    "semicolons, a byte-order mark, quotes and blank lines": '\ufeffpath;slice;patient\n\n"V1";A;"P1"\n;;\nV2;B;P2\n',
    "tabs, other case, separators behind": "Path\tSlice\tPatient\t\nV1\tA\tP1\t\n$SECTIONS/V2\tB\tP2\t\n",
    "blanks before the header": "  \n\npath,slice,patient\nV1,A,P1\n  ,\nV2,B,P2\n",
    "line ends of Windows": "path,slice,patient\r\nV1,A,P1\r\nV2,B,P2\r\n",
}


@pytest.mark.parametrize("form", TABLES)
def test_a_table_of_sections_is_imported_as_a_whole(
    form: str, sources: Path, root: Path, import_: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECTIONS", str(sources))
    table = upstream.write_text(sources / "cohort.csv", TABLES[form])
    done = import_(table)
    assert done.code == 0, done.err
    slides = [(slide["id"], slide["patient"], slide["folder"]) for slide in manifest_of(root)["slide"]]
    assert slides == [("A", "P1", str(sources / "V1")), ("B", "P2", str(sources / "V2"))]


def test_every_bad_row_of_a_table_is_named_and_none_is_imported(sources: Path, root: Path, import_: Command) -> None:
    rows = ("path,slice,patient,um_per_px", "V1,A,P1,", "V9,B,P1,", "", "V2,C,,half", "V2,a/b,P1,")
    done = import_(upstream.write_text(sources / "cohort.csv", "\n".join(rows)))
    assert done.code == 2
    for line in (
        "row 3, column path: ", "row 5, column patient: ", "row 5, column um_per_px: ", "row 6, column slice: ",
        "4 faults in the 4 sections, see above",
    ):  # fmt: skip
        assert line in done.err
    assert "row 2" not in done.err
    table = upstream.write_text(sources / "cohort.csv", "path,slice,patient\nV1,A,P1\nV2,A,P1\nV2,B,P1\n")
    done = import_(table)
    assert "row 3: the slice A stands in cohort.csv, row 2 too" in done.err
    assert "row 4: B is read from the same files as cohort.csv, row 3" in done.err
    next((sources / "V2/spatial").glob("*hires*")).write_bytes(b"no picture")
    done = import_(upstream.write_text(sources / "cohort.csv", "path,slice,patient\nV1,A,P1\nV2,B,P1\n"))
    assert (done.code, "row 3 (B): " in done.err) == (2, True)
    assert everything_in(root) == []


BAD_TABLES = {
    "an unknown column": ("path,patient,pixelsize\nV1,P1,1\n", "unknown column"),
    "no patient": ("path,slice\nV1,A\n", "row 2, column patient: is missing"),
    "two of a column": ("path,patient,patient\nV1,P1,P1\n", "two columns"),
    "no row": ("path,patient\n\n", "lists no section"),
    "too many fields": ("path,patient\nV1,P1,0,5\n", "row 2 has 4 fields"),
    "nothing but blank fields": (",,\n;;\n", "whose first line names a column 'path'"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_cannot_be_used_is_one_line(case: str, sources: Path, root: Path, import_: Command) -> None:
    text, message = BAD_TABLES[case]
    done = import_(upstream.write_text(sources / "cohort.csv", text))
    assert (done.code, message in done.err) == (2, True), done.err
    assert everything_in(root) == []


def test_what_another_import_took_away_is_written_again(
    sources: Path, root: Path, import_: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system whose locks other machines do not see: another one writes what it read before."""
    assert import_(sources / "V1", "--patient", "P1").code == 0
    path = root / "cohorts/mine/cohort.toml"
    before, settled = path.read_text(), []

    def settle(_: float) -> None:
        if not settled:
            path.write_text(before)
        settled.append(path.read_text())

    monkeypatch.setattr("stbench.datasets.cohorts.cohort.time.sleep", settle)
    assert import_(sources / "V2", "--patient", "P2").code == 0
    assert len(settled) == 2
    assert [slide["id"] for slide in manifest_of(root)["slide"]] == ["V1", "V2"]


def test_imports_at_once_lose_nothing(root: Path) -> None:
    cohort = Cohort(root, "mine")
    wanted = [{"id": f"S{i}", "patient": "P1", "reader": "space-ranger", "folder": root / f"S{i}"} for i in range(8)]
    with ThreadPoolExecutor(len(wanted)) as pool:
        sizes = list(pool.map(lambda entry: cohort.add([entry], replace_old=False), wanted))
    assert max(sizes) == len(wanted)
    assert sorted(cohort.entries(), key=lambda entry: str(entry["id"])) == wanted
    with pytest.raises(UserError, match="has the slice S3 already"):
        cohort.add([wanted[3]], replace_old=False)


def test_a_manifest_that_no_slide_can_be_added_to_stays_as_it_is(sources: Path, root: Path, import_: Command) -> None:
    path = root / "cohorts/mine/cohort.toml"
    text = f'name = "mine"\nslide = [{{id = "V1", patient = "P", reader = "space-ranger", folder = "{sources}/V1"}}]\n'
    upstream.write_text(path, text)
    done = import_(sources / "V2", "--patient", "P1")
    assert (done.code, "write each slide as a [[slide]]" in done.err) == (2, True)
    assert path.read_text() == text
    path.write_text(text.replace('"mine"', '"other"'))
    with pytest.raises(UserError, match="calls itself 'other'"):
        registry.dataset("mine", root)


def test_a_check_is_printed_as_one_object(
    sources: Path, root: Path, import_: Command, stbench_command: Command
) -> None:
    assert import_(sources / "V1", "--patient", "P1").code == 0
    done = stbench_command("data", "check", "mine", "--out", root / "pictures", "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    (found,) = facts["slices"]
    assert (facts["dataset"], facts["sound"], found["id"], found["patient"]) == ("mine", True, "V1", "P1")
    assert (found["spots"], found["image"]["level"]) == (12, "hires")
    assert "pitch of 100 µm" in found["um_per_px_from"]
    assert Path(found["picture"]).is_file()
    assert found["median_counts"] > 0
    next((sources / "V1/spatial").glob("*hires*")).write_bytes(b"no picture")
    done = stbench_command("data", "check", "mine", "--out", root / "pictures", "--json")
    facts = json.loads(done.out)
    (found,) = facts["slices"]
    assert (done.code, facts["sound"], found["verdict"], found["spots"]) == (2, False, "errors", None)


def test_a_name_that_means_a_cohort_is_not_a_path(sources: Path, root: Path, import_: Command) -> None:
    assert import_(sources / "V1", "--patient", "P1").code == 0
    with pytest.raises(UserError, match="did you mean 'mine'"):
        registry.dataset("min", root)
    assert Cohort(root, "mine").manifest.is_file()


def test_every_key_of_every_reader_is_documented() -> None:
    table = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    documented = {
        row[0]: (re.findall(r"`(\w+)`", row[1]), re.findall(r"`(\w+)`", row[2]))
        for row in re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|$", table, flags=re.MULTILINE)
        if row[0] in READERS
    }
    for reader in READERS.values():
        must, may = documented[reader.name]
        assert must == list(reader.required_paths)
        assert set(may) == set(reader.keys) - set(reader.required_paths) - {"um_per_px"}
