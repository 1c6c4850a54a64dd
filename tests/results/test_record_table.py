"""Tables of records, marks, and the writers of tables."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from result_records import AS_PUBLISHED, ESC50, LUNGS

from m2dx.results.formats import latex, latex_text, markdown
from m2dx.results.records import ScoredEncoder
from m2dx.results.table import Cell, Group, Marks, ResultTable, Row, record_table


def test_the_newest_record_of_a_score_is_shown_or_all() -> None:
    new = replace(ESC50, date=ESC50.date + timedelta(days=1), mean=0.7)
    another_protocol = replace(ESC50, protocol=replace(AS_PUBLISHED, name="mine"), mean=0.6)
    records = [new, ESC50, another_protocol]
    shown = [record_table(records, every=every) for every in (False, True)]
    assert [len(table.groups[0].rows) for table in shown] == [2, 3]
    assert [any("1 older record" in note for note in table.notes) for table in shown] == [True, False]
    other_clips = replace(new, clips=1600)  # another list of that name
    assert len(record_table([*records, other_clips]).groups[0].rows) == 3
    again = replace(ESC50, mean=0.5)  # with the same date, the later line is the newer one
    (row,) = record_table([ESC50, again]).groups[0].rows
    assert row.cells[0] is not None and row.cells[0].mean == 50.0


def test_encoders_of_one_name_are_told_apart_by_their_weights() -> None:
    retrained = replace(ESC50, encoder=replace(LUNGS, sha256="cd" * 32))
    (group,) = record_table([ESC50, retrained]).groups
    assert [row.label for row in group.rows] == ["lungs (abababab)", "lungs (cdcdcdcd)"]


def test_marks_are_letters_each_for_one_explanation() -> None:
    marks = Marks()
    assert marks.of("x", "y", "x") == ("a", "b")
    assert [marks.of(str(number)) for number in range(25)][-2:] == [("z",), ("aa",)]
    assert marks.of("24", "x") == ("a", "aa")
    assert marks.meanings()["b"] == "y"


def all_tables() -> list[Any]:
    few = replace(ESC50, seeds=(0,), encoder=ScoredEncoder("a_b & 50%", "12"), warnings=("x_1",))
    spans = ResultTable(
        "Of & 2",
        "encoder",
        (),
        ("knn\nmAP", "linear\nmAP", "knn\naccuracy"),
        (Group("first #1", (Row("a", (), (Cell(1.5, None), None, Cell(2.0, 0.25, is_best=True))),)),),
        spans=(("drums", 2), ("notes", 1)),
    )
    tables = [record_table([ESC50, few]), spans]
    return [pytest.param(table, id=table.title) for table in tables]


@pytest.mark.parametrize("table", all_tables())
def test_every_format_has_all_of_a_table(table: ResultTable, check_written: Any) -> None:
    check_written(table)


def test_formats_by_hand() -> None:
    few = replace(ESC50, seeds=(0,), encoder=ScoredEncoder("a_b|c", "12"), warnings=("5 * 3",))
    table = record_table([few])
    assert markdown(table) == (
        "**1 score**\n\n"
        "| encoder | task | protocol | metric | seeds | clips | classes | date (UTC) | score |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | ---: |\n"
        "| a\\_b\\|c | esc50 | linear | accuracy | 1 | 2,000 | 50 | 2026-11-22 12:00 | 90.0 ± 1.2 [a] |\n\n"
        "- a: 5 \\* 3\n"
        "- In percent; ± is half of the 95 % confidence interval (of m2dx: Student's t over its values, of a "
        "single one the bootstrap over its test clips).\n"
    )
    assert "a\\_b\\textbar{}c & esc50 & " in latex(table) and "$90.0 \\pm 1.2^{\\mathrm{a}}$ \\\\" in latex(
        table
    )
    assert latex_text("50 % of {A&B} #1 ~ $x_2^3 \\ [1] → †") == (
        "50 \\% of \\{A\\&B\\} \\#1 \\textasciitilde{} \\$x\\_2\\textasciicircum{}3 \\textbackslash{} {[}1{]} "
        "$\\rightarrow$ $\\dagger$"
    )
