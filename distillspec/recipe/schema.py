"""What a run is: the typed, frozen, strict form of a recipe. Field names are the YAML keys.

Imports no torch: validation and `--help` are instant.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from distillspec.recipe.endpoint import Endpoint
from distillspec.recipe.section import Count, Decay, FolderName, Section, Share
from distillspec.recipe.start import DraftHead, LlamaShape, MadeDraft

# --- the pair ------------------------------------------------------------------------------------


class Pair(Section):
    target: str | None = Field(None, description="frozen target: a local folder or a Hub id")
    endpoint: Endpoint | None = Field(
        None, description="in place of `target`: an API that answers with the target's text"
    )
    draft: str | MadeDraft = Field(
        description="draft to train: a local folder or a Hub id, or how one is made"
    )
    target_revision: str | None = Field(None, description="Hub revision of the target")
    draft_revision: str | None = Field(None, description="Hub revision of the draft")
    tokenizers: Literal["equal", "bridged"] = Field(
        "equal",
        description="bridged: the draft has a tokenizer of its own and learns and proposes the "
        "tokens that both vocabularies have (TLI, 2502.05202)",
    )
    draft_head: DraftHead | None = Field(
        None, description="let the draft score a part of the vocabulary only; default: all of it"
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
        if self.tokenizers == "bridged":
            raise ValueError(
                "tokenizers: bridged compares the draft's tokens with the target's, and an "
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
        if self.tokenizers == "bridged" and not isinstance(self.draft, str):
            raise ValueError(
                "tokenizers: bridged is for a given draft: one that is made has the target's"
            )
        if self.tokenizers == "bridged" and self.draft_head is not None:
            raise ValueError(
                "draft_head is of the target's tokens: leave it out with tokenizers: "
                "bridged, which restricts the draft already"
            )
        return self


# --- where text comes from -----------------------------------------------------------------------


class PythonSource(Section):
    """Python code that is on every machine which has installed the project."""

    kind: Literal["python-source"]
    standard_library: bool = Field(False, description="take the interpreter's own library")
    packages: tuple[str, ...] = Field((), description="installed packages to take")
    include: tuple[str, ...] = Field(
        ("**/*.py",), description="globs a file must match, relative to its package"
    )
    exclude: tuple[str, ...] = Field((), description="globs of files to leave out")
    prompts_per_file: Count = Field(4, description="prompts cut from one file (seeded positions)")

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.standard_library and not self.packages:
            raise ValueError("names no code: set standard_library: true or list packages")
        return self


class _Rows(Section):
    """What a row of a data set is read by; `a.b` and `a.0` name a field inside another one."""

    prompt: str = Field("prompt", description="field of the prompt text")
    response: str = Field("response", description="field of the response text, where there is one")
    messages: str = Field("messages", description="field of a chat; the target's template is used")
    turns: str | None = Field(
        None,
        description="field of a list of user turns, in place of a prompt: the first one is asked. "
        "Later ones would need answers of the target's own",
    )
    category: str | None = Field(None, description="field of what a row is about, for the report")
    merge: dict[str, str] = Field(
        {}, description="categories that are told as another one: {writing: mt_bench}"
    )
    as_chat: Literal["never", "if-template"] = Field(
        "never",
        description="if-template: a prompt is asked as a user's message where the target's "
        "tokenizer has a chat template, and is plain text where it has none",
    )

    @model_validator(mode="after")
    def _merges_something(self) -> Self:
        if self.merge and self.category is None:
            raise ValueError("merge renames categories: name their field with category")
        return self


class Jsonl(_Rows):
    """One JSON object a line, with `prompt` (and `response`), `turns`, or `messages`."""

    kind: Literal["jsonl"]
    path: str = Field(description="the file, relative to the working folder")


class Hub(_Rows):
    """A data set of the Hugging Face Hub, or a local folder that `datasets` can load."""

    kind: Literal["hub"]
    dataset: str = Field(description="Hub id or folder; `json` with files that are none of both")
    configuration: str | None = Field(None, description="the data set's configuration name")
    files: tuple[str, ...] = Field((), description="files of the data set, or addresses, to take")
    split: str = Field("train", description="split to take")
    revision: str | None = Field(None, description="Hub revision")
    path: str | None = Field(
        None, description="a JSONL file with the same fields that is read in its place: no network"
    )

    @property
    def local(self) -> Jsonl | None:
        """The file that stands in for the data set, read by the same fields."""
        if self.path is None:
            return None
        shared = {name: getattr(self, name) for name in _Rows.model_fields}
        return Jsonl(kind="jsonl", path=self.path, **shared)


Source = Annotated[PythonSource | Jsonl | Hub, Field(discriminator="kind")]


class Data(Section):
    source: Source
    held_out: Source | None = Field(
        None, description="prompts for probe and evaluation; default: a held-out part of `source`"
    )
    held_out_percent: float = Field(
        3.0, gt=0.0, lt=100.0, description="percent of files or rows held out, by a hash of the key"
    )
    max_prompt_tokens: Count = Field(
        512,
        description="longer prompts of Python files lose their beginning, longer rows are left out",
    )
    max_response_tokens: Count = Field(256, description="responses are cut here, tokens")
    max_prompts: Count | None = Field(None, description="use at most this many training prompts")
    store: str = Field("data/responses", description="folder of stored target responses")
    preview: int = Field(2, ge=0, description="rows shown with their mask before training")


# --- distillation --------------------------------------------------------------------------------


Origin = Literal["fixed", "target", "draft", "speculative", "replay"]


class Shares(Section):
    """Where responses come from; the shares add up to 1."""

    fixed: Share = Field(0.0, description="the data set's own responses")
    target: Share = Field(
        0.0, description="sampled from the target once, stored; with per: token, now"
    )
    draft: Share = Field(0.0, description="sampled now from the draft's current weights")
    speculative: Share = Field(
        0.0,
        description="the target's law, now, by speculative decoding with the draft's current "
        "weights: see distill.speculative",
    )
    replay: Share = Field(
        0.0, description="draft or speculative responses of earlier steps: see distill.replay"
    )
    per: Literal["sequence", "batch", "token"] = Field(
        "sequence",
        description="what the shares are of: the sequences of each batch, or whole batches, or "
        "the tokens of each sequence, which draft and target then write by turns",
    )

    @property
    def of(self) -> dict[Origin, float]:
        """The shares that are not 0."""
        shares = {origin: float(getattr(self, origin)) for origin in get_args(Origin)}
        return {origin: share for origin, share in shares.items() if share > 0.0}

    @property
    def stored(self) -> dict[Origin, float]:
        """The shares of text that is there before training."""
        origins: tuple[Origin, ...] = ("fixed",) if self.per == "token" else ("fixed", "target")
        return {origin: share for origin, share in self.of.items() if origin in origins}

    @property
    def is_drafts(self) -> bool:
        """Whether the draft as it is now has drawn every token."""
        return set(self.of) == {"draft"}

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        total = sum(self.of.values())
        if abs(total - 1.0) > 1e-6:
            raise ValueError(
                f"the shares {' + '.join(get_args(Origin))} must add up to 1, not {total:g}"
            )
        if self.per == "token" and set(self.of) != {"draft", "target"}:
            raise ValueError(
                "per: token is for draft and target, who write one sequence by turns: "
                "{draft: 0.5, target: 0.5, per: token}; else set per: sequence"
            )
        if self.replay and not (self.draft + self.speculative):
            raise ValueError(
                "replay repeats what draft or speculative have written: give one of them a share"
            )
        return self


class Replay(Section):
    """A ring of the latest responses that were written during training."""

    sequences: Count = Field(256, description="responses kept, over all processes")
    max_age: Count = Field(
        20, description="steps that a response may be old; where none is young enough, new ones"
    )


class Speculative(Section):
    """Training text by speculative decoding: it follows the target's law."""

    gamma: Annotated[int, Field(ge=1, le=16)] = Field(4, description="tokens drafted a round")
    rejected: bool = Field(
        False,
        description="learn at every position that was drafted, also those after a rejected token, "
        "each weighed by the probability that a round comes so far: the loss on the text, with "
        "less of its dice",
    )


