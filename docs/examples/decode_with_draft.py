"""Decode with a draft and show which tokens it proposed.

`python decode_with_draft.py` continues a Python function with the nano-python pair, in seconds.
`python decode_with_draft.py TARGET DRAFT PROMPT` does so with your pair: folders or Hub ids.
"""

from __future__ import annotations

import sys
from collections import Counter

import distillspec

PAIR = ("nano-python/target", "nano-python/draft")
PROMPT = "def forward(self, hidden_states):\n"


def main(target: str = PAIR[0], draft: str = PAIR[1], prompt: str = PROMPT) -> None:
    statuses: Counter[str] = Counter()
    forwards = 0
    for token in distillspec.decode(target, draft, prompt, gamma=4, max_new_tokens=48, seed=0):
        print(token.text, end="", flush=True)
        statuses[token.status.name.lower()] += 1
        forwards += token.begins_round  # each round is one forward of the target
    print(f"\n\n{sum(statuses.values())} tokens in {forwards} forwards of the target")
    print(", ".join(f"{count} {status}" for status, count in statuses.most_common()))


if __name__ == "__main__":
    main(*sys.argv[1:])
