"""What a run is: the typed, frozen, strict form of a recipe. Field names are the YAML keys.

Imports no torch: validation and `--help` are instant.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from distillspec.recipe.data import DataConfig
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.endpoint import EndpointConfig
from distillspec.recipe.section import (
    ClipNorm,
    Count,
    Decay,
    FolderName,
    LearningRate,
    Section,
    Share,
    Steps,
    Threads,
    WeightDecay,
)
from distillspec.recipe.start import DraftHeadConfig, MadeDraft

# --- the pair ------------------------------------------------------------------------------------


class PairConfig(Section):
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

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if (self.target is None) == (self.endpoint is None):
            raise ValueError(
                "give exactly one of pair.target (a folder or a Hub id: the weights) and "
                "pair.endpoint (an API: its text alone)"
            )
        if self.endpoint is not None and self.target_revision is not None:
            raise ValueError(
                "pair.target_revision is of a model on the Hub, and an endpoint has none: leave it "
                "out"
            )
        return self

    @model_validator(mode="after")
    def _has_the_weights_it_needs(self) -> Self:
        if self.endpoint is None:
            return self
        if not isinstance(self.draft, str):
            raise ValueError(
                f"draft: {{kind: {self.draft.kind}}} is made with the target's weights and "
                "tokenizer, and an endpoint gives neither: give a folder or a Hub id as draft, or "
                "name the target's weights in pair.target"
            )
        if self.tokenizers == "cross-tokenizer":
            raise ValueError(
                "tokenizers: cross-tokenizer compares the draft's tokens with the target's, and an "
                "endpoint gives text, which the draft reads in its own: leave tokenizers out"
            )
        if self.draft_head is not None:
            raise ValueError(
                "draft_head loses what of the target's distribution is outside of it, and an "
                "endpoint does not tell that: leave draft_head out, or name the target's weights "
                "in pair.target"
            )
        return self

    @model_validator(mode="after")
    def _revises_what_is_fetched(self) -> Self:
        if self.draft_revision is not None and not isinstance(self.draft, str):
            raise ValueError("draft_revision is of a draft on the Hub, and this one is made")
        return self

    @model_validator(mode="after")
    def _bridges_two_tokenizers(self) -> Self:
        if self.tokenizers == "cross-tokenizer" and not isinstance(self.draft, str):
            raise ValueError(
                "tokenizers: cross-tokenizer is for a given draft: a made one has the target's"
            )
        if self.tokenizers == "cross-tokenizer" and self.draft_head is not None:
            raise ValueError(
                "draft_head is of the target's tokens: leave it out with tokenizers: "
                "cross-tokenizer, which restricts the draft already"
            )
        return self


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
        description="each layer's rate is this share of the rate of the one above it; the output "
        "head and the last norm have the full one, the embeddings the smallest",
    )
    freeze_embeddings: bool = Field(
        False, description="leave the input embeddings, and a head that shares them, as they are"
    )
    ema: Decay | None = Field(
        None,
        description="decay of a running average of the weights, such as 0.999: what is probed and "
        "exported is the average. Not where weights are sharded",
    )


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
        description="DoRA: the size of each row is trained apart from its direction (2402.09353)",
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
        description="split the frozen target over all processes: for one that no device holds "
        "whole. Rank 0 reads it into the CPU's memory first",
    )
    threads: Threads | None = Field(None, description="CPU threads per process; default: cores")
    gradient_checkpointing: bool = Field(
        False, description="compute the draft's activations again when the gradient needs them"
    )
    compile: bool = Field(
        False, description="torch.compile the draft's training forward; needs a C++ compiler"
    )
    deterministic: bool = Field(
        False,
        description="refuse operations whose result depends on the order of threads: slower, and "
        "two runs on one machine are alike to the last bit",
    )
    wandb_project: str | None = Field(None, description="log to Weights & Biases as well")


class EvaluateConfig(Section):
    suite: str = Field("eval/suites/quick.yaml", description="the evaluation plan")
    control: bool = Field(
        True, description="also train the undistilled draft by plain NLL for the same wall-clock"
    )


class ExportConfig(Section):
    push: str | None = Field(None, description="Hub repository to upload to: user/name")
    private: bool = Field(True, description="of a repository that the upload creates")
    num_assistant_tokens: Count | None = Field(
        None, description="written to generation_config; default: the best measured gamma"
    )


class Recipe(Section):
    """One model pair, one training plan, one evaluation plan."""

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

    @property
    def template_variables(self) -> dict[str, JsonValue]:
        """What the chat template reads besides the messages; an endpoint's own come last."""
        endpoint = self.pair.endpoint
        told = {} if endpoint is None else endpoint.template_variables
        return {**self.data.template_variables, **told}

    @model_validator(mode="after")
    def _averages_whole_weights(self) -> Self:
        if self.optimizer.ema is not None and self.hardware.strategy in ("fsdp2", "zero3"):
            raise ValueError(
                f"optimizer.ema averages whole weights, and hardware.strategy="
                f"{self.hardware.strategy} shards them: take ddp or zero2, or leave ema out"
            )
        if self.optimizer.ema is not None and self.optimizer.ema == 0.0:
            raise ValueError("optimizer.ema=0 averages nothing: leave it out")
        return self

    @model_validator(mode="after")
    def _packs_whole_texts(self) -> Self:
        packing, longest = (
            self.distill.packing,
            (self.data.max_prompt_tokens + self.data.max_response_tokens),
        )
        if packing is not None and packing < longest:
            raise ValueError(
                f"distill.packing={packing} is shorter than a text may be, {longest} tokens "
                "(data.max_prompt_tokens + data.max_response_tokens): raise it, or lower them"
            )
        return self

    @model_validator(mode="after")
    def _cross_tokenizer_drafts_read_text_of_others(self) -> Self:
        if self.pair.tokenizers == "equal":
            return self
        source = self.distill.source
        if source.of != source.stored:
            raise ValueError(
                "with pair.tokenizers: cross-tokenizer the draft writes none of its training "
                "text, nor drafts any of it: set distill.source to shares of target and fixed"
            )
        if self.distill.packing is not None:
            raise ValueError(
                "distill.packing puts the target's tokens into rows, and with pair.tokenizers: "
                "cross-tokenizer the draft cuts each text into tokens of its own: leave packing out"
            )
        self._counts_no_blocks("pair.tokenizers: cross-tokenizer")
        if self.hardware.strategy in ("fsdp2", "zero3"):
            raise ValueError(
                "pair.tokenizers: cross-tokenizer takes rows out of an entire head, and "
                f"hardware.strategy={self.hardware.strategy} splits it: take the strategy ddp or "
                "zero2"
            )
        return self

    @model_validator(mode="after")
    def _head_has_text_to_count(self) -> Self:
        if self.pair.draft_head is None:
            return self
        if not self.distill.source.stored:
            raise ValueError(
                "pair.draft_head counts tokens in text that is there before training: give "
                "distill.source a share of target or fixed, per sequence or batch"
            )
        self._counts_no_blocks("pair.draft_head")
        if self.hardware.strategy in ("fsdp2", "zero3"):
            raise ValueError(
                "pair.draft_head takes rows out of a whole matrix, and hardware.strategy="
                f"{self.hardware.strategy} splits it: take the strategy ddp or zero2"
            )
        return self

    def _counts_no_blocks(self, what: str) -> None:
        if "block_efficiency" in self.distill.terms:
            raise ValueError(
                f"{what} leaves some of the target's tokens unsaid, which ends a block, and "
                "divergence: block_efficiency is told nothing of them: take another divergence"
            )

    @model_validator(mode="after")
    def _two_passes_see_one_draft(self) -> Self:
        if self.lora is not None and self.lora.dropout and self.distill.reads_whole_steps:
            raise ValueError(
                f"lora.dropout={self.lora.dropout:g} makes another draft of each pass, and "
                "distill.select and divergence: tvd_plus read a step twice: set lora.dropout=0"
            )
        return self

    @model_validator(mode="after")
    def _a_split_target_is_asked_by_all_at_once(self) -> Self:
        if not self.hardware.shard_target:
            return self
        source, pair = self.distill.source, self.pair
        faults = {
            "distill.source.target": source.target > 0.0,
            "distill.source.speculative": source.speculative > 0.0,
            "distill.target_logits: {kind: cached}": self.distill.cached_logits is not None,
            "pair.draft as a section": not isinstance(pair.draft, str),
            "pair.draft_head": pair.draft_head is not None,
            "pair.tokenizers: cross-tokenizer": pair.tokenizers == "cross-tokenizer",
            "pair.endpoint": pair.endpoint is not None,
        }
        for name, is_set in faults.items():
            if is_set:
                raise ValueError(
                    f"hardware.shard_target=true scores text with all processes at once, and {name}"
                    " wants the target in one of them: take text of the draft or of the data (a "
                    "server can write the target's: pair.endpoint in a recipe of its own)"
                )
        return self

    @model_validator(mode="after")
    def _dora_sees_whole_matrices(self) -> Self:
        splits = self.hardware.strategy in ("fsdp2", "zero3")
        if self.lora is not None and self.lora.use_dora and splits:
            raise ValueError(
                "lora.use_dora=true needs the norms of whole matrices, and hardware.strategy="
                f"{self.hardware.strategy} splits them: take use_dora: false, or the strategy ddp "
                "or zero2"
            )
        return self

    @model_validator(mode="after")
    def _muon_sees_whole_matrices(self) -> Self:
        if self.optimizer.kind == "muon" and self.hardware.strategy not in ("auto", "ddp"):
            raise ValueError(
                "optimizer.kind=muon needs whole matrices, and hardware.strategy="
                f"{self.hardware.strategy} splits them: take adamw, or the strategy auto or ddp"
            )
        return self

    @model_validator(mode="after")
    def _asks_of_an_endpoint_what_it_can_give(self) -> Self:
        if self.pair.endpoint is None:
            return self
        plan = self.distill
        if plan.reads_target:
            readers = "distill.select" if plan.select else f"distill.divergence={plan.divergence}"
            raise ValueError(
                "pair.endpoint gives the target's text, not its distribution, which "
                f"{readers} reads: set distill.divergence=nll and distill.source={{target: 1.0}} "
                "(SeqKD), or name the target's weights in pair.target"
            )
        if plan.needs_target:
            raise ValueError(
                f"distill.source.speculative={plan.source.speculative:g} verifies by the target's "
                "distribution, and pair.endpoint gives text alone: take the sources target and "
                "fixed"
            )
        return self
