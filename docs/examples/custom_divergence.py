"""Train a draft by a divergence of your own, and compare it with the built-in ones.

`python custom_divergence.py` takes some seconds with the nano-python pair. The loop is plain
PyTorch, so that the formula is all there is to see. To use a divergence in recipes, add it to
`distillspec/divergence/` (CONTRIBUTING.md).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

import distillspec
from distillspec.models.loading.load import load_model
from distillspec.recipe.builtin import located

TEXT = '''\
def attention(query, key, value, mask=None):
    """Scaled dot-product attention."""
    scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(query.size(-1))
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    return torch.matmul(scores.softmax(dim=-1), value)
'''


def hellinger(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Squared Hellinger distance 1 - sum_v sqrt(p_v q_v): two of [..., V] -> [...] in [0, 1]."""
    log_p, log_q = p_logits.log_softmax(-1), q_logits.log_softmax(-1)
    return 1.0 - ((log_p + log_q) / 2.0).exp().sum(-1)


def logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Float32 logits of the next token at every position: [1, T] -> [1, T, V]."""
    result: Tensor = model(ids).logits
    return result.float()


def main(steps: int = 20) -> None:
    torch.manual_seed(0)
    target = load_model("nano-python/target", dtype=torch.float32).eval()
    draft = load_model("nano-python/draft", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(located("nano-python/target"))
    ids = torch.tensor([tokenizer.encode(TEXT)])
    with torch.no_grad():
        p_logits = logits(target, ids)
    measured = {**distillspec.divergences, "hellinger": hellinger}

    def report(when: str) -> None:
        with torch.no_grad():
            q_logits = logits(draft.eval(), ids)
        values = (f"{name} {of(p_logits, q_logits).mean():.3f}" for name, of in measured.items())
        print(f"{when}: {', '.join(values)}")

    report("before")
    optimizer = torch.optim.AdamW(draft.parameters(), lr=1e-3)
    draft.train()
    for _ in range(steps):
        loss = hellinger(p_logits, logits(draft, ids)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    report("after ")


if __name__ == "__main__":
    main()
