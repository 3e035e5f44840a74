"""A draft made ready for training: what of it is trained, and how its forward is computed."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.compiled import compiler_available
from distillspec.models.hidden import bare_model
from distillspec.models.seq2seq import is_seq2seq


def freeze_embeddings(draft: nn.Module) -> None:
    """Leave the input embeddings as they are, and with them an output head that shares them.

    Errors: DistillSpecError where nothing is left to train.
    """
    bare = bare_model(draft)
    for parameter in bare.get_input_embeddings().parameters():
        parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in draft.parameters()):
        raise DistillSpecError(
            "the draft's embeddings are all that would be trained",
            where="optimizer.freeze_embeddings",
            mend="leave it out",
        )


def without_dropout(draft: PreTrainedModel) -> None:
    """Let the draft be trained as it will decode, in place; its configuration keeps its rates.

    What a draft is distilled to is a law, and dropout would train, weigh and draw by others.
    """
    for module in draft.modules():
        rates = vars(module)  # attention reads its rate from a float of its own
        for name, value in rates.items():
            if isinstance(value, float) and ("drop" in name or _is_dropout(module, name)):
                rates[name] = 0.0


def _is_dropout(module: nn.Module, name: str) -> bool:
    return name == "p" and isinstance(module, _DropoutNd)


def checkpoint_activations(draft: nn.Module) -> None:
    """Compute activations again in the backward pass, layer by layer.

    Errors: DistillSpecError for an architecture that cannot.
    """
    bare = bare_model(draft)
    if not bare.supports_gradient_checkpointing:
        raise DistillSpecError(
            f"{type(bare).__name__} cannot compute its activations again",
            where="hardware.gradient_checkpointing",
            mend="set it to false, and lower distill.micro_batch_size instead",
        )
    # By either name: transformers has renamed it, and warns of the older one.
    name = "activation_checkpointing_enable"
    enable = getattr(bare, name, None) or bare.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def compile_forward(draft: nn.Module) -> None:
    """Compile the layers for rows of any length; copies of the draft stay as they are.

    Errors: DistillSpecError on a CPU without a C++ compiler.
    """
    bare = bare_model(draft)
    if bare.device.type == "cpu" and not compiler_available():
        raise DistillSpecError(
            "torch.compile needs a C++ compiler here, and there is none",
            where="hardware.compile",
            mend="install g++ (or name one in CXX), or set hardware.compile=false",
        )
    for part in bodies(bare):
        part.compile(dynamic=True)


def stacks(draft: nn.Module) -> list[nn.ModuleList]:
    """The transformer layers, from the input on: one list, or the encoder's and the decoder's."""
    return [
        max(_outer_lists(body), key=len, default=nn.ModuleList())
        for body in bodies(bare_model(draft))
    ]


def bodies(bare: PreTrainedModel) -> list[nn.Module]:
    """What makes hidden states: of an encoder-decoder model both halves."""
    if is_seq2seq(bare):
        return [bare.get_encoder(), bare.get_decoder()]
    return [bare.base_model]


def _outer_lists(body: nn.Module) -> list[nn.ModuleList]:
    """Lists of modules that are in no other: layers, and not the parts or experts of one."""
    found = []
    for child in body.children():
        found += [child] if isinstance(child, nn.ModuleList) else _outer_lists(child)
    return found
