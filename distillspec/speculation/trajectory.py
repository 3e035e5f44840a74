"""How a draft model would have done on emitted tokens, whichever draft they came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from distillspec.speculation.runner import Runner, room_after
from distillspec.speculation.sampling import SamplingPolicy, check_finite


def keep_probabilities(p: Tensor, q: Tensor, tokens: Tensor) -> Tensor:
    """Probability that token verification had kept each emitted token as a drafted one.

    It is min(1, q(x)/p(x)): token verification emits x with probability p(x), and keeps a drafted x
    with min(p(x), q(x)).

    Args:
        p: The target's distributions, shape [N, V].
        q: The draft's distributions, shape [N, V].
        tokens: Emitted tokens, long [N].

    Returns:
        Shape [N], in [0, 1].
    """
    of_p, of_q = (distribution.gather(-1, tokens[:, None])[:, 0] for distribution in (p, q))
    # p is 0 only where this forward is rounded otherwise than the one that drew x.
    return torch.where(of_p > 0.0, (of_q / of_p).clamp(max=1.0), (of_q > 0.0).to(q.dtype))


class Watched(NamedTuple):
    """What watching a round found.

    Attributes:
        keep_probabilities: For each model, `keep_probabilities` of the round's tokens.
        forwards: Forwards of draft models that this took.
    """

    keep_probabilities: dict[str | None, list[float]]
    forwards: int


def watch(
    models: Collection[str | None],
    drafts: Mapping[str | None, Runner],
    text: Sequence[int],
    p: Tensor,
    q: Tensor,
    policy: SamplingPolicy,
) -> Watched:
    """Read what a round emitted with each of the models; at most one of them drafted in it.

    The model that drafted has to read nothing, or only the token it drew last. Each other model
    reads all that it has not read yet. A model without room for that could not have drafted, so its
    probabilities are 0. Waits for the device once, if there are models.

    Args:
        models: The models to watch, by name.
        drafts: The runners by name.
        text: The committed tokens; its last N are the round's.
        p: The target's distributions of these tokens, shape [N, V].
        q: What the round's chain was drawn from, shape [G, V].
        policy: What makes a distribution of logits.
    """
    if not models:
        return Watched({}, 0)
    N = len(p)
    tokens = torch.tensor(text[len(text) - N :], device=p.device)
    rows, forwards = [], 0
    doubts: list[Tensor] = []
    for model in models:
        runner = drafts[model]
        # 1. Take what is known: the q of the round, if this model drafted it.
        has_drafted = runner.length >= len(text) - N  # all others have read less
        distribution = q[:N] if has_drafted else q[:0]
        # 2. Read what is missing. The last token stays unread: it heads the next block.
        if len(distribution) < N:
            unread = text[runner.length : -1]
            if min(room_after(runner, unread)) < 0:
                rows.append(p.new_zeros(N))
                continue
            logits = runner.feed(tokens.new_tensor(unread).unsqueeze(0))[0, len(distribution) - N :]
            distribution = torch.cat([distribution.to(p.dtype), policy.distribution(logits)])
            doubts.append(distribution[:, 0].sum())
            forwards += 1
        # 3. Probabilities stay on the device until all models are done.
        rows.append(keep_probabilities(p, distribution, tokens))
    check_finite("a draft", *doubts)
    return Watched(dict(zip(models, torch.stack(rows).tolist(), strict=True)), forwards)
