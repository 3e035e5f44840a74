"""A target behind an endpoint: the nano target served for real, and a server that misbehaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from distillspec.assembly import served_target
from distillspec.assembly.pair import load_pair
from distillspec.assembly.served_target import TargetText, target_text, try_out
from distillspec.assembly.text import pair_prompts
from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_tokenizer
from distillspec.recipe.loading import dump_yaml
from distillspec.recipe.schema import Recipe
from distillspec.runtime.terminal import Terminal
from distillspec.runtime.world import World
from tests.misbehaving import Misbehaving, good, misbehaving
from tests.served import NANO, TEMPLATE, Served, chatty_copy

ALONE = World(1, 1, 0)
EMPTY = good("", "stop")


def recipe(url: str, model: str, **changes: Any) -> Recipe:
    """12 prompts for training and 2 for the probe, of rows.jsonl."""
    values: dict[str, Any] = {
        "name": "bb",
        "pair": {
            "draft": str(NANO / "draft"),
            "endpoint": {"url": url, "model": model, "retries": 1},
        },
        "data": {
            "source": {"kind": "jsonl", "path": "rows.jsonl"},
            "held_out_percent": 30.0,
            "max_prompts": 12,
            "max_prompt_tokens": 64,
            "max_response_tokens": 24,
            "preview": 0,
        },
        "distill": {
            "divergence": "nll",
            "source": {"target": 1.0},
            "batch_size": 4,
            "max_steps": 2,
            "probe": {"prompts": 2, "every_steps": 1},
        },
        "hardware": {"device": "cpu", "precision": "float32"},
    }
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        values[section] = {**values[section], key: value}
    return Recipe.model_validate(values)


def chats_recipe(
    workplace: Path,
    url: str,
    *,
    template: str = TEMPLATE,
    model: str = "m",
    folder: str = "draft",
    **endpoint: Any,
) -> Recipe:
    """The same prompts as a user's messages; the draft is a copy in `folder` with `template`."""
    draft = chatty_copy("draft", workplace / folder, template)
    asked = {"url": url, "model": model, "api": "chat", "retries": 1, **endpoint}
    return recipe(
        url,
        model,
        pair__endpoint=asked,
        pair__draft=str(draft),
        data__source={"kind": "jsonl", "path": "rows.jsonl", "as_chat": "if-template"},
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = ({"prompt": f"def f{i}(x):\n", "response": f"    return {i}\n"} for i in range(40))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    with misbehaving(repeat(good())) as found:
        yield found


def answered(plan: Recipe, *, wanted: bool = True) -> TargetText:
    pair = load_pair(plan)
    return target_text(pair, pair_prompts(pair), ALONE, Terminal(), wanted=wanted)


def test_the_targets_text_comes_as_tokens_of_the_draft(workplace: Path, served: Served) -> None:
    plan = recipe(served.url, served.model)
    found = answered(plan)
    assert found.responses is not None
    assert {p.key for p in found.training} <= found.responses.keys()
    assert (len(found.training), len(found.held_out)) == (12, 2)
    assert all(0 < len(found.responses[p.key]) <= 24 for p in found.training)
    answers, prompts = found.notes
    assert "tokens in its answers" in answers
    assert "100% of the prompts agree" in prompts
    assert "?" not in answers + prompts


def test_text_that_was_served_is_cut_into_the_tokens_that_the_target_drew(
    workplace: Path, served: Served
) -> None:
    """The same tokenizer on both sides: the counts show it."""
    found = answered(recipe(served.url, served.model, data__max_response_tokens=48))
    assert found.responses is not None
    note, _ = found.notes
    share = int(note.partition("; ")[2].partition("%")[0])
    assert share >= 90


def test_chats_are_asked_with_their_messages(workplace: Path, served: Served) -> None:
    found = answered(chats_recipe(workplace, served.url, model=served.model))
    tokenizer = load_tokenizer(str(workplace / "draft"))
    prompt = tokenizer.decode(list(found.training[0].tokens))
    assert prompt.startswith("# user: def f")
    assert prompt.endswith("# assistant:\n")
    assert found.responses is not None
    assert all(found.responses.values())


def test_the_draft_reads_the_prompts_that_the_servers_template_makes(
    workplace: Path, server: Misbehaving
) -> None:
    """The same template, told the same, gives the same prompt on both sides."""
    plan = chats_recipe(
        workplace,
        server.url,
        body={"chat_template_kwargs": {"enable_thinking": False}},
        template=TEMPLATE + "{% if enable_thinking is false %}# silent\n{% endif %}",
    )
    answered(plan)
    pair = load_pair(plan)
    prompts = pair_prompts(pair).training
    asked = {json.dumps(body["messages"]): body for body in server.requests}
    for prompt in prompts:
        body = asked[json.dumps(prompt.messages)]
        rendered = pair.tokenizer.apply_chat_template(
            body["messages"],
            tokenize=False,
            add_generation_prompt=True,
            **body["chat_template_kwargs"],
        )
        assert rendered.endswith("# assistant:\n# silent\n")
        assert pair.tokenizer.decode(list(prompt.tokens)) == rendered


def test_a_template_that_differs_from_the_servers_is_noticed(
    workplace: Path, served: Served
) -> None:
    """The server counts the tokens of a prompt too."""
    same = chats_recipe(workplace, served.url, model=served.model)
    pair = load_pair(same)
    (_, note) = try_out(pair, pair_prompts(pair)).notes
    assert "100% of the prompts agree" in note
    assert "?" not in note
    other = chats_recipe(
        workplace, served.url, model=served.model, template=TEMPLATE + "# speak\n", folder="other"
    )
    assert "the same chat template" in " ".join(answered(other).notes)


def test_a_chats_answer_is_learned_with_the_end_that_the_target_gives_it(
    workplace: Path, server: Misbehaving
) -> None:
    """Phi's and Gemma's turns do not end with end-of-text."""
    server.replies = repeat(good("x", "stop"))
    ending = TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] }}~")
    plan = chats_recipe(workplace, server.url, template=ending)
    tokenizer = load_tokenizer(str(workplace / "draft"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["~"]})  # a token that it has
    tokenizer.save_pretrained(workplace / "draft")
    found = answered(plan)
    assert found.responses is not None
    text = tuple(tokenizer.encode("x", add_special_tokens=False))
    end = tokenizer.convert_tokens_to_ids("~")
    assert {*found.responses.values(), *(text.response for text in found.held_out)} == {
        (*text, end)
    }


