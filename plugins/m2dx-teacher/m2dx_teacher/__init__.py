"""An m2dx plugin of what a training is to keep, or to learn from another encoder.

A frozen M2D and log-mel statistics as offline encoders, and the relations of a teacher's frames as a regulariser.
"""

import logging

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

import m2dx
from m2dx.contract.paths import RecipeEncoderPath
from m2dx_teacher.relations import Gram
from m2dx_teacher.statistics import LogMelStatistics

logger = logging.getLogger(__name__)


class M2DTeacher(m2dx.OfflineEncoder):
    """Features of a frozen M2D by eq. (4), (B, T, F*D): the regularisation of M2D-X (III-B4 iii, IV-E).

    The teacher hears the clean view at its own sampling rate and log-mel settings, with its own mean and standard
    deviation and its own patches, whatever those of the recipe are. Crops longer than its input are split.

    Options:
        weights: an m2dx export, run folder or checkpoint, a published M2D file, or `starter`
        sample_rate: Hz, of a published file; default what its folder's name says, or 16000. Others know their own
        num_heads: attention heads, of a published file; default one per 64 channels. Others know their own
        layer: block whose output is the signal, from 1 on; 0 is the patch embedding, default the last block, normed
    """

    name = "m2d_teacher"

    def __init__(
        self,
        data: m2dx.DataInfo,
        *,
        weights: RecipeEncoderPath,
        sample_rate: PositiveInt | None = None,
        num_heads: PositiveInt | None = None,
        layer: NonNegativeInt | None = None,
    ) -> None:
        """Raises `CheckpointError` where the weights are missing, corrupt or something else."""
        super().__init__()
        teacher = m2dx.load_encoder(weights, sample_rate=sample_rate, num_heads=num_heads)
        heads = teacher.encoder.size.num_heads
        for option, given, own in (
            ("sample_rate", sample_rate, teacher.sample_rate),
            ("num_heads", num_heads, heads),
        ):
            if given not in (None, own):
                raise m2dx.RecipeError(
                    f"{option} must be {own} or left out, since {weights} says so itself, but is {given}"
                )
        if layer is not None and layer > (depth := teacher.encoder.size.depth):
            raise m2dx.RecipeError(f"layer must be 0 to {depth}, the blocks of {weights}, but is {layer}")
        self.layers = (layer,)  # None: the last
        if data.sample_rate is not None and data.sample_rate < teacher.sample_rate:
            logger.warning(
                "the teacher %s knows audio of %d Hz, but the recipe's has %d Hz: it hears nothing above %d Hz",
                weights,
                teacher.sample_rate,
                data.sample_rate,
                data.sample_rate // 2,
            )
        teacher.head = None  # a fine-tuned file's classifier, which features do not pass through
        self.teacher = teacher.requires_grad_(False)
        self.sample_rate, self.frame_rate = teacher.sample_rate, teacher.frame_rate
        self.embed_dim = teacher.embed_dim

    def num_frames(self, num_samples: int) -> int:
        """T: patches over N // hop_length frames of the log-mel, the last one filled up."""
        frames = max(num_samples // self.teacher.logmel.hop_length, 1)
        return -(-frames // self.teacher.encoder.grid.patch_size[1])

    def forward(self, views: m2dx.Views) -> Tensor:
        # Not by its `forward`, which would wait for the GPU in each step to look for NaN.
        logmel = self.teacher.standard_logmel(views.clean_wav)
        (features,) = self.teacher.encode_logmel(logmel, layers=self.layers)  # (B, T, F*D)
        return features.float()  # under autocast the blocks may give 16 bits; losses standardise in 32


@m2dx.hookimpl
def offline_encoders() -> list[type]:
    return [M2DTeacher, LogMelStatistics]


@m2dx.hookimpl
def regularisers() -> list[type]:
    return [Gram]
