"""A frozen model split over all processes (FSDP2), for targets that no device holds whole.

A forward gathers the weights of one layer after the other and lets them go again. So every process
must make the same forwards in the same order, with whatever rows of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
import torch.distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.trainable import stacks


def split_over_processes(
    load: Callable[[], PreTrainedModel],
    empty: Callable[[], PreTrainedModel],
    device: torch.device,
) -> PreTrainedModel:
    """The model that `load` gives, on the CPU, split over the processes of the default group.

    load: called by rank 0 alone, which needs memory for all of it. empty: the same model with any
    weights. Every process must call this; what rank 0 raises in loading all others raise, too.
    """
    whole = _loaded_by_the_first(load)
    model = (empty() if whole is None else whole).requires_grad_(False).eval()
    state = {} if whole is None else model.state_dict()
    buffers = {name: buffer.to(device, copy=True) for name, buffer in model.named_buffers()}
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in chain.from_iterable(stacks(model)):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state, options=options)
    for name, buffer in model.named_buffers():
        torch.distributed.broadcast(buffers[name], src=0)
        buffer.copy_(buffers[name])
    settings = [model.generation_config]
    torch.distributed.broadcast_object_list(settings)
    model.generation_config = settings[0]
    return model


def _loaded_by_the_first(load: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
    """On rank 0 the model, elsewhere nothing; its error everywhere, so that no process waits."""
    model: PreTrainedModel | None = None
    fault: DistillSpecError | None = None
    if torch.distributed.get_rank() == 0:
        try:
            model = load()
        except DistillSpecError as error:
            fault = error
    told = [fault]
    torch.distributed.broadcast_object_list(told)
    if told[0] is not None:
        raise told[0]
    return model
