"""The policy over processes, by FSDP2; with recomputed and compiled blocks as the run wants them.

Parameters are sharded float32 masters. A block is gathered, cast to the training dtype for its forward and backward
pass, and freed again; gradients are reduced and accumulated in float32. A process alone has nothing to shard: there
`pipeline.train.precision` casts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from pipeline.errors import ModelError


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """The process group that torchrun's environment describes, or one of this process alone."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if dist.is_torchelastic_launched():
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def shard_policy(
    policy: nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    checkpointing: Literal["none", "full"] | int = "none",
    compile_blocks: bool = False,
) -> None:
    """Shard a policy over the processes in place: each decoder block, then the rest. A process alone shards nothing.

    Trained weights are float32, frozen ones of `dtype`.
    It must be called as a whole: its forward gathers what lies outside the blocks (embedding, final norm, head).
    `checkpointing`: as `runtime.activation_checkpointing`.
    """
    every = {"none": 0, "full": 1}[checkpointing] if isinstance(checkpointing, str) else checkpointing
    blocks = _blocks(policy)
    for index, block in enumerate(blocks):
        if compile_blocks:
            # The forward alone, so that what gathers and frees the block stays outside of the compiled code.
            block.forward = torch.compile(block.forward, dynamic=True)
        if every and index % every == 0:
            # Recomputation needs no random state: the policy has no dropout.
            blocks[index] = checkpoint_wrapper(block, preserve_rng_state=False)
    if dist.get_world_size() == 1:
        return
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for unit in (*blocks, policy):
        fully_shard(unit, mesh=mesh, mp_policy=precision)
    for module in policy.modules():
        if isinstance(module, FSDPModule):
            # The loss is divided by the pairs of the global batch, so ranks' gradients are summed. Both settings are
            # needed on every unit: on the root alone the gradients are silently wrong.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def all_sum(values: Tensor) -> Tensor:
    """Sum of a tensor over all processes."""
    total = values.clone()
    dist.all_reduce(total)
    return total


def largest(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers."""
    value = torch.tensor(number, device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value)


def _blocks(policy: nn.Module) -> nn.ModuleList:
    """The decoder's blocks: the list of modules with most parameters. Raises ModelError when there is none."""
    lists = [module for module in policy.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError("the policy has no list of decoder blocks that could be sharded; use a causal language model")
    return max(lists, key=lambda modules: sum(parameter.numel() for parameter in modules.parameters()))
