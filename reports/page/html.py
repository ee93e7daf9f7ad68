"""One self-contained HTML page from the report's parts: no network, no file beside it, everything from data escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from stbench import __version__

from ..figures.style import PAGE_VARIABLES
from ..parts.part import Part, Picture
from ..sections.section import Section
from ..tables.table import Table
from ..words.protocol import caption, split_title

PACKS = (
    (
        "paper pack",
        "As the published evaluation computes them. r of a gene: Pearson correlation of prediction and truth across "
        "the spots of the test slice. PCC (ACG): mean of r over all considered genes, those with a constant truth or "
        "prediction left out. PCC (HEG): mean of r over the 50 genes of highest mean truth in the test slice; "
        "undefined when one of them is.",
    ),
    (
        "strict pack",
        "As ACG and HEG, but a constant prediction of a varying gene counts as r = 0, a gene that is constant in truth "
        "is excluded and counted, and the 50 highly expressed genes are chosen on the training slices.",
    ),
    (
        "MSE, MAE",
        "Mean squared and mean absolute difference over all spots and genes of the test slice, on the target's scale; "
        "lower is better. Comparable only within one target.",
    ),
)


@dataclass(frozen=True)
class SectionPage:
    """What the page shows of one section."""

    section: Section
    name: str  # of its files, and its anchor
    headline: Sequence[str]
    badges: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    leaderboard: Table
    per_slice: Sequence[Table]
    protocol: Table
    slides: Table
    trials: Table
    unfinished: Sequence[Any]
    pictures: Sequence[Picture]
    parts: Sequence[Part] = ()
    genes: Mapping[str, Any] | None = None  # :func:`gene_view.gene_view`

    @property
    def title(self) -> str:
        return f"{self.section.title}, {split_title(self.section.split)}, {self.section.target}"

    def log(self, key: str) -> str:
        return self.section.logs.get(key, "")

    def caption(self, what: str) -> str:
        return caption(self.section, what)


def render(sections: Sequence[SectionPage]) -> str:
    """The page as text. The same input gives the same page: it holds no date but those of the runs."""
    datasets = list(dict.fromkeys(page.section.title for page in sections))
    runs = list({run.directory: run for page in sections for run in page.section.runs}.values())
    return (
        environment()
        .get_template("report.html")
        .render(
            title=f"stbench: {', '.join(datasets)}",
            runs_heading="Make it again",
            sections=sections,
            choices=[
                (name, list(dict.fromkeys(getattr(page.section, name) for page in sections)))
                for name in ("dataset", "split", "target")
            ],
            runs=runs,
            packs=PACKS,
            **shared(),
        )
    )


def shared() -> dict[str, str]:
    """What every page holds: version, script and style sheet."""
    return {
        "version": __version__,
        "script": Markup(_source("report.js")),
        "style": Markup(_source("report.css")),
    }


def environment() -> Environment:
    """Where templates come from; all that they are given is escaped."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["inline"] = inline
    return templates


def inline(picture: Picture, prefix: str) -> Markup:
    """A figure to stand inside HTML: its SVG, or, for pictures of tissue, its image as a data URI."""
    if "svg" in picture.forms:
        return inline_svg(picture, prefix)
    import base64

    tag = escape(f"{prefix}-{picture.name}-caption")
    data = base64.b64encode(picture.forms["webp"]).decode()
    return Markup('<img src="data:image/webp;base64,{}" alt="" aria-labelledby="{}" loading="lazy">').format(data, tag)


def inline_svg(picture: Picture, prefix: str) -> Markup:
    """A figure's SVG to stand inside HTML: ids made unique by ``prefix``, ink and paper taken from the page's colours.

    The SVG comes from matplotlib, which writes text from data as outlines and escapes it in comments.
    """
    text = picture.forms["svg"].decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    tag = f"{prefix}-{picture.name}-"
    text = re.sub(r'\bid="', f'id="{tag}', text)
    text = re.sub(r'href="#', f'href="#{tag}', text)
    text = text.replace("url(#", f"url(#{tag}")
    for colour, variable in PAGE_VARIABLES.items():
        text = re.sub(rf"((?:fill|stroke): ?){colour}", rf"\1{variable}", text)
    # sized by the style sheet
    opening = text[: text.index(">")]
    sized = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", opening)
    sized += f' role="img" aria-labelledby="{tag}caption"'
    return Markup(sized + text[len(opening) :])


def _source(name: str) -> str:
    return Path(__file__).with_name("templates").joinpath(name).read_text(encoding="utf-8")
