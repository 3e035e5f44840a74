from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from distillspec.recipe import data, distill, pretraining, schema
from distillspec.recipe.loss import Term
from distillspec.recipe.schema import Recipe
from distillspec.recipe.section import Section
from distillspec.recipe.start import LlamaShape
from distillspec.recipe.text_source import SourceShares

SECTIONS = sorted(
    {
        value
        for module in (schema, data, distill, pretraining)
        for value in vars(module).values()
        if isinstance(value, type) and value is not Section
    },
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
    assert recipe.distill.divergence == "jsd"
    assert recipe.distill.source == SourceShares(target=1.0)
    assert recipe.evaluate.suite == "quick"


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_section_is_frozen_and_forbids_unknown_keys(model: type[BaseModel]) -> None:
    assert model.model_config["frozen"] is True
    assert model.model_config["extra"] == "forbid"


BRIDGED = {"target": "t", "draft": "d", "tokenizers": "cross-tokenizer"}
FIXED = {"source": {"fixed": 1.0}}
CACHED = {"target_logits": {"kind": "cached"}}


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"pair": BRIDGED, "distill": {"source": {"draft": 1.0}}}, "needs text that is known"),
        *(
            ({"pair": BRIDGED, "distill": {"source": source}}, "needs text that is known")
            for source in (
                {"fixed": 0.5, "speculative": 0.5},
                {"fixed": 0.5, "speculative": 0.25, "replay": 0.25},
                {"draft": 0.5, "target": 0.5, "per": "token"},
            )
        ),
        ({"pair": BRIDGED, "distill": FIXED | {"packing": 768}}, r"remove distill\.packing"),
        ({"pair": BRIDGED, "distill": FIXED, "hardware": {"strategy": "zero3"}}, "strategy: z"),
        ({"pair": BRIDGED | {"draft_head": {"keep": 9}}, "distill": FIXED}, "draft_head"),
        ({"pair": BRIDGED | {"draft": {"kind": "pruned", "layers": 1}}, "distill": FIXED}, "made"),
        ({"pair": {"target": "t", "draft": {"kind": "pruned", "layers": 1},
                   "draft_revision": "main"}}, r"remove pair\.draft_revision"),
    ],
)  # fmt: skip
def test_pairs_that_cannot_be_are_refused(sections: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Recipe.model_validate(smallest(**sections))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"draft": {"kind": "pruned", "layers": 1}}, "kind pruned or random"),
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
            "kind pruned or random",
        ),
        ({"tokenizers": "cross-tokenizer"}, r"remove pair\.tokenizers"),
        ({"draft_head": {"keep": 9}}, r"remove pair\.draft_head"),
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


@pytest.mark.parametrize(
    "pair", [BRIDGED, {"target": "t", "draft": "d", "draft_head": {"keep": 9}}], ids=str
)
def test_drafts_that_score_a_part_of_the_vocabulary_go_with_a_cached_signal(
    pair: dict[str, Any],
) -> None:
    made = Recipe.model_validate(smallest(pair=pair, distill=FIXED | CACHED))
    assert made.distill.cached_logits is not None


def test_a_bridged_pair_reads_fixed_text_and_the_targets() -> None:
    assert (
        Recipe.model_validate(smallest(pair=BRIDGED, distill=FIXED)).pair.tokenizers
        == "cross-tokenizer"
    )


def test_a_trimmed_head_needs_text_to_count_and_whole_matrices() -> None:
    made = {"kind": "pruned", "layers": [0]}
    pair = {"target": "t", "draft": made, "draft_head": {"keep": 9}}
    with pytest.raises(ValidationError, match=r"pair\.draft_head of a draft that is made needs"):
        Recipe.model_validate(smallest(pair=pair, distill={"source": {"draft": 1.0}}))
    counted = {"pair": pair, "distill": {"source": {"fixed": 0.1, "draft": 0.9}}}
    assert Recipe.model_validate(smallest(**counted)).pair.draft_head is not None
    for source in ({"speculative": 1.0}, {"draft": 0.5, "target": 0.5, "per": "token"}):
        with pytest.raises(ValidationError, match=r"pair\.draft_head of a draft that is made"):
            Recipe.model_validate(smallest(pair=pair, distill={"source": source}))
    spread = {"source": {"target": 0.2, "speculative": 0.2, "replay": 0.6}, "packing": 768}
    assert Recipe.model_validate(smallest(pair=pair, distill=spread)).distill.packing == 768
    # A folder may name the tokens; the dry run looks into it.
    own = smallest(pair=pair | {"draft": "d"}, distill={"source": {"draft": 1.0}})
    assert not Recipe.model_validate(own).distill.source.stored
    with pytest.raises(ValidationError, match=r"hardware\.strategy: fsdp2"):
        Recipe.model_validate(smallest(**counted, hardware={"strategy": "fsdp2"}))


