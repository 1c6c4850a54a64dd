"""A record that the tests of several rooms change."""

from datetime import UTC, datetime

from m2dx.results.records import Division, Protocol, ResultRecord, ScoredEncoder

LUNGS = ScoredEncoder("lungs", "ab" * 32, "runs/lungs/encoder", 85_000_000)
SETTINGS = {"lr": 3e-5, "epochs": 200, "patience": 20, "batch_size": 200, "early_stopping": "score"}
AS_PUBLISHED = Protocol("linear", "linear", {**SETTINGS, "weight_decay": 0.0})
ESC50 = ResultRecord(
    date=datetime(2026, 11, 22, 12, tzinfo=UTC),
    encoder=LUNGS,
    task="esc50",
    protocol=AS_PUBLISHED,
    metric="accuracy",
    mean=0.9,
    ci95=0.0125,
    values=(0.9,) * 6,
    seeds=(0, 1, 2, 3, 4, 5),
    recipe="lungs",
    division=Division(5),
    clips=2000,
    classes=50,
    unit_seconds=5.0,
    short_clips="pad",
)
