"""Whatever a manifest or a table of sections holds: it is read, or refused in one line, and never half written."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upstream
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stbench import registry
from stbench.datasets.cohorts.cohort import Cohort
from stbench.datasets.cohorts.importing import import_sections
from stbench.datasets.cohorts.manifest_text import new_text, with_slides
from stbench.datasets.cohorts.section import section
from stbench.datasets.cohorts.table import is_table, known_columns, read_table
from stbench.datasets.manifest import read_manifest
from stbench.datasets.readers.table import READERS
from stbench.errors import UserError
from stbench.system.locate import cohort_names

FUZZED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KEYS = ["id", "patient", "name", "title", "patch_px", "panel", "citation", "slide", *known_columns()]

odd_text = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", " ", "S1", "P1", "V1", "../V1", "~", "~nobody/x", "$HOME", "$NO_SUCH", "all", "ü", "NA"]),
    st.sampled_from(["\0", "\x7f", "\ud800", "a" * 5000, "x" * 256, "/dev/null", "/", ".", ".."]),
    st.sampled_from(["nan", "inf", "1e400", "-1", "0,5", "0.5", "true"]),
    st.sampled_from(sorted(READERS)),
)
odd_values = st.recursive(
    st.one_of(odd_text, st.integers(-(2**70), 2**70), st.floats(), st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd_text, inner, max_size=3),
    max_leaves=6,
)


def toml(value: Any) -> str:
    """A value as TOML, odd ones included; lone surrogates and the like make it invalid, which is as welcome."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return (
        "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {toml(inner)}" for key, inner in value.items()) + "}"
    )


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stbench.datasets.cohorts.cohort.SETTLED_S", 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``V1``, a sound section, and room for what is written beside it."""
    place = tmp_path_factory.mktemp("fuzzed")
    one = upstream.VisiumSection("V1", 12, np.random.default_rng(0))
    one.write_h5(place / "V1/filtered_feature_bc_matrix.h5")
    one.write_spatial(place / "V1/spatial")
    return place


def require_one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert str(error) != ""


def read_as_manifest(folder: Path, content: bytes) -> None:
    path = folder / "fuzzed.toml"
    path.write_bytes(content)
    try:
        for source in read_manifest(path).find()[0]:
            assert source.id
    except UserError as error:
        require_one_line(error)


@FUZZED
@given(content=st.binary(max_size=300))
def test_a_manifest_of_any_bytes(folder: Path, content: bytes) -> None:
    read_as_manifest(folder, content)


@FUZZED
@given(
    top=st.dictionaries(st.sampled_from(KEYS), odd_values, max_size=5),
    slides=st.lists(st.dictionaries(st.sampled_from(KEYS), odd_values, max_size=7), max_size=3),
    sound=st.booleans(),
)
def test_a_manifest_of_any_values(folder: Path, top: dict[str, Any], slides: list[dict[str, Any]], sound: bool) -> None:
    usual = {"id": "S1", "patient": "P1", "reader": "space-ranger", "folder": "V1"} if sound else {}
    lines = [f"{key} = {toml(value)}" for key, value in ({"name": "mine"} | top).items()]
    for slide in slides:
        lines += ["[[slide]]", *(f"{key} = {toml(value)}" for key, value in (usual | slide).items())]
    read_as_manifest(folder, "\n".join(lines).encode("utf-8", errors="surrogatepass"))


def import_table(folder: Path, content: bytes) -> None:
    """As ``stbench data import`` does, all or nothing."""
    path, root = folder / "fuzzed.csv", folder / "data"
    path.write_bytes(content)
    before = cohort_names(root)
    try:
        if not is_table(path):
            return
        found = [section(f"row {row.number}", folder, row.fields) for row in read_table(path) if row.fault is None]
        for _, faults in found:
            assert all("\n" not in fault.text for fault in faults)
        sections = [one for one, _ in found if one is not None]
        if not sections or len(sections) < len(found):
            return
        name = f"c{len(before)}"
        imported = import_sections(Cohort(root, name), sections)
        assert registry.dataset(name, root).slices == tuple(one.entry["id"] for one in sections)
        assert imported.n_slides == len(sections)
    except UserError as error:
        require_one_line(error)
        assert cohort_names(root) == before


@FUZZED
@given(content=st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(lambda tail: b"path,patient\n" + tail)))
def test_a_table_of_any_bytes(folder: Path, content: bytes) -> None:
    import_table(folder, content)


@FUZZED
@given(
    columns=st.lists(st.sampled_from(known_columns()), unique=True, max_size=5),
    rows=st.lists(st.lists(odd_text, max_size=8), max_size=3),
    separator=st.sampled_from([",", ";", "\t"]),
    sound=st.booleans(),
)
def test_a_table_of_any_fields(
    folder: Path,
    columns: list[str],
    rows: list[list[str]],
    separator: str,
    sound: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stbench.datasets.cohorts.cohort.time.sleep", lambda _: None)
    header = ["path", "patient", *(name for name in columns if name not in ("path", "patient"))]
    lines = [[*(["V1", "P1"] if sound else []), *row] for row in rows]
    quoted = [[json.dumps(field, ensure_ascii=False).replace('\\"', '""') for field in line] for line in lines]
    text = "\n".join(separator.join(line) for line in [header, *quoted])
    import_table(folder, text.encode("utf-8", errors="surrogatepass"))


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,8}", fullmatch=True)
printed = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
slide_values = st.fixed_dictionaries(
    {"id": names, "patient": names, "folder": printed.map(lambda text: Path("/data") / text.replace("/", "_"))},
    optional={"um_per_px": st.floats(1e-6, 1e6), "label": printed, "filter": st.booleans()},
)


@FUZZED
@given(
    title=printed,
    slides=st.lists(slide_values, min_size=1, max_size=4, unique_by=lambda slide: slide["id"]),
    again=st.lists(slide_values, max_size=2, unique_by=lambda slide: slide["id"]),
)
def test_a_manifest_holds_what_was_written_into_it(title: str, slides: list[dict], again: list[dict]) -> None:
    """Any text of a path or a label is written so that it is read as it was; other slides and comments stay."""
    manifest = Path("/home/cohort.toml")
    text = new_text("mine", title, 224)
    for slide in [*slides, *again]:
        text = with_slides(text + "# a remark\n", [slide], manifest)
    content = tomllib.loads(text)
    expected = {slide["id"]: slide | {"folder": str(slide["folder"])} for slide in [*slides, *again]}
    assert content["title"] == title
    assert {slide["id"]: slide for slide in content["slide"]} == expected
    assert text.count("# a remark") == len(slides) + len(again)
