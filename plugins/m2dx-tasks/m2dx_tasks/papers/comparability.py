"""What is to be known where a score of m2dx is compared with a column of a published table."""

from __future__ import annotations

import re

from m2dx.results import ResultRecord
from m2dx_tasks.papers.published import PaperColumn, PaperProtocol, PaperTask

UNIT_TOLERANCE = 0.05
"""Seconds; the papers round lengths to 0.1 s."""


def reasons(record: ResultRecord, column: PaperColumn, task: str) -> list[str]:
    """What a record differs in from a column's scores of a task (by key), one text each; none: comparable.

    Of protocols that have remarks, one of the texts says which scores to compare.
    """
    published = column.tasks[task]
    return [
        *_protocol(record, column.protocol, task),
        *_remark(record, column.protocol),
        *_seeds(record, column.protocol),
        *_unit(record, published, column.protocol),
        *_clips(record, published),
        *[f"warning of the evaluation: {warning}" for warning in record.warnings],
    ]


def _protocol(record: ResultRecord, protocol: PaperProtocol, task: str) -> list[str]:
    evaluator, settings = record.protocol.evaluator, record.protocol.settings
    if evaluator not in protocol.evaluators:
        return [f"scored by {evaluator}, not by {protocol.title} as the published rows"]
    found = []
    for where, published in (
        ("in the paper", protocol.settings_for(task)),
        ("in the paper's code", protocol.code_settings),
    ):
        for option, value in published.items():
            if option not in settings:
                found.append(f"{option} is not in the record, {where} {value}")
            elif not _same(settings[option], value):
                found.append(f"{option} {_shown(settings[option])}, {where} {value}")
    return found


def _remark(record: ResultRecord, protocol: PaperProtocol) -> list[str]:
    """What the protocol has to say of the remark behind the metric's name, or of none."""
    _, remark = split_metric(record.metric)
    if record.protocol.evaluator in protocol.evaluators and remark in protocol.remarks:
        return [protocol.remarks[remark]]
    return [f"{remark}, which the paper does not say of its scores"] if remark else []


def _seeds(record: ResultRecord, protocol: PaperProtocol) -> list[str]:
    if protocol.seeds is None or len(record.seeds) >= protocol.seeds:
        return []
    return [f"{_counted(len(record.seeds), 'seed')}, in the paper {protocol.seeds} runs"]


def _unit(record: ResultRecord, task: PaperTask, protocol: PaperProtocol) -> list[str]:
    if task.seconds is None:
        return []
    found = []
    if record.unit_seconds is None:
        found.append(f"length of the clips not in the record, in the paper {task.seconds:g} s")
    elif abs(record.unit_seconds - task.seconds) > UNIT_TOLERANCE + 1e-9:
        found.append(f"clips of {record.unit_seconds:.2f} s, in the paper {task.seconds:.1f} s")
    if protocol.short_clips == "pad" and record.short_clips not in (None, "pad"):
        found.append("short clips are repeated, in the paper padded with zeros")
    return found


def _clips(record: ResultRecord, task: PaperTask) -> list[str]:
    found = []
    if task.classes is not None and record.classes != task.classes:
        found.append(f"{_counted(record.classes, 'class')}, in the paper {task.classes}")
    if task.folds > 1 and (record.division is None or record.division.folds != task.folds):
        folds = None if record.division is None else record.division.folds
        found.append(f"{_counted(folds, 'division')}, in the paper {task.folds} folds")
    if task.clips is not None and record.clips != task.clips:
        found.append(f"{_counted(record.clips, 'clip')}, in the paper {task.clips:,}")
    if task.parts is not None and not _same_parts(record, task.parts):
        found.append(f"{_parts(record)}, in the paper {_shown_parts(task.parts)}")
    return found


def _same_parts(record: ResultRecord, parts: tuple[int, int, int]) -> bool:
    """Where the paper has no validation part, what m2dx holds out of the training part for it counts as training."""
    if record.division is None or record.division.parts is None:
        return False
    train, valid, test = record.division.parts
    if parts[1] == 0:
        train, valid = train + valid, 0
    return (train, valid) == parts[:2] and parts[2] in (0, test)


def _parts(record: ResultRecord) -> str:
    if record.division is None:
        return "unknown clips"
    if record.division.parts is None:
        return f"{record.division.folds} folds"
    return _shown_parts(record.division.parts)


def _shown_parts(parts: tuple[int, int, int]) -> str:
    shown = (f"{n:,} {name}" for n, name in zip(parts, ("training", "validation", "test"), strict=True) if n)
    return f"{', '.join(shown)} clips"


def _same(value: object, published: str) -> bool:
    try:
        return abs(float(str(value)) - float(published)) <= 1e-6 * abs(float(published))
    except ValueError:
        return str(value).lower() == published.lower()


def _counted(count: int | None, what: str) -> str:
    number = "an unknown number of" if count is None else f"{count:,}"
    return f"{number} {what}" if count == 1 else f"{number} {what}{'es' if what.endswith('s') else 's'}"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def split_metric(metric: str) -> tuple[str, str]:
    """A metric and the remark in brackets behind it, such as ("score", "best epoch on test, optimistic")."""
    found = re.fullmatch(r"(.*?) *\((.*)\)", metric)
    return (found[1], found[2]) if found else (metric, "")


def plain(name: str) -> str:
    """A name in small letters and digits alone, so that "ESC-50" and "esc_50" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