class Probe(Section):
    every_steps: Count = Field(50, description="steps between two probes")
    prompts: Count = Field(16, description="held-out prompts probed")
    gamma: Count = Field(4, description="block size of the decoded tau, tokens")
    max_new_tokens: Count = Field(48, description="tokens decoded per prompt")


Term = Literal[
    "forward_kl",
    "reverse_kl",
    "jsd",
    "tvd",
    "lk_alpha",
    "lk_lambda",
    "tvd_plus",
    "block_efficiency",
    "nll",
]


_Weight = Annotated[float, Field(gt=0.0)]


class Mix(Section):
    """Weight of each loss in their sum; one that is not given is left out."""

    forward_kl: _Weight | None = None
    reverse_kl: _Weight | None = None
    jsd: _Weight | None = None
    tvd: _Weight | None = None
    lk_alpha: _Weight | None = None
    lk_lambda: _Weight | None = None
    tvd_plus: _Weight | None = None
    block_efficiency: _Weight | None = None
    nll: _Weight | None = None

    @property
    def terms(self) -> dict[Term, float]:
        """The losses that are given."""
        named = ((name, getattr(self, name)) for name in get_args(Term))
        return {name: weight for name, weight in named if weight is not None}

    @model_validator(mode="after")
    def _mixes_something(self) -> Self:
        if not self.terms:
            raise ValueError("names no loss: {forward_kl: 0.5, tvd: 0.5}")
        return self


