"""Runs from the pair to the report, on the tiny pair, with the eager runner."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distillspec.errors import DistillSpecError
from distillspec.export.folder import fit_vocabulary
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.recipe.loading import dump_yaml
from distillspec.recipe.schema import Recipe
from distillspec.training.held_out_loss import HeldOutLoss, LossResult
from distillspec.training.probe import AcceptanceProbe, ProbeResult
from distillspec.workflows import distill, evaluate, export, generate
from distillspec.workflows.decode import decode
from tests.models.two_tokenizers import save_other_draft
from tests.seq2seq import START, t5_tokenizer, unigram_tokenizer, written_pair
from tests.served import Served
from tests.two_processes import run_by_two
from tests.workflows.tiny_workplace import (
    CELL_KEYS,
    SHAPE,
    SUITE,
    assert_one_greedy_text_a_prompt,
    behind,
    only_run,
    recipe,
    trace,
    written,
)


def test_one_run_goes_from_the_pair_to_the_report(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distill.run(recipe(), None) == 0
    run = only_run()
    for name in (
        "recipe.yaml",
        "run.json",
        "training.json",
        "metrics.csv",
        "best.ckpt",
        "last.ckpt",
        "control/best.ckpt",
        "draft/config.json",
        "draft/model.safetensors",
        "draft/generation_config.json",
        "draft/README.md",
        "evaluation/tiny/rows.jsonl",
        "evaluation/tiny/report.html",
    ):
        assert (run / name).is_file(), name
    summary = json.loads((run / "evaluation/tiny/summary.json").read_text())
    assert all(set(cell) >= CELL_KEYS for cell in summary["cells"])
    weights = {name: one["path"] for name, one in summary["environment"]["models"].items()}
    assert weights["distilled"] == str(run / "best.ckpt")
    assert weights["control"] == str(run / "control" / "best.ckpt")
    assert {(c["draft"], c["gamma"], c["temperature"]) for c in summary["cells"]} == {
        (draft, gamma, temperature)
        for draft in ("undistilled", "distilled", "control")
        for gamma in (1, 2)
        for temperature in (0.0, 1.0)
    }
    assert json.loads((run / "run.json").read_text())["starts"][-1]["finished"]
    printed = capsys.readouterr().out
    assert "best alpha" in printed
    assert "next:  distillspec evaluate" in printed
    assert "--suite grid" in printed


def test_a_finished_run_that_is_started_again_repeats_nothing(workplace: Path) -> None:
    distill.run(recipe(), None)
    run = only_run()
    kept = {
        name: (run / name).read_bytes()
        for name in ("metrics.csv", "control/metrics.csv", "evaluation/tiny/rows.jsonl")
    }
    distill.run(recipe(), run)
    assert {name: (run / name).read_bytes() for name in kept} == kept


def test_the_control_trains_as_long_as_the_distilled_draft(workplace: Path) -> None:
    distill.train(recipe(max_steps=30), None)
    outcome = json.loads((only_run() / "training.json").read_text())
    # The control stops after the first step that passes the distilled draft's seconds.
    seconds, steps = outcome["control"]["seconds"], outcome["control"]["steps"]
    assert seconds >= outcome["distilled"]["seconds"]
    with (only_run() / "control/metrics.csv").open(newline="") as handle:
        spent = [float(row["train/training_seconds"] or 0) for row in csv.DictReader(handle)]
    assert len(spent) - 1 == steps > 0
    assert spent[-2] < outcome["distilled"]["seconds"]


def test_the_control_takes_the_best_of_the_rates_that_it_tries(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(max_steps=6).model_dump()
    values["evaluate"]["control_rates"] = [0.001, 1.0]
    distill.train(Recipe.model_validate(values), None)
    run, rate = only_run(), values["optimizer"]["learning_rate"]
    chosen = json.loads((run / "control/rate.json").read_text())
    assert list(chosen["alphas"]) == [f"{rate * factor:g}" for factor in (0.001, 1.0)]
    assert chosen["alphas"][f"{chosen['learning_rate']:g}"] == max(chosen["alphas"].values())
    assert f"the control's learning rate is {chosen['learning_rate']:g}" in capsys.readouterr().out
    # The trials are gone, and the control's peak rate is the chosen one.
    assert not (run / "control/rates").exists()
    with (run / "control/metrics.csv").open(newline="") as handle:
        rates = [float(row["train/learning_rate"] or 0) for row in csv.DictReader(handle)]
    assert 0.0 < max(rates) <= chosen["learning_rate"]


def test_of_equal_rates_the_control_takes_the_usual_one() -> None:
    """Where no rate improves on the draft before training, all have its alpha."""
    assert distill.best_rate({"0.0003": 0.5, "0.001": 0.5, "0.003": 0.5}, 1e-3) == 1e-3
    assert distill.best_rate({"0.0003": 0.5, "0.001": 0.5, "0.003": 0.6}, 1e-3) == 3e-3
    assert distill.best_rate({"0.0003": None, "0.001": None, "0.003": 0.1}, 1e-3) == 3e-3


def test_a_run_from_before_the_trials_keeps_the_rate_of_its_control(workplace: Path) -> None:
    values = recipe(max_steps=2).model_dump()
    values["evaluate"]["control_rates"] = [1.0]
    distill.train(Recipe.model_validate(values), None)
    run = only_run()
    before = (run / "control/metrics.csv").read_bytes()
    values["evaluate"]["control_rates"] = [0.3, 1.0]
    distill.train(Recipe.model_validate(values), run)
    assert (run / "control/metrics.csv").read_bytes() == before
    assert not (run / "control/rate.json").exists()


def test_a_control_with_one_rate_tries_none(workplace: Path) -> None:
    values = recipe(max_steps=2).model_dump()
    values["evaluate"]["control_rates"] = [1.0]
    distill.train(Recipe.model_validate(values), None)
    assert (only_run() / "control/best.ckpt").exists()
    assert not (only_run() / "control/rate.json").exists()


def test_a_probe_of_fewer_prompts_than_asked_for_is_told(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = recipe(max_steps=1).model_dump()
    values["distill"]["probe"]["prompts"] = 40
    values["evaluate"]["control"] = False
    distill.train(Recipe.model_validate(values), None)
    assert re.search(r"\d+ held-out prompts for a probe of 40", capsys.readouterr().out)


def test_a_training_makes_what_is_missing_of_the_kept_distributions(
    workplace: Path, kept: Recipe
) -> None:
    distill.train(kept, None)
    before = written("data/signals")
    (shard,) = Path("data/signals").glob("*/shard-*")
    content = shard.read_bytes()
    shard.unlink()
    distill.train(kept, only_run())  # a finished run: nothing is trained, all is made ready
    assert shard.read_bytes() == content
    assert written("data/signals").keys() == before.keys()


@pytest.mark.parametrize("larger", ["target", "draft"])
def test_vocabularies_padded_to_different_sizes_train_decode_and_export(
    workplace: Path, larger: str
) -> None:
    """20 rows more than the tokenizer has tokens, in one of the two, and likely ones at that."""
    model = load_model(f"pair/{larger}", dtype=torch.float32)
    fit_vocabulary(model, 320)
    with torch.no_grad():
        model.get_input_embeddings().weight[300:] *= 50.0
    model.save_pretrained(f"pair/{larger}")
    distill.train(recipe(source={"target": 0.5, "draft": 0.5}), None)
    folder = only_run() / "draft"
    size = 320 if larger == "target" else 300
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == size
    greedy = {"temperature": 0.0, "max_new_tokens": 12}
    for draft in ("pair/draft", folder):
        found = [one.token for one in decode("pair/target", draft, "def f(x):", **greedy)]
        plain = decode(
            "pair/target", draft, "def f(x):", method={"draft": {"kind": "none"}}, **greedy
        )
        assert found == [one.token for one in plain]
        if draft == "pair/draft":  # what one of the two lacks; rows of both are the target's own
            assert max(found) < 300


@pytest.mark.parametrize(
    "plan",
    [
        {"source": {"target": 0.5, "draft": 0.5}},
        {
            "source": {"target": 0.25, "speculative": 0.5, "replay": 0.25},
            "speculative": {"gamma": 2},
            "packing": 160,
        },
    ],
    ids=["on-policy", "speculative"],
)
def test_a_trimmed_head_is_counted_once_trained_and_exported_whole(
    workplace: Path, capsys: pytest.CaptureFixture[str], plan: dict[str, object]
) -> None:
    values = recipe(**plan).model_dump()
    values["pair"]["draft_head"] = {"keep": 120}
    values["optimizer"] |= {"ema": 0.5, "layer_decay": 0.9}
    plan = Recipe.model_validate(values)
    distill.run(plan, None)
    run = only_run()
    head = json.loads((run / "draft_head.json").read_text())
    assert len(head["tokens"]) == 120
    assert 0 in head["tokens"]  # end of text
    assert json.loads((run / "draft/hot_token_ids.json").read_text()) == head["tokens"]
    assert json.loads((run / "draft/config.json").read_text())["vocab_size"] == 300
    load_model(str(run / "draft"), dtype=torch.float32)
    summary = json.loads((run / "evaluation/tiny/summary.json").read_text())
    assert all(cell["alpha"] <= 1.0 for cell in summary["cells"])
    assert_one_greedy_text_a_prompt(run)
    printed = capsys.readouterr().out
    assert "the draft's head keeps 120 of 300 tokens" in printed
    assert "drafts with the full head" in printed
    kept = (run / "best.ckpt").read_bytes()
    distill.run(plan, run)
    assert (run / "best.ckpt").read_bytes() == kept


def test_a_draft_whose_folder_names_its_tokens_learns_from_text_that_it_writes(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree("pair/draft", "trained"))
    tokens = [*range(0, 300, 3)]
    (folder / "hot_token_ids.json").write_text(json.dumps(tokens))
    rows = [json.dumps({"prompt": f"def f{i}(x):"}) for i in range(40)]
    Path("asked.jsonl").write_text("\n".join(rows))
    values = recipe(source={"draft": 1.0}).model_dump()
    values["data"]["source"] = {"kind": "jsonl", "path": "asked.jsonl"}
    values["pair"] = {"target": "pair/target", "draft": "trained", "draft_head": {"keep": 100}}
    values["evaluate"]["control"] = False
    distill.train(Recipe.model_validate(values), None)
    head = json.loads((only_run() / "draft_head.json").read_text())
    assert head["tokens"] == tokens
    assert head["share"] == 0.0
    # There is no text to compare the tokens with, so the line names the target's mass alone.
    assert re.search(r"keeps 100 of 300 tokens: [\d.]+% of the target's", capsys.readouterr().out)
    assert not Path("data").exists()


def test_a_draft_of_another_tokenizer_is_trained_measured_and_exported(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = save_other_draft(Path("pair/other"))
    values = recipe(source={"target": 0.5, "fixed": 0.5}, bucket_steps=2).model_dump()
    values["optimizer"] |= {"ema": 0.5, "layer_decay": 0.9}
    values["hardware"]["gradient_checkpointing"] = True
    values["pair"] |= {"draft": "pair/other"}
    with pytest.raises(DistillSpecError, match="different tokenizers") as caught:
        distill.run(Recipe.model_validate(values), None)
    assert "pair.tokenizers: cross-tokenizer" in caught.value.fix
    values["pair"] |= {"tokenizers": "cross-tokenizer"}
    plan = Recipe.model_validate(values)
    distill.run(plan, None)
    run = only_run()
    printed = capsys.readouterr().out
    assert "of the target's 300 tokens are in both" in printed
    reported = re.search(r"([\d.]+)% of its mass on held-out\s.*?([\d.]+)% ", printed, re.DOTALL)
    assert reported is not None
    reached, lost = map(float, reported.groups())
    assert 0.0 < lost < 100.0 and reached + lost == pytest.approx(100.0, abs=0.011)
    assert json.loads((run / "draft/config.json").read_text())["vocab_size"] == 310
    assert load_tokenizer(str(run / "draft")).get_vocab() == tokenizer.get_vocab()
    assert "different tokenizers" in (run / "draft/README.md").read_text()
    summary = json.loads((run / "evaluation/tiny/summary.json").read_text())
    assert {cell["draft"] for cell in summary["cells"]} == {"undistilled", "distilled", "control"}
    assert_one_greedy_text_a_prompt(run)
    kept = (run / "best.ckpt").read_bytes()
    distill.run(plan, run)
    assert (run / "best.ckpt").read_bytes() == kept


def test_texts_too_long_in_the_drafts_own_tokens_are_left_out_and_decoded_without_it(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ " import" is one token of the target's, and five of the draft's."""
    save_other_draft(Path("pair/other"), max_positions=72)
    with Path("rows.jsonl").open("a") as rows:
        for i in range(16):
            row = {"prompt": f"{i}:" + " import" * 20, "response": "\n    return x"}
            rows.write(json.dumps(row) + "\n")
    values = recipe(source={"target": 0.5, "fixed": 0.5}).model_dump()
    values["pair"] |= {"draft": "pair/other", "tokenizers": "cross-tokenizer"}
    values["evaluate"] = {"suite": "tiny.yaml", "control": False}
    suite = SUITE.replace("count: 4", "count: 12")
    Path("tiny.yaml").write_text(suite.replace("[0.0, 1.0]", "[0.0]").replace("[1, 2]", "[2]"))
    distill.run(Recipe.model_validate(values), None)
    printed = capsys.readouterr().out
    assert "training texts are longer than the 72 tokens" in printed
    assert "held-out texts are longer than the 64 tokens" in printed
    lines = (only_run() / "evaluation/tiny/rows.jsonl").read_text().splitlines()
    drafted: dict[str, set[bool]] = {}
    for row in map(json.loads, lines):
        if row["method"] is not None:
            drafted.setdefault(row["prompt_key"], set()).add(row["counts"]["drafted"] > 0)
    assert set(map(frozenset, drafted.values())) == {frozenset({False}), frozenset({True})}


