import io
import re
from dataclasses import replace

from rich.console import Console

from m2dx.contract.components import Score
from m2dx.results.formats import html_table, markdown, terminal
from m2dx.results.table import score_table

SCORES = [
    Score("drums", "accuracy", 0.5, 0.0123, (0.5,), "linear", encoder="m2dx"),
    Score("chords", "mAP", 0.25, None, (0.25,), "knn", encoder="m2dx"),
    Score("drums", "accuracy", 0.4567, None, (0.4567,), "linear", encoder="random [0]"),
]


def shown(scores: list[Score], *, width: int, **style: object) -> str:
    out = io.StringIO()
    Console(file=out, width=width, markup=False, **style).print(
        *terminal(replace(score_table(scores), title="Run"), width)
    )
    return out.getvalue()


def test_markdown_has_tasks_and_protocols_by_encoder():
    assert markdown(score_table(SCORES)) == (
        "| task | protocol | m2dx | random [0] |\n"
        "| --- | --- | ---: | ---: |\n"
        "| drums | linear (accuracy) | **50.0 ± 1.2** | 45.7 |\n"
        "| chords | knn (mAP) | **25.0** | - |\n"
    )


def test_html_escapes_what_it_is_given_and_says_what_is_not_measured():
    text = html_table(score_table([*SCORES, Score("<b>", "mAP", 0.5, None, (0.5,), "knn", encoder="m2dx")]))
    assert '<th scope="row">&lt;b&gt;</th>' in text and "<td>not measured</td>" in text
    assert '<td><strong class="best">50.0 ±\N{NO-BREAK SPACE}1.2</strong></td><td>45.7</td>' in text


def test_the_rich_table_marks_the_best_of_each_row():
    text = shown(SCORES, width=100, force_terminal=True, color_system="standard")
    rows = {row.split("│")[1].strip(): row.split("│")[2:] for row in text.splitlines() if "│" in row}
    bold = re.compile(r"\s*\x1b\[1m\s*([^\s\x1b][^\x1b]*)\x1b\[0m\s*")  # all that can be seen of a cell
    protocol, best, other, _ = rows["drums"]
    assert protocol.strip() == "linear (accuracy)" and bold.fullmatch(best)[1].strip() == "50.0 ± 1.2"
    assert other.strip() == "45.7"  # no escape: not bold
    assert bold.fullmatch(rows["chords"][1])[1].strip() == "25.0" and rows["chords"][2].strip() == "-"
    assert "random [0]" in text and "Run" in text


def test_many_tasks_fit_on_a_narrow_terminal():
    names = ["pretrained", "random_weights", "mean_logmel"]
    scores = [
        Score(f"task{number}", "accuracy", number / 10, 0.012, (0.1,), protocol, encoder=name)
        for name in names
        for number in range(8)
        for protocol in ("knn", "linear")
    ]
    text = shown(scores, width=80)
    assert "…" not in text and all(name in text for name in names)
    assert all(text.count(f"{10 * number:.1f} ± 1.2") == 6 for number in range(1, 8))
