"""Low-rank adapters (LoRA) through peft: added for training, merged away for export."""

from __future__ import annotations

import copy
import warnings

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.hidden import causal_model
from distillspec.recipe.schema import Lora


def add_lora(model: PreTrainedModel, lora: Lora) -> PeftModel:
    """`model` with trainable adapters in place; all its other weights are frozen.

    Raises DistillSpecError when `lora.targets` names no layer of the model.
    """
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    if not isinstance(targets, str):
        _check_targets(model, targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type]  # any number serves
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type=TaskType.CAUSAL_LM,
    )
    with warnings.catch_warnings():
        # peft asks transformers under a name that transformers has deprecated.
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def merged(model: nn.Module) -> PreTrainedModel:
    """A plain model with the adapters added into its weights; `model` itself stays as it is.

    A model without adapters is returned unchanged.
    """
    if not isinstance(model, PeftModel):
        return causal_model(model)
    plain = copy.deepcopy(model).merge_and_unload()
    assert isinstance(plain, PreTrainedModel)
    return plain.requires_grad_(True)


def _check_targets(model: PreTrainedModel, targets: list[str]) -> None:
    linear = sorted(
        {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    )
    names = [name for name, _ in model.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith("." + target) for name in names):
            raise DistillSpecError(
                f"no layer of the draft is called {target!r}",
                where="lora.targets",
                mend=f"its linear layers are: {', '.join(linear)}; or set targets: all-linear",
            )