@pytest.mark.parametrize(
    ("draft", "lora", "start", "layers"),
    [
        (
            {"kind": "pruned", "layers": [1], "intermediate_size": 40},
            None,
            "layers 1 of the target",
            1,
        ),
        ({"kind": "random", "shape": SHAPE}, {"rank": 2, "use_dora": True}, "random weights", 1),
    ],
)
def test_a_draft_that_is_made_is_trained_measured_and_exported(
    workplace: Path,
    draft: dict[str, object],
    lora: dict[str, object] | None,
    start: str,
    layers: int,
) -> None:
    plan = recipe(source={"target": 1.0})
    plan = Recipe.model_validate(
        {**plan.model_dump(), "pair": {"target": "pair/target", "draft": draft}, "lora": lora}
    )
    distill.run(plan, None)
    run = only_run()
    config = json.loads((run / "draft/config.json").read_text())
    assert config["num_hidden_layers"] == layers
    assert config["vocab_size"] == 300
    assert f"distilled from {start}" in (run / "draft/README.md").read_text()
    summary = json.loads((run / "evaluation/tiny/summary.json").read_text())
    assert {cell["draft"] for cell in summary["cells"]} == {"undistilled", "distilled", "control"}
    assert_one_greedy_text_a_prompt(run)
    distill.run(plan, run)  # the same start is made again
    stored = json.loads((run / "identity.json").read_text())["digests"]
    (run / "identity.json").unlink()  # as an earlier version left it
    (run / "start.json").write_text(json.dumps({"draft": stored["draft"][::-1]}))
    with pytest.raises(DistillSpecError, match="the initial draft changed"):
        distill.run(plan, run)


