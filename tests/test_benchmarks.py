"""The benchmarks at their smallest: that each runs, counts what it says, and pairs what is of one round or seed."""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from m2dx.contract.components import Clip, Score
from m2dx.contract.host import PluginHost
from m2dx.encoder.published import MODEL_NAMES, rename
from m2dx.evaluation.tasks import ClipTask
from m2dx.model.m2d import M2D
from m2dx.model.masking import Mask
from m2dx.model.precision import autocast
from m2dx.recipe.loading import load_recipe
from m2dx.training.optim import clip_gradients
from m2dx.training.optimizers import AdamW

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = (
    "against_baseline",
    "baseline_step",
    "development",
    "feed",
    "few_groups",
    "kills",
    "runs",
    "scaling",
    "seeds",
    "step",
    "timing",
    "verdicts",
)
SMALL = ["model.depth=1", "model.predictor={embed_dim: 64, depth: 1, num_heads: 2}"]


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[SimpleNamespace]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield SimpleNamespace(**{name: __import__(name) for name in NAMES})
    torch.set_num_threads(threads)
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def step_tables(benchmarks: Any, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What a small measurement of the step writes: speeds, shares, matrix products."""
    out = tmp_path_factory.mktemp("step") / "step.json"
    options = "--sizes tiny --patches 16x16 80x2 --precisions fp32 bf16 --crop-seconds 0.64 --batch 2 --steps 1".split()
    more = ["--repeats", "2", "--threads", "1", "--matrix", "64", "--json", str(out)]
    assert benchmarks.step.main([*SMALL, *options, *more]) == 0
    text = out.read_text()
    assert str(BENCHMARKS.parent) not in text
    return list(json.loads(text)["tables"].values())


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_load(path: Path, host: PluginHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REAL_SOUNDS", str(path.parent))
    monkeypatch.setenv("M2D_BASE", "starter")
    assert load_recipe(path, host=host).data.sets


def test_each_setting_has_its_speed_in_pairs_of_a_round(step_tables: Any) -> None:
    speeds, _, products = step_tables
    rates = {row["precision"]: row["GFLOP/s"]["median"] for row in products}
    assert [(row["patch"], row["precision"]) for row in speeds] == [
        ("16x16", "fp32"), ("16x16", "bf16"), ("80x2", "fp32"), ("80x2", "bf16"),
    ]  # fmt: skip
    for row in speeds:
        found = row["clips/s"]
        assert len(found["samples"]) == 2
        assert 0 < found["q1"] <= found["median"] <= found["q3"]
        assert row["of the matrix rate"] == pytest.approx(
            row["GFLOP/clip"] * found["median"] / rates[row["precision"]]
        )
    fp32, bf16 = speeds[:2]
    pairs = zip(bf16["clips/s"]["samples"], fp32["clips/s"]["samples"], strict=True)
    assert bf16["speed-up"]["samples"] == pytest.approx([mine / other for mine, other in pairs])


def test_every_part_of_a_step_has_a_share(step_tables: Any) -> None:
    for row in step_tables[1]:
        shares = dict(list(row.items())[4:])
        assert list(shares) == [
            "loading", "logmel", "encoder", "target", "predictor", "tasks", "backward", "optimizer", "ema", "other",
        ]  # fmt: skip
        assert sum(shares.values()) == pytest.approx(100.0)
        # Every range is in the engine: a part without time would mean that its range was lost.
        assert all(share > 0 for share in shares.values())


@pytest.mark.parametrize("patch", [(16, 16), (80, 2)])
def test_flops_are_the_matrix_products_by_hand(step_tables: Any, patch: tuple[int, int]) -> None:
    mels, frames, width, predictor = 80, 64, 192, 64
    patches = (mels // patch[0]) * (frames // patch[1])
    visible = int(patches * 0.3 + 1e-6)
    masked = patches - visible

    def block(tokens: int, dim: int) -> int:
        return 2 * tokens * 12 * dim**2 + 2 * 2 * tokens**2 * dim  # linear layers; attention

    embed = 2 * patches * width * patch[0] * patch[1]
    trained = (
        block(visible + 1, width)
        + block(patches + 1, predictor)
        + 2 * (visible + 1) * width * predictor
        + 2 * masked * predictor * width  # the last layer, of masked patches only
    )
    target = block(masked + 1, width)
    mel = 2 * 2 * 201 * mels * (frames + 1)  # of clip and noise
    rows = [row for row in step_tables[0] if row["patch"] == f"{patch[0]}x{patch[1]}"]
    for row in rows:
        assert row["visible + masked"] == f"{visible} + {masked}"
        # The labels task's small layer is what remains.
        assert row["GFLOP/clip"] * 1e9 == pytest.approx(mel + 2 * embed + target + 3 * trained, rel=2e-3)


def test_gpu_time_counts_kernels_once(benchmarks: Any) -> None:
    def event(name: str, kernels: list[tuple[str, float]], children: tuple[Any, ...] = ()) -> Any:
        shown = [SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels]
        return SimpleNamespace(name=name, kernels=shown, cpu_children=list(children))

    product = event("aten::mm", [("gemm", 5.0), ("splitk", 1.0)])
    inner = event("aten::linear", [], (product,))
    # The profiler lists the range's own stretch on the GPU as one of its kernels.
    outer = event("m2dx::encoder", [("m2dx::encoder", 9.0)], (inner, event("aten::add", [("add", 2.0)])))
    assert benchmarks.step.kernel_microseconds(outer) == 8.0


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("step", ["--precisions", "fp8"], "invalid choice: 'fp8'"),
        ("step", ["--repeats", "0"], "must be a number of at least 1, but is 0"),
        ("feed", ["--formats", "mp3"], "invalid choice: 'mp3'"),
        ("feed", ["--workers", "two"], "must be a number of at least 0, but is two"),
        ("scaling", ["--processes", "2", "4"], "--processes must have 1"),
        ("seeds", ["a.yaml", "--case", "b"], "--case must have a name and a recipe"),
        ("seeds", ["a.yaml", "--case", "a", "b.yaml"], "no two alike"),
    ],
)
def test_wrong_options_end_it_before_measuring(
    benchmarks: Any, capsys: Any, script: str, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        getattr(benchmarks, script).main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("step", ["--patches", "16x16", "16x5"], "model.patch_size"),
        ("step", ["train.batch_size=4"], "train.batch_size must be left to the options"),
        ("against_baseline", ["--crop-seconds", "0.3"], "audio.crop_seconds"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_measuring(
    benchmarks: Any, capsys: Any, script: str, arguments: list[str], message: str
) -> None:
    assert getattr(benchmarks, script).main(arguments) == 1
    said = capsys.readouterr().err
    assert message in said and "clips/s" not in said


def test_turns_go_there_and_back(benchmarks: Any) -> None:
    order: list[str] = []
    benchmarks.timing.in_turns(["a", "b", "c"], 2, lambda case, repeat: order.append(case))
    assert order == ["a", "b", "c", "c", "b", "a"]


def test_tables_are_markdown(benchmarks: Any) -> None:
    speed = benchmarks.timing.Quartiles.of([1.0, 2.0, 4.0, 1000.5])
    text = benchmarks.timing.markdown([{"a": "x", "b": speed, "c": None}, {"a": "y", "b": 0.12345, "c": 3}])
    assert text.splitlines() == [
        "| a | b | c |", "| --- | ---: | ---: |", "| x | 3 (1.75 to 253) |  |", "| y | 0.123 | 3 |",
    ]  # fmt: skip


def published(parity: Any) -> M2D:
    model = M2D(parity.grid, parity.size, parity.predictor)
    model.load_state_dict(rename(parity.weights("m2d_weights"), MODEL_NAMES))
    return model


def test_the_baseline_has_the_published_loss(benchmarks: Any, parity: Any) -> None:
    twin = benchmarks.against_baseline.plain_twin(published(parity), parity.meta["num_visible"])
    loss = twin(parity.tensors["x"], parity.tensors["ids_shuffle"])
    assert loss.item() == pytest.approx(parity.tensors["m2d_loss"].item(), abs=1e-6)


def test_steps_of_the_baseline_move_the_weights_as_m2dx_does(benchmarks: Any, parity: Any) -> None:
    model = published(parity)
    plain = benchmarks.baseline_step.PlainStep(
        benchmarks.against_baseline.plain_twin(model, parity.meta["num_visible"]),
        learning_rate=1e-3,
        ema_decay=0.9,
    )
    optimizer = AdamW(model.named_parameters(), weight_decay=0.05, learning_rate=1e-3, betas=(0.9, 0.95))
    x, ids = parity.tensors["x"], parity.tensors["ids_shuffle"]
    for _ in range(3):
        with autocast("fp32", torch.device("cpu")):
            loss = model(x, Mask(ids, parity.meta["num_visible"])).loss
        loss.backward()
        clip_gradients([p for p in model.parameters() if p.requires_grad], 3.0)
        optimizer.step()
        optimizer.zero_grad()
        model.update_target(0.9)
        assert plain(x, ids) == pytest.approx(loss.item(), abs=1e-5)
    for name, weights in plain.model.state_dict().items():
        expected = model.state_dict()[name]
        if name.endswith(
            "qkv.bias"
        ):  # that of keys has no gradient but rounding, which Adam makes whole steps of
            weights, expected = (
                torch.cat([part.chunk(3)[0], part.chunk(3)[2]]) for part in (weights, expected)
            )
        torch.testing.assert_close(weights, expected, rtol=0, atol=1e-4, msg=name)


def test_both_steps_start_from_one_loss_and_are_timed_in_pairs(benchmarks: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    options = "--size tiny --crop-seconds 0.32 --batch 2 --warmup 0 --repeats 2 --threads 1 --json".split()
    assert benchmarks.against_baseline.main([*SMALL, *options, str(out)]) == 0
    rows, ((losses),) = json.loads(out.read_text())["tables"].values()
    assert float(losses["m2dx"]) == pytest.approx(float(losses["baseline"]), abs=1e-5)
    assert [row["step"] for row in rows] == ["baseline", "fp32", "bf16"]
    plain = rows[0]["clips/s"]["samples"]
    for row in rows:
        expected = [a / b for a, b in zip(row["clips/s"]["samples"], plain, strict=True)]
        assert row["against the baseline"]["samples"] == pytest.approx(expected)


def test_the_feed_of_each_format_is_measured_on_the_same_clips(benchmarks: Any, tmp_path: Path) -> None:
    sounds, out = tmp_path / "sounds", tmp_path / "out.json"
    sounds.mkdir()
    wav = 0.2 * np.random.default_rng(0).standard_normal(40_000)
    soundfile.write(sounds / "a.wav", wav, 16_000, subtype="FLOAT")
    given = f"--sounds {sounds} --clips 8 --seconds 0.5 --crop-seconds 0.3 --batch 4 --batches 1 --repeats 2"
    more = ["--workers", "0", "--noise", "--cold", "--json", str(out)]
    assert benchmarks.feed.main([*given.split(), *more]) == 0
    (rows,) = json.loads(out.read_text())["tables"].values()
    assert [row["format"] for row in rows] == list(benchmarks.feed.FORMATS)
    for row in rows:
        assert row["travels as"] == ("float32" if row["format"] == "ogg" else "int16")
        assert len(row["clips/s"]["samples"]) == 2
        assert row["clips per core second"]["median"] > 0


def test_a_folder_without_recordings_is_refused(benchmarks: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    assert benchmarks.feed.main(["--sounds", str(tmp_path / "empty"), "--folder", str(tmp_path / "out")]) == 1
    assert "--sounds must have audio files" in capsys.readouterr().err


def test_efficiency_is_by_the_speed_of_one_process_in_the_same_round(
    benchmarks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seconds = {1: [1.0, 2.0, 4.0], 2: [1.25, 2.5, 5.0]}

    def launch(recipe: Path, out: Path, todo: Any, overrides: list[str], *, processes: int) -> Any:
        assert f"train.batch_size={8 * processes}" in overrides
        return SimpleNamespace(seconds=seconds[processes].pop(0))

    monkeypatch.setattr(benchmarks.scaling, "launch", launch)
    out = tmp_path / "scaling.json"
    options = ["--processes", "1", "2", "--feeds", "read beforehand", "--json", str(out)]
    assert benchmarks.scaling.main(options) == 0
    one, two = json.loads(out.read_text())["tables"]["Weak scaling"]
    assert one["clips/s"]["samples"] == [40.0, 20.0, 10.0] and one["efficiency"]["median"] == 1.0
    assert two["clips/s"]["samples"] == [64.0, 32.0, 16.0]
    assert two["efficiency"]["samples"] == pytest.approx([0.8, 0.8, 0.8])


@pytest.mark.slow
def test_two_processes_are_timed(benchmarks: Any, tmp_path: Path) -> None:
    out = tmp_path / "scaling.json"
    options = "--processes 1 2 --warmup 1 --steps 1 --repeats 1 --clips 2 --crop-seconds 0.64".split()
    assert benchmarks.scaling.main([*SMALL, "train.device=cpu", *options, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())["tables"]["Weak scaling"]
    assert len(rows) == 4 and all(row["clips/s"]["median"] > 0 for row in rows)


def test_runs_that_differ_are_told(benchmarks: Any, tmp_path: Path) -> None:
    """In a bit of a weight, in a line that is lost or doubled; and files that are left over."""
    state = {
        "model": {"weight": torch.ones(2)},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
        "rng": [torch.zeros(3, dtype=torch.uint8)],
        "pending": [],
        "measured": {},
        "totals": {"clips": 8},
    }
    other = copy.deepcopy(state)
    other["model"]["weight"][1] = 1.0 + torch.finfo(torch.float32).eps
    lines = ['{"step": 1, "loss": 2.0, "time": 1.0}\n', '{"step": 2, "loss": 1.0, "time": 2.0}\n']
    for name, content, metrics in (
        ("one", state, lines),
        ("same", state, [lines[0].replace('"time": 1.0', '"time": 9.0'), lines[1]]),
        ("bit", other, lines),
        ("doubled", state, [lines[0], *lines]),
    ):
        run = tmp_path / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "encoder").mkdir()
        (run / "encoder" / "model.safetensors").write_bytes(b"weights")
        torch.save(content, run / "checkpoints" / "step-00000002.pt")
        (run / "metrics.jsonl").write_text("".join(metrics))
    found = {name: list(benchmarks.kills.differences(tmp_path / "one", tmp_path / name)) for name in
             ("same", "bit", "doubled")}  # fmt: skip
    assert found == {"same": [], "bit": ["model"], "doubled": ["lines of metrics: lost or doubled"]}
    assert benchmarks.kills.partials(tmp_path) == []
    (tmp_path / "one" / "checkpoints" / ".step-00000003.pt.partial").touch()
    assert [path.name for path in benchmarks.kills.partials(tmp_path)] == [".step-00000003.pt.partial"]


@pytest.mark.slow
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(benchmarks: Any) -> None:
    """3 times here; docs/scaling.md has 20."""
    assert benchmarks.kills.main(["--kills", "3", "--steps", "150", "--seed", "1"]) == 0


def score(encoder: str, mean: float, task: str = "drums") -> Score:
    return Score(task, "accuracy", mean, 0.5, (mean,), "linear", encoder=encoder)


def test_scores_are_compared_seed_by_seed(benchmarks: Any) -> None:
    """Intervals by Student's t: for three seeds 4.3027 standard errors."""
    runs = {
        case: [[score(case, mine), score("random_weights", random)] for mine, random in by_seed]
        for case, by_seed in {
            "one": [(0.50, 0.30), (0.60, 0.50), (0.70, 0.40)],
            "two": [(0.53, 0.30), (0.64, 0.50), (0.75, 0.40)],
        }.items()
    }
    pooled = benchmarks.seeds.pool(runs["one"])
    assert [found.encoder for found in pooled] == ["one", "random_weights"]
    assert pooled[0].mean == pytest.approx(0.6)
    assert pooled[0].ci95 == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert benchmarks.seeds.pool(runs["one"][:1])[0] == runs["one"][0][0]
    found = {found.encoder: found for found in benchmarks.seeds.differences(runs)}
    assert list(found) == ["one - random_weights", "two - one", "two - random_weights"]
    assert found["two - one"].values == pytest.approx((0.03, 0.04, 0.05))
    assert found["two - one"].mean == pytest.approx(0.04)
    assert found["two - one"].ci95 == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert found["two - random_weights"].values == pytest.approx((0.23, 0.14, 0.35))


@pytest.mark.usefixtures("no_page")
def test_a_comparison_goes_on_after_a_stop(
    benchmarks: Any, few_notes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """What is trained and scored is not trained again, and not taken for a run of another recipe."""
    trained: list[str] = []
    run_recipe = benchmarks.seeds.run_recipe

    def counted(recipe: Any, *rest: Any, **options: Any) -> Any:
        trained.append(recipe.name)
        return run_recipe(recipe, *rest, **options)

    monkeypatch.setattr(benchmarks.seeds, "run_recipe", counted)
    fields = [*SMALL, f"output={tmp_path}", "data.epoch_size=32", "train.epochs=1", "train.warmup_epochs=0"]
    fields += ["data.workers=0", "data.mean=-7", "data.std=4", "noise.mean=-7", "audio.crop_seconds=0.64"]
    fields += ["evaluation.tasks.instrument=null", "evaluation.evaluators.logistic=null", "train.device=cpu"]
    fields += [f"evaluation.tasks.drums.dataset.path={few_notes}"]
    given = [str(BENCHMARKS.parent / "recipes" / "quickstart.yaml"), *fields, "--classifiers", "1"]
    assert benchmarks.seeds.main([*given, "--seeds", "0"]) == 0
    assert benchmarks.seeds.main([*given, "--seeds", "0", "1", "--json", str(tmp_path / "out.json")]) == 0
    assert trained == ["quickstart-seed0", "quickstart-seed1"]
    tables = json.loads((tmp_path / "out.json").read_text())["tables"]
    names = [row["encoder"] for row in tables["quickstart"]]
    assert names == ["quickstart", "random_weights", "mean_logmel"]
    assert len(tables["Differences by seed"]) == 2
    assert benchmarks.seeds.main(["train.base_lr=1e-3", *given, "--seeds", "0"]) == 1
    assert "train differ; move it away" in capsys.readouterr().err
    # networks that nobody trained are scored beside them
    first = (tmp_path / "quickstart-seed0" / "scores.json").read_bytes()
    assert benchmarks.seeds.main([*given, "--seeds", "0", "--untrained"]) == 0
    assert (tmp_path / "quickstart-untrained-seed0" / "scores.json").is_file() and len(trained) == 2
    assert (tmp_path / "quickstart-seed0" / "scores.json").read_bytes() == first
    assert (
        benchmarks.seeds.main([*given, "data.mean=null", "data.std=null", "--seeds", "0", "--untrained"]) == 1
    )
    assert "needs data.mean and data.std" in capsys.readouterr().err


def test_few_groups_are_simulated_without_a_gain(benchmarks: Any) -> None:
    found = benchmarks.few_groups.share_above(1, 100, 0.5, 20)  # all clips of the one group are alike
    assert found["bootstrap"] > 20 and found["for others"] == 0
    lucky = benchmarks.few_groups.share_above(20, 400, 0.0, 20, gain=0.3, luck=0.01, runs=2)
    assert lucky["for others"] == 100


def test_divisions_keep_groups_whole_and_a_gain_is_that_of_the_clips_that_are_tested(benchmarks: Any) -> None:
    clips = tuple(
        Clip(Path(f"{n}.wav"), labels=("ab"[n % 2],), group=f"g{n // 2}", duration=1.0) for n in range(40)
    )
    task = ClipTask("all", clips, ("a", "b"), (), 1.0, "pad")
    folds = benchmarks.verdicts.divisions(task, 3).folds
    for fold in folds:
        assert len(fold.test) == 16 and not len(fold.valid)
        assert not {clips[row].group for row in fold.train} & {clips[row].group for row in fold.test}
    assert len({tuple(fold.test) for fold in folds}) == 3
    none, nan = np.zeros(40), np.full(20, np.nan)
    own = benchmarks.verdicts.over([np.r_[np.ones(20), nan], np.r_[np.ones(10), np.zeros(10), nan]])
    gain = benchmarks.verdicts.gain(own, none, clips)
    assert gain.value == 75.0
    assert 50.0 < gain.low < 75.0 < gain.high < 100.0


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("path,split,group\na,train,1\nb,valid,2\nc,test,3\n", [], "path,group\na,1\nb,2\n"),
        (
            "path,split\na,train\nb,valid\nc,test\n",
            ["--by-valid"],
            "path,split\na,train\nb,test\n",
        ),
        ("path,fold\na,1\nb,3\nc,4\nd,5\n", [], "path\na\nb\n"),
    ],
    ids=["splits", "by the validation part", "folds"],
)
def test_what_settings_are_chosen_by_has_no_clip_of_the_test(
    benchmarks: Any, tmp_path: Path, text: str, options: list[str], expected: str
) -> None:
    (tmp_path / "sounds.csv").write_text(text)
    benchmarks.development.main([*options, str(tmp_path / "sounds.csv")])
    assert (tmp_path / "sounds_dev.csv").read_text() == expected
