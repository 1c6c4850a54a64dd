"""The pictures of clips on the page of a run, from its data and checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from m2dx.contract.components import Mask
from m2dx.contract.errors import M2dxError
from m2dx.data.batches import ItemKey
from m2dx.data.crops import Batch, collate
from m2dx.model.vit import encoder_of
from m2dx.report import Sound
from m2dx.report.checkpoints import CheckpointPictures, checkpoint_pictures
from m2dx.report.examples import MaskedExample
from m2dx.training.prepare import PreparedRun

logger = logging.getLogger(__name__)

CLIPS_MASKED, CLIPS_BY_CHECKPOINT = 4, 3


@dataclass(frozen=True)
class RunPictures:
    """Clips as the model sees them in training, and at each checkpoint; `notes` says what could not be drawn."""

    examples: Sequence[MaskedExample] = ()
    checkpoints: CheckpointPictures = field(default_factory=CheckpointPictures)
    notes: Sequence[str] = ()


def draw_run(run: PreparedRun) -> RunPictures:
    """A few clips, evenly spread over the run's data, with crops, noise and masks from its seed: always the same.

    Nothing is raised: a picture that cannot be drawn must not cost the end of a training. It is logged, and noted.
    """
    if run.recipe.image is not None:
        return RunPictures(notes=("Pictures are drawn of audio only; this run was trained on images.",))
    notes: list[str] = []
    examples: Sequence[MaskedExample] = ()
    checkpoints = CheckpointPictures()
    try:
        batch = _fixed_batch(run)
        notes += [
            f"Could not be read, so that another clip is shown: {path}: {why}" for path, why in batch.bad
        ]
        examples = masked_examples(run, batch)
        names = [example.name for example in examples[:CLIPS_BY_CHECKPOINT]]
        sounds = [Sound(name, wav) for name, wav in zip(names, batch.inputs, strict=False)]
        checkpoints = checkpoint_pictures(run.folder, run.recipe, sounds, run.host)
    except M2dxError as error:
        logger.warning("without pictures of clips: %s", error)
        notes.append(f"Clips cannot be shown: {error}")
    except Exception as error:  # of any kind: see above
        logger.exception("without pictures of clips")
        notes.append(f"Clips cannot be shown: {type(error).__name__}: {error}")
    return RunPictures(examples, checkpoints, notes)


def _fixed_batch(run: PreparedRun) -> Batch:
    count = min(CLIPS_MASKED, len(run.clips))
    ids = [i * len(run.clips) // count for i in range(count)]
    return collate([run.crops[ItemKey(0, position, clip_id)] for position, clip_id in enumerate(ids)])


def masked_examples(run: PreparedRun, batch: Batch) -> list[MaskedExample]:
    """What the model sees of a batch in training: clean and noisy log-mel, and which patches are masked."""
    model = run.model.to("cpu")
    noisy, views = model.views(batch)
    grid = encoder_of(model.masked_model).grid.shape
    masked = Mask(batch.ids_shuffle, model.num_visible).is_masked.unflatten(1, grid)
    return [
        MaskedExample(
            name=run.clips[int(clip_id)].path.name,
            clean=views.clean_logmel[i, 0].numpy(),
            noisy=noisy[i, 0].numpy(),
            is_masked=masked[i].numpy(),
            seconds=run.recipe.audio.crop_seconds,
        )
        for i, clip_id in enumerate(batch.clip_ids)
    ]
