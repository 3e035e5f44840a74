"""Teacher-forced sums: against plain formulas over full texts, in any order and chunk."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from distillspec.errors import DistillSpecError
from distillspec.measure.exact.corpus_alpha import acceptance, entropy, mass, readings, surprise
from distillspec.models.runners.compiled import make_runner
from distillspec.models.sampling.generate import DrawnText
from distillspec.models.vocabulary.cross_tokenizer import attach_token_map
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.speculation.sampling import SamplingPolicy
from tests.models.conftest import tiny_model
from tests.models.two_tokenizers import wide_bridge

if TYPE_CHECKING:
    from tests.measured import Setting

TEXTS = [
    DrawnText(tuple(range(5, 5 + prompt)), tuple((7 * i) % 300 for i in range(response)))
    for prompt, response in [
        (3, 9),
        (1, 4),
        (8, 2),
        (2, 0),
        (5, 17),
        (4, 4),
        (6, 6),
        (3, 3),
        (9, 5),
    ]
]


def logits(model: nn.Module, text: DrawnText) -> Tensor:
    """The logits before each response token: [R, V], one text at a time."""
    tokens = torch.tensor([text.prompt + text.response])
    with torch.no_grad():
        whole: Tensor = model(input_ids=tokens).logits[0]
    return whole[len(text.prompt) - 1 : -1]


@pytest.mark.parametrize(
    "policy",
    [SamplingPolicy(1.0), SamplingPolicy(0.5), SamplingPolicy(0.0), SamplingPolicy(1.0, 5, 0.9)],
    ids=str,
)
def test_alpha_is_the_mass_both_distributions_share(
    setting: Setting, policy: SamplingPolicy
) -> None:
    draft = setting.drafts["control"]
    found = acceptance(setting.target, draft, TEXTS, policy)
    for text, total in zip(TEXTS, found.sums, strict=True):
        p = policy.distribution(logits(setting.target, text))
        q = policy.distribution(logits(draft, text))
        assert total == pytest.approx(torch.minimum(p, q).sum().item(), abs=2e-5)
    assert found.tokens == tuple(len(text.response) for text in TEXTS)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 1000])
def test_chunks_change_nothing(setting: Setting, chunk_tokens: int) -> None:
    arguments = (setting.target, setting.drafts["undistilled"], TEXTS, SamplingPolicy(1.0))
    chunked = acceptance(*arguments, chunk_tokens=chunk_tokens)
    assert chunked.sums == pytest.approx(acceptance(*arguments).sums, abs=1e-5)


def test_at_temperature_zero_alpha_counts_equal_names(setting: Setting) -> None:
    draft = setting.drafts["distilled"]
    found = acceptance(setting.target, draft, TEXTS, SamplingPolicy(0.0))
    equal = [
        (logits(setting.target, t).argmax(-1) == logits(draft, t).argmax(-1)).sum().item()
        for t in TEXTS
    ]
    assert list(found.sums) == equal


def test_a_model_agrees_with_itself_entirely(setting: Setting) -> None:
    found = acceptance(setting.target, setting.target, TEXTS, SamplingPolicy(1.0))
    assert found.mean() == pytest.approx(1.0, abs=1e-6)


def test_entropy_is_the_targets_and_of_temperature_one_where_it_is_greedy(
    setting: Setting,
) -> None:
    for temperature, used in ((1.0, 1.0), (0.5, 0.5), (0.0, 1.0)):
        found = entropy(setting.target, TEXTS, SamplingPolicy(temperature))
        p = [(logits(setting.target, t) / used).softmax(-1) for t in TEXTS]
        expected = [-(x * x.clamp_min(1e-30).log()).sum().item() for x in p]
        assert found.sums == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert 0.0 < found.mean() <= math.log(300)


def test_the_mass_of_some_tokens_bounds_every_draft_of_them(setting: Setting) -> None:
    kept, policy = list(range(0, 300, 3)), SamplingPolicy(0.7)
    found = mass(setting.target, TEXTS, policy, kept, vocab_size=299)
    for text, total in zip(TEXTS, found.sums, strict=True):
        p = policy.distribution(logits(setting.target, text)[:, :299])
        assert total == pytest.approx(p[:, kept].sum().item(), abs=2e-5)
    draft = copy.deepcopy(setting.drafts["control"])
    trim_head(draft, kept)
    alpha = acceptance(setting.target, draft, TEXTS, policy, vocab_size=299)
    assert all(one <= most + 1e-6 for one, most in zip(alpha.sums, found.sums, strict=True))


def test_a_draft_of_another_tokenizer_is_read_over_the_targets_tokens() -> None:
    target, draft, token_map = tiny_model("llama"), tiny_model("llama", seed=1), wide_bridge()
    attach_token_map(draft, token_map)
    texts = [DrawnText((1, 3), (4, 6, 2)), DrawnText((9,), (10, 11))]
    policy = SamplingPolicy(0.9)
    found = acceptance(target, draft, texts, policy)
    for text, total in zip(texts, found.sums, strict=True):
        p = policy.distribution(logits(target, text))
        read = make_runner(draft, "eager", 64, ()).feed(torch.tensor([text.prompt + text.response]))
        q = policy.distribution(read[0, len(text.prompt) - 1 : -1])
        assert total == pytest.approx(torch.minimum(p, q).sum().item(), abs=2e-5)


def test_a_draft_of_another_tokenizer_covers_nothing_beyond_its_context() -> None:
    """Token 4 is two draft tokens: the draft reads 64 of them. Shorter rows are complete."""
    target, draft = tiny_model("llama"), tiny_model("llama", seed=1)
    attach_token_map(draft, wide_bridge())
    texts = [DrawnText((4,) * 60, (4,) * 8), DrawnText((9,), (10, 11)), DrawnText((4,) * 70, (2,))]
    for policy in (SamplingPolicy(1.0), SamplingPolicy(0.0), SamplingPolicy(1.0, 5, 0.9)):
        found = readings(target, draft, texts, policy)
        cut = readings(target, draft, [DrawnText((4,) * 60, (4,) * 5)], policy)[0]
        assert found[0].overlap == pytest.approx([*cut.overlap, 0.0, 0.0, 0.0], abs=1e-5)
        assert found[0].keep_probability[5:] == [0.0, 0.0, 0.0]
        assert found[0].at_argmax[5:] == [0.0, 0.0, 0.0]
        assert found[2].overlap == found[2].keep_probability == found[2].at_argmax == [0.0]
        alone = readings(target, draft, texts[1:2], policy)[0]
        assert found[1].overlap == pytest.approx(alone.overlap, abs=1e-5)
        sums = acceptance(target, draft, texts, policy).sums
        assert sums == pytest.approx([sum(one.overlap) for one in found], abs=1e-5)


def test_readings_are_the_four_numbers_of_every_token(setting: Setting) -> None:
    draft = setting.drafts["control"]
    for temperature in (1.0, 0.5):
        policy = SamplingPolicy(temperature)
        found = readings(setting.target, draft, TEXTS, policy)
        for text, one in zip(TEXTS, found, strict=True):
            drawn = torch.tensor(text.response, dtype=torch.long)[:, None]
            p, q = (
                (logits(model, text) / temperature).softmax(-1) for model in (setting.target, draft)
            )
            random_source = (q.gather(-1, drawn) / p.gather(-1, drawn))[:, 0].clamp(max=1.0)
            assert one.keep_probability == pytest.approx(random_source.tolist(), abs=1e-4)
            assert one.overlap == pytest.approx(torch.minimum(p, q).sum(-1).tolist(), abs=1e-4)
            likeliest = q.argmax(-1, keepdim=True)
            accepted = p.gather(-1, likeliest)[:, 0]
            assert one.at_argmax == pytest.approx(accepted.tolist(), abs=1e-4)
        covered = acceptance(setting.target, draft, TEXTS, policy)
        assert [sum(one.overlap) for one in found] == pytest.approx(covered.sums, abs=1e-5)
        nats = entropy(setting.target, TEXTS, policy)
        assert [sum(one.entropy) for one in found] == pytest.approx(nats.sums, abs=1e-4)


def test_a_greedy_token_was_kept_where_the_draft_names_it_too(setting: Setting) -> None:
    draft = setting.drafts["control"]
    found = readings(setting.target, draft, TEXTS, SamplingPolicy(0.0))
    for text, one in zip(TEXTS, found, strict=True):
        named = logits(draft, text).argmax(-1).tolist()
        assert one.keep_probability == [
            float(a == b) for a, b in zip(named, text.response, strict=True)
        ]
        assert one.at_argmax == one.overlap


def test_a_head_that_cannot_be_taken_apart_gives_the_same(setting: Setting) -> None:
    class OwnLinear(nn.Linear):
        pass

    policy, draft = SamplingPolicy(1.0), setting.drafts["control"]
    expected = acceptance(setting.target, draft, TEXTS, policy, vocab_size=290)
    head = draft.get_output_embeddings()
    try:
        head.__class__ = OwnLinear
        found = acceptance(setting.target, draft, TEXTS, policy, vocab_size=290)
    finally:
        head.__class__ = nn.Linear
    assert found.sums == pytest.approx(expected.sums, abs=2e-5)


def test_models_come_back_in_the_mode_they_were_in(setting: Setting) -> None:
    draft = setting.drafts["control"]
    draft.train()
    try:
        acceptance(setting.target, draft, TEXTS[:2], SamplingPolicy(1.0))
        assert draft.training
        assert not setting.target.training
    finally:
        draft.eval()


def test_without_a_token_there_is_no_mean(setting: Setting) -> None:
    found = acceptance(setting.target, setting.target, [DrawnText((1, 2), ())], SamplingPolicy(1.0))
    assert found.sums == (0.0,)
    assert math.isnan(found.mean())


def test_surprise_is_minus_the_log_of_the_chance_of_each_token(setting: Setting) -> None:
    draft = setting.drafts["control"]
    found = surprise(draft, TEXTS)
    for text, total in zip(TEXTS, found.sums, strict=True):
        log_q = logits(draft, text).log_softmax(-1)
        wanted = -sum(float(log_q[place, token]) for place, token in enumerate(text.response))
        assert total == pytest.approx(wanted, abs=2e-4)
    assert surprise(draft, TEXTS, chunk_tokens=3).sums == pytest.approx(found.sums, abs=1e-4)


def test_surprise_differs_between_drafts_by_what_their_divergence_from_the_target_does(
    setting: Setting,
) -> None:
    """In expectation over the target's tokens, which is taken exactly at one position."""
    prompt, drafts = (5, 6, 7), (setting.drafts["control"], setting.target)
    texts = [DrawnText(prompt, (token,)) for token in range(300)]
    p = logits(setting.target, texts[0])[0].double().softmax(-1)
    means = [float(p @ torch.tensor(surprise(d, texts).sums, dtype=p.dtype)) for d in drafts]
    q = logits(drafts[0], texts[0])[0].double().softmax(-1)
    divergence = float((p * (p / q).log()).sum())
    assert means[0] - means[1] == pytest.approx(divergence, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("fault", [0, 1])
def test_a_model_whose_logits_are_nan_is_named(fault: int, temperature: float) -> None:
    pair = [tiny_model("mistral"), tiny_model("gpt2")]
    with torch.no_grad():
        pair[fault].get_output_embeddings().weight[5] = torch.nan
    texts = [DrawnText((3, 4), (6, 7, 8)), DrawnText((9,), (10, 11))]
    kind = type(pair[fault]).__name__
    for read in (acceptance, readings):
        with pytest.raises(DistillSpecError, match=f"the logits of {kind} are NaN or infinite"):
            read(*pair, texts, SamplingPolicy(temperature))
