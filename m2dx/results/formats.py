"""Writers of a table of scores: terminal, Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from m2dx.results.table import Cell, ResultTable

NONE = "-"
WIDEST_LABEL = 36
"""Characters of the first column on a terminal; longer labels go over several lines."""

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after a line break it would begin an argument
    "]": "{]}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "*": r"$*$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "∪": r"$\cup$",
    "λ": r"$\lambda$",
    "η": r"$\eta$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "…": r"\ldots{}",
}


def markdown(table: ResultTable) -> str:
    """A title, a pipe table with a line per group, and what the marks mean."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def number(cell: Cell | None) -> str:
        return f"**{_marked(cell)}**" if cell is not None and cell.is_best else _marked(cell)

    lines = [f"**{_markdown_text(table.title)}**", ""] if table.title else []
    lines.append(line([_markdown_text(text) for text in _headings(table)]))
    lines.append(line([*["---"] * (1 + len(table.info)), *["---:"] * len(table.columns)]))
    for group in table.groups:
        if group.name:
            lines.append(line([f"**{_markdown_text(group.name)}**", *[""] * (table.width - 1)]))
        for row in group.rows:
            texts = (row.label, *(text or NONE for text in row.info))
            lines.append(line([*map(_markdown_text, texts), *map(number, row.cells)]))
    lines += [""] if table.marks or table.notes else []
    lines += [f"- {mark}: {_markdown_text(text)}" for mark, text in table.marks.items()]
    lines += [f"- {_markdown_text(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def latex(table: ResultTable) -> str:
    """A `table` environment with booktabs' rules, and what the marks mean below it."""
    lines = [
        "% needs \\usepackage{booktabs}, and UTF-8",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.title)}}}",
        f"\\begin{{tabular}}{{{'l' * (1 + len(table.info))}{'r' * len(table.columns)}}}",
        "\\toprule",
        f"{' & '.join(map(latex_text, _headings(table)))} \\\\",
    ]
    for group in table.groups:
        lines.append("\\midrule")
        if group.name:
            heading = latex_text(group.name)
            lines.append(f"\\multicolumn{{{table.width}}}{{l}}{{\\textit{{{heading}}}}} \\\\")
        for row in group.rows:
            texts = [latex_text(text) for text in (row.label, *(text or NONE for text in row.info))]
            lines.append(f"{' & '.join([*texts, *map(_latex_cell, row.cells)])} \\\\")
    lines += ["\\bottomrule", "\\end{tabular}", "", "\\medskip\\footnotesize"]
    lines += [f"$^{{\\mathrm{{{mark}}}}}$ {latex_text(text)}\\\\" for mark, text in table.marks.items()]
    lines += [f"{latex_text(note)}\\\\" for note in table.notes]
    lines.append("\\end{table}")
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """Text with what has a meaning in LaTeX escaped, and the signs of the tables as commands."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def comma_separated(table: ResultTable) -> str:
    """CSV with a line per score: group, row, what is known of it, column, mean and interval in percent, what marks it.

    Means and intervals have ten digits; an interval that is not known is empty. Notes are not part of it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", table.heading, *table.info, "column", "mean", "ci95", "marks"])
    for group in table.groups:
        for row in group.rows:
            for column, cell in zip(table.column_titles, row.cells, strict=True):
                if cell is None:
                    continue
                ci95 = "" if cell.ci95 is None else f"{cell.ci95:.10g}"
                why = "; ".join(table.marks[mark] for mark in cell.marks)
                writer.writerow([group.name, row.label, *row.info, column, f"{cell.mean:.10g}", ci95, why])
    return out.getvalue()


def terminal(table: ResultTable) -> Iterator[Table | Text]:
    """The table and its notes, for a rich console."""
    shown = Table(title=Text(table.title) if table.title else None)
    shown.add_column(Text(table.heading), overflow="fold", max_width=WIDEST_LABEL)
    for text in table.info:
        shown.add_column(Text(text), overflow="fold")
    for text in table.column_titles:
        shown.add_column(Text(text), justify="right")
    for group in table.groups:
        shown.add_section()
        if group.name:
            shown.add_row(Text(group.name, style="italic"))
        for row in group.rows:
            texts = (row.label, *(text or NONE for text in row.info))
            cells = [
                Text(_marked(cell), style="bold" if cell is not None and cell.is_best else "")
                for cell in row.cells
            ]
            shown.add_row(*map(Text, texts), *cells)
    yield shown
    for mark, meaning in table.marks.items():
        yield Text(f"{mark}: {meaning}")
    for note in table.notes:
        yield Text(note, style="dim")


def html_table(table: ResultTable) -> str:
    """A `table` element of the class "scores", without title, marks and notes; every text is escaped."""
    rows = 'rowspan="2" ' if table.spans else ""
    corner = [
        f'<th {rows}scope="col" class="corner">{_html(text)}</th>' for text in (table.heading, *table.info)
    ]
    spans = [
        f'<th class="task" scope="colgroup" colspan="{count}">{_html(text)}</th>'
        for text, count in table.spans
    ]
    names = [f'<th scope="col">{_html(text)}</th>' for text in table.columns]
    head = [[*corner, *spans], names] if spans else [[*corner, *names]]
    body = []
    for group in table.groups:
        if group.name:
            body.append([f'<th scope="rowgroup" colspan="{table.width}">{_html(group.name)}</th>'])
        for row in group.rows:
            texts = [f"<td>{_html(text or NONE)}</td>" for text in row.info]
            cells = [f"<td>{_html_cell(cell)}</td>" for cell in row.cells]
            body.append([f'<th scope="row">{_html(row.label)}</th>', *texts, *cells])
    parts = (
        f"<{part}>\n{_html_rows(rows)}\n</{part}>\n" for part, rows in (("thead", head), ("tbody", body))
    )
    return f'<table class="scores">\n{"".join(parts)}</table>'


WRITERS = {"markdown": markdown, "latex": latex, "csv": comma_separated}
"""What writes a table to a file, by the name of the format."""
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv"}


def _headings(table: ResultTable) -> tuple[str, ...]:
    return (table.heading, *table.info, *table.column_titles)


def _marked(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    return cell.text + (f" [{','.join(cell.marks)}]" if cell.marks else "")


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\|*_<])", r"\\\1", text)


def _latex_cell(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    number = cell.text.replace("±", "\\pm")
    number = f"\\mathbf{{{number}}}" if cell.is_best else number
    marks = f"^{{\\mathrm{{{','.join(cell.marks)}}}}}" if cell.marks else ""
    return f"${number}{marks}$"


def _html_cell(cell: Cell | None) -> str:
    if cell is None:
        return "not measured"
    marks = f"<sup>{html.escape(','.join(cell.marks))}</sup>" if cell.marks else ""
    return (f'<strong class="best">{cell.text}</strong>' if cell.is_best else cell.text) + marks


def _html_rows(rows: list[list[str]]) -> str:
    return "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)


def _html(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
