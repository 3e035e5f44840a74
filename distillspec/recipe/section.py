"""What every part of a recipe or a suite is, and the kinds of numbers in it. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
# Their upper bounds are far above what anybody uses: a slip of the finger is told at once, and not
# by a library that runs out of memory or time.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]  # the length of a text
Rows = Annotated[int, Field(ge=1, le=2**20)]  # texts that are held at one time
Steps = Annotated[int, Field(ge=0, le=1_000_000_000)]
Threads = Annotated[int, Field(ge=1, le=4096)]
Block = Annotated[int, Field(ge=1, le=64)]  # tokens drafted at one time
LearningRate = Annotated[float, Field(gt=0.0, le=10.0)]
WeightDecay = Annotated[float, Field(ge=0.0, le=10.0)]
ClipNorm = Annotated[float, Field(ge=1e-6, le=1e6)]
Minutes = Annotated[float, Field(gt=0.0, le=10_000_000.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
FolderName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?$")]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
