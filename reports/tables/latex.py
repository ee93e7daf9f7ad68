"""Tables as LaTeX."""

from __future__ import annotations

import re

from .table import Cell, Table


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
    cells = [cell_text(cell) for block in table.blocks for row in block for cell in row]
    text = "".join([table.caption, *table.columns, *(group for group, _ in table.groups), *table.notes, *cells])
    beyond = sorted({c for c in latex_escape(text) if ord(c) > 0x17F})
    return [f"% has {' '.join(beyond)}: compile with lualatex or xelatex, and a font that has them"] if beyond else []


def _latex_cell(cell: Cell) -> str:
    text = latex_escape(cell_text(cell))
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


def cell_text(cell: Cell) -> str:
    tags = f" ({', '.join(cell.tags)})" if cell.tags else ""
    minor = f" ({cell.minor})" if cell.minor else ""
    return f"{cell.text}{tags}{minor}"


def joined_head(group: str, column: str) -> str:
    return f"{group}: {column}" if group else column
