"""How a model is made from nothing, or trained further: recipes of kind `pretrain`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distillspec.recipe.data import CorpusSource
from distillspec.recipe.pretrain_rules import PRETRAIN, TOKENIZER
from distillspec.recipe.schema import HardwareConfig
from distillspec.recipe.section import (
    SCHEMA_VERSION,
    ClipNorm,
    Count,
    FolderName,
    LearningRate,
    Rows,
    SchemaVersion,
    Section,
    Share,
    Steps,
    WeightDecay,
)
from distillspec.recipe.start import LlamaShape

Pattern = Literal["qwen2", "llama-bpe"]


class TokenizerConfig(Section):
    """Either train a byte-level BPE on the corpus, or take the tokenizer of another model."""

    rules = TOKENIZER

    vocab_size: Annotated[int, Field(ge=257, le=2**20)] | None = Field(
        None, description="size of a new byte-level BPE, tokens"
    )
    take_from: str | None = Field(None, description="model folder whose tokenizer is used")
    pattern: Pattern | None = Field(
        None,
        description="how text is split before tokens are merged, by the name in llama.cpp; "
        "default: qwen2 for a new tokenizer, and no change of a taken one",
    )


class PretrainConfig(Section):
    context: Annotated[int, Field(ge=2, le=2**24)] = Field(
        256, description="tokens per training row"
    )
    batch_size: Rows = Field(32, description="rows per optimizer step")
    max_steps: Count = Field(1000, description="optimizer steps")
    validate_every_steps: Count = Field(100, description="steps between two validations")
    validation_rows: Rows = Field(128, description="held-out rows per validation")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon",
        description="muon: hidden matrices by Muon, all else by AdamW; adamw: everything by AdamW, "
        "to fine-tune, or where products in bfloat16, which Muon takes, are slow",
    )
    matrix_rate: LearningRate = Field(0.02, description="peak rate of Muon (hidden matrices)")
    other_rate: LearningRate = Field(3e-3, description="peak rate of AdamW (all other weights)")
    weight_decay: WeightDecay = 0.01
    warmup_steps: Steps = Field(30, description="linear warm-up, steps")
    decay_share: Share = Field(0.5, description="share of the steps, at the end, in linear decay")
    final_rate_share: Share = Field(0.03, description="the decay ends at this share of the peak")
    clip_norm: ClipNorm = 1.0
    start_share: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="what is written is this share of the weights in start_from and the rest of "
        "the trained ones: an average of two models of one training often beats both",
    )


class PretrainRecipe(Section):
    """A causal language model trained on a corpus, from nothing or further: half of a nano pair."""

    rules = PRETRAIN

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["pretrain"]
    name: FolderName = Field("", description="names the run folder; default: the file's name")
    seed: int = Field(0, ge=0, lt=2**32)
    output: str = Field(description="folder that receives the finished model")
    corpus: CorpusSource
    held_out_percent: float = Field(3.0, gt=0.0, lt=100.0)
    tokenizer: TokenizerConfig
    model: LlamaShape | None = Field(None, description="shape of a model with random weights")
    start_from: str | None = Field(None, description="model folder that is trained further")
    train: PretrainConfig = Field(default_factory=PretrainConfig)
    hardware: HardwareConfig = Field(default_factory=HardwareConfig)
