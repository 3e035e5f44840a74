"""What a run is: the typed, frozen, strict form of a recipe. Field names are the YAML keys.

Imports no torch: validation and `--help` are instant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from distillspec.recipe.data import DataConfig
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.endpoint import EndpointConfig
from distillspec.recipe.pair_rules import PAIR
from distillspec.recipe.recipe_rules import RECIPE
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import (
    SCHEMA_VERSION,
    ClipNorm,
    Count,
    Decay,
    FolderName,
    LearningRate,
    Part,
    SchemaVersion,
    Section,
    Share,
    Steps,
    Threads,
    WeightDecay,
)
from distillspec.recipe.start import DraftHeadConfig, MadeDraft

# --- the pair ------------------------------------------------------------------------------------


class PairConfig(Section):
    rules = PAIR

    target: str | None = Field(None, description="frozen target: a local folder or a Hub id")
    endpoint: EndpointConfig | None = Field(
        None, description="in place of `target`: an API that answers with the target's text"
    )
    draft: str | MadeDraft = Field(
        description="draft to train: a local folder or a Hub id, or how one is made"
    )
    target_revision: str | None = Field(None, description="Hub revision of the target")
    draft_revision: str | None = Field(None, description="Hub revision of the draft")
    tokenizers: Literal["equal", "cross-tokenizer"] = Field(
        "equal",
        description="cross-tokenizer: the draft has another tokenizer, and learns and proposes "
        "the tokens that both vocabularies have (TLI, 2502.05202)",
    )
    draft_head: DraftHeadConfig | None = Field(
        None, description="let the draft score a part of the vocabulary only; default: all of it"
    )
    eos_token_ids: tuple[Annotated[int, Field(ge=0, lt=2**24)], ...] = Field(
        (),
        description="token ids that end a text, in place of those that the target's "
        "generation_config, tokenizer and chat template name",
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that comes with the models; off unless you vouch for it"
    )

    @property
    def target_name(self) -> str:
        """What the target is called, wherever its weights are."""
        return self.endpoint.model if self.endpoint is not None else self.target_weights

    @property
    def target_weights(self) -> str:
        """Folder or Hub id of a target that is no endpoint."""
        assert self.target is not None, "the validator has seen to it"
        return self.target


class OptimizerConfig(Section):
    kind: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon: hidden matrices by Muon, all else by AdamW, at one rate; not where "
        "weights or their states are sharded",
    )
    learning_rate: LearningRate = Field(3e-4, description="peak rate")
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="AdamW's moment decays")
    weight_decay: WeightDecay = Field(0.0, description="on matrices only")
    warmup_steps: Steps = Field(20, description="linear warm-up, steps")
    final_rate_share: Share = Field(0.1, description="cosine ends at this share of the peak rate")
    clip_norm: ClipNorm = Field(1.0, description="gradient norm is clipped here")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0,
        description="factor of the learning rate from one layer to the next lower one, in (0, 1]; "
        "1: all layers learn alike",
    )
    freeze_embeddings: bool = Field(
        False, description="leave the input embeddings, and a head that shares them, as they are"
    )
    ema: Decay | None = Field(
        None,
        description="decay of a running average of the weights, such as 0.999; the average is "
        "probed and exported. Not with sharded weights",
    )

    @model_validator(mode="after")
    def _averages_something(self) -> Self:
        if self.ema == 0.0:
            raise RefusedError(
                "optimizer.ema=0 averages nothing",
                keys=["ema"],
                fix="remove optimizer.ema, or set it to a decay such as 0.999",
            )
        return self


class AdapterConfig(Section):
    rank: Annotated[int, Field(ge=1, le=2**16)] = Field(16, description="rank of the update")
    lora_alpha: float = Field(32.0, gt=0.0, le=1e6, description="scale of the update")
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["all-linear"] = Field(
        "all-linear",
        description="names of the linear layers to adapt; all-linear: all but the output head",
    )
    use_dora: bool = Field(
        False,
        description="DoRA: train the size of each row apart from its direction (2402.09353)",
    )


# --- machine, evaluation, export -----------------------------------------------------------------


class HardwareConfig(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the machine multiplies it faster, else float32"
    )
    strategy: Literal["auto", "ddp", "fsdp2", "zero2", "zero3"] = Field(
        "auto", description="auto: one process plain, several ddp"
    )
    shard_target: bool = Field(
        False,
        description="split the frozen target over all processes; use it where no device holds the "
        "entire target. Rank 0 reads it into CPU memory first",
    )
    threads: Threads | None = Field(None, description="CPU threads per process; default: cores")
    gradient_checkpointing: bool = Field(
        False,
        description="recompute the draft's activations in the backward pass to save memory",
    )
    compile: bool = Field(
        False, description="torch.compile the draft's training forward; needs a C++ compiler"
    )
    deterministic: bool = Field(
        False,
        description="refuse operations whose result depends on the order of threads; two runs on "
        "one machine are then bit-equal, and slower",
    )
    wandb_project: str | None = Field(
        None, description="project of Weights & Biases to log to; default: no logging there"
    )


RateFactor = Annotated[float, Field(gt=0.0, le=100.0)]


class EvaluateConfig(Section):
    suite: str = Field("quick", description="the evaluation plan: a path, or a built-in name")
    control: bool = Field(
        True,
        description="also train the undistilled draft by plain NLL for the same time, to show what "
        "distillation adds",
    )
    control_rates: Annotated[tuple[RateFactor, ...], Field(min_length=1)] = Field(
        (0.3, 1.0, 3.0),
        description="learning rates that the control tries, as multiples of the recipe's, each for "
        "a third of its time; it then trains at the one with the highest alpha on the probe's text",
    )

    @model_validator(mode="after")
    def _tries_each_rate_once(self) -> Self:
        if len({f"{factor:g}" for factor in self.control_rates}) < len(self.control_rates):
            raise RefusedError(
                "evaluate.control_rates lists a rate twice",
                keys=["control_rates"],
                fix="list each once, such as [0.3, 1.0, 3.0]",
            )
        return self


class ExportConfig(Section):
    push: str | None = Field(None, description="Hub repository to upload to: user/name")
    private: bool = Field(True, description="make a repository private that the upload creates")
    num_assistant_tokens: Count | None = Field(
        None, description="written to generation_config; default: the best measured gamma"
    )


class Recipe(Section):
    """One model pair, one training plan, one evaluation plan."""

    rules = RECIPE

    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["distill"] = "distill"
    name: FolderName = Field("", description="names the run folder; default: the file's name")
    seed: int = Field(0, ge=0, lt=2**32)
    pair: PairConfig
    data: DataConfig
    distill: DistillConfig = Field(default_factory=DistillConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    lora: AdapterConfig | None = None
    hardware: HardwareConfig = Field(default_factory=HardwareConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)

    def parts(self) -> Iterator[Part]:
        for part in self.distill.parts():
            yield Part(
                self.model_copy(update={"distill": part.settings}),
                partial(_key_in_recipe, part.key_in_file),
            )

    @property
    def template_variables(self) -> dict[str, JsonValue]:
        """What the chat template reads besides the messages; an endpoint's own come last."""
        endpoint = self.pair.endpoint
        of_server = {} if endpoint is None else endpoint.template_variables
        return {**self.data.template_variables, **of_server}


def _key_in_recipe(key_in_distill: Callable[[str], str], key: str) -> str:
    section, _, rest = key.partition(".")
    return f"distill.{key_in_distill(rest)}" if section == "distill" and rest else key
