"""Low-rank adapters (LoRA, DoRA) through peft: added for training, merged for export."""

from __future__ import annotations

import copy
import warnings

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.runners.encoder_decoder import is_encoder_decoder
from distillspec.recipe.schema import AdapterConfig


def add_lora(model: PreTrainedModel, lora: AdapterConfig) -> PeftModel:
    """`model` with trainable adapters; all its other weights are frozen.

    Raises:
        DistillSpecError: `lora.targets` names something other than linear layers of the model, or
            an output head that is tied to the embedding: merging would change both.
    """
    check_targets(model, lora)
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type]  # any number is allowed
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_dora=lora.use_dora,
        task_type=TaskType.SEQ_2_SEQ_LM if is_encoder_decoder(model) else TaskType.CAUSAL_LM,
    )
    with warnings.catch_warnings():
        # peft uses a function name that transformers has deprecated.
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )
        # Peft then sets it for GPT-2.
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        adapted = get_peft_model(model, config)
    assert isinstance(adapted, PeftModel)
    return adapted


def merged(model: nn.Module) -> PreTrainedModel:
    """A plain model with the adapters merged into its weights; `model` itself does not change.

    A model without adapters is returned unchanged.
    """
    if not isinstance(model, PeftModel):
        return bare_model(model)
    plain = copy.deepcopy(model).merge_and_unload()
    assert isinstance(plain, PreTrainedModel)
    return plain.requires_grad_(True)


def check_targets(model: PreTrainedModel, lora: AdapterConfig) -> None:
    """Check that the adapters fit the model.

    Raises:
        DistillSpecError: A target is no linear layer of `model` or is its tied head, or the rank is
            larger than that of every layer.
    """
    # 1. The rank must be low for at least one layer.
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    max_rank = max(
        (min(module.weight.shape) for module in linear.values() if module is not head), default=0
    )
    if lora.rank > max_rank:
        raise DistillSpecError(
            f"an update of rank {lora.rank} is not low-rank: no linear layer of the draft has "
            f"a rank above {max_rank}",
            where=f"lora.rank={lora.rank}",
            fix="set lora.rank to 8 to 64, or train all weights of the draft (no lora)",
        )
    # 2. A preset such as all-linear has no names to check.
    if isinstance(lora.targets, str):
        return
    # 3. Each name must be that of a linear layer, but not that of a tied head.
    tied = [
        name
        for name, module in linear.items()
        if module is head and head.weight is embedding.weight
    ]
    for target in lora.targets:
        matches = [name for name in linear if name == target or name.endswith("." + target)]
        if not matches:
            names = sorted({name.rpartition(".")[2] for name in linear if name not in tied})
            raise DistillSpecError(
                f"no linear layer of the draft is called {target!r}",
                where="lora.targets",
                fix=f"its linear layers are: {', '.join(names)}; or set targets: all-linear",
            )
        if set(matches) & set(tied):
            raise DistillSpecError(
                f"the layer {target!r} is one tensor with the draft's embedding: adapting it alone "
                "cannot be merged into a plain model",
                where="lora.targets",
                fix="remove it, or train all weights of the draft (no lora)",
            )
