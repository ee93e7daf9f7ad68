"""Tables as text: one layout of cells, rules and notes, written as Markdown, LaTeX and, by the page, HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from stbench.numerals import bounded


@dataclass(frozen=True)
class Cell:
    """``text`` as printed; ``value`` to sort by (None: last); ``tags`` stand beside it; ``minor`` is a second line."""

    text: str
    value: float | str | None = None
    strong: bool = False
    tags: tuple[str, ...] = ()
    minor: str = ""


@dataclass(frozen=True)
class Table:
    """``groups``: header groups as (text, number of columns), or none. ``blocks``: rows, a rule between blocks."""

    name: str
    caption: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[tuple[Cell, ...], ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    text_columns: frozenset[int] = field(default_factory=lambda: frozenset({0}))

    @property
    def group_of(self) -> tuple[str, ...]:
        """The header group of each column; empty strings where there are none."""
        return tuple(text for text, n in self.groups for _ in range(n)) or ("",) * len(self.columns)

    @property
    def n_rows(self) -> int:
        return sum(map(len, self.blocks))


def number(value: float, digits: int = 4) -> str:
    """``0.1234``, with a true minus sign; an undefined value is a dash, and a huge one is ``2.7e+18``."""
    return "–" if value != value else bounded(value, digits).replace("-", "−")


def plus_minus(mean: float, spread: float, digits: int = 4) -> str:
    """``0.1234 ± 0.012`` as the paper prints it: the spread with one digit less; left out where there is none."""
    return number(mean, digits) if spread != spread else f"{number(mean, digits)} ± {number(spread, digits - 1)}"


def markdown(table: Table) -> str:
    """A pipe table with its caption above and its notes below. Header groups become prefixes of their columns."""
    headers = [_joined(group, column) for group, column in zip(table.group_of, table.columns, strict=True)]
    align = ["---" if i in table.text_columns else "---:" for i in range(len(headers))]
    lines = [f"**{_markdown_escape(table.caption)}**", "", _pipes(map(_markdown_escape, headers)), _pipes(align)]
    for place, block in enumerate(table.blocks):
        if place and block:
            lines.append(_pipes("" for _ in headers))
        lines += [_pipes(map(_markdown_cell, row)) for row in block]
    lines += ["", *(f"- {_markdown_escape(note)}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown_escape(_with_extras(cell))
    return f"**{text}**" if cell.strong and text else text


def _markdown_escape(text: str) -> str:
    """``text`` as it is, where Markdown would have marks, HTML, an entity, a formula (``$``) or a heading."""
    return re.sub(r"([\\`*_|<>\[\]~$&]|^[#+]|^-(?= )|(?<=^\d)[.)](?= ))", r"\\\1", " ".join(text.split()))


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def latex(table: Table) -> str:
    """A ``table`` environment with booktabs rules; needs ``\\usepackage{booktabs,graphicx}``."""
    align = "".join("l" if i in table.text_columns else "r" for i in range(len(table.columns)))
    lines = [
        "% needs \\usepackage{booktabs,graphicx}; for quotation marks in names also \\usepackage[T1]{fontenc}",
        *_engine(table),
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_escape(table.caption)}}}",
        "\\resizebox{\\textwidth}{!}{%",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
    ]
    if table.groups:
        spans = [f"\\multicolumn{{{n}}}{{c}}{{{latex_escape(text)}}}" for text, n in table.groups]
        lines.append(" & ".join(spans) + " \\\\")
        at, rules = 1, []
        for text, n in table.groups:
            if text:
                rules.append(f"\\cmidrule(lr){{{at}-{at + n - 1}}}")
            at += n
        lines.append(" ".join(rules))
    lines += [" & ".join(map(latex_escape, table.columns)) + " \\\\", "\\midrule"]
    filled = [block for block in table.blocks if block]
    for place, block in enumerate(filled):
        lines += ["\\midrule"] if place else []
        lines += [" & ".join(map(_latex_cell, row)) + " \\\\" for row in block]
    lines += ["\\bottomrule", "\\end{tabular}}"]
    lines += [f"\\par\\smallskip\\footnotesize {latex_escape(note)}" for note in table.notes]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _engine(table: Table) -> list[str]:
    """What to compile with, where a name has letters that pdflatex does not know by itself."""
    cells = [_with_extras(cell) for block in table.blocks for row in block for cell in row]
    text = "".join([table.caption, *table.columns, *(group for group, _ in table.groups), *table.notes, *cells])
    beyond = sorted({c for c in latex_escape(text) if ord(c) > 0x17F})
    return [f"% has {' '.join(beyond)}: compile with lualatex or xelatex, and a font that has them"] if beyond else []


def _latex_cell(cell: Cell) -> str:
    text = latex_escape(_with_extras(cell))
    return f"{{\\boldmath\\bfseries {text}}}" if cell.strong and text else text


def latex_escape(text: str) -> str:
    """``text`` as it is: nothing in it is a command, a formula, an option of the command before it, or a ligature."""
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "\\textless{}",  # other signs in LaTeX's old font encoding
        ">": "\\textgreater{}",
        "|": "\\textbar{}",
        '"': "\\textquotedbl{}",
        "`": "\\textasciigrave{}",
        "[": "{[}",  # after the end of a row it would begin the row's spacing
        "]": "{]}",
        "*": "{*}",
    }
    symbols = {
        "±": "$\\pm$",
        "−": "$-$",
        "–": "--",
        "µ": "\\textmu{}",
        "×": "$\\times$",
        "·": "$\\cdot$",
        "†": "$\\dagger$",
        "≥": "$\\geq$",
        "λ": "$\\lambda$",
        "σ": "$\\sigma$",
        "²": "\\texttwosuperior{}",
        "…": "\\dots{}",
        "“": "``",
        "”": "''",
    }
    plain = re.sub(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)|(?<=[?!])(?=`)", "\0", " ".join(text.split()))
    return "".join(
        "{}" if c == "\0" else special.get(c) or symbols.get(c) or (f"\\{c}" if c in "&%$#_{}" else c) for c in plain
    )


def _with_extras(cell: Cell) -> str:
    tags = f" ({', '.join(cell.tags)})" if cell.tags else ""
    minor = f" ({cell.minor})" if cell.minor else ""
    return f"{cell.text}{tags}{minor}"


def _joined(group: str, column: str) -> str:
    return f"{group}: {column}" if group else column
