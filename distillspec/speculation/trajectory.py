"""What drafts say of tokens that were emitted, whoever drafted them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.speculation.runner import Runner, room_after
from distillspec.speculation.sampling import SamplingPolicy, check_finite


def keep_chances(p: Tensor, q: Tensor, tokens: Tensor) -> Tensor:
    """min(1, q(x)/p(x)): p, q [N, V], emitted tokens long [N] -> [N] in [0, 1].

    The probability that token verification had kept a drafted x there, given that x is what was
    emitted: it emits x with probability p(x), and keeps a drafted x with min(p(x), q(x)).
    """
    of_p, of_q = (distribution.gather(-1, tokens[:, None])[:, 0] for distribution in (p, q))
    # p is 0 only where rounding parts this forward from the one that drew x: a draft's x stays.
    return torch.where(of_p > 0.0, (of_q / of_p).clamp(max=1.0), (of_q > 0.0).to(q.dtype))


class Watched(NamedTuple):
    """chances: by model, `keep_chances` of a round's tokens. forwards: of drafts, to know them."""

    chances: dict[str | None, list[float]]
    forwards: int


def watch(
    models: Collection[str | None],
    drafts: Mapping[str | None, Runner],
    text: Sequence[int],
    p: Tensor,
    q: Tensor,
    policy: SamplingPolicy,
) -> Watched:
    """Read what a round emitted with each of the models, of which one or none drafted in it.

    text: the committed tokens; the round's, at most one for each row of the target's p [G + 1, V],
    are its last len(p). q: [G, V], what the round's chain was drawn from. The model that drafted
    need be fed nothing, or the one token it drew last; each other all that it has not read. One
    that has no room for that could not have drafted, and would have kept nothing. Waits for the
    device once, if there are models.
    """
    if not models:
        return Watched({}, 0)
    N = len(p)
    tokens = torch.tensor(text[len(text) - N :], device=p.device)
    rows, forwards = [], 0
    doubts: list[Tensor] = []
    for model in models:
        runner = drafts[model]
        drafted_here = runner.length >= len(text) - N  # all others were fed less
        distribution = q[:N] if drafted_here else q[:0]
        if len(distribution) < N:
            unread = text[runner.length : -1]
            if min(room_after(runner, unread)) < 0:
                rows.append(p.new_zeros(N))
                continue
            logits = runner.feed(tokens.new_tensor(unread).unsqueeze(0))[0, len(distribution) - N :]
            distribution = torch.cat([distribution.to(p.dtype), policy.distribution(logits)])
            doubts.append(distribution[:, 0].sum())
            forwards += 1
        rows.append(keep_chances(p, distribution, tokens))
    check_finite("a draft", *doubts)
    return Watched(dict(zip(models, torch.stack(rows).tolist(), strict=True)), forwards)