class Select(Section):
    """AdaSPEC: learn from the tokens that the draft can still learn most from (2510.19779)."""

    keep: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.4,
        description="share of a step's tokens: those with the largest KL(p || draft) - "
        "KL(p || reference)",
    )
    reference: str = Field(
        description="folder of a draft that was distilled by forward_kl from the same start"
    )


class OnlineSignal(Section):
    """The target's forward over every batch: its whole distribution, nothing kept."""

    kind: Literal["online"]


class CachedSignal(Section):
    """The target's forward once, of which a compressed form is kept on disk: text must be known."""

    kind: Literal["cached"]
    k: Count = Field(
        64,
        description="likeliest tokens kept of each predicted token's distribution, with the mass "
        "of the rest",
    )
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="of the kept log-probabilities"
    )
    store: str = Field("data/signals", description="folder of kept distributions")

    def bytes_per_token(self, vocabulary: int) -> int:
        """Of one record: ids of 2 bytes (3 from 2**16 tokens on), values, and the rest's 4."""
        of_id = 2 if vocabulary <= 2**16 else 3
        return self.k * (of_id + (2 if self.dtype == "float16" else 4)) + 4


Signal = Annotated[OnlineSignal | CachedSignal, Field(discriminator="kind")]


class Distill(Section):
    divergence: Term | Literal["mix"] = Field(
        "forward_kl", description="loss per response token; nll needs no target; mix: see mix"
    )
    mix: Mix | None = Field(None, description="the losses and their weights; with divergence: mix")
    jsd_weight: float = Field(0.5, gt=0.0, lt=1.0, description="beta of JSD[beta]; jsd only")
    lk_eta: float = Field(
        3.0, ge=0.0, description="eta of LK-lambda, whose share of KL is exp(-eta alpha)"
    )
    block_gamma: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="block size that block_efficiency is the loss of, tokens"
    )
    select: Select | None = Field(None, description="learn from a part of the tokens only")
    source: Shares = Field(default_factory=lambda: Shares(draft=1.0))
    replay: Replay = Field(default_factory=Replay)
    speculative: Speculative = Field(default_factory=Speculative)
    signal: Signal = Field(
        default_factory=lambda: OnlineSignal(kind="online"),
        description="where the target's distributions come from: its forward now, or a cache of it",
    )
    temperature: float = Field(
        1.0, gt=0.0, le=4.0, description="of sampling and of both distributions in the loss"
    )
    on_prompts: bool = Field(
        False,
        description="the loss is over the prompts' tokens too: for plain text, where a prompt is "
        "text like any other. Not for chats",
    )
    reduction: Literal["tokens", "sequences"] = Field(
        "tokens", description="mean over the tokens in the loss, or mean of the means per sequence"
    )
    batch_size: Count = Field(32, description="sequences per optimizer step, over all processes")
    micro_batch_size: Count | None = Field(
        None, description="sequences per forward and process; default: batch_size / processes"
    )
    max_steps: Count = Field(1000, description="optimizer steps")
    max_minutes: float | None = Field(
        None, gt=0.0, description="stop after this much training, minutes; whichever comes first"
    )
    chunk_tokens: Count = Field(1024, description="response tokens whose logits exist at one time")
    packing: Count | None = Field(
        None,
        description="put several texts into one row of at most so many tokens, none of which sees "
        "another; for models that take an attention mask of ours",
    )
    bucket_steps: Count = Field(
        1,
        description="sequences of so many neighbouring steps are sorted by length before they are "
        "dealt to steps, whose order is then drawn: less padding, less mixing",
    )
    checkpoint_every_steps: Count = Field(100, description="steps between two resumable states")
    probe: Probe = Field(default_factory=Probe)

    @property
    def terms(self) -> dict[Term, float]:
        """Weight of each loss."""
        return {self.divergence: 1.0} if self.divergence != "mix" else self._mixed().terms

    def _mixed(self) -> Mix:
        assert self.mix is not None, "the validator has seen to it"
        return self.mix

    @property
    def loss_in_words(self) -> str:
        """What is minimised, such as `0.7 forward kl + 0.3 nll`."""
        details = {
            "jsd": f"[{self.jsd_weight:g}]",
            "lk_lambda": f"[{self.lk_eta:g}]",
            "block_efficiency": f"@{self.block_gamma}",
        }
        words = [
            f"{'' if weight == 1.0 else f'{weight:g} '}{name.replace('_', ' ')}"
            f"{details.get(name, '')}"
            for name, weight in self.terms.items()
        ]
        part = f" of the {self.select.keep:.0%} most learnable tokens" if self.select else ""
        return " + ".join(words) + part

    @property
    def cached_signal(self) -> CachedSignal | None:
        """How the target's distributions are kept, where they are."""
        return self.signal if isinstance(self.signal, CachedSignal) else None

    @property
    def signal_caveat(self) -> str | None:
        """What is to be said of a cached signal under this loss; None: nothing."""
        if self.cached_signal is None or "reverse_kl" not in self.terms:
            return None
        return (
            "reverse_kl hangs on how the target spreads the mass of the rest, which is not kept: "
            "of the loss and its gradient a large part is missing at any small k (README); "
            "forward_kl, jsd and tvd are served well"
        )

    @property
    def needs_target(self) -> bool:
        """Whether training needs the target: for its loss, or to write text during training."""
        source = self.source
        writes = source.speculative > 0 or (source.per == "token" and source.target > 0)
        return self.reads_target or writes

    @property
    def reads_target(self) -> bool:
        """Whether any loss, or the selection, reads the target's distribution."""
        return set(self.terms) != {"nll"} or self.select is not None

    @property
    def reads_whole_steps(self) -> bool:
        """Whether a token's weight depends on all tokens of its step: then two passes are made."""
        return "tvd_plus" in self.terms or self.select is not None

    @model_validator(mode="after")
    def _mixes_something(self) -> Self:
        if (self.divergence == "mix") != (self.mix is not None):
            raise ValueError(
                "divergence: mix and mix go together: {divergence: mix, mix: {forward_kl: 0.5, "
                "tvd: 0.5}}"
            )
        return self

    @model_validator(mode="after")
    def _has_the_text_it_needs(self) -> Self:
        if "tvd_plus" in self.terms and (not self.source.is_drafts or self.on_prompts):
            raise ValueError(
                "tvd_plus is an expectation over tokens that the draft has drawn: set source: "
                "{draft: 1.0} and on_prompts: false, or take tvd, which any text will do for"
            )
        if "nll" in self.terms and (self.source.draft or self.source.replay):
            raise ValueError(
                "nll learns to write what it reads, and here that is the draft's own text: take "
                "fixed, target or speculative as source, or a divergence, which any text will do "
                "for"
            )
        if self.cached_signal is not None:
            if self.source.of != self.source.stored:
                raise ValueError(
                    "signal: {kind: cached} keeps what the target says of text that is known "
                    "before training, and the draft writes its text in each step anew: take the "
                    "sources fixed and target alone, such as source: {target: 1.0}, or signal: "
                    "{kind: online}"
                )
            if not self.reads_target:
                raise ValueError(
                    "nll reads no target, so there is no signal to cache: leave signal out"
                )
        whole = {"tvd_plus", "block_efficiency"} & set(self.terms)
        self._can_learn_from_rejected(whole | ({"nll"} & set(self.terms)))
        if self.select is not None and whole:
            raise ValueError(
                f"select drops tokens, and {min(whole)} weighs each by its neighbours or its whole "
                "step: leave one of them out"
            )
        return self

    def _can_learn_from_rejected(self, of_texts: set[str]) -> None:
        if not (self.source.speculative and self.speculative.rejected):
            return
        if self.source.replay:
            raise ValueError(
                "speculative.rejected weighs what was drafted by the draft that drafted it, and "
                "replay trains another one on it: leave one of them out"
            )
        if of_texts:
            raise ValueError(
                f"{min(of_texts)} is of the tokens of a text, and rejected ones are in none: set "
                "speculative.rejected: false"
            )
        if self.select is not None or self.on_prompts or self.reduction == "sequences":
            raise ValueError(
                "speculative.rejected has weights of its own: leave out select, on_prompts and "
                "reduction: sequences"
            )


