"""Batched log-probs of responses equal one plain float64 forward pass per sequence."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.models.logps import LogProbModel
from pipeline.models.response_logps import response_logps


@pytest.mark.parametrize("token_budget", [1, 40, 10_000])
def test_equal_to_a_plain_forward_pass(token_budget: int) -> None:
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
    shapes = [(3, 7), (12, 1), (1, 20), (5, 5), (9, 13)]
    sequences = [(rng.integers(0, 101, p).tolist(), rng.integers(0, 101, r).tolist()) for p, r in shapes]
    found = response_logps(LogProbModel(model), sequences, token_budget)
    exact = LlamaForCausalLM(config).double().eval()
    exact.load_state_dict(model.state_dict())
    for (prompt, response), logps in zip(sequences, found, strict=True):
        assert logps.dtype == np.float32
        with torch.no_grad():
            logits = exact(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[torch.arange(len(response)), response].numpy()
        np.testing.assert_allclose(logps, expected, atol=1e-5)
