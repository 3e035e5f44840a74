"""The verb `generate`: write the target's text for training, before any training."""

from __future__ import annotations

from distillspec.assembly.local_target import check_writes_text
from distillspec.assembly.pair import load_pair, prepare_process
from distillspec.assembly.target import target_of
from distillspec.assembly.text import pair_prompts
from distillspec.recipe.schema import Recipe
from distillspec.runtime.processes import join, leave
from distillspec.runtime.terminal import Terminal
from distillspec.text.command import command

console = Terminal()


def generate(recipe: Recipe) -> int:
    """Store the target's responses to the training prompts, and its top-k logits if needed.

    An interrupted start resumes.
    """
    check_writes_text(recipe)
    world = join()
    prepare_process(recipe)
    pair = load_pair(recipe)
    target = target_of(pair, console)
    sets = pair_prompts(pair)
    if not world.rank:
        for note in sets.notes:
            console.print(note, highlight=False, soft_wrap=True)
    lines = target.fill_stores(pair, sets, world)
    leave(world)
    if world.rank:
        return 0
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    distill = recipe.distill
    # Stored text changes no training unless the recipe asks for it.
    if "target" not in distill.stored and distill.cached_logits is None:
        console.print("next: set shares under distill.source, then: " + command("run", "RECIPE"))
    else:
        console.print("next: " + command("run", "RECIPE"))
    return 0
