"""The sharded policy of one process against the plain module."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from pipeline.errors import ModelError
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.train.fsdp import process_group, shard_policy

CPU = torch.device("cpu")


def forward(policy: nn.Module) -> torch.Tensor:
    ids = torch.arange(30).reshape(3, 10) + 2
    mask = torch.zeros(3, 10, dtype=torch.bool)
    mask[:, 4:9] = True
    return policy(ids, mask, torch.ones_like(ids))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_forward_is_that_of_a_model_of_the_dtype(start: Manifest, dtype: str, checkpoint_activations: bool) -> None:
    expected = forward(LogProbModel(load_model(start, dtype, CPU)))
    policy = LogProbModel(load_model(start, "float32", CPU))
    with process_group(CPU):
        shard_policy(policy, getattr(torch, dtype), CPU, checkpoint_activations)
        assert all(isinstance(parameter, DTensor) for parameter in policy.parameters())
        assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}
        assert torch.equal(forward(policy), expected)


@pytest.mark.parametrize("checkpoint_activations", [False, True])
def test_gradients_are_those_of_the_plain_module(start: Manifest, checkpoint_activations: bool) -> None:
    plain = LogProbModel(load_model(start, "float32", CPU))
    policy = copy.deepcopy(plain)
    for _ in range(2):
        forward(plain).mean().backward()
    with process_group(CPU):
        shard_policy(policy, torch.float32, CPU, checkpoint_activations)
        for _ in range(2):
            forward(policy).mean().backward()
        sharded = {name.replace("_checkpoint_wrapped_module.", ""): p.grad for name, p in policy.named_parameters()}
        for name, parameter in plain.named_parameters():
            assert torch.equal(sharded[name].full_tensor(), parameter.grad), name


def test_a_model_without_blocks_is_refused() -> None:
    with process_group(CPU), pytest.raises(ModelError, match="no list of decoder blocks"):
        shard_policy(nn.Linear(2, 2), torch.float32, CPU, False)
