from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from distillspec.export.engines import engine_verdicts, launch_lines
from distillspec.models.loading.model_facts import ModelFacts, folder_facts
from tests.seq2seq import written_pair

ENGINES = ["transformers", "vLLM", "SGLang", "llama.cpp"]


def _facts(vocab_size: int | None, architecture: str = "LlamaForCausalLM") -> ModelFacts:
    return ModelFacts("x", local=True, architecture=architecture, vocab_size=vocab_size)


def _takes(target: ModelFacts, draft: ModelFacts) -> dict[str, bool | None]:
    return {verdict.engine: verdict.takes for verdict in engine_verdicts(target, draft)}


# --- verdicts ------------------------------------------------------------------------------------


def test_a_pair_of_equal_sizes_is_taken_by_every_engine(tiny_pair: Path) -> None:
    target, draft = (folder_facts(str(tiny_pair / name)) for name in ("target", "draft"))
    assert _takes(target, draft) == dict.fromkeys(ENGINES, True)


def test_padding_by_128_is_refused_by_vllm_and_sglang_only() -> None:
    takes = _takes(_facts(152064), _facts(151936))
    assert takes == {"transformers": True, "vLLM": False, "SGLang": False, "llama.cpp": True}


def test_padding_by_129_is_refused_by_llama_cpp_too() -> None:
    assert _takes(_facts(152065), _facts(151936))["llama.cpp"] is False
    assert _takes(_facts(151936), _facts(152065))["llama.cpp"] is False


def test_a_refusal_names_both_sizes_and_that_the_export_mends_it() -> None:
    (why,) = (v.why for v in engine_verdicts(_facts(500), _facts(300)) if v.engine == "vLLM")
    assert "500 (target)" in why
    assert "300 (draft)" in why
    assert "exported draft" in why


def test_transformers_wants_both_tokenizers_when_the_sizes_differ() -> None:
    (why,) = (
        v.why for v in engine_verdicts(_facts(500), _facts(300)) if v.engine == "transformers"
    )
    assert "assistant_tokenizer" in why


def test_an_architecture_unknown_to_llama_cpp_is_left_to_the_user() -> None:
    verdicts = engine_verdicts(_facts(300, "NovelForCausalLM"), _facts(300))
    (verdict,) = (v for v in verdicts if v.engine == "llama.cpp")
    assert verdict.takes is None
    assert "NovelForCausalLM" in verdict.why


def test_a_hub_id_that_was_not_looked_into_gets_no_verdict() -> None:
    takes = _takes(ModelFacts("org/target", local=False), _facts(300))
    assert takes == {"transformers": True, "vLLM": None, "SGLang": None, "llama.cpp": None}


# --- launching -----------------------------------------------------------------------------------


def test_there_is_a_launch_for_every_engine() -> None:
    assert [launch.engine for launch in launch_lines("target", "draft", 5)] == ENGINES


def test_the_lines_of_the_servers_are_the_documented_ones() -> None:
    texts = {launch.engine: launch.text for launch in launch_lines("T", "D", 4)}
    assert texts["vLLM"] == (
        "vllm serve T --speculative-config "
        '\'{"method":"draft_model","model":"D","num_speculative_tokens":4,'
        '"draft_sample_method":"probabilistic"}\''
    )
    assert texts["SGLang"] == (
        "python -m sglang.launch_server --model-path T --speculative-algorithm STANDALONE "
        "--speculative-draft-model-path D --speculative-num-steps 4 --speculative-eagle-topk 1 "
        "--speculative-num-draft-tokens 5"
    )
    assert texts["llama.cpp"].endswith(
        "llama-server -m target.gguf -md draft.gguf --spec-type draft-simple "
        "--spec-draft-n-max 4 --spec-draft-p-min 0"
    )


def test_the_engines_that_draft_by_argmax_are_named() -> None:
    notes = {launch.engine: launch.note for launch in launch_lines("T", "D", 4)}
    said = [name for name, note in notes.items() if "p(argmax q) and not alpha" in note]
    assert said == ["vLLM", "SGLang", "llama.cpp"]


@pytest.mark.parametrize("name", ["my model", "it's", "a;b", '"x"'])
def test_odd_names_survive_the_shell(name: str) -> None:
    texts = {launch.engine: launch.text for launch in launch_lines(name, name, 3)}
    words = shlex.split(texts["vLLM"])
    assert words[2] == name
    assert json.loads(words[4])["model"] == name
    assert shlex.split(texts["SGLang"]).count(name) == 2


def test_the_transformers_text_runs_as_it_stands(
    tiny_pair: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = launch_lines(str(tiny_pair / "target"), str(tiny_pair / "draft"), 3)[0]
    exec(compile(launch.text, "launch", "exec"), {})
    assert capsys.readouterr().out.startswith("def ")


def test_a_chat_is_rendered_by_the_targets_template(
    tiny_pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = shutil.copytree(tiny_pair / "target", tmp_path / "target")
    tokenizer = AutoTokenizer.from_pretrained(target)
    tokenizer.chat_template = "{% for m in messages %}asked: {{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(target)
    launch = launch_lines(str(target), str(tiny_pair / "draft"), 3, is_chat=True)[0]
    exec(compile(launch.text, "launch", "exec"), {})
    assert capsys.readouterr().out.startswith("asked: Why is the sky blue?\n")


def test_a_pair_with_encoders_is_for_transformers_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = written_pair(tmp_path)
    target, draft = (folder_facts(str(pair / name)) for name in ("target", "draft"))
    assert (target.layers, target.hidden_size) == (2, 32)
    assert _takes(target, draft) == {
        "transformers": True,
        "vLLM": False,
        "SGLang": False,
        "llama.cpp": False,
    }
    (launch,) = launch_lines(str(pair / "target"), str(pair / "draft"), 3, has_encoder=True)
    exec(launch.text, {})
    assert capsys.readouterr().out
