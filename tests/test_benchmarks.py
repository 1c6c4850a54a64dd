"""The step benchmark at its smallest: what it counts, and what it writes."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALLEST = (
    "--sizes tiny --patches 16x16,80x2 --precisions fp32,bf16 --crop-seconds 0.64 --batch 2 --steps 1 --repeats 2"
    " --threads 1 --matrix 64 model.depth=1"
).split()
SMALLEST.append("model.predictor={embed_dim: 64, depth: 1, num_heads: 2}")
PAGE = "# Speed\n\nbefore\n\n<!-- step-benchmark: begin -->\nold\n<!-- step-benchmark: end -->\n\nafter\n"


@pytest.fixture(scope="module")
def step():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import step

        yield step
    for name in ("step", "step_measures", "step_tables"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def measured(step, tmp_path_factory):
    """The report and the page of one small measurement."""
    folder, threads = tmp_path_factory.mktemp("benchmark"), torch.get_num_threads()
    page = folder / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    try:
        assert step.main([*SMALLEST, "--json", str(folder / "step.json"), "--write", str(page)]) == 0
    finally:
        torch.set_num_threads(threads)
    return SimpleNamespace(report=json.loads((folder / "step.json").read_text()), page=page, folder=folder)


def test_each_setting_has_speed_and_shares(measured):
    results = measured.report["results"]
    assert [(r["patch"], r["precision"]) for r in results] == [
        ("16x16", "fp32"), ("16x16", "bf16"), ("80x2", "fp32"), ("80x2", "bf16"),
    ]  # fmt: skip
    for result in results:
        speed = result["clips_per_second"]
        assert len(speed["samples"]) == 2
        assert 0 < speed["q1"] <= speed["median"] <= speed["q3"]
        assert sum(result["shares"].values()) == pytest.approx(1.0)
        # Every range is in the engine: a part without time would mean that its range was lost.
        assert all(seconds > 0 for seconds in result["profiled_seconds_per_step"].values())
        assert list(result["shares"]) == [
            "loading", "logmel", "encoder", "target", "predictor", "tasks", "backward", "optimizer", "ema", "other",
        ]  # fmt: skip


def test_speedup_pairs_timings_of_one_round(measured):
    fp32, bf16 = measured.report["results"][:2]
    pairs = zip(bf16["clips_per_second"]["samples"], fp32["clips_per_second"]["samples"], strict=True)
    assert bf16["speedup"]["samples"] == pytest.approx([mine / other for mine, other in pairs])


def test_rate_is_of_flops_and_speed(measured):
    for result in measured.report["results"]:
        rate = result["flops_per_clip"]["step"] * result["clips_per_second"]["median"]
        whole = measured.report["matrix_flops_per_second"][result["precision"]]["median"]
        assert result["share_of_matrix_rate"] == pytest.approx(rate / whole)


@pytest.mark.parametrize("patch", [(16, 16), (80, 2)])
def test_flops_are_the_matrix_products_by_hand(measured, patch):
    mels, frames, width, predictor = 80, 64, 192, 64
    patches = (mels // patch[0]) * (frames // patch[1])
    visible = int(patches * 0.3 + 1e-6)
    masked = patches - visible

    def block(tokens, dim):
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
    by_hand = {"forward": mel + embed + target + trained, "step": mel + 2 * embed + target + 3 * trained}
    name = f"{patch[0]}x{patch[1]}"
    for result in measured.report["results"]:
        if result["patch"] == name:
            assert (result["visible"], result["masked"]) == (visible, masked)
            # The labels task's small layer is what remains.
            assert result["flops_per_clip"] == pytest.approx(by_hand, rel=2e-3)


def test_the_page_gets_the_tables_between_its_markers(step, measured):
    text = measured.page.read_text(encoding="utf-8")
    assert text.startswith("# Speed\n\nbefore\n\n<!-- step-benchmark: begin -->")
    assert text.endswith("<!-- step-benchmark: end -->\n\nafter\n")
    assert "old" not in text
    assert "| tiny | 80x2 | bf16 |" in text
    report = measured.report
    for said in (
        report["date"],
        report["machine"]["cpu"],
        f"torch {torch.__version__}",
        "seed 0",
        "1 threads",
    ):
        assert said in text
    assert str(BENCHMARKS.parent) not in text + json.dumps(report)
    step.write_page(measured.page, report)
    assert measured.page.read_text(encoding="utf-8") == text  # a second time changes nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--write", "README.md"], "must be a page with the lines"),
        (["train.batch_size=4"], "train.batch_size must be set by --batch"),
        (["--precisions", "fp8"], "--precisions must be of fp32, bf16, fp16"),
        (["--repeats", "0"], "--repeats must be at least 1"),
    ],
)
def test_wrong_options_end_it_before_measuring(step, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit):
        step.main(arguments)
    assert message in capsys.readouterr().err


def test_a_setting_that_cannot_be_is_refused_before_measuring(step, capsys):
    assert step.main(["--patches", "16x16,16x5"]) == 1
    said = capsys.readouterr().err
    assert "model.patch_size" in said
    assert "clips/s" not in said


def test_gpu_time_counts_kernels_once(step):
    def event(name, kernels, children=()):
        shown = [SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels]
        return SimpleNamespace(name=name, kernels=shown, cpu_children=list(children))

    product = event("aten::mm", [("gemm", 5.0), ("splitk", 1.0)])
    inner = event("aten::linear", [], [product])
    # The profiler lists the range's own stretch on the GPU as one of its kernels.
    outer = event("m2dx::encoder", [("m2dx::encoder", 9.0)], [inner, event("aten::add", [("add", 2.0)])])
    from step_measures import kernel_microseconds

    assert kernel_microseconds(outer) == 8.0
