"""Vectors of sentences, captions of clips, losses, scores by text, and runs with all of them."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import m2dx_captions
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from m2dx_captions import sentences as module
from m2dx_captions.encoder import Captions
from m2dx_captions.evaluator import ZeroShot
from m2dx_captions.losses import Contrastive, Cosine
from m2dx_captions.scorer import CaptionScorer
from m2dx_captions.sentences import Sentences
from m2dx_pack.packing import ClipSet, PackOptions, pack
from m2dx_pack.reading import PackedDataset

import m2dx
from m2dx.contract.components import Crop
from m2dx.data.crops import fit_length
from m2dx.data.csv_list import CsvDataset
from m2dx.encoder.audio import random_like
from m2dx.encoder.weights import export_encoder, read_weights
from m2dx.evaluation.runner import evaluate
from m2dx.evaluation.tasks import ClipTask
from m2dx.testing import check_component, evaluators
from m2dx.testing.samples import SoundFiles, write_csv, write_encoder

TEXTS = ("a low tone", "a high tone")
VECTORS = np.array([[3.0, 0.0, 0.0, 4.0], [0.0, 1.0, 0.0, 0.0]], np.float32)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """captions.csv with two clips of one file, and files of two, one, and no captions."""
    files = SoundFiles(tmp_path)
    for name, hertz in (("low", 300.0), ("high", 2700.0), ("both", 900.0), ("none", 500.0)):
        files.add_tone(f"{name}.wav", hertz, seconds=1.0)
    rows = [
        ("low.wav", "0", "0.5", TEXTS[0]),
        ("low.wav", "0.5", "0.5", ""),
        ("high.wav", "", "", TEXTS[1]),
        ("both.wav", "", "", TEXTS[0]),
        ("both.wav", "", "", TEXTS[1]),
        ("none.wav", "", "", ""),
    ]
    write_csv(tmp_path / "captions.csv", "path,start,duration,caption", rows)
    return tmp_path / "captions.csv"


def vector_file(path: Path, *, key: str = "text", keys: Any = TEXTS, vectors: Any = VECTORS) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **{key: np.array(keys), "features": vectors})
    else:
        header = ",".join([key, *(f"f{i}" for i in range(vectors.shape[1]))])
        write_csv(path, header, [[name, *row] for name, row in zip(keys, vectors.tolist(), strict=True)])
    return path


def views(*crops: m2dx.Clip) -> m2dx.Views:
    logmel = torch.zeros(len(crops), 1, 80, 32)
    return m2dx.Views(None, logmel, crops=tuple(Crop(clip, 0.0) for clip in crops))


# Sentences


@pytest.mark.parametrize("name", ["vectors.csv", "vectors.npz"])
def test_vectors_of_a_file_have_norm_1(tmp_path: Path, name: str) -> None:
    found = Sentences(vector_file(tmp_path / name))
    assert found.vectors([TEXTS[1], TEXTS[0]]).tolist() == [[0, 1, 0, 0], pytest.approx([0.6, 0, 0, 0.8])]
    assert found.width == 4 and not found.by_path


@pytest.mark.parametrize("there", ["nothing", "folder", "file"])
def test_texts_that_share_words_are_alike(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if there != "nothing":
        (tmp_path / "words").mkdir() if there == "folder" else (tmp_path / "words").touch()
    sound, flute, other = Sentences("words").vectors(["The sound of the flute!", "a flute", "a dog barks"])
    assert sound @ flute > 0.5 > abs(float(sound @ other)) and len(sound) == 512


@pytest.mark.parametrize(
    "texts",
    [("fire", "a cry", "the system"), ("up", "down", "off"), ("7", "8"), ("C", "D", "A"), ("frog", "rain")],
)
def test_other_words_have_other_vectors(texts: tuple[str, ...]) -> None:
    for prompt in ("{}", "the sound of {}"):
        vectors = Sentences("words").vectors([prompt.format(text) for text in texts])
        assert (vectors @ vectors.mT - torch.eye(len(texts))).max() < 0.8
    assert torch.equal(*Sentences("words").vectors(["the rain, and a frog", "Frog of rain"]))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a small random BERT."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "low", "tone"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(0)
    for part in (tokenizer, transformers.BertModel(config)):
        part.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.mark.slow  # transformers takes seconds to import
def test_a_model_of_transformers(model: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    texts = ["a tone", "a low tone", "a tone"]
    first = Sentences(model, cache=tmp_path / "cache").vectors(texts)
    assert torch.equal(torch.random.get_rng_state(), state)  # else a run with a cache had other weights
    alone = F.normalize(module._encode(model, ["a low tone"]), dim=1)[0]
    torch.testing.assert_close(first[1], alone)  # the padding of a batch changes nothing
    assert torch.equal(Sentences(model, cache=tmp_path / "cache").vectors(texts), first)


def test_a_model_is_asked_once_for_each_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []

    def encode(folder: Path, texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return torch.tensor([[len(text), 1.0] for text in texts])

    monkeypatch.setattr(module, "_encode", encode)
    model, cache = tmp_path / "model", tmp_path / "cache"
    write_csv(model / "config.json", "{}", [])
    first = Sentences(model, cache=cache).vectors(["a tone", "a low tone", "a tone"])
    again = Sentences(model, cache=cache).vectors(["a low tone", "low"])
    assert asked == ["a tone", "a low tone", "low"] and torch.equal(first[1], again[0])
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-4])
    assert torch.equal(Sentences(model, cache=cache).vectors(["low"])[0], again[1])
    assert "computed again" in caplog.text and asked[3:] == ["low"]
    write_csv(model / "config.json", "{ }", [])  # another model
    Sentences(model, cache=cache).vectors(["low"])
    assert asked[4:] == ["low"] and len(list(cache.iterdir())) == 2
    (tmp_path / "file").touch()
    assert len(Sentences(model, cache=tmp_path / "file").vectors(["low"])) == 1
    assert "vectors of sentences are not kept" in caplog.text


def test_a_model_of_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules.json").touch()

    class Fake:
        def __init__(self, folder: str, device: str) -> None:
            assert folder == str(tmp_path)

        def encode(self, texts: list[str], batch_size: int) -> Any:
            return np.array([[len(text), 1.0] for text in texts])

    monkeypatch.setitem(
        module.__dict__, "import_module", lambda name: SimpleNamespace(SentenceTransformer=Fake)
    )
    torch.testing.assert_close(
        Sentences(tmp_path).vectors(["abc"])[0], F.normalize(torch.tensor([3.0, 1.0]), dim=0)
    )


def missing(folder: Path) -> Path:
    return folder / "nowhere"


def text_file(folder: Path) -> Path:
    (folder / "notes.txt").write_text("a")
    return folder / "notes.txt"


def no_npz(folder: Path) -> Path:
    (folder / "vectors.npz").write_text("a")
    return folder / "vectors.npz"


def no_library(folder: Path) -> Path:
    (folder / "modules.json").touch()
    return folder


def other_csv(folder: Path, text: str) -> Path:
    (folder / "vectors.csv").write_text(text)
    return folder / "vectors.csv"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, "must be `words`, a .csv or .npz file, or the folder of a model, but .*nowhere is none"),
        (text_file, "but .*notes.txt is none"),
        (no_npz, r"vectors\.npz must be an \.npz file without objects: "),
        pytest.param(lambda folder: folder, "is no model of transformers", marks=pytest.mark.slow),
        (no_library, r"must be installed, but is not: pip install 'm2dx-captions\[sentence-transformers\]'"),
        (
            lambda folder: other_csv(folder, "label,f0\na,1\n"),
            "must have `text` or `path`, and for each a vector",
        ),
        (lambda folder: other_csv(folder, "text\na\n"), r"each a vector|vector of 'a'"),
        (lambda folder: other_csv(folder, "text,f0\na,one\n"), r"vectors\.csv:2: could not convert .*'one'"),
        (lambda folder: other_csv(folder, "text,f0\na low tone,0\n"), "vector of 'a low tone' .* not all 0"),
        (lambda folder: other_csv(folder, "text,f0\na,nan\n"), "vector of 'a' .* must be finite"),
        (
            lambda folder: other_csv(folder, "text,f0\na,1\n"),
            r"lacks 2 of 2, such as 'a low tone', 'a high tone'; add",
        ),
        (lambda folder: vector_file(folder / "v.npz", key="label"), "must have `text` or `path`"),
        (lambda folder: vector_file(folder / "v.npz", vectors=VECTORS[:1]), "for each a vector"),
        (lambda folder: vector_file(folder / "v.csv", key="path", keys=("a.wav",) * 2), "several of 'a.wav'"),
    ],
)
def test_sources_that_give_no_vectors(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(m2dx.M2dxError, match=message):
        Sentences(make(tmp_path)).vectors(TEXTS)


# The offline encoder


def test_a_clip_has_the_vector_of_its_captions(clips: Path, tmp_path: Path) -> None:
    encoder = Captions(sentences=vector_file(tmp_path / "v.csv"), path=clips)
    low, high = F.normalize(torch.from_numpy(VECTORS), dim=1)
    both, nothing = F.normalize(low + high, dim=0), torch.full((4,), torch.nan)
    asked = {
        m2dx.Clip(tmp_path / "low.wav", 0.0, 0.5): low,
        m2dx.Clip(tmp_path / "low.wav", 0.5, 0.5): nothing,
        m2dx.Clip(tmp_path / "high.wav", 0.25, 0.5): high,  # the caption is of the whole file
        m2dx.Clip(tmp_path / "both.wav"): both,
        m2dx.Clip(tmp_path / "none.wav"): nothing,
        m2dx.Clip(tmp_path / "unknown.wav"): nothing,
    }
    torch.testing.assert_close(encoder(views(*asked)), torch.stack(list(asked.values())), equal_nan=True)
    assert encoder.embed_dim == 4


@pytest.mark.parametrize("form", ["flac", "keep"])
def test_clips_of_a_pack_have_the_captions_of_what_was_packed(clips: Path, tmp_path: Path, form: Any) -> None:
    long = SoundFiles(tmp_path).add_tone("long.wav", 300.0, seconds=6.0)
    rows = [(long, "2.2", "0.5", TEXTS[0]), (long, "2", "", TEXTS[1]), (long, "0.2", "0.5", TEXTS[1])]
    write_csv(tmp_path / "segments.csv", "path,start,duration,caption", rows)
    for name in ("captions", "segments"):
        dataset = CsvDataset(path=tmp_path / f"{name}.csv", labels=False)
        pack({"clips": ClipSet(tuple(dataset.clips()), ())}, tmp_path / name, PackOptions(form, workers=0))
        packed = PackedDataset(path=tmp_path / name).clips()
        encoder = Captions(sentences=vector_file(tmp_path / "v.csv"), path=dataset.path)
        expected = encoder(views(*dataset.clips()))
        assert expected.isfinite().any()
        for _ in range(2):  # the second time they are known
            torch.testing.assert_close(encoder(views(*packed)), expected, equal_nan=True)


@pytest.mark.parametrize("column", ["annotator", "group", "fold", "split"])
def test_a_clip_has_the_captions_of_all_its_lines(clips: Path, tmp_path: Path, column: str) -> None:
    rows = [("low.wav", text, number) for number, text in enumerate((*TEXTS, TEXTS[0]))]
    write_csv(clips, f"path,caption,{column}", rows)
    encoder = Captions(sentences=vector_file(tmp_path / "v.csv"), path=clips)
    low, high = F.normalize(torch.from_numpy(VECTORS), dim=1)
    (found,) = encoder(views(m2dx.Clip(tmp_path / "low.wav")))
    torch.testing.assert_close(found, F.normalize(low + high, dim=0))


@pytest.mark.parametrize("place", ["beside", "working folder", "root"])
def test_vectors_by_the_path_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # `m2dx encode` writes paths relative to it
    folder = tmp_path / {"beside": "vectors", "working folder": "work", "root": "x"}[place]
    clip = SoundFiles(folder).add_tone("sub/b.wav", 300.0, seconds=0.1)
    (tmp_path / "vectors").mkdir(exist_ok=True)
    file = vector_file(tmp_path / "vectors" / "v.npz", key="path", keys=["a.wav", "sub/b.wav"])
    encoder = Captions(sentences=file, root=folder if place == "root" else None)
    found = encoder(views(m2dx.Clip(clip), m2dx.Clip(folder / "c.wav")))
    assert found[0].tolist() == [0, 1, 0, 0] and found[1].isnan().all()
    assert "1 of 2 files of" in caplog.text and "not there, such as" in caplog.text


def test_captions_that_lead_to_no_clip_are_told(
    clips: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("m2dx_captions.encoder.MANY", 4)
    encoder = Captions(sentences="words", path=clips)
    for _ in range(6):
        encoder(views(*[m2dx.Clip(Path("/other.wav"))] * 2))
    assert caplog.text.count("none of the first 4 crops has a caption, such as one of /other.wav") == 1


def test_captions_of_segments_of_a_file_that_is_a_clip_are_told(
    clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Captions(sentences="words", path=clips)
    asked = {"none.wav": False, "high.wav": False, "low.wav": True}
    for name, is_told in asked.items():
        encoder(views(*[m2dx.Clip(clips.parent / name)] * 2))
        assert caplog.text.count("low.wav has captions of segments alone, but the training has") == is_told


def test_captions_of_one_vector_are_told(
    clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Captions(sentences=vector_file(tmp_path / "v.csv"), path=clips)
    assert "same vector" not in caplog.text
    Captions(sentences=vector_file(tmp_path / "v.csv", vectors=VECTORS[[1, 1]] * [[1], [2]]), path=clips)
    assert "2 of 2 different captions have the same vector as another one by" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"path": "captions.csv", "column": "text"},
            r"captions\.csv:1: .* column `text`, .* but there are: path, sta",
        ),
        ({"path": "signs.csv"}, r"vector of '\?!' by words must be finite, and not all 0"),
        (
            {"path": "other.csv"},
            r"other\.csv must have paths of files that are there, but has none of 1, such as .*x\.wav; `root` is",
        ),
        (
            {"sentences": "by_path.npz"},
            r"by_path\.npz must have paths of files .* none of 2, such as .*a low tone",
        ),
        ({"path": "nowhere.csv"}, r"cannot read the list .*nowhere\.csv: No such file"),
        ({}, "`path` must name the list of captions, but is left out"),
        ({"path": "captions.csv", "sentences": "by_path.npz"}, "`path` must be left out for vectors by path"),
        ({"path": "captions.csv", "sentences": "text.npz"}, "lacks 1 of 2, such as 'a high tone'"),
        ({"path": "empty.csv"}, r"empty\.csv: the column `caption` must have captions, but is empty"),
    ],
)
def test_lists_without_captions(clips: Path, options: dict[str, str], message: str) -> None:
    folder = clips.parent
    vector_file(folder / "by_path.npz", key="path")
    vector_file(folder / "text.npz", keys=TEXTS[:1], vectors=VECTORS[:1])
    for name, line in (("empty", "low.wav,"), ("signs", "low.wav,?!"), ("other", "x.wav,a tone")):
        (folder / f"{name}.csv").write_text(f"path,caption\n{line}\n")
    given: dict[str, Any] = {"sentences": "words"}
    for name, value in options.items():
        given[name] = value if name == "column" else folder / value
    with pytest.raises(m2dx.M2dxError, match=message):
        Captions(**given)


# Losses


def test_contrastive_is_symmetric_cross_entropy() -> None:
    """Two clips, the second of which is nearer to the first's caption; worked out by hand."""
    prediction, target = torch.tensor([[1.0, 0.0], [0.8, 0.6]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    logits = torch.tensor([[1.0, 0.0], [0.8, 0.6]]) / 0.5
    expected = -(logits.log_softmax(1).diag() + logits.log_softmax(0).diag()).mean() / 2
    torch.testing.assert_close(Contrastive(temperature=0.5)(prediction, target), expected)


def test_equal_captions_are_no_negatives() -> None:
    prediction = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = Contrastive(temperature=0.01)(prediction, prediction * 2)
    assert float(found.detach()) == pytest.approx(2 / 3 * math.log(2), abs=1e-5)  # half to each of the two


@pytest.mark.parametrize("loss", [Contrastive(), Cosine()])
def test_clips_without_a_caption_add_nothing(loss: m2dx.Loss) -> None:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(6, 5, generator=generator).requires_grad_()
    target = torch.randn(6, 5, generator=generator)
    alone = loss(prediction[:4], target[:4]) * 4 / 6  # divided by all rows
    target[4:] = torch.nan
    found = loss(prediction, target)
    torch.testing.assert_close(found, alone)
    found.backward()
    assert prediction.grad is not None and not prediction.grad[4:].any() and prediction.grad[:4].any()
    assert loss(prediction, torch.full_like(target, torch.nan)).item() == 0.0


def test_the_temperature_is_learned_or_fixed() -> None:
    assert [p.shape for p in Contrastive().parameters() if p.requires_grad] == [(1,)]
    assert not any(p.requires_grad for p in Contrastive(learned=False).parameters())


# Runs

TASK = (
    "{{offline_encoder: {{name: captions, sentences: words, path: {path}}}, "
    "online_mapper: pool_linear, loss: contrastive}}"
)


@pytest.fixture
def train(
    clips: Path, command: Callable[..., str], make_host: Callable[[str], m2dx.PluginHost], no_page: None
) -> Callable[..., Path]:
    """Trains some steps on the clips, and gives the folder of the run."""
    recipe = {
        "data": {
            "sets": {"clips": {"dataset": {"name": "csv", "path": str(clips)}}},
            "mean": -7,
            "std": 4,
            "workers": 0,
            "short_clips": "repeat",
        },
        "audio": {"crop_seconds": 0.32},
        "model": {"size": "tiny", "depth": 1, "predictor": {"embed_dim": 24, "depth": 1, "num_heads": 2}},
        "train": {
            "epochs": 4,
            "warmup_epochs": 0,
            "batch_size": 5,
            "device": "cpu",
            "threads": 1,
            "log_every": 1,
        },
    }
    (clips.parent / "recipe.yaml").write_text(json.dumps(recipe))

    def train(*arguments: str, name: str = "run") -> Path:
        given = [f"output={clips.parent / 'runs'}", f"name={name}", "train.checkpoint_every=2"]
        given.append(f"tasks.captions={TASK.format(path=clips)}")
        command("train", str(clips.parent / "recipe.yaml"), *given, *arguments, host=make_host("captions"))
        return clips.parent / "runs" / name

    return train


@pytest.fixture
def tones(tmp_path: Path) -> ClipTask:
    files, rows = SoundFiles(tmp_path / "tones"), []
    for label, hertz in (("low_tone", 300.0), ("high_tone", 2700.0)):
        for take, split in enumerate(("train", "valid", "test", "test")):
            files.add_tone(f"{label}{take}.wav", hertz, seconds=0.5, noise=0.05, seed=take)
            rows.append((f"{label}{take}.wav", label, split))
    write_csv(files.folder / "tones.csv", "path,label,split", rows)
    host = m2dx.PluginHost.discover()
    spec = host.option_model("dataset", "csv")(name="csv", path=files.folder / "tones.csv")
    return ClipTask.from_dataset("tones", host.build("dataset", spec), unit_seconds=0.5)


def test_a_run_resumes_bit_for_bit_and_its_export_scores_texts(
    train: Callable[..., Path],
    metrics: Callable[[Path], list[dict[str, Any]]],
    tones: ClipTask,
    tmp_path: Path,
) -> None:
    straight = train()
    cut = shutil.copytree(straight, straight.with_name("cut"))
    for file in (cut / "checkpoints").glob("step-00000004.*"):
        file.unlink()
    train("--resume", name="cut")
    assert metrics(cut) == metrics(straight) and all(line["loss_captions"] > 0 for line in metrics(cut))
    state = torch.load(straight / "checkpoints" / "step-00000004.pt", weights_only=True)["model"]
    assert 0 < abs(float(state["tasks.captions.loss.log_scale"]) + math.log(0.07)) < 0.1  # it is trained, too
    one, other = (read_weights(folder) for folder in (straight, cut))
    assert one.mappers.keys() == {"captions.linear.weight", "captions.linear.bias"}
    for name, of in {**one.tensors, **one.mappers}.items():
        assert torch.equal(of, {**other.tensors, **other.mappers}[name]), name

    # A run's checkpoint and a copy of its export score the same; a text has the same score alone.
    places = [straight, export_encoder(straight / "encoder", tmp_path / "copy")]
    wav = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    first, *rest = (m2dx_captions.load(place, sentences="words").score(wav, TEXTS) for place in places)
    assert (
        first.shape == (2, 2) and first.abs().max() <= 1 and all(torch.equal(first, other) for other in rest)
    )
    scorer = m2dx_captions.load(straight, sentences="words")
    torch.testing.assert_close(scorer.score(wav[1], TEXTS[1:]), first[1:, 1:])
    assert scorer.score(wav[:, :100], TEXTS).isfinite().all()  # shorter than a window

    # The evaluator, and what it says of encoders and options that do not fit.
    evaluator = ZeroShot(sentences="words", texts={"high_tone": TEXTS[1]})
    (score,) = evaluator.evaluate(scorer.encoder, tones, seeds=(0,))
    assert score.metric == "accuracy" and score.values == (score.mean,) and len(score.predictions) == 4
    assert score.details["texts"] == [TEXTS[1], "the sound of low tone"]
    assert all(sum(item.probabilities or ()) == pytest.approx(1, abs=1e-5) for item in score.predictions)
    assert len(evaluator.evaluate(random_like(scorer.encoder, seed=0), tones, seeds=(0,))) == 1
    with pytest.raises(
        m2dx.RecipeError, match=r"those of the training, but .*v\.npz has vectors of 4 values"
    ):
        m2dx_captions.load(straight, sentences=vector_file(tmp_path / "v.npz"))
    with pytest.raises(
        m2dx.RecipeError, match=r"mapper of one task of captions, .* but has 0 of these tasks"
    ):
        m2dx_captions.load(write_encoder(tmp_path / "plain"), sentences="words")
    write_encoder(tmp_path / "copy")  # mappers of another encoder are left out
    assert not read_weights(tmp_path / "copy").mappers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a sound"}, "`prompt` must have {label}, but is 'a sound'"),
        ({"texts": {"lowtone": "a"}}, "`texts` must be of classes of tones, but has 'lowtone'; .*low_tone"),
        ({"sentences": "v.npz"}, "lacks 2 of 2, such as 'the sound of high tone'"),
        (
            {"texts": {"high_tone": "a low tone's sound", "low_tone": "Tone's sound, low"}},
            r"classes of tones must have different vectors, but those of 'high_tone' \(\"a low tone's sound\"\) and "
            r"'low_tone' .* are the same by words; `texts` gives",
        ),
    ],
)
def test_options_are_tried_before_the_training(
    tones: ClipTask, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    source = vector_file(tmp_path / "v.npz") if "sentences" in options else "words"
    with pytest.raises(m2dx.RecipeError, match=message):
        ZeroShot(**{**options, "sentences": source}).check(tones)


def test_encoders_without_captions_get_no_score(
    tones: ClipTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    plain = m2dx.load_encoder(write_encoder(tmp_path / "plain"))
    assert ZeroShot(sentences="words").evaluate(plain, tones, seeds=(0,)) == []
    assert "no zero_shot score of an encoder that was not trained with captions" in caplog.text
    with pytest.raises(m2dx.RecipeError, match=r"leave it out of evaluation\.baselines"):
        clips_only = SimpleNamespace(sample_rate=16000, embed_dim=1, clip=None)
        ZeroShot(sentences="words").check_encoder(clips_only, tones)


@pytest.fixture
def captioned(tmp_path: Path, host: m2dx.PluginHost) -> m2dx.AudioEncoder:
    """An encoder with random weights and a mapper to the vectors of words."""
    encoder = m2dx.load_encoder(write_encoder(tmp_path / "captioned"))
    mapper = {"name": "pool_linear"}
    shapes = m2dx.TaskShapes(encoder.encoder.grid.shape, encoder.encoder.size.embed_dim, None, module.WORDS)
    state = host.build(
        "online_mapper", host.option_model("online_mapper", "pool_linear")(**mapper), shapes=shapes
    )
    encoder.mappers = {f"words.{name}": of for name, of in state.state_dict().items()}
    captions = {"offline_encoder": {"name": "captions"}, "online_mapper": mapper}
    encoder.trained_as = {"tasks": {"spread": {"offline_encoder": None}, "words": captions}}
    return encoder


@pytest.mark.parametrize("short_clips", [None, "pad", "repeat"])
@pytest.mark.parametrize("seconds", [0.005, 0.3, 0.639])
def test_short_audio_is_filled_as_a_crop_of_the_training(
    captioned: m2dx.AudioEncoder, short_clips: Any, seconds: float
) -> None:
    if short_clips is not None:
        captioned.trained_as = {**(captioned.trained_as or {}), "short_clips": short_clips}
    scorer, samples = CaptionScorer.of(captioned, Sentences("words")), round(seconds * 16_000)
    wav = torch.randn(2, samples, generator=torch.Generator().manual_seed(0)) * 0.1
    crops = [fit_length(row.numpy(), 10_240, short_clips=short_clips or "pad") for row in wav]
    whole = scorer.audio(torch.from_numpy(np.stack(crops)))
    torch.testing.assert_close(scorer.audio(wav), whole)
    torch.testing.assert_close(scorer.audio(wav[0]), whole[:1])


def test_clips_of_several_labels_have_metrics_of_their_order_alone(
    captioned: m2dx.AudioEncoder, tmp_path: Path
) -> None:
    files, rows = SoundFiles(tmp_path), []
    for take, split in enumerate(("train", "test")):
        for hertz, labels in ((300.0, "low"), (2700.0, "high"), (900.0, "low;high"), (500.0, "mid")):
            path = files.add_tone(f"{hertz}-{split}.wav", hertz, seconds=0.5, seed=take)
            rows.append((path, labels, split))
    write_csv(tmp_path / "chords.csv", "path,label,split", rows)
    task = ClipTask.from_dataset("chords", CsvDataset(path=tmp_path / "chords.csv"), unit_seconds=0.5)
    zero_shot = {"zero_shot": ZeroShot(sentences="words")}
    (score,) = evaluate({"pretrained": lambda seed: captioned}, [task], zero_shot, seeds=(0,))
    metrics: Any = score.details["metrics"]
    assert score.metric == "mAP" and score.ci95 is not None and len(score.predictions) == 4
    assert metrics.keys() == {"mAP", "auroc"} and "per_class" not in score.details
    assert metrics["mAP"]["value"] == pytest.approx(score.mean, abs=1e-6)


def test_the_components_keep_the_contract(
    clips: Path, monkeypatch: pytest.MonkeyPatch, captioned: m2dx.AudioEncoder
) -> None:
    check_component(Captions, sentences="words", path=clips)
    for loss, options in ((Contrastive, {"learned": False}), (Contrastive, {}), (Cosine, {})):
        check_component(loss, **options)
    monkeypatch.setattr(evaluators, "random_encoder", lambda *arguments, **options: captioned)
    check_component(ZeroShot, sentences="words")


def test_the_example_is_a_recipe(monkeypatch: pytest.MonkeyPatch, clips: Path, host: m2dx.PluginHost) -> None:
    monkeypatch.setenv("CAPTIONS", str(clips))
    recipe = m2dx.load_recipe(Path(__file__).parents[1] / "example" / "recipe.yaml", host=host)
    assert recipe.evaluation.evaluators["zero_shot"].name == "zero_shot"
