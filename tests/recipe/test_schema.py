from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from distillspec.recipe import schema
from distillspec.recipe.schema import (
    CachedSignal,
    Distill,
    LlamaShape,
    Mix,
    PretrainRecipe,
    PythonSource,
    Recipe,
    Section,
    Shares,
    Term,
    TokenizerPlan,
)

SECTIONS = sorted(
    (value for value in vars(schema).values() if isinstance(value, type) and value is not Section),
    key=lambda value: value.__name__,
)
MODELS = [value for value in SECTIONS if issubclass(value, Section)]


def smallest(**more: Any) -> dict[str, Any]:
    return {
        "pair": {"target": "t", "draft": "d"},
        "data": {"source": {"kind": "jsonl", "path": "p"}},
        **more,
    }


def test_the_defaults_are_a_whole_recipe() -> None:
    recipe = Recipe.model_validate(smallest())
    assert recipe.distill.divergence == "forward_kl"
    assert recipe.distill.source == Shares(fixed=0.0, target=0.0, draft=1.0)
    assert recipe.evaluate.suite == "eval/suites/quick.yaml"


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_section_is_frozen_and_forbids_unknown_keys(model: type[BaseModel]) -> None:
    assert model.model_config["frozen"] is True
    assert model.model_config["extra"] == "forbid"


BRIDGED = {"target": "t", "draft": "d", "tokenizers": "bridged"}
FIXED = {"source": {"fixed": 1.0}}
CACHED = {"signal": {"kind": "cached"}}


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"pair": BRIDGED}, "writes none of its training text"),
        *(
            ({"pair": BRIDGED, "distill": {"source": source}}, "writes none of its training text")
            for source in (
                {"fixed": 0.5, "speculative": 0.5},
                {"fixed": 0.5, "speculative": 0.25, "replay": 0.25},
                {"draft": 0.5, "target": 0.5, "per": "token"},
            )
        ),
        ({"pair": BRIDGED, "distill": FIXED | {"packing": 768}}, "leave packing out"),
        ({"pair": BRIDGED, "distill": FIXED | CACHED}, "bridged compares laws given the tokens"),
        ({"pair": BRIDGED, "distill": FIXED, "hardware": {"strategy": "zero3"}}, "whole head"),
        ({"pair": BRIDGED | {"draft_head": {"keep": 9}}, "distill": FIXED}, "draft_head is of"),
        ({"pair": BRIDGED | {"draft": {"kind": "pruned", "layers": 1}}, "distill": FIXED}, "given"),
        ({"pair": {"target": "t", "draft": {"kind": "pruned", "layers": 1},
                   "draft_revision": "main"}}, "this one is made"),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_are_refused(sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Recipe.model_validate(smallest(**sections))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"draft": {"kind": "pruned", "layers": 1}}, r"{kind: pruned} is made with the target's"),
        (
            {
                "draft": {
                    "kind": "random",
                    "shape": {
                        "hidden_size": 8,
                        "intermediate_size": 8,
                        "layers": 1,
                        "heads": 1,
                    },
                }
            },
            r"{kind: random} is made with the target's",
        ),
        ({"tokenizers": "bridged"}, "leave tokenizers out"),
        ({"draft_head": {"keep": 9}}, "leave draft_head out"),
    ],
)
def test_a_draft_that_needs_the_targets_weights_has_no_endpoint(
    changes: dict[str, Any], why: str
) -> None:
    endpoint = {"url": "http://localhost:1/v1", "model": "m"}
    distill = {"divergence": "nll", "source": {"target": 1.0}}
    pair = {"endpoint": endpoint, "draft": "d"}
    assert Recipe.model_validate(smallest(pair=pair, distill=distill)).pair.endpoint is not None
    with pytest.raises(ValidationError, match=why):
        Recipe.model_validate(smallest(pair=pair | changes, distill=distill))


def test_a_bridged_pair_reads_fixed_text_and_the_targets() -> None:
    assert Recipe.model_validate(smallest(pair=BRIDGED, distill=FIXED)).pair.tokenizers == "bridged"


def test_a_trimmed_head_needs_text_to_count_and_whole_matrices() -> None:
    pair = {"target": "t", "draft": "d", "draft_head": {"keep": 9}}
    with pytest.raises(ValidationError, match="counts tokens in text that is there"):
        Recipe.model_validate(smallest(pair=pair))
    counted = {"pair": pair, "distill": {"source": {"fixed": 0.1, "draft": 0.9}}}
    assert Recipe.model_validate(smallest(**counted)).pair.draft_head is not None
    for source in ({"speculative": 1.0}, {"draft": 0.5, "target": 0.5, "per": "token"}):
        with pytest.raises(ValidationError, match="counts tokens in text that is there"):
            Recipe.model_validate(smallest(pair=pair, distill={"source": source}))
    spread = {"source": {"target": 0.2, "speculative": 0.2, "replay": 0.6}, "packing": 768}
    assert Recipe.model_validate(smallest(pair=pair, distill=spread)).distill.packing == 768
    with pytest.raises(ValidationError, match="draft_head compares laws given the tokens"):
        Recipe.model_validate(smallest(pair=pair, distill=FIXED | CACHED))
    with pytest.raises(ValidationError, match="rows out of a whole matrix"):
        Recipe.model_validate(smallest(**counted, hardware={"strategy": "fsdp2"}))


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3"])
def test_dora_is_refused_where_matrices_are_split(strategy: str) -> None:
    parts = {"lora": {"use_dora": True}, "hardware": {"strategy": strategy}}
    with pytest.raises(ValidationError, match="norms of whole matrices"):
        Recipe.model_validate(smallest(**parts))
    parts["hardware"] = {"strategy": "zero2"}
    assert Recipe.model_validate(smallest(**parts)).lora is not None


