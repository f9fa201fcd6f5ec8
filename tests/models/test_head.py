"""The head's products: as exact in 16 bits as in float32, and nothing else computes otherwise for it."""

import pytest
import torch

from pipeline.models.head import head_logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tokens", [1, 300])
def test_logits_are_float32_sums_of_exact_products(dtype: torch.dtype, tokens: int) -> None:
    """bfloat16 logits would be off by 0.03 here."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, 576).to(dtype), (torch.randn(1000, 576) / 8).to(dtype)
    logits = head_logits(hidden, weight, None, None)
    assert logits.dtype == torch.float32
    exact = hidden.double() @ weight.double().T
    assert (logits - exact).abs().max() < 1e-5


def test_float32_products_elsewhere_keep_their_precision() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 576), torch.randn(1000, 576) / 8
    exact = hidden.double() @ weight.double().T
    head_logits(hidden.bfloat16(), weight.bfloat16(), None, None)
    assert (hidden @ weight.T - exact).abs().max() < 1e-4
    with pytest.raises(RuntimeError):
        head_logits(hidden.bfloat16()[:, 1:], weight.bfloat16(), None, None)
    assert (hidden @ weight.T - exact).abs().max() < 1e-4
