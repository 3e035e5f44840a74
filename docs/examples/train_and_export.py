"""Train a draft for the nano-python pair in a few steps, export it, and measure it.

Run it in an empty folder: `python train_and_export.py`. It takes about a minute on two CPU cores.
With your own pair, replace the recipe's name by the path of your recipe, and drop the overrides.
"""

from __future__ import annotations

from pathlib import Path

import distillspec

SUITE = """\
name: first-look
prompts: {count: 4, texts: 16}
drafts: [undistilled, distilled]
gammas: [4]
temperatures: [1.0]
max_new_tokens: 16
runner: {kind: eager}
"""

# Small on purpose: the recipe itself trains for over a minute, on 512 prompts.
OVERRIDES = (
    "name=first-draft",
    "data.max_prompts=32",
    "data.max_response_tokens=32",
    "data.preview=0",
    "distill.batch_size=8",
    "distill.max_steps=6",
    "distill.probe={every_steps: 3, prompts: 8, max_new_tokens: 16}",
    "evaluate.control=false",
)


def main() -> None:
    recipe = distillspec.load_recipe("nano-python", OVERRIDES)
    run = distillspec.train(recipe)
    print(f"draft: {run.draft}")  # a plain Hugging Face folder

    Path("first-look.yaml").write_text(SUITE, encoding="utf-8")
    summary = distillspec.evaluate(run, "first-look.yaml")
    for cell in summary.cells:
        alpha, tau = cell.alpha.value, cell.tau.value
        print(f"{cell.draft}: alpha {alpha:.3f}, tau {tau:.2f} tokens per target forward")


if __name__ == "__main__":
    main()
