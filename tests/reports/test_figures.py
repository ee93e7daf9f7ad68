"""Figures hold every slice and method once, cut nothing, and are the same file every time."""

import io

import numpy as np
import pytest
from drawn import crosses_of, marks_of
from matplotlib.figure import Figure
from PIL import Image
from synthetic import ALEX10X, CONTROLS, CSCC, DATASETS, HER2ST, METHODS, STNET

from stbench import registry
from stbench.reports.figures import canvas
from stbench.reports.figures import slices as slice_figures
from stbench.reports.figures.slices import PANEL_HEIGHT
from stbench.reports.figures.style import GREYS, LINE, PUBLISHED, WIDTH, marks

SIX = ["B4", "C2", "C3", "C4", "C5", "C6"]
ALL = (*METHODS, *CONTROLS)
LAYOUTS = [
    ("her2st", HER2ST, ALL),
    ("her2st", HER2ST, METHODS),
    ("her2st", SIX, (STNET, *CONTROLS)),
    ("her2st", SIX[:2], (STNET,)),
    ("cscc", CSCC, METHODS),
    ("cscc", CSCC, ALL[3:10]),
    ("alex10x", ALEX10X, ALL),
    ("alex10x", ALEX10X, (STNET,)),
]


def slices_drawn(figure: Figure) -> list[str]:
    return [label.get_text() for axes in figure.axes for label in axes.get_xticklabels()]


def legend_height(figure: Figure) -> float:
    """In inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    return float(legend.get_window_extent().height / figure.dpi)


def texts_outside(figure: Figure) -> list[str]:
    """Every text of the figure that is not wholly inside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    ticks = [label for axes in figure.axes for label in axes.get_yticklabels()]  # may lie beyond the limits, undrawn
    outside = []
    for text in figure.findobj(Text):
        box = text.get_window_extent()
        if text.get_visible() and text.get_text() and text not in ticks:
            inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
            outside += [] if inside else [text.get_text()]
    return outside


@pytest.mark.parametrize(("dataset", "slices", "methods"), LAYOUTS)
def test_all_slices_stand_in_both_forms_in_fold_order_and_nothing_is_cut(load_fake, dataset, slices, methods) -> None:
    section = load_fake(dataset=dataset, slices=slices, methods=methods, n_genes=12)
    with canvas.drawing():
        for figure in (slice_figures.boxes(section), slice_figures.dots(section)):
            assert slices_drawn(figure) == list(slices)
            assert [text.get_text() for text in figure.legends[0].get_texts()] != []
            assert texts_outside(figure) == []
            assert figure.get_figwidth() == WIDTH
            assert legend_height(figure) < PANEL_HEIGHT  # takes no more room than the data
            assert f"{len(slices)}/{len(DATASETS[dataset][1])} slices" in figure.texts[0].get_text()


def test_there_is_a_box_a_method_and_slice_and_a_cross_where_there_is_none(load_fake) -> None:
    section = load_fake(methods=(STNET, CONTROLS[0]), states={("stnet", "C2", 0): ("failed", "x")})
    with canvas.drawing():
        figure = slice_figures.boxes(section)
    boxes = sum(len(group.boxes) for axes in figure.axes for group in axes.containers)
    means = sum(len(marks_of(axes)) for axes in figure.axes)
    # stnet on two slices; its failed trial, and the training mean, which has no r anywhere
    assert (boxes, means, sum(map(crosses_of, figure.axes))) == (2, 2, 1 + 3)
    assert any(text.get_text().startswith("no value") for text in figure.legends[0].get_texts())


def test_the_mark_of_a_box_is_the_dot_of_the_other_form_and_the_number_of_the_table(load_fake) -> None:
    section = load_fake(methods=(STNET,), seeds=(0, 1))
    heights = []
    with canvas.drawing():
        for figure in (slice_figures.boxes(section), slice_figures.dots(section)):
            heights.append(sorted(y for axes in figure.axes for _, y in marks_of(axes)))
    table = section.rows.groupby("slice")["pcc_acg"].mean()
    np.testing.assert_allclose(heights[0], sorted(table))
    np.testing.assert_allclose(heights[1], sorted(table))