@pytest.mark.parametrize("strategy", ["fsdp2", "zero2", "zero3"])
def test_muon_is_refused_where_matrices_are_split(strategy: str) -> None:
    parts = {"optimizer": {"kind": "muon"}, "hardware": {"strategy": strategy}}
    with pytest.raises(ValidationError, match="needs whole matrices"):
        Recipe.model_validate(smallest(**parts))


def test_the_keys_that_other_work_relies_on_are_there() -> None:
    distill = Recipe.model_fields["distill"].annotation
    assert isinstance(distill, type)
    assert issubclass(distill, Section)
    keys = {"divergence", "jsd_weight", "source", "temperature"}
    assert keys <= distill.model_fields.keys()
    sections = {"pair", "data", "distill", "optimizer", "hardware", "evaluate", "export"}
    assert sections <= Recipe.model_fields.keys()
    assert {"forward_kl", "reverse_kl", "jsd", "tvd"} <= set(get_args(Term))


@pytest.mark.parametrize("shares", [{"fixed": 0.5}, {"fixed": 0.6, "draft": 0.6}, {}])
def test_shares_must_add_up_to_one(shares: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="add up to 1"):
        Shares.model_validate(shares)


def test_shares_may_be_any_mixture() -> None:
    assert Shares(fixed=0.1, target=0.2, draft=0.7).target == 0.2


def test_a_python_source_must_name_code() -> None:
    with pytest.raises(ValidationError, match="names no code"):
        PythonSource(kind="python-source")
    assert PythonSource(kind="python-source", standard_library=True).packages == ()


@pytest.mark.parametrize("plan", [{}, {"train_vocabulary": 4096, "take_from": "x"}])
def test_a_tokenizer_is_either_trained_or_taken(plan: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        TokenizerPlan.model_validate(plan)


REJECTED = {"source": {"speculative": 1.0}, "speculative": {"rejected": True}}


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 33, "heads": 2},
        {"hidden_size": 6, "heads": 2},
        {"hidden_size": 32, "heads": 4, "key_value_heads": 3},
    ],
)
def test_a_llama_shape_that_does_not_divide_is_refused(shape: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="multiple"):
        LlamaShape.model_validate({"intermediate_size": 64, "layers": 1, **shape})


