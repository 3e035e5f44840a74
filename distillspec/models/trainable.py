"""A draft made ready for training: what of it is trained, and how its forward is computed."""

from __future__ import annotations

from torch import nn

from distillspec.errors import DistillSpecError
from distillspec.models.compiled import compiler_available
from distillspec.models.hidden import causal_model


def freeze_embeddings(draft: nn.Module) -> None:
    """Leave the input embeddings as they are, and with them an output head that shares them.

    Errors: DistillSpecError where nothing is left to train.
    """
    causal = causal_model(draft)
    for parameter in causal.get_input_embeddings().parameters():
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in draft.parameters()):
        raise DistillSpecError(
            "the draft's embeddings are all that would be trained",
            where="optimizer.freeze_embeddings",
            mend="leave it out",
        )


def checkpoint_activations(draft: nn.Module) -> None:
    """Compute activations again in the backward pass, layer by layer.

    Errors: DistillSpecError for an architecture that cannot.
    """
    causal = causal_model(draft)
    if not causal.supports_gradient_checkpointing:
        raise DistillSpecError(
            f"{type(causal).__name__} cannot compute its activations again",
            where="hardware.gradient_checkpointing",
            mend="set it to false, and lower distill.micro_batch_size instead",
        )
    # By either name: transformers has renamed it, and warns of the older one.
    name = "activation_checkpointing_enable"
    enable = getattr(causal, name, None) or causal.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def compile_forward(draft: nn.Module) -> None:
    """Compile the layers for rows of any length; copies of the draft stay as they are.

    Errors: DistillSpecError on a CPU without a C++ compiler.
    """
    causal = causal_model(draft)
    if causal.device.type == "cpu" and not compiler_available():
        raise DistillSpecError(
            "torch.compile needs a C++ compiler here, and there is none",
            where="hardware.compile",
            mend="install g++ (or name one in CXX), or set hardware.compile=false",
        )
    causal.base_model.compile(dynamic=True)