def test_prompts_of_the_wrong_kind_are_refused_with_the_data(
    workplace: Path, server: Misbehaving
) -> None:
    plan = recipe(server.url, "m", pair__endpoint={"url": server.url, "model": "m", "api": "chat"})
    with pytest.raises(DistillSpecError, match="are plain text"):
        pair_prompts(load_pair(plan))


def test_what_is_stored_is_not_asked_again_and_without_training_text_only_the_probe_asks(
    workplace: Path, server: Misbehaving
) -> None:
    plan = recipe(server.url, "m")
    probe = answered(plan, wanted=False)
    assert (len(server.requests), probe.responses) == (2, None)
    assert len(probe.training) == 12
    first = answered(plan)
    assert len(server.requests) == 2 + 12
    assert first.held_out == probe.held_out
    assert answered(plan) == first
    assert len(server.requests) == 14


def test_a_recipe_that_asks_otherwise_does_not_get_what_is_stored(
    workplace: Path, server: Misbehaving
) -> None:
    answered(recipe(server.url, "m"))
    answered(recipe(server.url, "m", distill__temperature=0.5))
    assert len(server.requests) == 2 * 14
    assert len(list(Path("data/responses").iterdir())) == 2


def test_an_unanswered_prompt_is_told_and_not_trained_on(
    workplace: Path, server: Misbehaving
) -> None:
    server.replies = chain([good(), good(), good(), EMPTY, EMPTY], repeat(good()))
    endpoint = {"url": server.url, "model": "m", "retries": 1, "concurrency": 1}
    plan = recipe(server.url, "m", pair__endpoint={**endpoint, "max_unanswered": 0.1})
    found = answered(plan)
    assert len(found.training) == 11
    (note,) = [note for note in found.notes if "1 prompts have no usable answer" in note]
    assert "for a new run" in note
    again = answered(plan)
    assert (again.training, again.responses) == (found.training, found.responses)


def test_a_server_that_changes_its_model_or_counts_otherwise_is_noted(
    workplace: Path, server: Misbehaving
) -> None:
    other = good(usage={"completion_tokens": 999}, system_fingerprint="b")
    server.replies = chain([good(), good()], repeat(other))
    notes = " ".join(answered(recipe(server.url, "m")).notes)
    assert "more than one model: m-1, m-1 b" in notes
    assert "Is the draft's tokenizer the target's?" in notes


def test_the_draft_is_loaded_alone_and_the_missing_target_is_told_where_it_is_needed(
    workplace: Path, server: Misbehaving
) -> None:
    pair = load_pair(recipe(server.url, "m"))
    assert (pair.frozen, pair.vocab_size, pair.eos_token_ids) == (None, 4096, {0})
    with pytest.raises(DistillSpecError, match="needs the target's weights") as caught:
        pair.target  # noqa: B018
    assert "pair.target" in caught.value.fix


def test_trying_out_tells_speed_and_count_and_stores_nothing(
    workplace: Path, served: Served
) -> None:
    pair = load_pair(recipe(served.url, served.model))
    found = try_out(pair, pair_prompts(pair))
    assert found.wanted == 14
    assert served.model in found.makers[0]
    assert found.seconds_per_answer > 0.0
    assert 0.0 < found.tokens_per_answer <= 24.0
    assert found.warnings == []
    assert not (workplace / "data").exists()


def test_a_server_that_does_not_sample_is_found_out(workplace: Path, server: Misbehaving) -> None:
    pair = load_pair(recipe(server.url, "m"))
    (warning,) = try_out(pair, pair_prompts(pair)).warnings
    assert "both answers to each of 4 prompts are the same" in warning


@pytest.mark.distributed
def test_two_processes_share_the_questions_and_keep_the_key_to_themselves(
    workplace: Path, server: Misbehaving
) -> None:
    secret = "Xq7-very-secret"
    endpoint = {"url": server.url, "model": "m", "key_variable": "THE_KEY"}
    plan = recipe(server.url, "m", pair__endpoint=endpoint)
    (workplace / "bb.yaml").write_text(dump_yaml(plan))
    line = [
        sys.executable,
        "-m",
        "distillspec.runtime.torchrun",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run(
        [*line, "-m", "distillspec", "train", "bb.yaml"],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "THE_KEY": secret,
            "OPENAI_LOG": "debug",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert served_target.UNMEASURED in " ".join(done.stdout.split())
    assert len(server.requests) == 14
    assert len({body["prompt"] for body in server.requests}) == 14
    files = sorted((workplace / "data/responses").glob("*/received-*.jsonl"))
    assert [len(path.read_text().splitlines()) for path in files] == [7, 7]
    assert list(workplace.glob("checkpoints/runs/bb/*/draft/model.safetensors"))
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {secret}"}
    assert "openai" in done.stderr  # its log was on
    assert secret not in done.stdout + done.stderr
    written = [path for path in workplace.rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]
