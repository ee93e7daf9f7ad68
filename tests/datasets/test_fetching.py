"""Published datasets, in miniature: from a server or a folder to something that ``data check`` finds sound."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faulty_server as faulty
import numpy as np
import pytest
import upstream
from faulty_server import Server, serving

from stbench import registry
from stbench.cli import main
from stbench.data.inventory import check_dataset
from stbench.datasets.alex10x import ALIASES
from stbench.errors import UserError
from stbench.fetching.catalogue import Catalogue, load, wanted_files
from stbench.fetching.checksums import digests
from stbench.fetching.encrypted import Passwords
from stbench.fetching.fetch import Fetching, Outcome, fetch
from stbench.fetching.record import RECORD
from stbench.fetching.transfer import Limits

QUICK = Limits(connect_s=1, stall_s=0.5, tries=3, progress=1000, wait_s=0.01, longest_wait_s=1)
NAMES = ("her2st", "cscc", "alex10x")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@dataclass
class Watch:
    lines: list[str] = field(default_factory=list)
    seen: list[tuple[str, int, int | None]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(text)

    def at(self, path: str, done: int, total: int | None) -> None:
        self.seen.append((path, done, total))


def catalogue_of(name: str) -> Catalogue:
    dataset: Any = registry.dataset(name)
    return load(dataset.catalogue)


def published_at(catalogue: Catalogue, url: str) -> Catalogue:
    """The same catalogue with its addresses on another server, by part; checksums of the real files left out."""
    values = catalogue.model_dump()
    for source in values["source"]:
        for number, part in enumerate(source["part"]):
            part["base"] = f"{url}{source['name']}/{number}/"
            if part["record"] is not None:
                part["record"] = f"{url}record/{source['name']}/{number}"
            part["files"] = [{**file, "bytes": None, "checksum": None} for file in part["files"]]
    return Catalogue.model_validate(values)


def run(name: str, catalogue: Catalogue, root: Path, **options: Any) -> tuple[Outcome, Watch]:
    watch = Watch()
    root.mkdir(exist_ok=True)
    return fetch(Fetching(registry.dataset(name, root), catalogue, root, watch, limits=QUICK, **options)), watch


def tar_of(folder: Path, files: list[Path], zipped: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if zipped else "w") as tar:
        for file in files:
            tar.add(file, str(file.relative_to(folder)))
    return buffer.getvalue()


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def her2st_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The repository's files under the names that the commit has."""
    made = upstream.write_her2st(tmp_path_factory.mktemp("her2st")) / "her2st"
    files = {}
    slices = registry.dataset("her2st").slices
    for file in wanted_files(catalogue_of("her2st").source[0], slices, slices):
        there = made / file.path
        files[file.path] = (there if there.exists() else next(there.parent.iterdir())).read_bytes()
    return files


