"""What all sections of a recipe are made of: their base, a component's place, and the field types that they share.

Component sections (`ComponentSpec`) are replaced by unions over the installed components when a recipe is read
(`m2dx.recipe.loading`); here they stand for "a component of that kind, with its options".
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of all recipe sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class ComponentSpec(Section):
    """A component by name, with its options beside the name."""

    name: str
    """Name of the component; `m2dx plugins` lists those that are installed."""

    def options(self) -> dict[str, Any]:
        """The options, without the name."""
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}


class Kind:
    """Marks a field that holds a component of one kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


OfflineEncoderSpec = Annotated[ComponentSpec, Kind("offline_encoder")]
OnlineMapperSpec = Annotated[ComponentSpec, Kind("online_mapper")]
LossSpec = Annotated[ComponentSpec, Kind("loss")]
NoiseSourceSpec = Annotated[ComponentSpec, Kind("noise_source")]
MaskingSpec = Annotated[ComponentSpec, Kind("masking")]
DatasetSpec = Annotated[ComponentSpec, Kind("dataset")]
EvaluatorSpec = Annotated[ComponentSpec, Kind("evaluator")]

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
OpenFraction = Annotated[float, Field(gt=0.0, lt=1.0)]
ShortClips = Literal["pad", "repeat"]
