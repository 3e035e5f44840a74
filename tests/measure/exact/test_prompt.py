from __future__ import annotations

from distillspec.corpus.sources.prompts import Prompt
from distillspec.measure.exact.prompt import MeasuredPrompt


def test_the_prompts_of_the_corpus_can_be_measured_on() -> None:
    asked = {
        name for name in vars(MeasuredPrompt) if isinstance(vars(MeasuredPrompt)[name], property)
    }
    assert asked == {"key", "tokens", "text", "response", "document", "category"}
    assert asked <= set(dir(Prompt))