@pytest.mark.parametrize("strategy", ["fsdp2", "zero3"])
def test_dora_is_refused_where_matrices_are_split(strategy: str) -> None:
    parts = {"lora": {"use_dora": True}, "hardware": {"strategy": strategy}}
    with pytest.raises(ValidationError, match=r"lora\.use_dora"):
        Recipe.model_validate(smallest(**parts))
    parts["hardware"] = {"strategy": "zero2"}
    assert Recipe.model_validate(smallest(**parts)).lora is not None


@pytest.mark.parametrize("strategy", ["fsdp2", "zero2", "zero3"])
def test_muon_is_refused_where_matrices_are_split(strategy: str) -> None:
    parts = {"optimizer": {"kind": "muon"}, "hardware": {"strategy": strategy}}
    with pytest.raises(ValidationError, match=r"optimizer\.kind"):
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {"ema": 0.9}, "hardware": {"strategy": "fsdp2"}}, r"optimizer\.ema"),
        ({"optimizer": {"ema": 0.0}}, "averages nothing"),
        ({"distill": {"packing": 100}}, "100 < 768 tokens"),
    ],
)
def test_comfort_that_cannot_be_is_refused(changes: dict[str, Any], words: str) -> None:
    recipe = {
        "pair": {"target": "t", "draft": "d"},
        "data": {"source": {"kind": "jsonl", "path": "p"}},
    }
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate({**recipe, **changes})


def test_a_split_target_is_asked_for_text_that_is_there_or_the_drafts() -> None:
    split = {"hardware": {"shard_target": True}}
    plain = {"distill": {"source": {"draft": 0.5, "fixed": 0.25, "replay": 0.25}}}
    assert Recipe.model_validate(smallest(**split, **plain)).hardware.shard_target
    pair = {"target": "t", "draft": "d"}
    refused: list[dict[str, Any]] = [
        {"distill": {"source": {"target": 1.0}}},
        {"distill": {"source": {"draft": 0.5, "target": 0.5, "per": "token"}}},
        {"distill": {"source": {"speculative": 1.0}}},
        {"distill": FIXED | CACHED},
        {"pair": {"target": "t", "draft": {"kind": "pruned", "layers": 2}}},
        {"pair": pair | {"draft_head": {"keep": 9}}, "distill": FIXED},
        {"pair": BRIDGED, "distill": FIXED},
    ]
    for changes in refused:
        with pytest.raises(ValidationError, match=r"hardware\.shard_target"):
            Recipe.model_validate(smallest(**split, **changes))


@pytest.mark.parametrize("pair", [{"draft_head": {"keep": 9}}, {"tokenizers": "cross-tokenizer"}])
def test_blocks_are_not_counted_where_some_tokens_are_never_said(pair: dict[str, Any]) -> None:
    plan = {"divergence": "block_efficiency", "source": {"fixed": 1.0}}
    with pytest.raises(ValidationError, match="block_efficiency"):
        Recipe.model_validate(smallest(pair={"target": "t", "draft": "d", **pair}, distill=plan))


def test_objectives_that_look_twice_want_one_draft() -> None:
    lora = {"rank": 2, "dropout": 0.1}
    assert Recipe.model_validate(smallest(lora=lora)).lora is not None
    for plan in (
        {"divergence": "tvd_plus", "source": {"draft": 1.0}},
        {"select": {"reference": "folder"}},
    ):
        with pytest.raises(ValidationError, match=r"set lora\.dropout=0"):
            Recipe.model_validate(smallest(lora=lora, distill=plan))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("optimizer", "learning_rate", 1e38),
        ("optimizer", "learning_rate", float("inf")),
        ("distill", "batch_size", 10**12),
        ("distill", "micro_batch_size", 10**12),
        ("distill", "max_steps", 10**20),
        ("lora", "rank", 10**12),
        ("hardware", "threads", 10**12),
    ],
)
def test_values_that_no_machine_can_use_are_refused(section: str, key: str, value: float) -> None:
    with pytest.raises(ValidationError, match="less than"):
        Recipe.model_validate(smallest(**{section: {key: value}}))
