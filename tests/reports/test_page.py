"""The report as files: complete, self-contained, safe against its own data, and usable in a browser."""

import html
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic import CONTROLS, METHODS, STNET, Fake, make_results

from stbench.reports import report
from stbench.reports.page.files import ReportFiles

EVIL = "<script>alert(1)</script>\"'&"
SLICES = ["B4", "C2", "C3"]
FEW = (METHODS[0], STNET, CONTROLS[0], CONTROLS[1], CONTROLS[4])


class Outline(HTMLParser):
    """Tags that are opened and closed, ids, and every address that the page would load."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action"):
                self.addresses.append(value or "")
            assert not name.startswith("on"), f"an inline handler: {name}"

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def outline(page: Path) -> Outline:
    parser = Outline()
    parser.feed(page.read_text(encoding="utf-8"))
    parser.close()
    return parser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    place = tmp_path_factory.mktemp("report")
    states = {("mclstexp", "C2", 1): ("failed", EVIL), ("colour_ridge", "B4", 0): ("skipped", "no replicate")}
    evil = Fake("mine", EVIL, 0.1, changes={EVIL: EVIL}, weights=EVIL)
    run = make_results(place / "run", methods=(*FEW, evil), slices=SLICES, seeds=(0, 1), states=states)
    other = make_results(place / "other", methods=(STNET,), slices=SLICES, split="lopo")
    return report([run, other], place / "out")


def test_tables_come_in_every_form_and_figures_in_both(files: ReportFiles) -> None:
    names = {path.name for path in files.tables}
    stem = "her2st-loso-spot-log10-cp10k"
    assert {f"{stem}-leaderboard.{form}" for form in ("csv", "md", "tex")} <= names
    assert {f"{stem}-slices.csv", f"{stem}-slices-pcc_acg.md", f"{stem}-trials.csv", f"{stem}-trials.tex"} <= names
    figures = {path.name for path in files.figures}
    assert {
        f"{stem}-{form}" for form in ("pcc-boxes.svg", "pcc-boxes.png", "pcc-acg-dots.svg", "mse-dots.png")
    } <= figures
    assert all(path.stat().st_size > 0 for path in (*files.tables, *files.figures, files.page))


def test_every_table_and_the_page_say_how_many_slices(files: ReportFiles) -> None:
    texts = [path for path in (*files.tables, files.page) if path.suffix in (".md", ".tex", ".html")]
    assert texts
    assert all("3/32 slices" in path.read_text(encoding="utf-8") for path in texts)


def test_the_csv_holds_the_full_numbers(files: ReportFiles) -> None:
    board = pd.read_csv(
        next(path for path in files.tables if path.name.endswith("loso-spot-log10-cp10k-leaderboard.csv"))
    )
    summary = pd.read_csv(files.directory.parent / "run" / "summary.csv")
    stnet = summary[summary["method"] == "stnet"].groupby("slice")["pcc_acg"].mean()
    assert board.set_index("method").loc["stnet", "pcc_acg"] == pytest.approx(stnet.mean(), abs=1e-12)
    assert board.set_index("method").loc["stnet", "pcc_acg_published"] == 0.0561


def test_the_per_gene_table_is_tidy(files: ReportFiles) -> None:
    genes = pd.read_parquet(next(path for path in files.tables if path.suffix == ".parquet"))
    columns = ["dataset", "split", "target", "slice", "entry", "method", "gene", "pcc", "n_seeds"]
    assert list(genes.columns) == columns
    assert not genes.duplicated(["entry", "slice", "gene"]).any()


def test_the_page_is_one_file_that_loads_nothing(files: ReportFiles) -> None:
    page = outline(files.page)
    assert page.open == []
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    text = files.page.read_text(encoding="utf-8")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)


def test_ids_are_unique_and_every_reference_has_its_target(files: ReportFiles) -> None:
    page = outline(files.page)
    assert len(page.ids) == len(set(page.ids))
    text = files.page.read_text(encoding="utf-8")
    wanted = {address[1:] for address in page.addresses if address.startswith("#")} | set(
        re.findall(r"url\(#([^)]+)\)", text)
    )
    assert wanted <= set(page.ids)


def test_nothing_from_data_becomes_markup(files: ReportFiles) -> None:
    assert outline(files.page).scripts == 1 + 2  # the page's own, and the genes of each section, which are data
    text = files.page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_it_shows_failures_formulas_protocol_and_how_to_make_it_again(files: ReportFiles) -> None:
    text = files.page.read_text(encoding="utf-8")
    for piece in (
        "2025-01-01 12:00:29 INFO epoch 29",
        "no replicate",
        "log10(1 + 10000 × count",
        "C2 held out; 1 of 2 training slices are of the same patient",
        "stbench run --methods all --dataset her2st",
        "2.4.0",
        "content key",
        "patient-disjoint",
        "replicates in training",
    ):
        assert piece in text


def test_protocols_are_not_ranked_together(files: ReportFiles) -> None:
    assert [name for name, _ in files.headlines] == [
        "HER2+, leave one slice out, spot-log10-cp10k",
        "HER2+, leave one patient out, spot-log10-cp10k",
    ]
    text = files.page.read_text(encoding="utf-8")
    assert text.count('class="protocol"') == 2


def test_the_same_results_give_the_same_report(tmp_path: Path) -> None:
    run = make_results(tmp_path / "run", methods=FEW[:3], slices=SLICES, n_genes=12)
    first, second = (report([run], tmp_path / name) for name in ("first", "second"))
    for one, other in zip((first.page, *first.figures), (second.page, *second.figures), strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_run_without_any_finished_trial_still_gives_a_page(tmp_path: Path) -> None:
    states = {("stnet", name, 0): ("failed", "no weights") for name in SLICES}
    files = report([make_results(tmp_path / "run", methods=(STNET,), slices=SLICES, states=states)], tmp_path / "out")
    assert files.figures == ()
    assert "No trial of a method has finished" in files.page.read_text(encoding="utf-8")


def test_file_names_keep_away_from_odd_characters(tmp_path: Path) -> None:
    run = make_results(tmp_path / "run", methods=(STNET,), slices=SLICES, n_genes=12)
    summary = pd.read_csv(run / "summary.csv")
    summary.assign(dataset="../my data/é").to_csv(run / "summary.csv", index=False)
    files = report([run], tmp_path / "out")
    assert {path.parent for path in files.figures} == {tmp_path / "out" / "figures"}
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", path.name) for path in (*files.tables, *files.figures))


def test_the_report_package_imports_without_matplotlib() -> None:
    code = "import sys, stbench.reports; assert not {'matplotlib', 'pandas', 'jinja2', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_full_size_of_the_paper_makes_a_page_under_ten_megabytes(tmp_path: Path) -> None:
    run = make_results(tmp_path / "run", methods=METHODS, n_genes=785, seeds=(0, 1, 2))
    files = report([run], tmp_path / "out")
    assert files.page.stat().st_size < 10e6


CHECKS = """
<pre id="found"></pre>
<script>
const found = {};
const board = document.querySelector("table.sortable");
const column = (table, i) => [...table.tBodies].map((body) => [...body.rows].map((row) => row.cells[i].dataset.sort));
const button = (i) => board.tHead.rows[board.tHead.rows.length - 1].cells[i].querySelector("button");
found.before = column(board, 0);
button(2).click();
found.down = column(board, 2);
found.sort = button(2).closest("th").getAttribute("aria-sort");
button(2).click();
found.up = column(board, 2);
button(0).click();
found.names = column(board, 0);
found.focusable = button(0).tabIndex;
const rows = (table) => [...table.tBodies].flatMap((body) => [...body.rows]);
const type = (input, text) => { input.value = text; input.dispatchEvent(new Event("input")); };
const genes = document.querySelector(".genes");
const names = () => rows(genes.querySelector("table")).map((row) => row.cells[0].textContent);
found.genes = names();
found.genes_best = rows(genes.querySelector("table")).map((row) => row.cells[1].textContent);
genes.querySelectorAll("thead button")[0].click();
found.genes_sorted = names();
type(genes.querySelector("input"), "gene7");
found.genes_found = names();
found.genes_count = genes.querySelector("output").textContent;
const long = [...document.querySelectorAll("details table")]
  .find((table) => table.caption.textContent.includes("trials finished"));
