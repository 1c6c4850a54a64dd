import io

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
    Console(file=out, width=100, force_terminal=True, color_system="standard").print(
        score_table(SCORES, title="Run")
    )
    text = out.getvalue()
    assert "\x1b[1m50.0 ± 1.2" in text and "\x1b[1m25.0" in text
    assert "45.7" in text and "\x1b[1m45.7" not in text
    assert "random [0]" in text and "Run" in text
    assert all(word in text for word in ("drums", "linear", "accuracy", "chords", "knn", "mAP"))
