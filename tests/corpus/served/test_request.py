from __future__ import annotations

import pytest

from distillspec.corpus.served.request import ApiRequest, api_requests
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import PromptText, Tokenizer
from distillspec.errors import DistillSpecError

MESSAGES = ({"role": "user", "content": "a?"},)


def prompt(tokenizer: Tokenizer, text: str, kind: str, *, lost: int = 0) -> Prompt:
    tokens = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])[lost:]
    return Prompt(f"k:{text}", tokens, None, text, kind, None, MESSAGES if kind == "chat" else None)


def test_a_text_is_sent_entirely_and_code_without_the_beginning_that_it_lost(
    tokenizer: Tokenizer,
) -> None:
    given = [prompt(tokenizer, "a b", "plain"), prompt(tokenizer, "abc def", "mid-body", lost=3)]
    assert [q.content for q in api_requests(given, "completions", tokenizer)] == ["a b", " def"]
    assert [q.tokens for q in api_requests(given, "completions", tokenizer)] == [3, 4]


def test_what_the_tokenizer_puts_before_a_text_is_left_to_the_server(tokenizer: Tokenizer) -> None:
    from tokenizers.processors import TemplateProcessing

    backend = tokenizer.backend_tokenizer
    before = backend.post_processor
    end = tokenizer.eos_token
    backend.post_processor = TemplateProcessing(single=f"{end} $A", special_tokens=[(end, 0)])
    try:
        tokens = tuple(tokenizer("x = 1")["input_ids"])
        assert tokens[0] == 0
        given = Prompt("k", tokens, None, "x = 1", "function-head")
        assert api_requests([given], "completions", tokenizer)[0].content == "x = 1"
    finally:
        backend.post_processor = before


def test_a_chat_is_sent_as_its_messages(tokenizer: Tokenizer) -> None:
    (question,) = api_requests([prompt(tokenizer, "<user>a?", "chat")], "chat", tokenizer)
    assert (question.content, question.tokens) == (MESSAGES, len("<user>a?"))


@pytest.mark.parametrize(
    ("api", "what", "fix"),
    [
        ("completions", "1 of 3 prompts are chats", "api=chat"),
        ("chat", "2 of 3 prompts are plain text", "as_chat=if-template"),
    ],
)
def test_prompts_of_the_other_kind_are_refused(
    tokenizer: Tokenizer, api: str, what: str, fix: str
) -> None:
    given = [prompt(tokenizer, text, kind) for text, kind in
             (("a", "plain"), ("b", "chat"), ("c", "mid-body"))]  # fmt: skip
    with pytest.raises(DistillSpecError) as caught:
        api_requests(given, api, tokenizer)  # type: ignore[arg-type]
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_seeds_differ_by_prompt_seed_and_try_and_fit_in_31_bits() -> None:
    first, second = ApiRequest("a", "x"), ApiRequest("b", "x")
    seeds = [q.seed(s, n) for q in (first, second) for s in (0, 1) for n in (0, 1, 2)]
    assert len(set(seeds)) == 12
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert first.seed(0, 0) == ApiRequest("a", "y").seed(0, 0)


def test_the_digest_is_of_the_content() -> None:
    assert ApiRequest("a", "x").digest() == ApiRequest("b", "x").digest()
    assert ApiRequest("a", "x").digest() != ApiRequest("a", "y").digest()
    turned = ({"content": "a?", "role": "user"},)
    read = PromptText("x", (1,))
    assert ApiRequest("a", "x", read).digest() == ApiRequest("a", "x").digest()
    assert ApiRequest("a", MESSAGES).digest() == ApiRequest("a", turned).digest()
    tools = ({"type": "function", "function": {"name": "look"}},)
    assert ApiRequest("a", MESSAGES, tools=tools).digest() != ApiRequest("a", MESSAGES).digest()
