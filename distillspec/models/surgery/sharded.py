"""A frozen model split over all processes (FSDP2), for targets larger than one device.

A forward gathers the weights of one layer after another and frees them again. So all processes must
run the same forwards in the same order, each with its own rows.
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
from distillspec.models.surgery.trainable import layer_lists


def split_over_processes(
    load: Callable[[], PreTrainedModel],
    empty: Callable[[], PreTrainedModel],
    device: torch.device,
) -> PreTrainedModel:
    """Load a model and split it over the processes of the default group.

    Every process must call this function. An error of rank 0 in loading is raised in all processes.

    Args:
        load: Returns the model on the CPU; only rank 0 calls it and needs memory for all of it.
        empty: Returns the same model with any weights.
        device: The device of this process.
    """
    # 1. Rank 0 has the weights. The others build the same modules with any content.
    loaded = _loaded_by_the_first(load)
    model = (empty() if loaded is None else loaded).requires_grad_(False).eval()
    _share_alike(model)
    state = {} if loaded is None else model.state_dict()
    # 2. Some buffers are not in the state dict, so all are sent one by one below.
    buffers = {name: buffer.to(device, copy=True) for name, buffer in model.named_buffers()}
    # 3. Shard: inner units first, then the weights that are left.
    assert device.type != "cuda" or torch.cuda.current_device() == device.index
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for layer in chain.from_iterable(layer_lists(model)):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # 4. Fill all parts from rank 0: weights, buffers, settings that loading may have changed.
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
    """Tie the same tensors as on rank 0, and check that all processes have the same weights."""
    # Without weights nothing shows which matrices are tied, so rank 0 sends the groups.
    names: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    groups = [list(names.values())]
    torch.distributed.broadcast_object_list(groups)
    for first, *tied in groups[0]:
        for name in tied:
            module_name, _, key = name.rpartition(".")
            setattr(model.get_submodule(module_name), key, model.get_parameter(first))
    shapes = [(name, tuple(weight.shape)) for name, weight in model.named_parameters()]
    received = [shapes]
    torch.distributed.broadcast_object_list(received)
    assert shapes == received[0], "the configuration and the weights give different models"


def _loaded_by_the_first(load: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
    """The model on rank 0, None on the others; an error is raised in all, so that none waits."""
    model: PreTrainedModel | None = None
    fault: DistillSpecError | None = None
    if torch.distributed.get_rank() == 0:
        try:
            model = load()
        except DistillSpecError as error:
            fault = error
    faults = [fault]
    torch.distributed.broadcast_object_list(faults)
    if faults[0] is not None:
        raise faults[0]
    return model