class Optimizer(Section):
    kind: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon: hidden matrices by Muon, all else by AdamW, at one rate; not where "
        "weights or their states are sharded",
    )
    learning_rate: float = Field(3e-4, gt=0.0, description="peak rate")
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="AdamW's moment decays")
    weight_decay: float = Field(0.0, ge=0.0, description="on matrices only")
    warmup_steps: int = Field(20, ge=0, description="linear warm-up, steps")
    final_rate_share: Share = Field(0.1, description="cosine ends at this share of the peak rate")
    clip_norm: float = Field(1.0, gt=0.0, description="gradient norm is clipped here")
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


class Lora(Section):
    rank: Count = Field(16, description="rank of the update")
    lora_alpha: float = Field(32.0, gt=0.0, description="scale of the update")
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


class Hardware(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the machine multiplies it faster, else float32"
    )
    strategy: Literal["auto", "ddp", "fsdp2", "zero2", "zero3"] = Field(
        "auto", description="auto: one process plain, several ddp"
    )
    threads: Count | None = Field(None, description="CPU threads per process; default: cores")
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


class Evaluate(Section):
    suite: str = Field("eval/suites/quick.yaml", description="the evaluation plan")
    control: bool = Field(
        True, description="also train the undistilled draft by plain NLL for the same wall-clock"
    )


