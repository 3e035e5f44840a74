from __future__ import annotations

from distillspec.corpus.sources.passage import (
    Passage,
    by_category,
    chat_key,
    shuffled,
    split,
    text_key,
    with_unique_keys,
)


def passages(count: int) -> list[Passage]:
    return [
        Passage(text_key("f", f"prompt {i}"), f"prompt {i}", None, "plain") for i in range(count)
    ]


def test_the_key_of_a_chat_depends_on_its_content_not_on_the_order_of_fields() -> None:
    asked = {"role": "user", "content": "a?"}
    turned = {"content": "a?", "role": "user"}
    tool = {"name": "look"}
    assert chat_key("rows", (asked,), None) == chat_key("rows", (turned,), ())
    keys = {
        chat_key("rows", (asked,), None),
        chat_key("other", (asked,), None),
        chat_key("rows", (asked,), (tool,)),
        chat_key("rows", (asked, asked), None),
        text_key("rows", "a?"),
    }
    assert len(keys) == 5


def test_the_key_of_a_chat_ignores_ids_and_times() -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "b"}}}
    plain = ({"role": "user", "content": "a?"}, {"role": "assistant", "tool_calls": [call]})
    dumped = (
        {"role": "user", "content": "a?", "timestamp": "2026-11-30", "hashed_ip": "x"},
        {"role": "assistant", "content": None, "id": 7, "tool_calls": [{"id": "call_8", **call}]},
    )
    assert chat_key("rows", plain, None) == chat_key("rows", dumped, None)
    second = {**call, "function": {"name": "look", "arguments": {"at": "c"}}}
    elsewhere = (plain[0], {"role": "assistant", "tool_calls": [second]})
    assert chat_key("rows", plain, None) != chat_key("rows", elsewhere, None)


def test_a_copy_of_a_training_prompt_in_a_held_out_document_is_on_neither_side() -> None:
    apart = [p._replace(document=f"d{i}") for i, p in enumerate(passages(200))]
    copies = [p._replace(key=f"{p.key}#2", document=f"e{i}") for i, p in enumerate(passages(200))]
    sides = split([*apart, *copies], 30.0)
    training, held_out = ({p.prompt for p in side} for side in sides)
    assert not training & held_out
    assert 5 < len(held_out) < 40  # both copies are held out: 9 %


def test_every_copy_of_a_prompt_has_a_unique_key() -> None:
    keys = [p.key for p in with_unique_keys([*passages(2), *passages(2), *passages(1)])]
    assert len(set(keys)) == 5
    assert keys[2] == f"{keys[0]}#2"
    assert keys[4] == f"{keys[0]}#3"


def test_copies_of_a_prompt_land_on_one_side_of_the_split() -> None:
    sides = split(with_unique_keys(passages(200) * 2), 30.0)
    training, held_out = ({p.prompt for p in side} for side in sides)
    assert not training & held_out
    assert len(training | held_out) == 200
    assert 30 < len(held_out) < 90


def test_the_side_of_a_prompt_does_not_depend_on_the_others() -> None:
    few, many = split(passages(50), 30.0), split(passages(200), 30.0)
    assert set(few.held_out) <= set(many.held_out)


def test_a_shuffle_depends_on_the_seed_and_not_on_the_given_order() -> None:
    forwards = shuffled(passages(20), seed=1)
    assert shuffled(passages(20)[::-1], seed=1) == forwards
    assert shuffled(passages(20), seed=2) != forwards


def of_documents(count: int, each: int) -> list[Passage]:
    given = passages(count * each)
    return [p._replace(document=f"d={i // each}") for i, p in enumerate(given)]


def test_passages_of_one_document_land_on_one_side_of_the_split() -> None:
    training, held_out = ({p.source for p in side} for side in split(of_documents(50, 4), 30.0))
    assert not training & held_out
    assert len(training | held_out) == 50


def test_a_shuffle_gives_one_passage_of_each_document_before_a_second_one() -> None:
    order = shuffled(of_documents(7, 3), seed=0)
    assert len(order) == 21
    for turn in range(3):
        assert len({p.source for p in order[7 * turn : 7 * turn + 7]}) == 7


def test_a_passage_that_is_alone_is_its_own_document_and_copies_share_it() -> None:
    first, copy, second = with_unique_keys([*passages(1), *passages(1), passages(2)[1]])
    assert first.source == copy.source == first.key
    assert second.source != first.source


def test_categories_take_turns_as_long_as_they_last_and_nothing_is_lost() -> None:
    kinds = "aaabac" + "b"
    given = [p._replace(category=k) for p, k in zip(passages(7), kinds, strict=True)]
    turns = by_category([*given, passages(8)[7]])
    assert [p.category for p in turns] == ["a", "b", "c", None, "a", "b", "a", "a"]
    assert [p.prompt for p in turns if p.category == "a"] == [
        p.prompt for p in given if p.category == "a"
    ]
    assert by_category(passages(5)) == passages(5)
