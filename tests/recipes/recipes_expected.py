"""What the papers say of their settings: the numbers that recipes must have, by the fields' paths."""

from typing import Any

from msm_mae_expected import TABLE_1

BASICS = {
    "audio.sample_rate": 16_000,
    "audio.n_fft": 400,
    "audio.win_length": 400,
    "audio.hop_length": 160,
    "audio.n_mels": 80,
    "audio.f_min": 50,
    "audio.f_max": 8000,
    "model.method.name": "m2d",
    "model.size": "base",
    "model.depth": None,
    "model.predictor.embed_dim": 512,
    "model.predictor.depth": 8,
    "model.predictor.num_heads": 16,
    "model.ema_decay.start": 0.99995,
    "model.ema_decay.end": 0.99999,
    "model.method.target_input": "masked",
    "model.method.loss": "norm_mse",
    "model.method.standardise_target": True,
    "model.weight": 1.0,
    "train.base_lr": 3e-4,
    "train.betas": (0.9, 0.95),
    "train.weight_decay": 0.05,
    "train.precision": "bf16",
    "data.short_clips": "pad",
}
"""IV-A, and what it takes from MAE."""
AUDIOSET = {
    **BASICS,
    "data.mean": -7.1,
    "data.std": 4.2,
    "data.sets.audioset.dataset.name": "audioset",
    "data.sets.audioset.dataset.train": "all",
    "data.sets.audioset.dataset.labels": False,
    "data.sets.audioset.split": "train",
    "data.sampling": "uniform",
    "data.epoch_size": None,
    "audio.crop_seconds": 6.08,
    "model.patch_size": (16, 16),
    "model.mask_ratio": 0.7,
    "noise": None,
    "train.epochs": 300,
    "train.warmup_epochs": 20,
    "train.batch_size": 2048,
    "train.accumulate": 1,
}
"""IV-B."""
SPEECH = {
    **BASICS,
    "data.mean": None,
    "data.std": None,
    "data.epoch_size": None,
    "data.sets.librispeech.dataset.name": "librispeech",
    "data.sets.librispeech.dataset.subsets": ("train-clean-100", "train-clean-360", "train-other-500"),
    "data.sets.librispeech.dataset.labels": "none",
    "data.sets.librispeech.split": None,
    "noise.ratio": 0.2,
    "noise.dataset.name": "audioset",
    "noise.dataset.train": "all",
    "noise.split": "train",
    "noise.mean": -7.1,
    "audio.crop_seconds": 2.08,
    "model.patch_size": (80, 4),
    "model.mask_ratio": 0.6,
    "train.epochs": 1000,
    "train.warmup_epochs": 60,
    "train.batch_size": 2048,
    "train.accumulate": 1,
}
"""IV-D."""
HUBERT = {
    "tasks.hubert.offline_encoder.name": "hubert",
    "tasks.hubert.offline_encoder.model": "hubert_base",
    "tasks.hubert.offline_encoder.layer": 9,
    "tasks.hubert.online_mapper.name": "linear",
    "tasks.hubert.loss.name": "norm_mse",
    "tasks.hubert.target_frames": "tokens",
    "tasks.hubert.weight": 0.5,
}
RESPIRATORY = {
    **BASICS,
    "data.mean": None,
    "data.std": None,
    "data.epoch_size": 10_000,
    "audio.crop_seconds": 2.0,
    "model.patch_size": (16, 4),
    "model.mask_ratio": 0.7,
    "train.epochs": 600,
    "train.warmup_epochs": 24,
    "train.batch_size": 128,
    "train.accumulate": 2,
    "train.checkpoint_every": 20 * (10_000 // 128),
    "train.keep_every": 100 * (10_000 // 128),
    "evaluation.evaluators.icbhi.name": "icbhi",
    "evaluation.evaluators.icbhi.batch_size": 64,
    "evaluation.evaluators.icbhi.accumulate": 4,
    "evaluation.evaluators.icbhi.schedule": "constant",
    "evaluation.evaluators.icbhi.weight_decay": 1e-4,
    "evaluation.evaluators.icbhi.freeze_patch_embed": True,
    "evaluation.evaluators.icbhi.mel_mask": 20,
    "evaluation.evaluators.icbhi.time_mask": 40,
    "evaluation.seeds": (0, 1, 2, 3, 4),
}
ICBHI = {
    **RESPIRATORY,
    "data.sets.icbhi.dataset.name": "icbhi",
    "data.sets.icbhi.dataset.unit": "recordings",
    "data.sets.icbhi.split": "train",
    "evaluation.tasks.icbhi.dataset.name": "icbhi",
    "evaluation.tasks.icbhi.dataset.unit": "cycles",
    "evaluation.tasks.icbhi.unit_seconds": 8,
    "evaluation.tasks.icbhi.shared_groups": "warn",
    "evaluation.tasks.icbhi.evaluators": None,
    "evaluation.evaluators.icbhi.epochs": 150,
    "evaluation.evaluators.icbhi.learning_rate": 5e-5,
    "evaluation.evaluators.icbhi.class_weights": True,
}
FSD50K: dict[str, Any] = {
    "noise.ratio": 0.3,
    "noise.dataset.name": "fsd50k",
    "noise.dataset.part": "dev",
    "noise.split": None,
    "noise.mean": None,
}
SPRSOUND = {
    **RESPIRATORY,
    **FSD50K,
    "data.sets.sprsound.dataset.name": "sprsound",
    "data.sets.sprsound.dataset.unit": "recordings",
    "data.sets.sprsound.split": "train",
    "noise.ratio": 0.01,
    "evaluation.tasks.sprsound.dataset.name": "sprsound",
    "evaluation.tasks.sprsound.dataset.unit": "events",
    "evaluation.tasks.sprsound.dataset.test": "inter",
    "evaluation.tasks.sprsound.dataset.labels": "types",
    "evaluation.tasks.sprsound.unit_seconds": 8,
    "evaluation.tasks.sprsound.shared_groups": "error",
    "evaluation.tasks.sprsound.evaluators": None,
    "evaluation.evaluators.icbhi.epochs": 50,
    "evaluation.evaluators.icbhi.learning_rate": 5e-6,
    "evaluation.evaluators.icbhi.class_weights": False,
}
TEACHER = {
    "tasks.teacher.offline_encoder.name": "m2d_teacher",
    "tasks.teacher.online_mapper.name": "linear",
    "tasks.teacher.loss.name": "norm_mse",
    "tasks.teacher.target_frames": "tokens",
    "tasks.teacher.weight": 1.0,
}
LABELS = {
    "data.sets.audioset.dataset.labels": True,
    "tasks.labels.offline_encoder.name": "audioset_labels",
    "tasks.labels.online_mapper.name": "pool_linear",
    "tasks.labels.loss.name": "bce",
    "tasks.labels.target_frames": "native",
    "tasks.labels.weight": 1.0,
}
NO_TASK: dict[str, Any] = {"tasks": {}}
IMAGENET: dict[str, Any] = {
    **{path: value for path, value in BASICS.items() if path.startswith(("model.", "train."))},
    "image.size": (224, 224),
    "image.channels": 3,
    "image.crop_scale": (0.2, 1.0),
    "image.flip": True,
    "data.sets.imagenet.dataset.name": "image_folder",
    "data.sets.imagenet.split": "train",
    "data.epoch_size": None,
    "model.patch_size": (16, 16),
    "model.mask_ratio": 0.75,
    "noise": None,
    "train.epochs": 300,
    "train.warmup_epochs": 40,
    "train.batch_size": 2048,
    "train.accumulate": 1,
    "train.base_lr": 1.5e-4,
    "train.clip_norm": None,
}
"""Appendix A, and MAE (He et al., 2022, table 8)."""
NO_NOISE: dict[str, Any] = {"noise": None}
MSM_MAE = {
    **{path: value for path, value in AUDIOSET.items() if path.startswith(("audio.", "data.", "noise"))},
    "model.method.name": "msm_mae",
    "model.size": "base",
    "model.depth": None,
    "model.predictor.embed_dim": 384,
    "model.predictor.depth": 4,
    "model.predictor.num_heads": 6,
    "model.patch_size": (16, 16),
    "model.mask_ratio": 0.75,
    "model.masking": None,
    "model.method.standardise_target": False,
    "model.weight": 1.0,
    "train.epochs": 100,
    "train.warmup_epochs": 10,
    "train.batch_size": 512,
    "train.accumulate": 1,
    "train.base_lr": 3e-4,
    "train.min_lr": 0.0,
    "train.betas": (0.9, 0.95),
    "train.weight_decay": 0.05,
    "train.clip_norm": None,
    "train.precision": "bf16",
}
"""MSM-MAE paper, 4.1.1, and what it takes from MAE; mean and std of AudioSet from M2D-X, IV-A."""
BASELINE = {
    **{path: value for path, value in AUDIOSET.items() if not path.startswith("model.method.")},
    "model.method.name": "msm_mae",
    "model.mask_ratio": 0.75,
    "model.predictor.embed_dim": 384,
    "model.predictor.depth": 4,
    "model.predictor.num_heads": 6,
    "model.method.standardise_target": False,
}
"""(i) of table III: only the method is another; MSM-MAE's default leaves targets as they are."""

ALL_PATCHES = {
    **{path: value for path, value in AUDIOSET.items() if path != "model.method.target_input"},
    "model.method.name": "m2d_all_patches",
}

PAPER: dict[str, dict[str, Any]] = {
    "m2d_audioset": {**AUDIOSET, **NO_TASK},
    "m2d_audioset_06": {**AUDIOSET, **NO_TASK, "model.mask_ratio": 0.6},
    "m2d_audioset_all": {**ALL_PATCHES, **NO_TASK},
    "msm_mae_audioset": {**BASELINE, **NO_TASK},
    "m2d_as": {**AUDIOSET, **LABELS},
    "m2d_audioset_16x4": {**AUDIOSET, **NO_TASK, "model.patch_size": (16, 4), "audio.crop_seconds": 2.0},
    "m2d_s_80x4": {**SPEECH, **NO_TASK},
    "m2d_s_80x4_hubert": {**SPEECH, **HUBERT, "tasks.hubert.weight": 1.0},
    "m2d_s_4s": {**SPEECH, **HUBERT, "model.patch_size": (80, 2), "audio.crop_seconds": 4.0},
    "m2d_s_5s": {
        **SPEECH,
        **HUBERT,
        "model.patch_size": (80, 2),
        "audio.crop_seconds": 5.12,
        "train.accumulate": 2,
    },
    "m2d_s_6s": {
        **SPEECH,
        **HUBERT,
        "model.patch_size": (80, 2),
        "audio.crop_seconds": 6.08,
        "train.accumulate": 2,
    },
    "icbhi_m2d": {**ICBHI, **NO_TASK, **FSD50K},
    "icbhi_m2d_x": {**ICBHI, **TEACHER, **FSD50K},
    "icbhi_m2d_no_noise": {**ICBHI, **NO_TASK, **NO_NOISE},
    "icbhi_m2d_x_no_noise": {**ICBHI, **TEACHER, **NO_NOISE},
    "sprsound_m2d": {**SPRSOUND, **NO_TASK},
    "sprsound_m2d_x": {**SPRSOUND, **TEACHER},
    "m2d_imagenet": {**IMAGENET, **NO_TASK},
    **{
        name: {
            **MSM_MAE,
            **NO_TASK,
            "audio.crop_seconds": row.frames / 100,
            "model.patch_size": row.patch_size,
        }
        for name, row in TABLE_1.items()
    },
}
CLIPS_PER_GPU = {
    "m2d_audioset": (4, 512),
    "m2d_audioset_06": (4, 512),
    "m2d_as": (4, 512),
    "m2d_audioset_16x4": (4, 512),
    "m2d_s_4s": (4, 512),
    "m2d_s_5s": (4, 256),
    "m2d_s_6s": (4, 256),
    "icbhi_m2d": (1, 64),
    "icbhi_m2d_x": (1, 64),
}
"""GPUs and batch size of table XV."""
