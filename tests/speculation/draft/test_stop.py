from __future__ import annotations

import torch

from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.sampling import SamplingPolicy


def test_a_fixed_length_never_stops_early_however_sure_or_unsure_the_draft_is() -> None:
    rule: StopRule = FixedLength()
    for logits in (torch.zeros(5), torch.tensor([50.0, 0.0, 0.0])):
        assert not rule.stops(logits, SamplingPolicy())
        assert not rule.stops_after(logits, torch.tensor(1), SamplingPolicy())