type(long.closest("details").querySelector("input"), "b4");
found.rows_shown = rows(long).filter((row) => !row.hidden).map((row) => row.textContent.includes("B4"));
found.rows_all = rows(long).length;
const choose = (name, value) => {
  const select = document.querySelector(`.filters select[name=${name}]`);
  select.value = value;
  select.dispatchEvent(new Event("change"));
};
const visible = () => [...document.querySelectorAll("section.protocol")].filter((s) => !s.hidden).map((s) => s.id);
found.sections = visible();
choose("split", "lopo");
found.filtered = visible();
choose("split", "");
found.unfiltered = visible();
const shown = (pack) => getComputedStyle(board.querySelector(`th[data-group="${pack}"]`)).display !== "none";
choose("pack", "strict");
found.packs = [shown("paper pack"), shown("strict pack")];
choose("pack", "");
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.getElementById("found").textContent = JSON.stringify(found);
</script>
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium is installed")


@pytest.mark.parametrize("width", [360, 1280])
def test_in_a_browser_sorting_works_without_errors_or_sideways_scrolling(
    files: ReportFiles, chromium: str, tmp_path: Path, width: int
) -> None:
    # a frame, because a window cannot be as narrow as a phone; srcdoc, because frames of files may not be looked into
    page = files.page.read_text(encoding="utf-8").replace("</body>", f"{CHECKS}</body>")
    source = json.dumps(page).replace("</", "<\\/")
    script = (
        "const frame = document.querySelector('iframe');"
        "frame.onload = () => { out.textContent = frame.contentDocument.getElementById('found').textContent; };"
        f"frame.srcdoc = {source};"
    )
    frame = tmp_path / "frame.html"
    frame.write_text(
        f"<!doctype html><meta charset=utf-8><iframe style='width:{width}px;height:900px'></iframe>"
        f"<pre id=out></pre><script>{script}</script>",
        encoding="utf-8",
    )
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    arguments += ["--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0"]
    arguments += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [chromium, *arguments, frame.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    assert "CONSOLE" not in done.stderr
    out = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert out is not None
    found = json.loads(html.unescape(out.group(1)))
    for block in found["down"]:
        known = [float(value) for value in block if value is not None]
        assert known == sorted(known, reverse=True)
        assert all(value is None for value in block[len(known) :])  # undefined stands last
    for block in found["up"]:
        known = [float(value) for value in block if value is not None]
        assert known == sorted(known)
    assert found["sort"] == "descending"
    assert [sorted(block) for block in found["before"]] == [
        sorted(block) for block in found["names"]
    ]  # controls stay apart
    assert found["names"][1] == sorted(found["names"][1])
    assert found["focusable"] == 0
    assert len(found["genes"]) == 25  # of 60; the rest on demand
    assert found["genes_sorted"] == sorted(found["genes_sorted"], key=lambda name: int(name.removeprefix("GENE")))
    assert found["genes_sorted"][:2] == ["GENE0", "GENE1"]
    assert found["genes_found"] == ["GENE7"]
    assert found["genes_count"] == "1 of 60 rows"
    assert found["rows_shown"]
    assert all(found["rows_shown"])
    assert len(found["rows_shown"]) < found["rows_all"]
    assert len(found["sections"]) == 2
    assert found["filtered"] == [name for name in found["sections"] if "lopo" in name] != []
    assert found["unfiltered"] == found["sections"]
    assert found["packs"] == [False, True]
    assert found["overflow"] <= 0