@pytest.fixture(scope="module")
def cscc_tar(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The archive of the series: every file gzipped, and samples that are none of the benchmark's."""
    folder = upstream.write_cscc(tmp_path_factory.mktemp("cscc")) / "GSE144240_RAW"
    for file in files_below(folder):
        if file.suffix != ".gz":
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    for name in ("GSM4284400_P4_rep1_filtered_feature_bc_matrix.h5", "GSM4565823_P12_ST_rep1.jpg.gz"):
        (folder / name).write_bytes(b"of another patient")
    return tar_of(folder, files_below(folder))


@pytest.fixture(scope="module")
def alex10x_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of Zenodo and of 10x Genomics by the paths that they get."""
    folder = upstream.write_alex10x(tmp_path_factory.mktemp("alex10x"))
    files = {
        f"{name}.tar.gz": tar_of(folder, files_below(folder / name), zipped=True)
        for name in ("filtered_count_matrices", "spatial", "metadata")
    }
    for number, (short, (name,)) in enumerate(ALIASES.items()):
        section = upstream.VisiumSection(short, 20, np.random.default_rng(number))
        place = folder / "published" / name
        section.write_spatial(place / "spatial")
        (place / "spatial" / "aligned_fiducials.jpg").write_bytes(b"not wanted")
        section.write_h5(place / f"{name}_filtered_feature_bc_matrix.h5")
        section.write_image(place / f"{name}_image.tif")
        files[f"{name}/{name}_spatial.tar.gz"] = tar_of(place, files_below(place / "spatial"), zipped=True)
        for end in ("filtered_feature_bc_matrix.h5", "image.tif"):
            files[f"{name}/{name}_{end}"] = (place / f"{name}_{end}").read_bytes()
    return files


def require_sound(name: str, root: Path, n_slices: int, slices: list[str] | None = None) -> None:
    report = check_dataset(registry.dataset(name, root), slices)
    assert report.sound, report
    assert len(report.slices) == n_slices


def test_her2st_comes_file_by_file(server: Server, her2st_files: dict[str, bytes], tmp_path: Path) -> None:
    server.files = {f"github/0/{path}": content for path, content in her2st_files.items()}
    catalogue = published_at(catalogue_of("her2st"), server.url)
    server.faults["github/0/data/ST-cnts/A2.tsv.gz"] = [faulty.drop(500), faulty.refuse(503, retry_after="0")]
    outcome, watch = run("her2st", catalogue, tmp_path / "data", slices=["A2", "B1"])
    assert (outcome.n_fetched, outcome.n_verified) == (7, 0)  # counts, spots, image of both; labels of B1
    assert any("checksum not published of 7 files" in line for line in watch.lines)
    assert any("licence" in line for line in watch.lines)
    require_sound("her2st", tmp_path / "data", 2, ["A2", "B1"])
    asked = len(server.requests)
    outcome, watch = run("her2st", catalogue, tmp_path / "data", slices=["A2", "B1"])
    assert (outcome.n_fetched, outcome.n_verified) == (0, 7)
    assert len(server.requests) == asked
    assert files_below(tmp_path / "data" / "her2st" / ".fetching") in ([], [tmp_path / "data/her2st/.fetching/lock"])


def test_all_of_cscc_comes_out_of_one_archive(server: Server, cscc_tar: bytes, tmp_path: Path) -> None:
    server.files["geo/0/GSE144239_RAW.tar"] = cscc_tar
    catalogue = published_at(catalogue_of("cscc"), server.url)
    data = tmp_path / "data"
    outcome, watch = run("cscc", catalogue, data, slices=["P2_ST_rep1"])
    assert any("is kept for the other slices" in line for line in watch.lines)
    assert len(files_below(data / "cscc/GSE144239_RAW")) == 3
    server.files.clear()  # the rest comes out of the archive that is here
    outcome, _ = run("cscc", catalogue, data)
    assert outcome.n_fetched == 0
    assert not (data / "cscc/GSE144239_RAW.tar").exists()
    assert len(files_below(data / "cscc/GSE144239_RAW")) == 36
    require_sound("cscc", data, 12)
    outcome, _ = run("cscc", catalogue, data)
    assert (outcome.n_fetched, outcome.n_verified) == (0, 1)
    (data / "cscc/GSE144239_RAW/GSM4284316_P2_ST_rep1.jpg.gz").unlink()
    with pytest.raises(UserError, match="is not there"):  # the archive is needed again
        run("cscc", catalogue, data)


def record_of(files: dict[str, bytes]) -> bytes:
    listed = [
        {"key": name, "size": len(content), "checksum": f"md5:{hashlib.md5(content).hexdigest()}"}
        for name, content in files.items()
    ]
    return json.dumps({"id": 1, "files": listed}).encode()


def test_alex10x_comes_from_two_publishers(server: Server, alex10x_files: dict[str, bytes], tmp_path: Path) -> None:
    wu = {path: content for path, content in alex10x_files.items() if "/" not in path}
    server.files = {f"published/0/{path}": content for path, content in wu.items()}
    server.files["record/published/0"] = record_of({**wu, "images.pdf": b""})
    for number, folder in enumerate(name for (name,) in ALIASES.values()):
        for path, content in alex10x_files.items():
            if path.startswith(f"{folder}/"):
                server.files[f"published/{number + 1}/{path.removeprefix(f'{folder}/')}"] = content
    catalogue = published_at(catalogue_of("alex10x"), server.url)
    # damaged on the way: the checksum of the record tells, and it is fetched once more
    server.faults["published/0/spatial.tar.gz"] = [faulty.send(wu["spatial.tar.gz"][:-1] + b"x")]
    outcome, watch = run("alex10x", catalogue, tmp_path / "data")
    assert any("what came is damaged" in line and "md5" in line for line in watch.lines)
    assert [hint.page for hint in outcome.by_hand] == ["https://doi.org/10.48610/4fb74a9"]
    require_sound("alex10x", tmp_path / "data", 9)
    left = {path.name for path in files_below(tmp_path / "data")}
    assert not {name for name in left if name.endswith((".tar.gz", ".part", "fiducials.jpg"))}
    sources, _ = registry.dataset("alex10x", tmp_path / "data").find()
    levels = {source.id: source.parameters["level"] for source in sources}
    assert levels == {name: "full" if name in ("block1", "block2", "FFPE") else "hires" for name in levels}


def test_what_is_damaged_at_the_publisher_is_never_put_in_place(
    server: Server, alex10x_files: dict[str, bytes], tmp_path: Path
) -> None:
    name = "metadata.tar.gz"
    wu = {path: content for path, content in alex10x_files.items() if "/" not in path}
    server.files = {f"published/0/{path}": content for path, content in wu.items()}
    server.files["record/published/0"] = record_of({**wu, name: wu[name][::-1]})
    catalogue = published_at(catalogue_of("alex10x"), server.url)
    with pytest.raises(UserError, match=r"something else than is published, twice .*md5"):
        run("alex10x", catalogue, tmp_path / "data", slices=["CID4290"])
    assert not (tmp_path / "data/alex10x" / name).exists()
    server.files["record/published/0"] = b'{"status": 404}'
    with pytest.raises(UserError, match="does not answer with a record of Zenodo"):
        run("alex10x", catalogue, tmp_path / "data", slices=["CID4290"])


@pytest.fixture(scope="module")
def her2st_zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """As on Zenodo: four archives, encrypted with two passwords."""
    pyzipper = pytest.importorskip("pyzipper", reason="pip install stbench[encrypted]")
    folder = upstream.write_her2st(tmp_path_factory.mktemp("zenodo"), layout="zenodo")
    zips = {}
    for name, password in (("images", "one"), ("count-matrices", "one"), ("spot-selections", "two"), ("meta", "two")):
        buffer = io.BytesIO()
        with pyzipper.AESZipFile(buffer, "w", compression=pyzipper.ZIP_STORED, encryption=pyzipper.WZ_AES) as opened:
            opened.setpassword(password.encode())
            for file in files_below(folder / name):
                opened.write(file, str(file.relative_to(folder)))
        zips[f"{name}.zip"] = buffer.getvalue()
    return zips


def test_the_encrypted_archives_of_her2st(her2st_zips: dict[str, bytes], tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    for name, content in her2st_zips.items():
        (share / name).write_bytes(content)
    catalogue, data = catalogue_of("her2st"), tmp_path / "data"
    with pytest.raises(UserError, match=r"wants a password.*the README of https://github\.com/almaan/her2st"):
        run("her2st", catalogue, data, origin=str(share), passwords=Passwords(["one"]))
    slices = ["A2", "B1", "C2"]
    run("her2st", catalogue, data, origin=str(share), passwords=Passwords(["one", "two"]), slices=slices)
    require_sound("her2st", data, 3, slices)
    assert {path.name for path in files_below(share)} == set(her2st_zips)  # what is the user's stays
    outcome, _ = run("her2st", catalogue, data, origin=str(share), slices=slices)
    assert (outcome.n_fetched, outcome.n_verified) == (0, 4)


def folder_with(files: dict[str, bytes], folder: Path) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def without_checksums(name: str) -> Catalogue:
    return published_at(catalogue_of(name), "http://nowhere.invalid/")


@pytest.mark.parametrize("link", [False, True])
def test_a_folder_in_place_of_the_publisher(her2st_files: dict[str, bytes], tmp_path: Path, link: bool) -> None:
    share = folder_with(her2st_files, tmp_path / "share" / "her2st")
    data = tmp_path / "data"
    (share / "data/ST-cnts/C1.tsv.gz").unlink()
    outcome, _ = run(
        "her2st", without_checksums("her2st"), data, origin=str(share.parent), link=link, slices=["B1", "C1"]
    )
    assert outcome.lacking == ["data/ST-cnts/C1.tsv.gz"]
    assert (data / "her2st/data/ST-cnts/B1.tsv.gz").is_symlink() == link
    require_sound("her2st", data, 1, ["B1"])
    outcome, _ = run("her2st", without_checksums("her2st"), data, origin=str(share), link=link, slices=["B1"])
    assert outcome.n_verified == 4


def test_a_folder_with_other_files_than_are_published(her2st_files: dict[str, bytes], tmp_path: Path) -> None:
    """The real catalogue knows what git calls every file, and these are none of them."""
    share = folder_with(her2st_files, tmp_path / "share")
    with pytest.raises(UserError, match=r"B1\.tsv\.gz is not the file that is published \(.*git-blob"):
        run("her2st", catalogue_of("her2st"), tmp_path / "data", origin=str(share), slices=["B1"])
    with pytest.raises(UserError, match="has none of the published files"):
        run("her2st", catalogue_of("her2st"), tmp_path / "data", origin=str(tmp_path / "data"))
    with pytest.raises(UserError, match="is no folder and no address"):
        run("her2st", catalogue_of("her2st"), tmp_path / "data", origin="nowhere")


def test_a_mirror_has_the_same_layout(server: Server, alex10x_files: dict[str, bytes], tmp_path: Path) -> None:
    server.files = {f"mirror/{path}": content for path, content in alex10x_files.items()}
    run("alex10x", catalogue_of("alex10x"), tmp_path / "data", origin=f"{server.url}mirror", slices=["CID4290", "FFPE"])
    require_sound("alex10x", tmp_path / "data", 2, ["CID4290", "FFPE"])
    assert {path.partition("/")[0] for path, _ in server.requests} == {"mirror"}  # and no record of Zenodo's


def test_what_changed_since_the_first_fetch_is_not_taken(
    server: Server, her2st_files: dict[str, bytes], tmp_path: Path
) -> None:
    server.files = {f"github/0/{path}": content for path, content in her2st_files.items()}
    catalogue, data = published_at(catalogue_of("her2st"), server.url), tmp_path / "data"
    run("her2st", catalogue, data, slices=["A3"])
    counts = data / "her2st/data/ST-cnts/A3.tsv.gz"
    known = counts.read_bytes()
    counts.unlink()
    server.files["github/0/data/ST-cnts/A3.tsv.gz"] = known + b"more"
    with pytest.raises(UserError, match=r"is not what it was on 20\d\d-\d\d-\d\d .*to take the new one, delete"):
        run("her2st", catalogue, data, slices=["A3"])
    server.files["github/0/data/ST-cnts/A3.tsv.gz"] = known
    run("her2st", catalogue, data, slices=["A3"])
    counts.write_bytes(known[::-1])
    with pytest.raises(UserError, match=r"A3\.tsv\.gz has changed since it was fetched"):
        run("her2st", catalogue, data, slices=["A3"])
    counts.write_bytes(known)  # another time of change, the same content
    assert run("her2st", catalogue, data, slices=["A3"])[0].n_verified == 3
    record = data / "her2st" / RECORD
    entry = json.loads(record.read_text())["files"]["data/ST-cnts/A3.tsv.gz"]
    for damaged in ([], {}, {"files": 1}, {"files": {"a": 1}}, {"files": {"a": {**entry, "bytes": "many"}}}):
        record.write_text(json.dumps(damaged))
        with pytest.raises(UserError, match=r"fetched\.json .* - restore it, or delete it"):
            run("her2st", catalogue, data, slices=["A3"])
    record.write_text("{")
    with pytest.raises(UserError, match=r"fetched\.json is not valid JSON"):
        run("her2st", catalogue, data, slices=["A3"])


def test_what_the_user_put_there_is_taken_up(server: Server, her2st_files: dict[str, bytes], tmp_path: Path) -> None:
    data = tmp_path / "data"
    folder_with(her2st_files, data / "her2st")
    outcome, watch = run("her2st", published_at(catalogue_of("her2st"), server.url), data, slices=["A3"])
    assert outcome.n_verified == 3
    assert sum("it was here already" in line for line in watch.lines) == 3
    with pytest.raises(UserError, match=r"is not the file that is published.*move it away"):
        run("her2st", catalogue_of("her2st"), data, slices=["A4"])
    assert not server.requests


def test_slices_in_another_layout_are_not_fetched_again(server: Server, tmp_path: Path) -> None:
    data = tmp_path / "data"
    upstream.write_her2st(data, layout="zenodo")
    outcome, _ = run("her2st", published_at(catalogue_of("her2st"), server.url), data)
    assert len(outcome.elsewhere) == 32
    assert not server.requests


def test_two_fetches_at_once(server: Server, her2st_files: dict[str, bytes], tmp_path: Path) -> None:
    server.files = {f"github/0/{path}": content for path, content in her2st_files.items()}
    catalogue, results = published_at(catalogue_of("her2st"), server.url), []
    at_work = threading.Event()

    def slow(handler: faulty.Handler, content: bytes) -> None:
        at_work.set()
        handler.state.stopping.wait(0.3)
        handler.serve(content)

    server.faults["github/0/data/ST-cnts/A2.tsv.gz"] = [slow]

    def fetch_all() -> None:
        results.append(run("her2st", catalogue, tmp_path / "data", slices=["A2", "A3"]))

    threads = [threading.Thread(target=fetch_all) for _ in range(2)]
    threads[0].start()
    assert at_work.wait(5)
    threads[1].start()
    for thread in threads:
        thread.join()
    assert sorted((outcome.n_fetched, outcome.n_verified) for outcome, _ in results) == [(0, 6), (6, 0)]
    assert sum("another fetch is at work" in line for _, watch in results for line in watch.lines) == 1


def test_the_command_end_to_end(
    server: Server,
    alex10x_files: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STBENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    server.files = {f"mirror/{path}": content for path, content in alex10x_files.items()}
    place = ["--data", str(tmp_path / "new"), "--slices", "FFPE"]
    assert exit_code(["data", "fetch", "alex10x", "--from", f"{server.url}mirror", *place]) == 0
    printed = capsys.readouterr()
    assert "3 files fetched and verified; 1/9 slices in" in printed.out
    assert f"next: stbench data check alex10x --data {tmp_path / 'new'}" in printed.out
    assert "Visium_FFPE_Human_Breast_Cancer" not in printed.out
    assert "fetching 3 files" in printed.err
    assert exit_code(["data", "check", "alex10x", *place]) == 0
    assert exit_code(["data", "fetch", "alex10x", "--from", f"{server.url}mirror", *place, "--verify"]) == 0
    assert "3 files here already, verified" in capsys.readouterr().out


def test_what_the_command_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STBENCH_DATA", raising=False)
    command = ["data", "fetch", "her2st", "--data", str(tmp_path / "new")]
    assert exit_code([*command, "--list", "--slices", "B1"]) == 0
    listed = capsys.readouterr().out
    assert "data/ST-cnts/B1.tsv.gz  657.5 kB, git-blob:3334df26" in listed
    assert "other sources (--source): zenodo" in listed
    assert not (tmp_path / "new").exists()
    for changed, message in (
        (["--slices", "Z9"], "unknown slice 'Z9'"),
        (["--from", "nowhere"], "is no folder"),
        (["--source", "nobody"], "unknown source 'nobody'"),
    ):
        assert exit_code([*command, *changed]) == 2
        assert message in capsys.readouterr().err
    assert exit_code(["data", "fetch", "demo"]) == 2
    assert "unknown published dataset 'demo'" in capsys.readouterr().err
    assert exit_code(["data", "fetch", "her2st", "--link"]) == 2
    assert "--link" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert exit_code(["data", "fetch", "her2st", "--data", str(tmp_path / "file")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("name", NAMES)
def test_every_catalogue_covers_its_dataset(name: str) -> None:
    dataset, catalogue = registry.dataset(name), catalogue_of(name)
    for source in catalogue.source:
        for slice_id in dataset.slices:
            assert wanted_files(source, dataset.slices, [slice_id])
        files = wanted_files(source, dataset.slices, dataset.slices)
        assert len({file.path for file in files}) == len(files)
        assert all(file.url.startswith("https://") for file in files)


def test_the_catalogue_of_her2st_names_the_files_of_the_commit(data_root: Path) -> None:
    """Real files have the digests under which the commit keeps them."""
    files = wanted_files(catalogue_of("her2st").source[0], registry.dataset("her2st").slices, ["B4", "C1", "C2"])
    there = [file for file in files if (data_root / "her2st" / file.path).is_file()]
    assert len(there) > 4
    for file in there:
        assert digests(data_root / "her2st" / file.path, file.checksum).published == file.checksum
        assert file.bytes in (None, (data_root / "her2st" / file.path).stat().st_size)
