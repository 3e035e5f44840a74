"""`tune`: find the fastest decoding method for a pair on your prompts, and write it as a suite."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from distillspec.commands.arguments import number, whole
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import JsonlSource, PythonSource
from distillspec.recipe.temperature import ALLOWED, is_computable
from distillspec.runtime.plain_files import check_regular


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a folder or Hub id")
    parser.add_argument("draft", metavar="DRAFT", help="a folder or Hub id")
    parser.add_argument(
        "--prompts",
        metavar="FILE.jsonl",
        help="your prompts, a line each with `prompt` or `messages`; default: Python code",
    )
    parser.add_argument(
        "--temperature",
        type=number(0.0, 4.0),
        default=1.0,
        help="sampling temperature of your traffic, 0 to 4; default: 1",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=whole(1, 2**24),
        default=64,
        help="tokens decoded per prompt; default: 64",
    )
    parser.add_argument(
        "--minutes",
        type=number(1e-3, 1e6),
        default=3.0,
        help="minutes of decoding, after the models are loaded; default: 3",
    )
    parser.add_argument(
        "--runner",
        choices=("eager", "compiled"),
        default="eager",
        help="the runner that you serve with; it decides which method is fastest",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.yaml",
        default="tune.yaml",
        help="suite to write; default: tune.yaml, or auto.yaml by the verb auto",
    )
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=0, help="seed of sampling; default: 0"
    )


def main(arguments: Namespace) -> int:
    if not is_computable(arguments.temperature):
        raise DistillSpecError(
            f"--temperature is {arguments.temperature:g}, which cannot be computed",
            where="command line: tune",
            fix=f"give {ALLOWED}",
        )
    source = _source(arguments.prompts)
    from distillspec.workflows import tune

    return tune.run(
        arguments.target,
        arguments.draft,
        source,
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_new_tokens,
        minutes=arguments.minutes,
        runner=arguments.runner,
        output=Path(arguments.output),
        seed=arguments.seed,
    )


def _source(path: str | None) -> JsonlSource | PythonSource:
    if path is None:  # the held-out files of recipes/nano-plateau.yaml
        return PythonSource(
            kind="python-source",
            packages=("transformers",),
            include=("models/*/modeling_*.py", "models/*/configuration_*.py"),
            prompts_per_file=16,
        )
    fix = 'give a JSONL file, a line a prompt: {"prompt": "..."}'
    check_regular(Path(path), "the file of prompts", fix)
    if not os.path.isfile(path):
        raise DistillSpecError(
            "there is no such file of prompts",
            where=path,
            fix=fix,
        )
    return JsonlSource(kind="jsonl", path=path)
