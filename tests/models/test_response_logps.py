"""Batched log-probs of responses equal one plain float64 forward pass per sequence."""

import copy

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.models.logps import LogProbModel
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from tests.models import tiny


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("token_budget", [1, 40, 10_000])
def test_equal_to_a_plain_forward_pass(token_budget: int, share: bool) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=101,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    rng = np.random.default_rng(0)
    shapes = [(3, (7, 2)), (12, (1,)), (1, (20, 3, 5)), (5, (5, 5)), (9, (13, 1))]
    items = [Prompted(rng.integers(0, 101, p), [rng.integers(0, 101, r) for r in rs]) for p, rs in shapes]
    exact = copy.deepcopy(model).double()
    seen: list[tuple[int, int]] = []
    found = response_logps(
        LogProbModel(model), items, tiny.budget(token_budget), share, on_progress=lambda *done: seen.append(done)
    )
    assert sum(done for done, _ in seen) == len(items)
    assert sum(tokens for _, tokens in seen) == sum(sum(rs) + p * (1 if share else len(rs)) for p, rs in shapes)
    plain = [(item.prompt_ids, response) for item in items for response in item.responses]
    for (prompt, response), logps in zip(plain, [logps for of_item in found for logps in of_item], strict=True):
        assert logps.dtype == np.float32
        with torch.no_grad():
            logits = exact(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(response)), response].numpy()
        np.testing.assert_allclose(logps, expected, atol=1e-5)
