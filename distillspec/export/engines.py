"""How each serving engine is launched with a pair, and whether it accepts the pair."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import NamedTuple

from distillspec.models.loading.model_facts import ModelFacts

# --- launching -----------------------------------------------------------------------------------


class Launch(NamedTuple):
    """How to run a pair with an engine.

    Attributes:
        language: Language of `text`, as in a Markdown code fence.
    """

    engine: str
    language: str
    text: str
    note: str


def launch_lines(
    target: str, draft: str, gamma: int, *, has_encoder: bool = False, is_chat: bool = False
) -> list[Launch]:
    """Complete launch texts of every engine.

    Args:
        target, draft: Folders or Hub ids.
        gamma: Drafted tokens per block.
        has_encoder: Whether the pair is encoder-decoder; only transformers decodes it with a draft.
        is_chat: Whether prompts are chats, which the target's template renders.
    """
    if has_encoder:
        return [_transformers(target, draft, gamma, "AutoModelForSeq2SeqLM", is_chat=False)]
    return [
        _transformers(target, draft, gamma, "AutoModelForCausalLM", is_chat=is_chat),
        _vllm(target, draft, gamma),
        _sglang(target, draft, gamma),
        _llama_cpp(target, draft, gamma),
    ]


_BY_ARGMAX = (
    "drafts are the most probable tokens at every temperature, which are accepted with "
    "probability p(argmax q) and not alpha"
)


_CHAT = """\
messages = [{"role": "user", "content": "Why is the sky blue?"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)"""


def _transformers(target: str, draft: str, gamma: int, kind: str, *, is_chat: bool) -> Launch:
    prompt = "summarize: " if kind == "AutoModelForSeq2SeqLM" else "def "
    asked = _CHAT if is_chat else f'inputs = tokenizer({prompt!r}, return_tensors="pt")'
    text = f"""\
from transformers import {kind}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({target!r})
target = {kind}.from_pretrained({target!r})
draft = {kind}.from_pretrained({draft!r})
draft.generation_config.num_assistant_tokens = {gamma}
draft.generation_config.num_assistant_tokens_schedule = "constant"
draft.generation_config.assistant_confidence_threshold = 0
{asked}
outputs = target.generate(**inputs, assistant_model=draft, max_new_tokens=64)
print(tokenizer.decode(outputs[0]))"""
    note = (
        "The draft's generation_config.json already has the three settings. `generate` reads them "
        "from there and ignores them as arguments. It decodes one prompt at a time. With "
        "do_sample=True and a temperature, drafts are sampled too, as in the measurement."
    )
    return Launch("transformers", "python", text, note)


def _vllm(target: str, draft: str, gamma: int) -> Launch:
    speculation = {
        "method": "draft_model",
        "model": draft,
        "num_speculative_tokens": gamma,
        "draft_sample_method": "probabilistic",
    }
    return Launch(
        "vLLM",
        "bash",
        f"vllm serve {shlex.quote(target)} "
        f"--speculative-config {shlex.quote(json.dumps(speculation, separators=(',', ':')))}",
        'For vLLM 0.22 and later: "draft_sample_method":"probabilistic" draws drafts from q, as '
        "in the measurement. Without this key, and in older versions, "
        f"{_BY_ARGMAX}.",
    )


def _sglang(target: str, draft: str, gamma: int) -> Launch:
    return Launch(
        "SGLang",
        "bash",
        f"python -m sglang.launch_server --model-path {shlex.quote(target)} "
        f"--speculative-algorithm STANDALONE --speculative-draft-model-path {shlex.quote(draft)} "
        f"--speculative-num-steps {gamma} --speculative-eagle-topk 1 "
        f"--speculative-num-draft-tokens {gamma + 1}",
        "SGLang counts the token it already has as a draft token, so the number is gamma + 1. "
        f"{_BY_ARGMAX.capitalize()}.",
    )


def _llama_cpp(target: str, draft: str, gamma: int) -> Launch:
    return Launch(
        "llama.cpp",
        "bash",
        f"python convert_hf_to_gguf.py {shlex.quote(target)} --outfile target.gguf\n"
        f"python convert_hf_to_gguf.py {shlex.quote(draft)} --outfile draft.gguf\n"
        f"llama-server -m target.gguf -md draft.gguf --spec-type draft-simple "
        f"--spec-draft-n-max {gamma} --spec-draft-p-min 0",
        "Without --spec-type the draft is loaded and never used; --draft-max was removed. "
        f"{_BY_ARGMAX.capitalize()}. The converter takes local folders. It must know the "
        "architecture and how the tokenizer splits text: a new tokenizer must be added to it.",
    )


# --- taking --------------------------------------------------------------------------------------


class EngineVerdict(NamedTuple):
    """Whether an engine accepts a pair.

    Attributes:
        takes: None if unknown, such as for a Hub id that was not downloaded.
        why: The reason in words.
    """

    engine: str
    takes: bool | None
    why: str


def engine_verdicts(target: ModelFacts, draft: ModelFacts) -> list[EngineVerdict]:
    """A verdict per engine on a pair with equal tokenizers (models.vocabulary checks that).

    Embeddings may still be padded to different sizes, which some engines accept and some do not.
    """
    return [EngineVerdict(name, *rule(target, draft)) for name, rule in _RULES.items()]


_Answer = tuple[bool | None, str]

_CAUSAL_ONLY: _Answer = (False, "does not decode encoder-decoder models with a draft")
_UNKNOWN: _Answer = (None, "the vocabulary sizes are unknown until the models are downloaded")

# Highest difference of vocabulary sizes, from llama.cpp's common/speculative.cpp.
_LLAMA_CPP_DIFFERENCE = 128

# Architectures that llama.cpp's converter supports: a hint, since the list grows every week.
_LLAMA_CPP_ARCHITECTURES = frozenset(
    f"{name}ForCausalLM"
    for name in (
        "Llama", "Mistral", "Mixtral", "Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe", "Gemma", "Gemma2",
        "Gemma3", "Phi", "Phi3", "GPTNeoX", "GPTBigCode", "Falcon", "Bloom", "StableLm",
        "Starcoder2", "Olmo", "Olmo2", "Olmoe", "Cohere", "Cohere2", "Granite", "GraniteMoe",
        "DeepseekV2", "DeepseekV3", "InternLM2", "SmolLM3", "Nemotron", "Glm4", "GptOss", "Exaone",
        "Exaone4", "MiniCPM",
    )
) | {"GPT2LMHeadModel"}  # fmt: skip


def _sizes(target: ModelFacts, draft: ModelFacts) -> tuple[int, int] | None:
    if target.vocab_size is None or draft.vocab_size is None:
        return None
    return target.vocab_size, draft.vocab_size


def _by_transformers(target: ModelFacts, draft: ModelFacts) -> _Answer:
    sizes = _sizes(target, draft)
    if sizes is None or sizes[0] == sizes[1]:
        return True, "accepts any draft with the target's tokenizer"
    return True, (
        f"vocabulary sizes differ ({sizes[0]} and {sizes[1]}): generate then also needs tokenizer= "
        "and assistant_tokenizer=; the exported draft has the target's size and needs neither"
    )


def _by_exact_size(target: ModelFacts, draft: ModelFacts) -> _Answer:
    if target.has_encoder:
        return _CAUSAL_ONLY
    sizes = _sizes(target, draft)
    if sizes is None:
        return _UNKNOWN
    if sizes[0] == sizes[1]:
        return True, f"equal vocabulary sizes ({sizes[0]})"
    return False, (
        f"needs equal vocabulary sizes, these are {sizes[0]} (target) and {sizes[1]} (draft); "
        f"the exported draft gets {sizes[0]} and is accepted"
    )


def _by_llama_cpp(target: ModelFacts, draft: ModelFacts) -> _Answer:
    if target.has_encoder:
        return _CAUSAL_ONLY
    sizes = _sizes(target, draft)
    if sizes is None:
        return _UNKNOWN
    apart = abs(sizes[0] - sizes[1])
    if apart > _LLAMA_CPP_DIFFERENCE:
        return False, (
            f"accepts vocabulary sizes at most {_LLAMA_CPP_DIFFERENCE} apart, these are {apart}; "
            f"the exported draft gets {sizes[0]} and is accepted"
        )
    unknown = {str(facts.architecture) for facts in (target, draft)} - _LLAMA_CPP_ARCHITECTURES
    if unknown:
        return None, (
            f"vocabulary sizes fit; check whether its converter supports "
            f"{' and '.join(sorted(unknown))}"
        )
    return True, (
        f"vocabulary sizes {apart} apart (at most {_LLAMA_CPP_DIFFERENCE}), architectures known; "
        "its converter must also know the tokenizer"
    )


_RULES: dict[str, Callable[[ModelFacts, ModelFacts], _Answer]] = {
    "transformers": _by_transformers,
    "vLLM": _by_exact_size,
    "SGLang": _by_exact_size,
    "llama.cpp": _by_llama_cpp,
}
