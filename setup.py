"""Puts recipes, suites, metrics and the embedded pair into the wheel. Settings: pyproject.toml.

pyproject.toml can either find packages or list them, not both, and these folders lie outside of
`distillspec/`. `distillspec.recipe.builtin` looks for them where they are put here.
"""

from __future__ import annotations

from setuptools import find_packages, setup

# Folder of distillspec/builtin/ in the wheel -> folder of the checkout, and the files to take.
BUILTIN = {
    "recipes": ("recipes", ["*.yaml"]),
    "suites": ("eval/suites", ["*.yaml"]),
    "metrics": ("eval/metrics", ["*/*.py"]),
    "models": (
        "checkpoints",
        ["nano-python/*/*.json", "nano-python/*/*.safetensors", "smollm2-135m/draft/*"],
    ),
}

setup(
    packages=[
        *find_packages(include=["distillspec*"]),
        *(f"distillspec.builtin.{name}" for name in BUILTIN),
    ],
    package_dir={f"distillspec.builtin.{name}": folder for name, (folder, _) in BUILTIN.items()},
    package_data={
        "distillspec": ["py.typed", "report/templates/*"],
        **{f"distillspec.builtin.{name}": files for name, (_, files) in BUILTIN.items()},
    },
    include_package_data=False,
)
