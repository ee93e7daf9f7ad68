"""The shipped panels are the published lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from stbench.datasets.panels import panel, read_panel
from stbench.errors import UserError


def test_sizes_and_overlaps_are_those_of_the_published_lists() -> None:
    her2st, cscc, alex10x = (set(panel(name)) for name in ("her2st", "cscc", "alex10x"))
    assert [len(panel(name)) for name in ("her2st", "cscc", "alex10x")] == [785, 171, 685]
    assert [len(her2st), len(cscc), len(alex10x)] == [785, 171, 685]
    assert [len(her2st & alex10x), len(her2st & cscc), len(alex10x & cscc)] == [101, 18, 16]
    assert len(her2st & cscc & alex10x) == 4


def test_a_panel_is_the_callers_to_change() -> None:
    panel("cscc").clear()
    assert len(panel("cscc")) == 171


def test_an_unknown_panel_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'her2st'"):
        panel("her2s")


@pytest.mark.parametrize(
    ("text", "said"),
    [("\n# none\n", "lists no gene"), ("A\nB\nA\n", "names A twice"), ("A\tB\nC\tD\n", "not a list of genes")],
)
def test_a_file_that_is_no_panel_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "genes.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_panel(path)
