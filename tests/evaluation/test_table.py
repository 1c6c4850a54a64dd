import io
import re

from rich.console import Console

from m2dx.components import Score
from m2dx.evaluation.runner import EncoderScore
from m2dx.evaluation.table import markdown_table, score_table

SCORES = [
    EncoderScore("m2dx", Score("drums", "accuracy", 0.5, 0.0123, (0.5,), "linear")),
    EncoderScore("m2dx", Score("chords", "mAP", 0.25, None, (0.25,), "knn")),
    EncoderScore("random [0]", Score("drums", "accuracy", 0.4567, None, (0.4567,), "linear")),
]


def test_markdown_has_encoders_by_task_and_protocol():
    assert markdown_table(SCORES) == (
        "| encoder    | drums, linear (accuracy) | chords, knn (mAP) |\n"
        "| ---------- | -----------------------: | ----------------: |\n"
        "| m2dx       |               50.0 ± 1.2 |              25.0 |\n"
        "| random [0] |                     45.7 |                 - |\n"
    )


def test_the_rich_table_marks_the_best():
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=True, color_system="standard", markup=False).print(
        score_table(SCORES, title="Run")
    )
    text = out.getvalue()
    rows = {row.split("│")[1].strip(): row.split("│")[2:4] for row in text.splitlines() if "│" in row}
    bold = re.compile(r"\s*\x1b\[1m\s*([^\s\x1b][^\x1b]*)\x1b\[0m\s*")  # all that can be seen of a cell
    assert [bold.fullmatch(cell)[1].strip() for cell in rows["m2dx"]] == ["50.0 ± 1.2", "25.0"]
    assert [cell.strip() for cell in rows["random [0]"]] == ["45.7", "-"]  # no escape: not bold
    assert "random [0]" in text and "Run" in text
    assert all(word in text for word in ("drums", "linear", "accuracy", "chords", "knn", "mAP"))
