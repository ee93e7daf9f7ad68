"""Names that mean something to pandas, Markdown, LaTeX, HTML or matplotlib mean themselves in a report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import synthetic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from synthetic import STNET, Fake, make_results

from stbench.reports.figures import canvas
from stbench.reports.numbers.means import slice_scores
from stbench.reports.page.genes import gene_view
from stbench.reports.page.html import environment
from stbench.reports.page.report import write_report
from stbench.reports.sections.read import load
from stbench.reports.tables.latex import latex, latex_escape
from stbench.reports.tables.markdown import markdown
from stbench.reports.tables.table import Cell, Table
from stbench.system.tables import read_text

AWKWARD = ["NA", "None", "nan", "null", "True", "1", "01", "1e3", "-", "$x_1$", "[b]", "<b>", 'a "q", b', "^~\\|%&#{}"]
letters = st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="/\0")
names = st.sampled_from(AWKWARD) | st.text(letters, min_size=1, max_size=8).filter(lambda text: text.strip() == text)


@pytest.fixture
def one_dataset(monkeypatch: pytest.MonkeyPatch):
    def under(slices: list[str], patients: list[str], title: str = "Odd") -> None:
        about = (title, slices, dict(zip(slices, patients, strict=True)))
        monkeypatch.setitem(synthetic.DATASETS, "odd", about)

    return under


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_names_survive_from_the_trials_to_the_report(data: st.DataObject, tmp_path_factory, one_dataset) -> None:
    slices = data.draw(st.lists(names, min_size=2, max_size=4, unique=True))
    patients = data.draw(st.lists(names, min_size=len(slices), max_size=len(slices)))
    methods = data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    variant = data.draw(names)
    one_dataset(slices, patients)
    fakes = [Fake(name, name, 0.1 + 0.1 * place, changes={"setting": variant}) for place, name in enumerate(methods)]
    place = tmp_path_factory.mktemp("names")
    keys = {(fake.name, name): f"k{i}-{j}" for i, fake in enumerate(fakes) for j, name in enumerate(slices)}
    results = _made(place, fakes, keys)
    (section,) = load([results])
    assert section.slices == tuple(slices)
    assert dict(section.patients) == dict(zip(slices, patients, strict=True))
    assert list(section.entries["method"]) == methods
    assert set(section.entries["variant"]) == {f"setting={variant}"}
    rows = read_text(results / "summary.csv")
    expected = {(row.method, row.slice): float(row.pcc_acg) for row in rows.itertuples()}
    found = {(row.method, row.slice): row.pcc_acg for row in section.rows.itertuples()}
    assert found == expected
    scores = slice_scores(section.rows)
    assert sorted(scores["slice"].unique()) == sorted(slices)
    assert set(section.genes["slice"]) == set(slices)


def _made(place: Path, fakes: list[Fake], keys: dict[tuple[str, str], str]) -> Path:
    """As the trials write it, but for keys, which the made-up results form from names and real ones by a digest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "trial_key", lambda method, name, *_: keys[method, name])
        return make_results(place / "run", fakes, "odd", n_genes=3)


def test_a_report_of_awkward_names_is_written_and_holds_them(tmp_path: Path, one_dataset) -> None:
    title = "Liver [ffpe] $x_1$ <b>|&%# {a}^~\\ `c` 肝"
    one_dataset(AWKWARD, AWKWARD, title)
    keys = {("stnet", name): f"k{place}" for place, name in enumerate(AWKWARD)}
    results = _made(tmp_path, [STNET], keys)
    written = write_report([results], tmp_path / "out")
    page = written.page.read_text(encoding="utf-8")
    assert "Liver [ffpe] $x_1$ &lt;b&gt;|&amp;%# {a}^~\\ `c` 肝" in page
    assert "<b>|" not in page
    (slices,) = [path for path in written.tables if path.name == "odd-loso-spot-log10-cp10k-slices.csv"]
    assert sorted(read_text(slices)["slice"]) == sorted(AWKWARD)
    assert len([path for path in written.figures if path.suffix == ".png"]) >= 3
    view = json.loads(json.dumps(gene_view(load([results])[0])))
    assert sorted(view["genes"]) == ["GENE0", "GENE1", "GENE2"]


TABLE = Table(
    "t",
    caption="# $x_1$ *a* ~b~ &amp; [l](u) <i>",
    columns=("name", "PCC"),
    blocks=(tuple((Cell(name), Cell("0.1", 0.1)) for name in [*AWKWARD, "~~s~~", "&lt;", "__u__", "`c`", "1. x"]),),
)


def test_markdown_shows_names_as_they_are() -> None:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown(TABLE))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    plain = [_unescaped(cell) for cell in cells[::2]]
    assert plain == [cell[0].text for cell in TABLE.blocks[0]]
    assert f"<strong>{_escaped(TABLE.caption)}</strong>" in html


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _unescaped(text: str) -> str:
    for entity, letter in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        text = text.replace(entity, letter)
    return text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("$x_1$", r"\$x\_1\$"),
        ("[ffpe]", "{[}ffpe{]}"),  # at a row's start it would be the option of the row before
        ("* a", "{*} a"),
        ("A--B", "A-{}-B"),
        ("a<b>c|d", r"a\textless{}b\textgreater{}c\textbar{}d"),
        ("`q`", r"\textasciigrave{}q\textasciigrave{}"),
        ("HLA-A/B", "HLA-A/B"),
    ],
)
def test_latex_prints_names_as_they_are(name: str, expected: str) -> None:
    assert latex_escape(name) == expected


def test_latex_says_what_compiles_letters_that_it_lacks() -> None:
    assert "% has 肝: compile with lualatex or xelatex" in latex(Table("t", "肝", ("a",), ()))
    assert "lualatex" not in latex(Table("t", "Größe ± 0.1 µm × λ²", ("a",), ()))


def test_figures_draw_dollars_and_underscores(caplog: pytest.LogCaptureFixture) -> None:
    from matplotlib.figure import Figure

    canvas._say_boxes.cache_clear()
    with canvas.drawing():
        figure = Figure()
        texts = [figure.text(0, 0, name) for name in ("$x_1$", "$\\nocommand$", "a_$b", "肝")]
        assert not any(text.get_parse_math() for text in texts)
        canvas.rendered(figure, ["png"])
    assert ["肝" in record.getMessage() for record in caplog.records] == [True]


def test_a_choice_on_the_page_has_its_value_whatever_its_text() -> None:
    source = environment().get_template("report.html").filename
    assert source is not None
    assert '<option value="{{ value }}">' in Path(source).read_text(encoding="utf-8")


def test_the_made_up_names_are_distinct_strings() -> None:
    assert pd.Index(AWKWARD).is_unique