def test_patients_are_set_apart_where_they_have_slices_to_compare() -> None:
    her2st = slice_figures.panels(HER2ST, DATASETS["her2st"][2])
    assert [panel.title for panel in her2st] == [f"patient {letter}" for letter in "ABCDEFG"]
    assert [len(panel.slices) for panel in her2st] == [5, 6, 6, 6, 3, 3, 3]
    assert [panel.title for panel in slice_figures.panels(ALEX10X, DATASETS["alex10x"][2])] == [""]
    assert [panel.title for panel in slice_figures.panels(["C2", "C3"], {"C2": "C", "C3": "C"})] == [""]


@pytest.mark.parametrize("capacity", [1, 2, 5, 12, 40])
def test_rows_hold_every_slice_once_in_order_and_never_too_many(capacity: int) -> None:
    rows = slice_figures.arrange(slice_figures.panels(HER2ST, DATASETS["her2st"][2]), capacity)
    assert [name for row in rows for panel in row for name in panel.slices] == HER2ST
    assert all(0 < sum(len(panel.slices) for panel in row) <= capacity for row in rows)


def test_the_same_figure_is_the_same_file_without_a_date_or_text_elements(load_fake) -> None:
    section = load_fake()
    with canvas.drawing():
        first, second = (canvas.rendered(slice_figures.boxes(section), ["svg"])["svg"] for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first
    assert b"<text" not in first  # letters are outlines
    assert b"http" not in first.replace(b"http://www.w3.org", b"").replace(b"http://purl.org", b"").replace(
        b"http://creativecommons.org", b""
    )


def test_published_methods_keep_their_colour_and_controls_are_grey() -> None:
    pairs = [("mine", "method"), ("bleep", "method"), ("stnet", "method"), ("training_mean", "control")]
    mine, bleep, stnet, mean = marks(pairs)
    assert (bleep.colour, stnet.colour) == (PUBLISHED["bleep"], PUBLISHED["stnet"])
    assert marks(pairs[2:3])[0] == stnet
    assert mine.colour not in PUBLISHED.values()
    assert mean.colour in GREYS


def test_no_two_of_all_registered_methods_and_controls_look_alike() -> None:
    pairs = [(name, registry.method(name).kind) for name in registry.expand_methods("all")]
    assert len({(mark.colour, mark.marker) for mark in marks(pairs)}) == len(pairs) >= 14
    twice = marks(
        [("stnet", "method"), ("stnet", "method"), ("mine", "method"), ("mine", "method"), ("other", "method")]
    )
    assert len({(mark.colour, mark.marker) for mark in twice}) == 5


def legend_at_the_bottom() -> Figure:
    figure = Figure(figsize=(4, 3), layout="constrained")
    figure.add_subplot().plot([0, 1], label="a line")
    figure.legend(loc="outside lower left")
    return figure


@pytest.mark.parametrize("bottom", [False, True])
def test_the_foot_of_a_figure_stands_below_it_and_leaves_it_as_it_was(load_fake, bottom: bool) -> None:
    with canvas.drawing():
        figure = legend_at_the_bottom() if bottom else slice_figures.dots(load_fake())
        before = len(figure.texts)
        bare, footed = (
            np.asarray(Image.open(io.BytesIO(canvas.rendered(figure, ["png"], foot)["png"])).convert("L"))
            for foot in ("", "HER2+, leave one slice out")
        )
    n_rows = len(footed) - len(bare)
    assert n_rows == pytest.approx((0.08 + LINE) * 200, abs=1)  # inches at 200 dpi
    assert footed.shape[1] == bare.shape[1]
    np.testing.assert_array_equal(footed[: len(bare)], bare)
    assert footed[len(bare) :].min() < 200
    assert len(figure.texts) == before