def test_a_made_and_trimmed_draft_that_writes_with_the_target_resumes_bit_equal(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"target": 0.25, "speculative": 0.5, "replay": 0.25}
    values = recipe(source=source, checkpoint_every_steps=1).model_dump()
    made = {"kind": "pruned", "layers": 1}
    values["pair"] = {"target": "pair/target", "draft": made, "draft_head": {"keep": 120}}
    values["distill"]["probe"]["every_steps"] = 1
    plan = Recipe.model_validate(values)
    distill.train(plan, None)
    shutil.move(only_run(), "whole")
    measure, calls = AcceptanceProbe.measure, []

    def interrupted(self: AcceptanceProbe, draft: PreTrainedModel) -> ProbeResult:
        calls.append(draft)
        if len(calls) == 4:  # before the third step is recorded
            raise KeyboardInterrupt
        return measure(self, draft)

    with monkeypatch.context() as patch:
        patch.setattr(AcceptanceProbe, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"with: distillspec train checkpoints"):
            distill.train(plan, None)
    distill.train(plan, only_run())
    assert len(trace(only_run(), "probe/alpha")) == 5
    assert trace(only_run(), "probe/alpha") == trace(Path("whole"), "probe/alpha")
    model = "draft/model.safetensors"
    assert (only_run() / model).read_bytes() == Path("whole", model).read_bytes()


