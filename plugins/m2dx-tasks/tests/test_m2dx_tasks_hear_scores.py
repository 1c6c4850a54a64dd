"""Scores of hear-eval-kit as records: files of its form, and files that are not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from m2dx_tasks.hear_scores import SCORES_FILE, import_scores, read_scores, records_of, task_of
from m2dx_tasks.papers.comparison import paper_table
from m2dx_tasks.papers.published import load_table

import m2dx
from m2dx.results import ResultRecord, ScoredEncoder, fingerprint, read_records

LUNGS = ScoredEncoder("lungs", "ab" * 32, "runs/lungs/encoder", 85_000_000)


def part(**metrics: Any) -> dict[str, Any]:
    """A test part as hear-eval-kit writes it, with the first metric as the score."""
    values = {f"test_{name}": value for name, value in metrics.items()}
    first = next(iter(metrics.values()))
    return {
        "test_loss": 0.4,
        "test_score": first,
        **values,
        "validation_score": 0.9,
        "epoch": 17,
        "time_in_min": 1.2,
    }


def content(task: str, parts: dict[str, Any], options: str = "") -> dict[str, Any]:
    """The content of a file: the parts, of several their aggregate, and how they came about."""
    names = [key for key in next(iter(parts.values())) if key.startswith("test")]
    means = {f"{name}_mean": sum(p[name] for p in parts.values()) / len(parts) for name in names}
    return {
        **parts,
        **({"aggregated_scores": means} if len(parts) > 1 else {}),
        "hparams": {"hidden_layers": 1, "lr": 0.001, "initialization": "<function xavier_uniform_>"},
        "postprocessing": [],
        "score_mode": "max",
        "embedding_path": f"embeddings/m2dx_tasks.hear{options}/{task}",
    }


ACCURACIES = [0.80, 0.85, 0.90, 0.85, 0.85]
TASKS = {
    "esc50-v2.0.0-full": {f"fold{n:02}": part(top1_acc=a) for n, a in enumerate(ACCURACIES)},
    "fsd50k-v1.0-full": {"test": part(mAP=0.52, d_prime=2.1)},
    "beehive_states_fold0-v2-full": {"test": part(aucroc=0.7)},
    "beehive_states_fold1-v2-full": {"test": part(aucroc=0.6)},
    "nsynth_pitch-v2.2.3-5h": {"test": part(pitch_acc=0.6, chroma_acc=0.7)},
    "nsynth_pitch-v2.2.3-50h": {"test": part(pitch_acc=0.8, chroma_acc=0.9)},
    "tfds_gtzan-1.0.0-full": {f"fold{n}": part(top1_acc=0.86) for n in range(10)},
    "vocal_imitation-v1.1.3-full": {f"fold{n}": part(mAP=0.18) for n in range(3)},
    "dcase2016_task2-hear2021-full": {"test": part(event_onset_200ms_fms=0.5, segment_1s_er=1.4)},
}


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """A folder of embeddings with the scores of several tasks."""
    folder = tmp_path / "embeddings" / "m2dx_tasks.hear"
    for task, parts in TASKS.items():
        write(folder / task, content(task, parts))
    return folder


def write(folder: Path, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value, indent=4)
    (folder / SCORES_FILE).write_text(text, encoding="utf-8")
    return folder


def by_score(records: list[ResultRecord]) -> dict[tuple[str, str], ResultRecord]:
    return {(record.task, record.metric): record for record in records}


def test_each_task_and_metric_is_a_record(embeddings: Path) -> None:
    records = by_score(records_of(read_scores(embeddings), LUNGS))
    assert {key: round(record.mean, 6) for key, record in records.items()} == {
        ("esc50", "accuracy"): 0.85,
        ("fsd50k", "mAP"): 0.52,
        ("beehive_states", "aucroc"): 0.65,
        ("nsynth_pitch_5h", "accuracy"): 0.6,
        ("nsynth_pitch_5h", "chroma_acc"): 0.7,
        ("nsynth_pitch", "accuracy"): 0.8,
        ("nsynth_pitch", "chroma_acc"): 0.9,
        ("gtzan", "accuracy"): 0.86,
        ("vocal_imitation", "mAP"): 0.18,
        ("dcase2016_task2", "event_onset_200ms_fms"): 0.5,
        ("dcase2016_task2", "segment_1s_er"): 1.4,
    }
    esc50, single = records["esc50", "accuracy"], records["fsd50k", "mAP"]
    assert esc50.values == tuple(ACCURACIES) and single.values == (0.52,)
    assert esc50.ci95 == pytest.approx(2.776445 * 0.0353553 / math.sqrt(5), rel=1e-4) and single.ci95 is None
    assert esc50.division is not None and esc50.division.folds == 5
    assert esc50.protocol.evaluator == "hear" and esc50.protocol.settings == {"statistics": "encoder"}
    assert records["beehive_states", "aucroc"].values == (0.7, 0.6)


@pytest.mark.parametrize(("key", "filled"), [("msm-mae-2", 3), ("msm-mae-3", 1), ("msm-mae-4", 2)])
@pytest.mark.parametrize(("options", "marked"), [("", True), ("-batch-statistics=true", False)])
def test_tables_2_to_4_of_msm_mae_hold_a_row(
    key: str, filled: int, options: str, marked: bool, tmp_path: Path
) -> None:
    for task, parts in TASKS.items():
        write(tmp_path / task, content(task, parts, options))
    table = paper_table(load_table(key), records_of(read_scores(tmp_path), LUNGS))
    (row,) = table.groups[-1].rows
    cells = [cell for cell in row.cells if cell is not None]
    assert row.label == "lungs, hear" and len(cells) == filled
    assert [bool(cell.marks) for cell in cells] == [marked] * filled
    assert not marked or table.marks == {"a": "statistics encoder, in the paper's code batch"}


def test_one_part_of_a_task_is_marked_as_such(tmp_path: Path) -> None:
    task = "beehive_states_fold1-v2-full"
    (record,) = records_of(read_scores(write(tmp_path / task, content(task, TASKS[task]))), LUNGS)
    assert record.task == "beehive_states" and record.warnings == ("of fold1 alone",)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("tfds_crema_d-1.0.0-full", ("crema_d", None)),
        ("speech_commands-v0.0.2-5h", ("speech_commands_5h", None)),
        ("mridangam_tonic-v1.5-full", ("mridangam_tonic", None)),
        ("vox_lingua_top10-hear2021-full", ("vox_lingua_top10", None)),
        ("beehive_states_fold0-v2-full", ("beehive_states", "fold0")),
        ("lungs", ("lungs", None)),
    ],
)
def test_names_of_tasks_are_those_of_the_folders(folder: str, expected: tuple[str, str | None]) -> None:
    assert task_of(folder) == expected


GOOD = {"test": part(top1_acc=0.5)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", r"must be JSON that hear-eval-kit wrote, but cannot be read"),
        ('{"test": ', r"must be JSON that hear-eval-kit wrote, but cannot be read"),
        ("[" * 100_000, r"must be JSON that hear-eval-kit wrote, but cannot be read"),
        ([], r"must have a section with a `test_score` for each test part.*has none"),
        ({"test_score": 0.5, "test_top1_acc": 0.5}, r"must have a section with a `test_score`"),
        ({"aggregated_scores": {"test_score_mean": 0.5}}, r"must have a section with a `test_score`"),
        ({"test": {"test_score": 0.5}}, r"must have metrics .* beside `test_score`, but has none"),
        ({"test": part(top1_acc="0.5")}, r'test\.test_top1_acc must be a number, but is "0\.5"'),
        ({"test": part(top1_acc=None)}, r"test\.test_top1_acc must be a number, but is null"),
        ({"test": part(top1_acc=True)}, r"test\.test_top1_acc must be a number, but is true"),
        ({"test": part(top1_acc=50.0)}, r"test\.test_top1_acc must be in \[0, 1\], but is 50"),
        (
            {"fold0": part(mAP=0.5), "fold1": part(top1_acc=0.5)},
            r"fold1\.test_mAP must be a number, but is null",
        ),
    ],
)
def test_other_files_are_refused_by_their_names(value: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "a-v1-full", content("a-v1-full", GOOD))
    write(tmp_path / "b-v1-full", value)
    with pytest.raises(m2dx.M2dxError, match=message) as error:
        import_scores(tmp_path, str(tmp_path / "no-encoder"), tmp_path / "runs")
    assert str(error.value).startswith(str(tmp_path / "b-v1-full" / SCORES_FILE))
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_folders_without_scores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(m2dx.M2dxError, match=r"must be a folder of embeddings that hear-eval-kit has scored"):
        read_scores(tmp_path)


@pytest.mark.parametrize(
    ("folders", "double"),
    [
        (["a-v1-full", "a-v2-full"], "a-v1-full.*a-v2-full"),
        (["a-v1-full", "a_fold0-v1-full"], "a-v1-full.*a_fold0-v1-full"),
        (["a_fold0-v1-full", "a_fold0-v2-full", "a_fold1-v2-full"], "/a_fold0-v1-full.*a_fold0-v2-full"),
        (["a_fold0-v1-full", "a_fold1-v2-full"], None),
    ],
)
def test_tasks_and_folds_in_two_versions_are_refused(
    folders: list[str], double: str | None, tmp_path: Path
) -> None:
    for task in folders:
        write(tmp_path / task, content(task, GOOD))
    if double is None:
        assert len(records_of(read_scores(tmp_path), LUNGS)) == 1
        return
    with pytest.raises(
        m2dx.M2dxError, match=rf"a task must be there once, .* but a is in .*{double}[^,]*; give"
    ):
        records_of(read_scores(tmp_path), LUNGS)


def test_metrics_that_no_table_can_hold_are_left_out(tmp_path: Path) -> None:
    scores = part(mAP=0.5, aucroc=math.nan, d_prime=2.1, segment_1s_er=1.4)
    (found,) = read_scores(write(tmp_path / "a-v1-full", {"test": scores}))
    assert found.left_out.keys() == {"aucroc", "d_prime"}
    assert found.folds == {"test": {"mAP": 0.5, "segment_1s_er": 1.4}}


def test_the_command_appends_records_of_an_encoder(
    embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2dx_tasks import hear_scores
    from m2dx_tasks.command import hear_app
    from typer.testing import CliRunner

    monkeypatch.setattr(hear_scores, "_scored_encoder", lambda path: LUNGS)
    arguments = [
        str(embeddings / "fsd50k-v1.0-full"),
        "--encoder",
        "runs/lungs",
        "-o",
        str(tmp_path / "runs"),
    ]
    result = CliRunner().invoke(hear_app, arguments)
    assert result.exit_code == 0 and "fsd50k mAP: 0.5200\n" in result.stdout
    assert "d_prime is left out, since it must be a share" in result.stdout
    (record,) = read_records([tmp_path / "runs"]).records
    assert (record.encoder, record.task, record.mean) == (LUNGS, "fsd50k", 0.52)


def test_the_encoder_is_known_by_its_run_and_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from m2dx_tasks import hear_scores

    from m2dx.encoder.audio import random_encoder
    from m2dx.recipe.schema import AudioSection, ModelSection

    audio, model = AudioSection(crop_seconds=0.64), ModelSection(size="tiny", depth=1)
    encoder = random_encoder(audio, model, mean=-7.0, std=4.0, seed=0)
    monkeypatch.setattr(m2dx, "load_encoder", lambda path: encoder)
    path = tmp_path / "lungs" / "encoder"
    found = hear_scores._scored_encoder(str(path))
    assert (found.name, found.path, found.sha256) == ("lungs", str(path), fingerprint(encoder))