class Export(Section):
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
    pair: Pair
    data: Data
    distill: Distill = Field(default_factory=Distill)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    lora: Lora | None = None
    hardware: Hardware = Field(default_factory=Hardware)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    export: Export = Field(default_factory=Export)

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
    def _bridged_drafts_read_what_others_write(self) -> Self:
        if self.pair.tokenizers == "equal":
            return self
        source = self.distill.source
        if source.of != source.stored:
            raise ValueError(
                "with pair.tokenizers: bridged the draft writes none of its training text, nor "
                "drafts any of it: set distill.source to shares of target and fixed"
            )
        if self.distill.packing is not None:
            raise ValueError(
                "distill.packing puts the target's tokens into rows, and with pair.tokenizers: "
                "bridged the draft cuts each text into tokens of its own: leave packing out"
            )
        self._has_whole_laws("pair.tokenizers: bridged", "leave signal out")
        if self.hardware.strategy in ("fsdp2", "zero3"):
            raise ValueError(
                "pair.tokenizers: bridged takes rows out of a whole head, and hardware.strategy="
                f"{self.hardware.strategy} splits it: take the strategy ddp or zero2"
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
        self._has_whole_laws("pair.draft_head", "leave one of them out")
        if self.hardware.strategy in ("fsdp2", "zero3"):
            raise ValueError(
                "pair.draft_head takes rows out of a whole matrix, and hardware.strategy="
                f"{self.hardware.strategy} splits it: take the strategy ddp or zero2"
            )
        return self

    def _has_whole_laws(self, what: str, mend: str) -> None:
        if self.distill.cached_signal is not None:
            raise ValueError(
                f"{what} compares laws given the tokens that the draft scores, and signal: {{kind: "
                "cached} has kept the target's likeliest tokens, with the rest in one sum that "
                f"cannot be parted: {mend}"
            )

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


# --- making a model from nothing -----------------------------------------------------------------


class TokenizerPlan(Section):
    """Either train a byte-level BPE on the corpus, or take the tokenizer of another model."""

    train_vocabulary: Annotated[int, Field(ge=257)] | None = Field(
        None, description="size of a new byte-level BPE, tokens"
    )
    take_from: str | None = Field(None, description="model folder whose tokenizer is used")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.train_vocabulary is None) == (self.take_from is None):
            raise ValueError("give exactly one of train_vocabulary and take_from")
        return self