def test_a_draft_is_trained_on_what_an_endpoint_says(
    workplace: Path, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = behind(served)
    generate.generate(plan)
    stored = written("data/responses")
    assert distill.run(plan, None) == 0
    assert written("data/responses") == stored
    run = only_run()
    outcome = json.loads((run / "training.json").read_text())
    assert outcome.keys() == {"distilled"}  # the control would be the same training
    assert outcome["distilled"]["best_alpha"] is None
    assert outcome["distilled"]["best_nats"] > 0.0
    for name in ("draft/model.safetensors", "draft/README.md", "best.ckpt", "run.json"):
        assert (run / name).is_file(), name
    assert not (run / "evaluation").exists()
    card = (run / "draft/README.md").read_text()
    assert "has not been evaluated" in card
    assert "the target gave text only" in card
    printed = capsys.readouterr().out
    assert "its held-out loss is" in printed
    assert "alpha, tau and speed-up are not known" in printed
    assert f"distillspec tune TARGET {run}/draft" in printed
    before = (run / "metrics.csv").read_bytes()
    distill.run(plan, run)  # finished: nothing is repeated
    export.export(run, None)
    assert (run / "metrics.csv").read_bytes() == before
    assert written("data/responses") == stored
    with pytest.raises(DistillSpecError, match="needs the target's weights"):
        evaluate.evaluate(run, "tiny.yaml")


def test_training_on_an_endpoints_text_resumes_bit_equal(
    workplace: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = behind(served)
    steps = plan.distill.model_copy(update={"checkpoint_every_steps": 1})
    plan = plan.model_copy(update={"distill": steps})
    distill.train(plan, None)
    whole = only_run()
    shutil.move(whole, "whole")
    measure, calls = HeldOutLoss.measure, []

    def interrupted(self: HeldOutLoss, draft: PreTrainedModel) -> LossResult:
        calls.append(draft)
        if len(calls) == 2:  # before the second step is recorded
            raise KeyboardInterrupt
        return measure(self, draft)

    with monkeypatch.context() as patch:
        patch.setattr(HeldOutLoss, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"with: distillspec train checkpoints"):
            distill.train(plan, None)
    distill.train(plan, only_run())
    assert len(trace(only_run(), "probe/nats")) == 4
    assert trace(only_run(), "probe/nats") == trace(Path("whole"), "probe/nats")
    model = "draft/model.safetensors"
    assert (only_run() / model).read_bytes() == Path("whole", model).read_bytes()


@pytest.mark.parametrize(
    ("tokenizer", "plan", "changes"),
    [
        (t5_tokenizer, {"source": {"draft": 0.5, "target": 0.25, "replay": 0.25}}, {}),
        (
            unigram_tokenizer,
            {
                "divergence": "mix",
                "mix": {"lk_alpha": 0.5, "nll": 0.5},
                "source": {"target": 0.5, "fixed": 0.5},
            },
            {"lora": {"rank": 2, "targets": ["q", "v"], "use_dora": True}},
        ),
        (
            unigram_tokenizer,
            {
                "divergence": "jsd",
                "source": {"target": 1.0},
                "target_logits": {"kind": "cached", "k": 16, "store": "signals"},
            },
            {"optimizer": {"learning_rate": 1e-2, "ema": 0.5, "layer_decay": 0.9}},
        ),
    ],
    ids=["whole", "adapters", "cached"],
)
def test_an_encoder_decoder_pair_goes_the_whole_way(
    workplace: Path,
    tokenizer: Callable[[], PreTrainedTokenizerBase],
    plan: dict[str, object],
    changes: dict[str, object],
) -> None:
    written_pair(workplace / "t5", tokenizer())
    values = recipe(**plan).model_dump(mode="json") | changes
    values["pair"] |= {"target": "t5/target", "draft": "t5/draft"}
    assert distill.run(Recipe.model_validate(values), None) == 0
    run = only_run()
    assert_one_greedy_text_a_prompt(run)
    draft = load_model(str(run / "draft"), dtype=torch.float32)
    start = load_model("t5/draft", dtype=torch.float32)
    assert type(draft) is type(start)
    changed = [name for name, weight in draft.state_dict().items()
               if not torch.equal(weight, start.state_dict()[name])]  # fmt: skip
    assert any(name.startswith("encoder.") for name in changed)
    assert draft.config.dropout_rate == start.config.dropout_rate
    assert draft.generation_config is not None
    assert draft.generation_config.decoder_start_token_id == START
    summary = json.loads((run / "evaluation/tiny/summary.json").read_text())
    assert all(cell["tau"] >= 1.0 for cell in summary["cells"])
    greedy = [note for note in summary["notes"] if "Encoder-decoder" in note]
    assert len(greedy) == 1
    card = (run / "draft" / "README.md").read_text()
    assert "AutoModelForSeq2SeqLM" in card and "vllm" not in card
    target = load_model("t5/target", dtype=torch.float32)
    inputs = load_tokenizer(str(run / "draft"))("def f3(x):", return_tensors="pt")
    plain = target.generate(**inputs, max_new_tokens=12, do_sample=False)
    assisted = target.generate(**inputs, max_new_tokens=12, do_sample=False, assistant_model=draft)
    assert assisted.tolist() == plain.tolist()


@pytest.mark.distributed
def test_a_split_target_trains_and_exports_and_is_evaluated_by_one_process(
    workplace: Path,
) -> None:
    plan = recipe(source={"draft": 0.5, "fixed": 0.5}).model_dump(mode="json")
    plan["hardware"]["shard_target"] = True
    (workplace / "tiny-split.yaml").write_text(dump_yaml(Recipe.model_validate(plan)))
    said = run_by_two("distillspec", "run", "tiny-split.yaml", folder=workplace)
    assert "not evaluated: the target is split" in said
    assert re.search(r"its loss on text that it drew is \d+\.\d+ nats", said)
    (run,) = Path("checkpoints/runs").glob("*/*")
    assert (run / "draft" / "model.safetensors").is_file()
    assert not (run / "evaluation").exists()
    assert evaluate.evaluate(run, "tiny.yaml") == 0
    assert (run / "evaluation" / "tiny" / "report.html").is_file()


def test_two_processes_train_by_a_schedule_with_cached_logits_and_text_of_the_draft(
    workplace: Path,
) -> None:
    """Every process needs the target for the draft's text, and all choose one control rate."""
    mixed = {"draft": 0.5, "target": 0.5, "per": "batch"}
    values = recipe(max_steps=8).model_dump(mode="json")
    values["distill"] |= {
        "source": mixed,
        "target_logits": {"kind": "cached", "k": 16},
        "schedule": [
            {"share": 0.5, "divergence": "forward_kl", "source": {"target": 1.0}},
            {"share": 0.5, "divergence": "jsd"},
        ],
        "divergence": "jsd",
    }
    values["evaluate"]["control_rates"] = [0.1, 1.0]
    (workplace / "tiny-two.yaml").write_text(dump_yaml(Recipe.model_validate(values)))
    said = run_by_two("distillspec", "train", "tiny-two.yaml", folder=workplace)
    assert said.count("the control's learning rate is") == 1
    (run,) = Path("checkpoints/runs").glob("*/*")
    with (run / "metrics.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))[1:]
    # Cached batches have a bound of alpha, those that the draft wrote have alpha.
    assert all(row["train/alpha_at_most"] for row in rows[:4])
    assert any(row["train/alpha"] for row in rows[4:])
    assert not (run / "control/rates").exists()


def test_an_export_that_was_interrupted_does_not_offer_to_train(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distill.train(recipe(), None)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distillspec.workflows.export.export_run", interrupted)
    with pytest.raises(KeyboardInterrupt, match="^$"):
        export.export(only_run(), None)
