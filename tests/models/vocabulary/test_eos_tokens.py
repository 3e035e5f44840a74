"""Which tokens end a text, by generation_config, tokenizer and template together."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.vocabulary.eos_tokens import find_eos_tokens, require_eos_tokens

END = 0
SPECIAL = ["<|end|>", "<|call|>", "<|im_end|>", "<end", "<end_of_turn>", "<|channel|>"]
SPEAKS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | default('') | trim }}"
CALLS = "{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}"
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
# As gpt-oss: an answer has channels, each ends with <|end|>, the last of all with <|return|>.
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}<|end|>{% else %}"
    "{% if m.thinking %}<assistant><|channel|>think {{ m.thinking }}<|end|>{% endif %}"
    "{% if m.tool_calls %}<assistant><|channel|>to {{ m.tool_calls[0].function.name }}<|call|>"
    "{% else %}<assistant><|channel|>final {{ m.content }}LAST{% endif %}{% endif %}{% endfor %}"
) + ASKS


@pytest.fixture
def tokenizer(tiny_pair: Path) -> PreTrainedTokenizerBase:
    made = load_tokenizer(str(tiny_pair / "target"))
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.add_tokens(["<plain>"])
    return made


@pytest.fixture
def model(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "target"), dtype=torch.float32)


def ids(tokenizer: PreTrainedTokenizerBase, *tokens: str) -> set[int]:
    return set(tokenizer.convert_tokens_to_ids(list(tokens)))


def test_generation_config_and_tokenizer_name_what_ends_a_text_and_each_may_be_silent(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = None
    settings = model.generation_config
    assert settings is not None
    for named, eos, expected in (
        (7, END, {7, END}),
        ([7, 8], END, {7, 8, END}),
        (None, END, {END}),
        (7, None, {7}),
        (None, None, set()),
    ):
        settings.eos_token_id = named
        tokenizer.eos_token = None if eos is None else "<|endoftext|>"
        assert find_eos_tokens(model, tokenizer).ids == expected
    assert "nothing ends a text" in find_eos_tokens(model, tokenizer).notes[0]
    with pytest.raises(DistillSpecError, match="the draft names no end-of-text token"):
        require_eos_tokens(model, tokenizer, "draft", vocab_size=300)


@pytest.mark.parametrize(
    ("behind", "end"),
    [
        ("<|end|>\n{% endfor %}", "<|end|>"),  # Phi
        ("<end_of_turn>\n{% endfor %}", "<end_of_turn>"),  # Gemma
        ("{{ eos_token }}{% endfor %}", "<|endoftext|>"),
        ("<end_of_turn><|end|>{% endfor %}", "<end_of_turn>"),
        (" <|end|>{% endfor %}", "<|end|>"),
        ("\n{% endfor %}", None),
        ("<plain>{% endfor %}", None),  # the template's own words, or a token that is not special
        ("{% endfor %}", None),
        ("{% endfor %}{{ raise_exception('no such chat') }}", None),
        ("{% break %}{% endfor %}", None),  # the template does not write the answer
    ],
)
def test_the_special_token_behind_an_answer_ends_a_text_too(
    tokenizer: PreTrainedTokenizerBase, behind: str, end: str | None
) -> None:
    tokenizer.chat_template = SPEAKS + behind + ASKS
    ends = find_eos_tokens(None, tokenizer)
    named = ids(tokenizer, end) if end else set()
    assert ends.ids == {END} | named
    assert ends.turn_end == next(iter(named), None)
    refuses = "raise_exception" in behind or "break" in behind
    assert ("puts none of these after an answer" in " ".join(ends.notes)) == (
        end is None and not refuses
    )


def test_a_token_that_a_tool_call_ends_with_ends_a_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    end = "{{ '<|call|>' if m.tool_calls else '<|im_end|>' }}\n{% endfor %}"
    tokenizer.chat_template = SPEAKS + CALLS + end + ASKS
    ends = find_eos_tokens(None, tokenizer)
    assert ends.ids == {END} | ids(tokenizer, "<|call|>", "<|im_end|>")
    assert ends.turn_end in ids(tokenizer, "<|im_end|>")
    assert "'<|call|>' (after an answer in the chat template)" in ends.notes[0]


def test_what_closes_a_channel_inside_of_an_answer_ends_no_text(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = CHANNELS.replace("LAST", "<|im_end|>")
    ends = find_eos_tokens(None, tokenizer)
    assert ends.ids == {END} | ids(tokenizer, "<|im_end|>", "<|call|>")
    tokenizer.chat_template = CHANNELS.replace("LAST", "<|end|>")
    ends = find_eos_tokens(None, tokenizer)
    assert ends.ids == {END} | ids(tokenizer, "<|call|>")
    notes = " ".join(ends.notes)
    assert "'<|end|>' and also writes it inside answers" in notes
    assert "pair.eos_token_ids" in notes


def test_a_note_names_an_end_token_inside_answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    (end,) = ids(tokenizer, "<|end|>")
    settings = model.generation_config
    assert settings is not None
    settings.eos_token_id = end
    tokenizer.chat_template = CHANNELS.replace("LAST", "<|im_end|>")
    ends = find_eos_tokens(model, tokenizer)
    assert end in ends.ids
    assert "'<|end|>' ends a text, but the chat template writes it inside" in ends.notes[1]


def test_the_recipes_ids_take_the_place_of_all_others(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = SPEAKS + "<|end|>{% endfor %}" + ASKS
    assert find_eos_tokens(model, tokenizer, given=[5]).ids == {5}
    assert require_eos_tokens(model, tokenizer, "target", vocab_size=6, given=[5]).ids == {5}
    with pytest.raises(DistillSpecError, match="token 5 cannot end a text") as caught:
        require_eos_tokens(model, tokenizer, "target", vocab_size=5, given=[5])
    assert caught.value.where == "pair.eos_token_ids=[5]"


def test_variables_of_the_template_are_read(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = (
        SPEAKS + "{{ '<|end|>' if shuts is defined else '<|im_end|>' }}{% endfor %}" + ASKS
    )
    assert find_eos_tokens(None, tokenizer, variables={"shuts": True}).ids > ids(
        tokenizer, "<|end|>"
    )
    assert find_eos_tokens(None, tokenizer).ids > ids(tokenizer, "<|im_end|>")
