"""`distillspec.decode` on the embedded pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

import distillspec
from distillspec.errors import DistillSpecError
from distillspec.measure.timed.audit import read
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.surgery.random_llama import random_llama
from distillspec.models.vocabulary.train_tokenizer import train_tokenizer
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.start import LlamaShape
from distillspec.recipe.suite import Suite
from distillspec.speculation.records import Round, RoundRecord, TokenStatus
from distillspec.workflows.decode import _with_text
from tests.seq2seq import written_pair

PAIR = Path(__file__).parents[2] / "checkpoints" / "nano-python"
PROMPT = (
    "class Attention(nn.Module):\n    def __init__(self, config):\n        super().__init__()\n"
)
SPECTR = {"draft": {"kind": "sequences", "count": 3}, "verify": {"kind": "kseq"}}

UCB = {"choose": {"kind": "ucb", "arms": ["standard@2", "standard@4"]}}
CARD = {"parallel": {"kind": "card", "nodes": 4, "layers": 6}}


def models() -> tuple[Any, Any, Any]:
    tokenizer = load_tokenizer(str(PAIR / "target"), what="target")
    target, draft = (
        load_model(str(PAIR / name), dtype=torch.float32, what=name) for name in ("target", "draft")
    )
    return target, draft, tokenizer


@pytest.mark.parametrize(
    "method",
    [
        "standard",
        SPECTR,
        {"stop": {"kind": "adaedl"}, "verify": {"kind": "block"}},
        CARD,
        {"parallel": {"kind": "pearl"}},
        {"draft": {"kind": "lookup"}},
        {"draft": {"kind": "none"}},
        UCB,
        {"choose": {"kind": "exp3", "arms": ["standard@1", "standard@3"], "reward": "tokens"}},
        {"fallback": {"baseline": "standard@2"}, "stop": {"kind": "adaedl"}},
    ],
)
def test_greedy_text_is_the_targets_own_whatever_the_method(method: Any) -> None:
    target, draft, tokenizer = models()
    found = list(
        distillspec.decode(
            target, draft, PROMPT, method=method, temperature=0.0, max_new_tokens=24,
            tokenizer=tokenizer,
        )
    )  # fmt: skip
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    expected = target.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    assert [one.token for one in found] == expected.tolist()
    assert PROMPT + "".join(one.text for one in found) == tokenizer.decode([*ids[0], *expected])
    drafts_nothing = method == {"draft": {"kind": "none"}}
    assert (TokenStatus.PLAIN if drafts_nothing else TokenStatus.ACCEPTED) in {
        one.status for one in found
    }


def test_tokens_come_while_others_are_still_to_be_decoded() -> None:
    stream = distillspec.decode(str(PAIR / "target"), str(PAIR / "draft"), PROMPT, gamma=2)
    first = next(stream)
    assert first.text
    assert first.round.drafted == 2


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("unheard-of", "no method 'unheard-of'"),
        (7, "7 is no decoding method"),
        ({"verify": {"kind": "kseq"}}, "does not verify one chain"),
        ({"choose": {"kind": "ucb", "arms": ["adaedl"]}}, "'adaedl'"),
        (
            MethodConfig.model_validate({"choose": {"kind": "ucb", "arms": ["standard@0"]}}),
            "standard@0",
        ),
        (
            {"choose": {"kind": "ucb", "arms": ["standard@1", "standard@2"], "per": "text"}},
            "once per text",
        ),
        ({"draft": {"kind": "chain", "model": "control"}}, "names the draft 'control'"),
    ],
)
def test_what_is_no_method_is_the_users_error(method: Any, says: str) -> None:
    with pytest.raises(DistillSpecError, match=says):
        distillspec.decode(str(PAIR / "target"), str(PAIR / "draft"), PROMPT, method=method)


@pytest.mark.parametrize(
    ("prompt", "how", "says"),
    [
        ("", {}, "no tokens"),
        ("x", {"gamma": -1}, "gamma is -1"),
        ("x", {"gamma": 2.5}, "gamma is 2.5"),
        ("x", {"max_new_tokens": 0}, "0"),
    ],
)
def test_what_cannot_be_decoded_is_said_before_the_first_token(
    prompt: str, how: dict[str, Any], says: str
) -> None:
    with pytest.raises(DistillSpecError, match=says):
        distillspec.decode(str(PAIR / "target"), str(PAIR / "draft"), prompt, **how)


def test_a_bandit_decodes_with_the_arms_of_a_suite_and_tries_each(tmp_path: Path) -> None:
    target, draft, tokenizer = models()
    suite = Suite.model_validate(
        {
            "methods": (
                {"name": "adaedl", "stop": {"kind": "adaedl"}},
                SPECTR | {"name": "spectr"},
                {"draft": {"kind": "lookup"}, "name": "lookup"},
                {
                    "name": "bandit",
                    "choose": {
                        "kind": "ucb",
                        "arms": ("adaedl@3", "spectr@2", "lookup@5"),
                        "prior": 0,
                    },
                },
            )
        }
    )
    log = tmp_path / "audit.jsonl"
    tokens = distillspec.decode(
        target, draft, PROMPT, method="bandit", suite=suite, tokenizer=tokenizer, audit=log
    )
    assert list(tokens)
    assert {one.arm for one in read(log)} == {"adaedl@3", "spectr@2", "lookup@5"}


def constant(probabilities: list[float]) -> Any:
    """A model of the nano vocabulary that says this of its first tokens, whatever the text."""
    shape = LlamaShape(hidden_size=8, intermediate_size=8, layers=1, heads=1, max_positions=64)
    model = random_llama(shape, vocab_size=4096, end_token=0, seed=0).eval()
    model.config.tie_word_embeddings = False
    logits = torch.full((4096,), -100.0)
    logits[1 : 1 + len(probabilities)] = torch.tensor(probabilities).log()
    with torch.no_grad():
        for layer in model.model.layers:  # the residual stream stays the embedding
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.fill_(1.0)
        model.lm_head.weight = torch.nn.Parameter(logits[:, None].expand(-1, 8) / 8.0)
    return model


@pytest.mark.parametrize("arms", [["standard@1", "none"], ["none", "standard@1"]])
def test_what_picks_an_arm_does_not_know_which_tokens_will_be_drawn(arms: list[str]) -> None:
    """The first token over 200 seeds: 0.283 in place of 0.5 where both use the same uniform."""
    target, draft = constant([0.5, 0.5]), constant([0.9, 0.1])
    tokenizer = load_tokenizer(str(PAIR / "target"), what="target")
    suite = Suite.model_validate(
        {"gammas": (1, 2), "methods": ({}, {"name": "none", "draft": {"kind": "none"}})}
    )
    method = {"choose": {"kind": "exp3", "arms": arms, "reward": "tokens"}}
    seeds, first = 200, 0
    for seed in range(seeds):
        (found,) = distillspec.decode(
            target, draft, "a", method=method, suite=suite, max_new_tokens=1, seed=seed,
            tokenizer=tokenizer,
        )  # fmt: skip
        first += found.token == 1
    standard_error = 0.5 / seeds**0.5
    assert abs(first / seeds - 0.5) < 3.5 * standard_error


@pytest.mark.parametrize(
    ("method", "fault", "temperature"),
    [
        ("standard", "target", 0.0),
        ("standard", "target", 1.0),
        ("standard", "draft", 0.0),
        ("standard", "draft", 1.0),
        ({"stop": {"kind": "adaedl"}}, "draft", 1.0),
        (CARD, "target", 1.0),
        (CARD, "draft", 0.0),
        ({"parallel": {"kind": "pearl"}}, "draft", 1.0),
    ],
)
def test_weights_that_are_nan_end_in_an_error_that_names_the_model(
    method: Any, fault: str, temperature: float
) -> None:
    pair = {"target": constant([0.5, 0.5]), "draft": constant([0.9, 0.1])}
    with torch.no_grad():
        pair[fault].lm_head.weight[3, 0] = torch.nan  # of one token alone
    tokenizer = load_tokenizer(str(PAIR / "target"), what="target")
    with pytest.raises(DistillSpecError, match=f"the logits of the {fault}.* are NaN or inf"):
        list(
            distillspec.decode(
                pair["target"], pair["draft"], "a b a b", method=method, tokenizer=tokenizer,
                temperature=temperature, max_new_tokens=8,
            )
        )  # fmt: skip


def test_a_text_that_crosses_where_a_rope_changes_is_refused() -> None:
    """Of a longrope what was cached before would be rotated by other frequencies than the rest."""
    tokenizer = load_tokenizer(str(PAIR / "target"), what="target")
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 32,
        "short_factor": [1.0] * 8, "long_factor": [1.0 + 3 * i for i in range(8)],
    }  # fmt: skip
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 4096,
             "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0,
             "original_max_position_embeddings": 32}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = Phi3Config(**shape, max_position_embeddings=512, rope_parameters=rope)
        model = Phi3ForCausalLM(config).eval()
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(12.0)
    ids = tokenizer.encode("def f(")
    room = 32 - len(ids)
    with pytest.raises(DistillSpecError, match=r"may have 33 tokens, Phi3ForCausalLM reads 32"):
        distillspec.decode(model, model, "def f(", max_new_tokens=room + 1, tokenizer=tokenizer)
    found = distillspec.decode(
        model, model, "def f(", max_new_tokens=room, temperature=0.0, tokenizer=tokenizer
    )
    text = list(ids)
    for one in found:
        with torch.no_grad():
            logits = model(torch.tensor([text]), use_cache=False).logits[0, -1]
        assert one.token == int(logits.argmax())
        text.append(one.token)
    assert len(text) == 32


def test_an_audit_gets_a_line_a_round_and_a_second_text_is_added(tmp_path: Path) -> None:
    target, draft, tokenizer = models()
    log = tmp_path / "audit.jsonl"
    expected = []
    for method in ("standard", SPECTR):
        tokens = distillspec.decode(
            target, draft, PROMPT, method=method, gamma=3, max_new_tokens=12, tokenizer=tokenizer,
            audit=log,
        )  # fmt: skip
        expected += [one.round for one in tokens if one.begins_round]
    found = read(log)
    assert [one.drafted for one in found] == [one.drafted for one in expected]
    assert [one.emitted for one in found] == [one.emitted for one in expected]
    assert all(one.draft_ms > 0.0 and one.verify_ms > 0.0 for one in found)
    assert {len(one.entropies) for one in found} == {3}
    assert len({one.prompt_key for one in found}) == 1


def test_a_text_that_nobody_reads_to_its_end_leaves_the_rounds_that_were_read(
    tmp_path: Path,
) -> None:
    target, draft, tokenizer = models()
    stream = distillspec.decode(
        target, draft, PROMPT, tokenizer=tokenizer, audit=tmp_path / "audit.jsonl"
    )
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(read(tmp_path / "audit.jsonl")) == 1


def test_an_audit_that_cannot_be_written_is_told_before_the_first_token(tmp_path: Path) -> None:
    target, draft, tokenizer = models()
    with pytest.raises(DistillSpecError, match="the folder of this file is gone"):
        distillspec.decode(
            target, draft, PROMPT, tokenizer=tokenizer, audit=tmp_path / "no" / "audit.jsonl"
        )


def test_half_a_character_waits_for_its_other_half() -> None:
    tokenizer = load_tokenizer(str(PAIR / "target"), what="target")
    text = "x = 'é😀'\n"
    ids = tokenizer.encode(text)
    record = RoundRecord(0, 0, len(ids), 0, False)
    rounds = iter([Round(ids, [TokenStatus.PLAIN] * len(ids), record)])
    pieces = [one.text for one in _with_text(rounds, tokenizer, tokenizer.encode("y = 1\n"))]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert "" in pieces


def test_two_processes_keep_no_audit_and_say_so(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="'card' keeps no audit"):
        distillspec.decode(
            str(PAIR / "target"), str(PAIR / "draft"), PROMPT, method=CARD, audit=tmp_path / "a"
        )


def other_draft(folder: Path, max_positions: int = 512) -> Path:
    """A draft with random weights and a tokenizer of its own, of 700 tokens."""
    text = Path(__file__).read_text(encoding="utf-8") * 3
    tokenizer = train_tokenizer([text], 700)
    shape = LlamaShape(
        hidden_size=32, intermediate_size=64, layers=1, heads=2, max_positions=max_positions
    )
    end = int(tokenizer.eos_token_id)
    model = random_llama(shape, vocab_size=len(tokenizer) + 12, end_token=end, seed=3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("max_positions", [8, 40, 512])
@pytest.mark.parametrize("method", ["standard", SPECTR, UCB, {"stop": {"kind": "adaedl"}}])
def test_greedy_text_is_the_targets_own_with_a_draft_of_another_tokenizer(
    method: Any, max_positions: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whose context may end within the text, or before the prompt does."""
    target, _, tokenizer = models()
    target.name_or_path = str(PAIR / "target")
    draft = other_draft(tmp_path, max_positions)
    stream = distillspec.decode(
        target, draft, PROMPT, method=method, temperature=0.0, max_new_tokens=24
    )
    found = [one.token for one in stream]
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    expected = target.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    assert found == expected.tolist()
    (warning,) = caplog.messages
    assert "the tokenizers differ" in warning
    assert "of the target's 4096 tokens" in warning


def test_two_processes_want_one_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="different tokenizers"):
        distillspec.decode(PAIR / "target", other_draft(tmp_path), PROMPT, method=CARD)


@pytest.mark.parametrize("method", ["standard", SPECTR, CARD, {"parallel": {"kind": "pearl"}}])
def test_an_encoder_decoder_target_answers_a_prompt(method: Any, tmp_path: Path) -> None:
    pair = written_pair(tmp_path)
    tokenizer = load_tokenizer(str(pair / "target"), what="target")
    target = load_model(str(pair / "target"), dtype=torch.float32, what="target")
    prompt = "summarize: the class of tests"
    found = list(
        distillspec.decode(
            pair / "target", pair / "draft", prompt, method=method, temperature=0.0,
            max_new_tokens=16,
        )
    )  # fmt: skip
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    expected = target.generate(input_ids=ids, max_new_tokens=16, do_sample=False)[0, 1:]
    assert [one.token for one in found] == expected.tolist()
