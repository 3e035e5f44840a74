from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.workflows import pretrain

LONG = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "layers": 1,
    "heads": 2,
    "max_positions": 2**20,
}


def recipe(**changes: object) -> PretrainRecipe:
    return PretrainRecipe.model_validate(
        {
            "kind": "pretrain",
            "name": "small",
            "output": "made/target",
            "corpus": {
                "kind": "python-source",
                "standard_library": True,
                "include": ["json/*.py", "email/*.py"],
            },
            "held_out_percent": 20.0,
            "tokenizer": {"vocab_size": 300},
            "model": {"hidden_size": 16, "intermediate_size": 32, "layers": 1, "heads": 2},
            "train": {
                "context": 32,
                "batch_size": 4,
                "max_steps": 6,
                "validate_every_steps": 3,
                "validation_rows": 8,
            },
            "hardware": {"device": "cpu", "precision": "float32"},
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_recipe_becomes_a_model_folder_that_loads_strictly() -> None:
    assert pretrain.run(recipe(), resume=False) == 0
    model = load_model("made/target", dtype=torch.float32)
    assert model.config.vocab_size == len(load_tokenizer("made/target")) == 300
    facts = json.loads(Path("checkpoints/runs/small/result.json").read_text())
    assert facts["entropy_nats_per_token"] > 0.0
    assert facts["training_tokens"] == 6 * 4 * 32
    # Nats per token over bytes per token: fewer than 8 bits a byte, more than none.
    assert 0.0 < facts["bits_per_byte"] < 8.0


def test_training_goes_further_from_a_finished_model() -> None:
    pretrain.run(recipe(), resume=False)
    start = load_model("made/target", dtype=torch.float32).state_dict()
    further = recipe(
        name="further",
        output="made/more",
        tokenizer={"take_from": "made/target"},
        model=None,
        start_from="made/target",
        train={**recipe().train.model_dump(), "matrix_rate": 1e-6, "other_rate": 1e-6},
    )
    pretrain.run(further, resume=False)
    end = load_model("made/more", dtype=torch.float32).state_dict()
    assert any(not torch.equal(end[name], start[name]) for name in start)
    for name in start:  # near where it began, not near random weights of its own
        torch.testing.assert_close(end[name], start[name], atol=1e-3, rtol=0.02)


def test_what_is_written_can_be_an_average_with_the_start() -> None:
    pretrain.run(recipe(), resume=False)
    start = load_model("made/target", dtype=torch.float32).state_dict()

    def trained(name: str, share: float) -> dict[str, torch.Tensor]:
        further = recipe(
            name=name,
            output=f"made/{name}",
            tokenizer={"take_from": "made/target"},
            model=None,
            start_from="made/target",
            train={**recipe().train.model_dump(), "start_share": share},
        )
        pretrain.run(further, resume=False)
        return load_model(f"made/{name}", dtype=torch.float32).state_dict()

    end, between = trained("end", 0.0), trained("between", 0.25)
    for name in start:
        expected = 0.25 * start[name] + 0.75 * end[name]
        torch.testing.assert_close(between[name], expected, atol=1e-3, rtol=0.02)


def test_tied_weights_are_averaged_once() -> None:
    model = random_llama(recipe().model, vocab_size=300, end_token=0, seed=0)  # type: ignore[arg-type]
    assert model.config.tie_word_embeddings
    for weight in model.parameters():
        torch.nn.init.ones_(weight)
    start = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    pretrain.average_with(model, start, 0.25)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, torch.full_like(weight, 0.75)), name


def test_a_run_that_wrote_over_its_start_is_not_resumed_from_there() -> None:
    pretrain.run(recipe(), resume=False)
    further = recipe(
        name="further",
        tokenizer={"take_from": "made/target"},
        model=None,
        start_from="made/target",
    )
    pretrain.run(further, resume=False)
    with pytest.raises(DistillSpecError, match="not those that this run began with"):
        pretrain.run(further, resume=True)


def test_an_average_needs_a_start() -> None:
    with pytest.raises(ValueError, match="train.start_share"):
        recipe(train={**recipe().train.model_dump(), "start_share": 0.5})


def test_a_start_with_another_tokenizer_is_refused() -> None:
    pretrain.run(recipe(), resume=False)
    other = recipe(
        name="further", tokenizer={"vocab_size": 320}, model=None, start_from="made/target"
    )
    with pytest.raises(DistillSpecError, match="knows 300 tokens"):
        pretrain.run(other, resume=False)


def test_a_start_with_a_shorter_context_is_refused() -> None:
    short = {**recipe().model.model_dump(), "max_positions": 32}  # type: ignore[union-attr]
    pretrain.run(recipe(model=short), resume=False)
    longer = recipe(
        name="further",
        tokenizer={"take_from": "made/target"},
        model=None,
        start_from="made/target",
        train={**recipe().train.model_dump(), "context": 64},
    )
    with pytest.raises(DistillSpecError, match="longer than the model's 32 positions"):
        pretrain.run(longer, resume=False)


def test_a_second_model_takes_the_tokenizer_of_the_first() -> None:
    pretrain.run(recipe(), resume=False)
    other = recipe(name="other", output="made/draft", tokenizer={"take_from": "made/target"})
    pretrain.run(other, resume=False)
    first, second = load_tokenizer("made/target"), load_tokenizer("made/draft")
    assert first.get_vocab() == second.get_vocab()


def test_a_started_recipe_goes_on_only_when_asked_to() -> None:
    pretrain.run(recipe(), resume=False)
    with pytest.raises(DistillSpecError, match="started before"):
        pretrain.run(recipe(), resume=False)
    result = Path("checkpoints/runs/small/result.json")
    before = json.loads(result.read_text())
    assert pretrain.run(recipe(), resume=True) == 0
    after = json.loads(result.read_text())
    assert after["nats_per_token"] == pytest.approx(before["nats_per_token"])
    assert after["training_tokens"] == before["training_tokens"]


def test_a_run_goes_on_only_with_what_it_was_started_with() -> None:
    pretrain.run(recipe(), resume=False)
    with pytest.raises(DistillSpecError, match="another seed"):
        pretrain.run(recipe(seed=1), resume=True)


@pytest.mark.parametrize(("first", "then"), [("muon", "adamw"), ("adamw", "muon")])
def test_a_run_keeps_its_optimizer(first: str, then: str) -> None:
    """The state of one optimizer is none of the other."""
    plan = recipe().train.model_dump()
    pretrain.run(recipe(train={**plan, "optimizer": first}), resume=False)
    with pytest.raises(DistillSpecError, match="another optimizer"):
        pretrain.run(recipe(train={**plan, "optimizer": then}), resume=True)


def test_a_run_keeps_the_pattern_of_its_tokenizer() -> None:
    pretrain.run(recipe(tokenizer={"vocab_size": 300, "pattern": "llama-bpe"}), resume=False)
    assert load_tokenizer("made/target").backend_tokenizer.model.ignore_merges
    with pytest.raises(DistillSpecError, match="another tokenizer"):
        pretrain.run(recipe(tokenizer={"vocab_size": 300}), resume=True)


def test_rows_of_a_data_set_are_a_corpus_too() -> None:
    rows = ({"text": f"sentence {i} of a corpus that goes on for {i} words"} for i in range(300))
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = {"kind": "jsonl", "path": "rows.jsonl", "prompt": "text"}
    assert pretrain.run(recipe(corpus=corpus), resume=False) == 0
    facts = json.loads(Path("checkpoints/runs/small/result.json").read_text())
    assert 0.0 < facts["bits_per_byte"] < 8.0
    with pytest.raises(DistillSpecError, match="another corpus"):
        other = {**corpus, "response": "text"}
        pretrain.run(recipe(corpus=other), resume=True)
    with pytest.raises(DistillSpecError, match="the row has no 'words'") as raised:
        pretrain.run(recipe(name="other", corpus={**corpus, "prompt": "words"}), resume=False)
    assert "corpus.prompt=..." in raised.value.fix
    assert "messages" not in raised.value.fix
    with pytest.raises(ValueError, match="corpus.as_chat"):
        recipe(corpus={**corpus, "as_chat": "if-template"})


def test_an_output_with_foreign_files_is_refused_before_anything_is_done() -> None:
    Path("made/target").mkdir(parents=True)
    Path("made/target/thesis.tex").write_text("years")
    with pytest.raises(DistillSpecError, match=r"other files: thesis\.tex"):
        pretrain.run(recipe(), resume=False)
    assert Path("made/target/thesis.tex").read_text() == "years"
    assert not Path("checkpoints").exists()


def test_an_output_between_its_two_renames_is_put_back_by_the_next_start() -> None:
    pretrain.run(recipe(), resume=False)
    Path("made/target").rename("made/.target.old")  # killed there
    further = recipe(
        name="more",
        start_from="made/target",
        model=None,
        tokenizer={"take_from": "made/target"},
    )
    pretrain.run(further, resume=False)
    assert sorted(path.name for path in Path("made").iterdir()) == ["target"]


def test_a_model_of_the_user_is_not_replaced_by_one_that_was_trained_meanwhile() -> None:
    pretrain.run(recipe(), resume=False)
    Path("made/target/config.json").write_text('{"my": 1}')
    with pytest.raises(DistillSpecError, match=r"other files: config\.json"):
        pretrain.run(recipe(), resume=True)
    assert Path("made/target/config.json").read_text() == '{"my": 1}'


def test_a_model_may_be_replaced_by_its_continuation_and_by_one_from_nothing() -> None:
    pretrain.run(recipe(), resume=False)
    Path("made/target/README.md").write_text("notes")
    Path("made/target/pretraining.json").unlink()  # a model of any origin
    further = {"tokenizer": {"take_from": "made/target"}, "model": None}
    pretrain.run(recipe(name="more", start_from="made/target", **further), resume=False)
    pretrain.run(recipe(name="again"), resume=False)
    assert Path("made/target/README.md").read_text() == "notes"
    load_model("made/target", dtype=torch.float32)


def test_a_recipe_that_failed_before_it_trained_can_be_corrected() -> None:
    plan = recipe().train.model_dump()
    plan["context"] = 2**20
    wrong = recipe(train=plan, model=LONG, tokenizer={"vocab_size": 290})
    with pytest.raises(DistillSpecError, match="fewer than"):
        pretrain.run(wrong, resume=False)
    assert pretrain.run(recipe(), resume=False) == 0
    assert len(load_tokenizer("made/target")) == 300
    with pytest.raises(DistillSpecError, match="another tokenizer"):
        pretrain.run(recipe(tokenizer={"vocab_size": 290}), resume=True)


def test_a_log_that_is_a_named_pipe_is_refused() -> None:
    folder = Path("checkpoints/runs/small")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "metrics.csv")
    with pytest.raises(DistillSpecError, match="the log of this training is a named pipe"):
        pretrain.run(recipe(), resume=False)
