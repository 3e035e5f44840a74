"""A frozen model split over all processes (FSDP2), for targets that no device holds whole.

A forward gathers the weights of one layer after the other and lets them go again. So every process
must make the same forwards in the same order, with whatever rows of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
import torch.distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.surgery.trainable import stacks


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
    _share_alike(model)
    state = {} if whole is None else model.state_dict()
    buffers = {name: buffer.to(device, copy=True) for name, buffer in model.named_buffers()}
    assert device.type != "cuda" or torch.cuda.current_device() == device.index
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in chain.from_iterable(stacks(model)):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state, options=options)
    for name, buffer in model.named_buffers():
        torch.distributed.broadcast(buffers[name], src=0)
        buffer.copy_(buffers[name])
    settings: list[Any] = [model.generation_config, model.config.tie_word_embeddings]
    torch.distributed.broadcast_object_list(settings)
    model.generation_config, model.config.tie_word_embeddings = settings
    assert isinstance(model, PreTrainedModel)
    return model


def _share_alike(model: PreTrainedModel) -> None:
    """What is one tensor on rank 0 is one everywhere, and all processes have the same weights."""
    names: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    groups = [list(names.values())]
    torch.distributed.broadcast_object_list(groups)
    for first, *others in groups[0]:
        for name in others:
            place, _, key = name.rpartition(".")
            setattr(model.get_submodule(place), key, model.get_parameter(first))
    mine = [(name, tuple(weight.shape)) for name, weight in model.named_parameters()]
    told = [mine]
    torch.distributed.broadcast_object_list(told)
    assert mine == told[0], "the configuration makes another model than the weights"


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
