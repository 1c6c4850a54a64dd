"""A checkout of s3prl's repository as the classic interface wants it: the installed package, and what it lacks.

Settings, vocabulary and lists of the repository are not in the package; here are small ones of our own, with the
repository's file names and keys.
"""

from pathlib import Path
from typing import Any

import yaml

CORPUS = '''
"""Stands for the module of s3prl's repository that reads LibriSpeech as phonemes."""
from pathlib import Path

class LibriPhoneDataset:
    def __init__(self, splits, tokenizer, bucket_size, path, lexicon, **options):
        words = dict(line.split(None, 1) for file in lexicon for line in Path(file).read_text().splitlines())
        self.items = []
        for split in splits:
            for file in sorted(Path(path, split).rglob("*.trans.txt")):
                for line in file.read_text().splitlines():
                    name, text = line.split(None, 1)
                    phonemes = " ".join(words[word].strip() for word in text.split())
                    self.items.append((str(file.parent / f"{name}.flac"), tokenizer.encode(phonemes)))
        self.bucket_size = bucket_size

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index:][: self.bucket_size] if self.bucket_size > 1 else self.items[index]
'''
PHONEMES = "W AH1 N T UW1 S IH1 K AY1".split()
CLASSIFIER = {"projector_dim": 16, "select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}
BATCHES = {"num_workers": 0, "train_batch_size": 4, "eval_batch_size": 4}


def write_checkout(folder: Path, package: Path, *, lexicons: Path) -> Path:
    """Links the package into a folder, adds the six tasks' settings, and gives the folder."""
    code = folder / "s3prl"
    _link(package, code)
    downstream = _own(code / "downstream")
    for task, (name, config) in _configs(lexicons).items():
        path = _own(downstream / task) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
    corpus = downstream / "ctc" / "corpus"
    corpus.mkdir()
    (corpus / "libriphone.py").write_text(CORPUS, encoding="utf-8")
    (downstream / "ctc" / "phoneme.txt").write_text("\n".join(PHONEMES) + "\n", encoding="utf-8")
    (downstream / "sv_voxceleb1" / "dev.txt").write_text("", encoding="utf-8")
    return folder


def _link(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "__pycache__":
            (target / path.name).symlink_to(path)


def _own(folder: Path) -> Path:
    """A folder of our own in place of the link to the package's."""
    source = folder.resolve()
    folder.unlink()
    _link(source, folder)
    return folder


def _config(
    optimizer: str = "Adam", dataloaders: tuple[str, ...] = ("dev",), **expert: Any
) -> dict[str, Any]:
    return {
        "runner": {
            "total_steps": 100,
            "gradient_clipping": 1,
            "gradient_accumulate_steps": 1,
            "log_step": 5,
            "eval_step": 5,
            "save_step": 5,
            "max_keep": 2,
            "eval_dataloaders": list(dataloaders),
        },
        "optimizer": {"name": "TorchOptim", "torch_optim_name": optimizer, "lr": 1.0},
        "downstream_expert": expert,
    }


def _configs(lexicons: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    phones = _config(
        corpus={
            "name": "libriphone",
            "path": "nowhere",
            "lexicon": [str(path) for path in sorted(lexicons.glob("librispeech-lexicon-*"))],
            "train": ["train-clean-100"],
            "dev": ["dev-clean"],
            "test": ["test-clean"],
            "bucketing": True,
            "batch_size": 4,
            "num_workers": 0,
        },
        text={"mode": "word", "vocab_file": "downstream/ctc/phoneme.txt"},
        model={"project_dim": 16, "zero_infinity": True, "select": "FrameLevel"},
        save_best_on=["dev"],
        metric_higher_better=False,
        metric=["per"],
    )
    verification = _config(
        optimizer="AdamW",
        dataloaders=(),
        datarc={
            **BATCHES,
            "eval_batch_size": 1,
            "vad_config": {"min_sec": 32_000},
            "train_meta_data": "none",
            "dev_meta_data": "downstream/sv_voxceleb1/dev.txt",
            "test_meta_data": "nowhere",
            "max_timestep": 128_000,
        },
        modelrc={
            "module": "XVector",
            "input_dim": 16,
            "agg_module": "SP",
            "utter_module": "UtteranceExtractor",
            "module_config": {"XVector": {"agg_dim": 24, "dropout_p": 0.0, "batch_norm": False}},
            "ObjectiveLoss": "AMSoftmaxLoss",
            "LossConfig": {"AMSoftmaxLoss": {"s": 30.0, "m": 0.4}},
        },
    )
    words = {"num_workers": 0, "batch_size": 8}
    speakers = {**BATCHES, "eval_batch_size": 1, "max_timestep": 128_000}
    emotions = {**BATCHES, "pre_load": True, "valid_ratio": 0.2}
    return {
        "ctc": ("libriphone.yaml", phones),
        "speech_commands": ("config.yaml", _config(datarc=words, modelrc=CLASSIFIER)),
        "fluent_commands": ("config.yaml", _config(datarc=dict(BATCHES), modelrc=CLASSIFIER)),
        "voxceleb1": ("config.yaml", _config(datarc=speakers, modelrc=CLASSIFIER)),
        "emotion": ("config.yaml", _config(datarc=emotions, modelrc=CLASSIFIER)),
        "sv_voxceleb1": ("configs/amsoftmax.yaml", verification),
    }
