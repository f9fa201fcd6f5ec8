"""The policy of a process alone against the plain module; several processes are in test_stage and test_lora."""

from typing import Any

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.load import load_model
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.packed.layout import Prompted, pack
from pipeline.train.fsdp import process_group, shard_policy
from pipeline.train.precision import DTYPES, ComputeWeights

CPU = torch.device("cpu")


def forward(policy: nn.Module) -> torch.Tensor:
    ids = [torch.arange(begin, begin + 10).numpy() for begin in (2, 12, 22)]
    return policy(pack([Prompted(row[:4], (row[4:9], row[5:])) for row in ids], share=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", ["none", "full", 2])
def test_a_process_alone_computes_as_a_model_of_the_dtype(start: Manifest, dtype: str, checkpointing: Any) -> None:
    """Values, and gradients of two passes: those of a float32 model, or of a bfloat16 one added up in float32."""
    plain = LogProbModel(load_model(start, dtype, CPU))
    policy = LogProbModel(load_model(start, "float32", CPU))
    expected = forward(plain)
    sums: dict[str, torch.Tensor] = {}
    for factor in (1.0, 3.0):
        plain.zero_grad()
        (forward(plain) * factor).mean().backward()
        for name, parameter in plain.named_parameters():
            sums[name] = sums.get(name, 0.0) + parameter.grad.float()
    with process_group(CPU):
        shard_policy(policy, DTYPES[dtype], CPU, checkpointing)
        weights = ComputeWeights(policy, DTYPES[dtype])
        for _ in range(2):  # the second time with other masters, whose values the copies must take
            policy.zero_grad()
            with weights.standing_in():
                assert torch.equal(forward(policy), expected)
                for factor in (1.0, 3.0):
                    (forward(policy) * factor).mean().backward()
        assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}
        found = {name.replace("_checkpoint_wrapped_module.", ""): p.grad for name, p in policy.named_parameters()}
    assert found.keys() == sums.keys()
    for name, value in sums.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], value), name


def test_copies_follow_their_masters_and_a_tied_head_has_one(start: Manifest) -> None:
    policy = LogProbModel(load_model(start, "float32", CPU))
    weights = ComputeWeights(policy, torch.bfloat16)
    embedding, head = policy.model.model.embed_tokens, policy.model.lm_head
    with torch.no_grad():
        embedding.weight.fill_(1.003)
    with weights.standing_in():
        assert head.weight is embedding.weight
        assert head.weight.dtype == torch.bfloat16
        assert head.weight.unique().tolist() == [1.0]
    assert head.weight is embedding.weight
    assert head.weight.unique().tolist() == [pytest.approx(1.003)]


def test_a_frozen_weight_has_no_copy(start: Manifest) -> None:
    policy = LogProbModel(load_model(start, "float32", CPU))
    policy.requires_grad_(False)
    policy.model.model.norm.requires_grad_(True)
    with ComputeWeights(policy, torch.bfloat16).standing_in():
        assert policy.model.model.norm.weight.dtype == torch.bfloat16
        assert policy.model.lm_head.weight.dtype == torch.float32


def test_masters_are_back_after_an_error(start: Manifest) -> None:
    policy = LogProbModel(load_model(start, "float32", CPU))
    with pytest.raises(KeyboardInterrupt), ComputeWeights(policy, torch.bfloat16).standing_in():
        raise KeyboardInterrupt
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}


def test_a_model_without_blocks_is_refused() -> None:
    with process_group(CPU), pytest.raises(ModelError, match="no list of decoder blocks"):
        shard_policy(nn.Linear(2, 2), torch.float32, CPU)