class PretrainPlan(Section):
    context: Count = Field(256, description="tokens per training row")
    batch_size: Count = Field(32, description="rows per optimizer step")
    max_steps: Count = Field(1000, description="optimizer steps")
    validate_every_steps: Count = Field(100, description="steps between two validations")
    validation_rows: Count = Field(128, description="held-out rows per validation")
    matrix_rate: float = Field(0.02, gt=0.0, description="peak rate of Muon (hidden matrices)")
    other_rate: float = Field(3e-3, gt=0.0, description="peak rate of AdamW (all other weights)")
    weight_decay: float = Field(0.01, ge=0.0)
    warmup_steps: int = Field(30, ge=0, description="linear warm-up, steps")
    decay_share: Share = Field(0.5, description="share of the steps, at the end, in linear decay")
    final_rate_share: Share = Field(0.03, description="the decay ends at this share of the peak")
    clip_norm: float = Field(1.0, gt=0.0)
    start_share: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="what is written is this share of the weights in start_from and the rest of "
        "the trained ones: an average of two models of one training often beats both",
    )


class PretrainRecipe(Section):
    """A causal language model trained on a corpus, from nothing or further: half of a nano pair."""

    kind: Literal["pretrain"]
    name: FolderName = Field("", description="names the run folder; default: the file's name")
    seed: int = Field(0, ge=0, lt=2**32)
    output: str = Field(description="folder that receives the finished model")
    corpus: PythonSource
    held_out_percent: float = Field(3.0, gt=0.0, lt=100.0)
    tokenizer: TokenizerPlan
    model: LlamaShape | None = Field(None, description="shape of a model with random weights")
    start_from: str | None = Field(None, description="model folder that is trained further")
    train: PretrainPlan = Field(default_factory=PretrainPlan)
    hardware: Hardware = Field(default_factory=Hardware)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.model is None) == (self.start_from is None):
            raise ValueError("give exactly one of model and start_from")
        if self.train.start_share and self.start_from is None:
            raise ValueError("train.start_share needs start_from: there is nothing to average with")
        if self.model is not None and self.train.context > self.model.max_positions:
            raise ValueError(
                f"train.context={self.train.context} is longer than "
                f"model.max_positions={self.model.max_positions}"
            )
        return self
