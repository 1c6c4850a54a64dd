"""The sections `model` and `tasks` of a recipe: what is trained, and by which losses."""

from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveInt, model_validator

from m2dx.recipe.section import (
    Fraction,
    LossSpec,
    MaskingSpec,
    OfflineEncoderSpec,
    OnlineMapperSpec,
    OpenFraction,
    Section,
)


class PredictorSection(Section):
    """The transformer that predicts all patches from the visible ones (eq. 1); for MSM-MAE the decoder."""

    embed_dim: PositiveInt = 512
    """Width."""
    depth: PositiveInt = 8
    """Blocks."""
    num_heads: PositiveInt = 16
    """Attention heads."""


class EmaSection(Section):
    """Decay of the target network (eq. 3), linearly interpolated over the steps (M2D-X, IV-A)."""

    start: Fraction = 0.99995
    """Decay at the first step."""
    end: Fraction = 0.99999
    """Decay at the last step."""


class ModelSection(Section):
    """Masked Modeling Duo (M2D-X, III-A), or its reconstruction sibling MSM-MAE."""

    method: Literal["m2d", "msm_mae"] = "m2d"
    """Predict the target network's latents (M2D), or reconstruct the spectrogram (MSM-MAE)."""
    size: Literal["tiny", "small", "base", "large"] = "base"
    """ViT size: 192, 384, 768 or 1024 wide; 12 blocks (large 24); 64 per head."""
    depth: PositiveInt | None = None
    """Blocks of the encoder, instead of the size's own."""
    patch_size: tuple[PositiveInt, PositiveInt] = (16, 16)
    """Patch size (mels, frames)."""
    mask_ratio: OpenFraction = 0.7
    """Share of the patches that is masked."""
    masking: MaskingSpec | None = None
    """Which of the patches are masked; default `random`, as in the papers."""
    predictor: PredictorSection = PredictorSection()
    """The predictor; by default the published one of the method (MSM-MAE: 384 wide, 4 blocks, 6 heads)."""
    ema_decay: EmaSection = EmaSection()
    """Decay of the target network; M2D only (MSM-MAE, which has none, leaves it unread)."""
    target_init: Literal["random", "online"] = "random"
    """The target network starts from its own random weights, as published, or from the online ones; M2D only."""
    target_input: Literal["masked", "all"] = "masked"
    """Patches that the target network sees; "all" is the paper's conventional variant; M2D only."""
    loss: Literal["norm_mse", "mse"] = "norm_mse"
    """Loss of M2D: eq. (2), or plain mean squared error; M2D only."""
    standardise_target: bool | None = None
    """Standardise each patch's target; default yes for M2D, no for MSM-MAE, as published."""
    weight: NonNegativeFloat = 1.0
    """Weight lambda of the M2D (or MSM-MAE) loss in eq. (6)."""

    @model_validator(mode="before")
    @classmethod
    def _published_decoder(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("method") != "msm_mae":
            return values
        given = values.get("predictor", {})
        if not isinstance(given, dict):
            return values
        return {**values, "predictor": {"embed_dim": 384, "depth": 4, "num_heads": 6, **given}}

    @model_validator(mode="after")
    def _fields_of_the_method(self) -> "ModelSection":
        if self.method == "msm_mae":
            fields = type(self).model_fields
            unused = ("target_init", "target_input", "loss")
            changed = [name for name in unused if getattr(self, name) != fields[name].default]
            if changed:
                raise ValueError(
                    f"{' and '.join(changed)} must be left out with method msm_mae, which has no target"
                )
        return self


class TaskSection(Section):
    """One task beside M2D: a term of the loss (M2D-X, III-B)."""

    offline_encoder: OfflineEncoderSpec
    """Gives the training signal from the clean view."""
    online_mapper: OnlineMapperSpec
    """Brings M2D's features to the training signal's shape."""
    loss: LossSpec
    """Compares the two."""
    weight: NonNegativeFloat = 1.0
    """Weight lambda of this task in eq. (6)."""
    target_frames: Literal["native", "tokens"] = "native"
    """Frames of the training signal: its own, or brought to the T frames of the patch grid (mean, interpolation)."""