def test_a_pretraining_recipe_says_its_kind() -> None:
    recipe = {
        "output": "o",
        "corpus": {"kind": "python-source", "standard_library": True},
        "tokenizer": {"train_vocabulary": 300},
        "model": {"hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2},
    }
    assert PretrainRecipe.model_validate({"kind": "pretrain", **recipe}).train.context == 256
    with pytest.raises(ValidationError):
        PretrainRecipe.model_validate(recipe)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"divergence": "mix"}, "mix and mix go together"),
        ({"mix": {"tvd": 1.0}}, "mix and mix go together"),
        ({"divergence": "mix", "mix": {}}, "names no loss"),
        ({"divergence": "tvd_plus", "source": {"fixed": 1.0}}, "source: {draft: 1.0}"),
        ({"divergence": "tvd_plus", "on_prompts": True}, "on_prompts: false"),
        (
            {"divergence": "block_efficiency", "select": {"reference": "draft"}},
            "block_efficiency weighs each by its neighbours",
        ),
    ],
)
def test_an_objective_that_cannot_be_is_refused(plan: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Distill.model_validate(plan)


def test_an_objective_is_told_in_words() -> None:
    mix = {"jsd": 0.7, "block_efficiency": 1.0, "nll": 0.3}
    plan = Distill.model_validate({"divergence": "mix", "mix": mix, "source": {"target": 1.0}})
    assert plan.loss_in_words == "0.7 jsd[0.5] + block efficiency@4 + 0.3 nll"
    selected = Distill.model_validate({"select": {"keep": 0.4, "reference": "draft"}})
    assert selected.loss_in_words == "forward kl of the 40% most learnable tokens"


def test_every_loss_can_be_mixed() -> None:
    assert list(Mix.model_fields) == list(get_args(Term))


def test_what_reads_no_target_needs_none() -> None:
    def plan(**values: Any) -> Distill:
        return Distill.model_validate({"source": {"fixed": 1.0}, **values})

    assert not plan(divergence="nll").needs_target
    assert not plan(divergence="mix", mix={"nll": 0.5}).needs_target
    assert plan(divergence="mix", mix={"nll": 0.5, "tvd": 0.5}).needs_target
    assert plan(divergence="nll", select={"reference": "draft"}).needs_target
    written = plan(divergence="nll", source={"speculative": 1.0})
    assert written.needs_target and not written.reads_target


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"source": {"draft": 0.5, "fixed": 0.5, "per": "token"}}, "per: token is for draft and"),
        ({"source": {"draft": 1.0, "per": "token"}}, "per: token is for draft and target"),
        ({"source": {"fixed": 0.5, "replay": 0.5}}, "give one of them a share"),
        ({"divergence": "nll"}, "take fixed, target or speculative"),
        ({"divergence": "nll", "source": {"speculative": 0.5, "replay": 0.5}}, "the draft's own"),
        ({**REJECTED, "source": {"speculative": 0.5, "replay": 0.5}}, "leave one of them out"),
        ({**REJECTED, "divergence": "block_efficiency"}, "rejected ones are in none"),
        ({**REJECTED, "reduction": "sequences"}, "weights of its own"),
        ({**REJECTED, "select": {"reference": "draft"}}, "weights of its own"),
    ],
)
def test_a_source_that_cannot_be_is_refused(plan: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Distill.model_validate(plan)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"ema": 0.9}, "hardware": {"strategy": "fsdp2"}}, "averages whole weights"),
        ({"optimizer": {"ema": 0.0}}, "averages nothing"),
        ({"distill": {"packing": 100}}, "shorter than a text may be, 768 tokens"),
    ],
)
def test_comfort_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    recipe = {
        "pair": {"target": "t", "draft": "d"},
        "data": {"source": {"kind": "jsonl", "path": "p"}},
    }
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({**recipe, **changes})


def test_shares_know_what_is_stored_and_what_is_still_to_be_written() -> None:
    shares = Shares(fixed=0.25, target=0.25, draft=0.5)
    assert shares.of == {"fixed": 0.25, "target": 0.25, "draft": 0.5}
    assert shares.stored == {"fixed": 0.25, "target": 0.25}
    assert Shares(draft=0.5, target=0.5, per="token").stored == {}
    assert Shares(draft=1.0).is_drafts and not shares.is_drafts


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({"source": {"draft": 1.0}}, "sources fixed and target alone"),
        ({"source": {"target": 0.9, "draft": 0.1}}, "sources fixed and target alone"),
        ({"source": {"fixed": 1.0}, "divergence": "nll"}, "nll reads no target"),
        ({"source": {"fixed": 1.0}, "signal": {"kind": "cached", "k": 0}}, "greater than or equal"),
        ({"source": {"fixed": 1.0}, "signal": {"kind": "stored"}}, "'online', 'cached'"),
    ],
)
def test_a_signal_that_cannot_be_kept_is_refused(plan: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Distill.model_validate({"signal": {"kind": "cached"}, **plan})


@pytest.mark.parametrize("divergence", [one for one in get_args(Term) if one != "nll"])
def test_every_divergence_that_reads_known_text_takes_a_cached_signal(divergence: str) -> None:
    plan = {"divergence": divergence, "source": {"fixed": 0.5, "target": 0.5}}
    cached = {**plan, "signal": {"kind": "cached", "k": 8}}
    if divergence == "tvd_plus":  # of the draft's own text, which is never known
        with pytest.raises(ValidationError):
            Distill.model_validate(cached)
        return
    signal = Distill.model_validate(cached).cached_signal
    assert signal is not None and signal.k == 8
    assert Distill.model_validate(plan).cached_signal is None


def test_a_divergence_that_a_cache_serves_badly_is_told() -> None:
    cached = {"source": {"fixed": 1.0}, "signal": {"kind": "cached"}}
    assert Distill.model_validate(cached).signal_caveat is None
    mix = {"divergence": "mix", "mix": {"tvd": 0.5, "reverse_kl": 0.5}}
    caveat = Distill.model_validate({**cached, **mix}).signal_caveat
    assert caveat is not None and caveat.startswith("reverse_kl hangs on")
    online = {"divergence": "reverse_kl", "source": {"fixed": 1.0}}
    assert Distill.model_validate(online).signal_caveat is None


def test_a_records_size_is_that_of_ids_values_and_rest() -> None:
    signal = CachedSignal(kind="cached")
    assert signal.bytes_per_token(4096) == 64 * (2 + 2) + 4 == 260
    assert signal.bytes_per_token(2**16) == 260
    assert signal.bytes_per_token(128_256) == 64 * (3 + 2) + 4 == 324
    assert CachedSignal(kind="cached", k=10, dtype="float32").bytes_per_token(300) == 64
