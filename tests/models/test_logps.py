"""Chunked log-probabilities against float64, for every supported architecture, padded, packed and sharded."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GraniteConfig, GraniteForCausalLM

from pipeline.errors import ModelError
from pipeline.models.logps import SUPPORTED_MODEL_TYPES, LogProbModel, token_logps
from tests.models import tiny


def reference(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None) -> Tensor:
    """The definition, in the precision of its arguments."""
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("chunk_size", [1, 7, 50, 1000])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_token_logps_against_float64(chunk_size: int, softcap: float | None, with_bias: bool) -> None:
    torch.manual_seed(0)
    values = [torch.randn(50, 16), torch.randn(97, 16), torch.randn(97) if with_bias else None]
    targets, upstream = torch.randint(97, (50,)), torch.randn(50)
    single = [None if v is None else v.clone().requires_grad_() for v in values]
    double = [None if v is None else v.double().requires_grad_() for v in values]
    ours = token_logps(single[0], single[1], targets, bias=single[2], softcap=softcap, chunk_size=chunk_size)
    theirs = reference(*double, targets, softcap)
    (ours * upstream).sum().backward()
    (theirs * upstream.double()).sum().backward()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(single, double, strict=True):
        if one is not None:
            torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-5, rtol=1e-5)


def test_bfloat16_logits_are_float32() -> None:
    """From bfloat16 factors the log-probs are exact to float32; logits in bfloat16 would be 0.01 and more off."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 128).bfloat16(), (torch.randn(501, 128)).bfloat16()
    targets = torch.randint(501, (64,))
    exact = reference(hidden.double(), weight.double(), None, targets, None)
    torch.testing.assert_close(token_logps(hidden, weight, targets).double(), exact, atol=1e-5, rtol=1e-6)
    naive = reference(hidden, weight, None, targets, None)
    assert (naive.double() - exact).abs().max() > 1e-2


def test_bfloat16_gradients() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(300, 64).bfloat16(), (0.3 * torch.randn(97, 64)).bfloat16()
    targets, upstream = torch.randint(97, (300,)), torch.rand(300)
    single = [v.clone().requires_grad_() for v in (hidden, weight)]
    double = [v.double().requires_grad_() for v in (hidden, weight)]
    (token_logps(*single, targets, chunk_size=10) * upstream).sum().backward()
    (reference(*double, None, targets, None) * upstream.double()).sum().backward()
    for one, other in zip(single, double, strict=True):
        assert one.grad.dtype == torch.bfloat16
        assert (one.grad.double() - other.grad).norm() < 5e-3 * other.grad.norm()


def test_no_logits_are_kept_for_the_backward_pass() -> None:
    sizes: list[int] = []

    def remember(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    hidden, weight = torch.randn(400, 8, requires_grad=True), torch.randn(300, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        token_logps(hidden, weight, torch.randint(300, (400,)), chunk_size=20)
    assert max(sizes) == hidden.numel()


def test_autocast_does_not_reach_the_head() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(20, 32), torch.randn(97, 32)
    targets = torch.randint(97, (20,))
    with torch.autocast("cpu", torch.bfloat16):
        inside = token_logps(hidden, weight, targets)
        mixed = token_logps(hidden.bfloat16(), weight, targets)
    assert torch.equal(inside, token_logps(hidden, weight, targets))
    exact = reference(hidden.bfloat16().double(), weight.double(), None, targets, None)
    torch.testing.assert_close(mixed.double(), exact, atol=1e-5, rtol=1e-5)


def batch(vocabulary: int = 97) -> dict[str, Tensor]:
    """Two right-padded rows of 12 and 9 tokens; responses begin at 4 and 6."""
    torch.manual_seed(1)
    input_ids = torch.randint(3, vocabulary, (2, 12))
    attention_mask = torch.ones(2, 12, dtype=torch.long)
    attention_mask[1, 9:] = 0
    response_mask = torch.zeros(2, 12, dtype=torch.bool)
    response_mask[0, 4:] = True
    response_mask[1, 6:9] = True
    return {"input_ids": input_ids, "response_mask": response_mask, "attention_mask": attention_mask}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", SUPPORTED_MODEL_TYPES)
def test_equals_the_models_own_logits_in_float64(kind: str) -> None:
    inputs = batch()
    model, double = tiny.model(kind), tiny.model(kind, torch.float64)
    upstream = torch.randn(2, 12)
    ours = LogProbModel(model, chunk_size=5)(**inputs)
    logits = double(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
    theirs = torch.zeros(2, 12, dtype=torch.float64)
    theirs[:, 1:] = logits[:, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None])[..., 0]
    theirs = theirs * inputs["response_mask"]
    (ours * upstream).sum().backward()
    (theirs * upstream.double()).sum().backward()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    largest = max(float(grad.abs().max()) for grad in gradients(double).values())
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad.double(), gradients(double)[name], atol=1e-5 * max(1.0, largest), rtol=1e-4)


@pytest.mark.parametrize("kind", SUPPORTED_MODEL_TYPES)
def test_packed_rows_equal_separate_ones(kind: str) -> None:
    """Positions that restart keep sequences apart, also with a sliding window."""
    inputs = batch()
    model = tiny.model(kind)
    head = LogProbModel(model)
    separate = head(**inputs)
    (separate * 2).sum().backward()
    expected = {name: grad.clone() for name, grad in gradients(model).items()}
    model.zero_grad()
    keep = inputs["attention_mask"].bool()
    packed = head(
        input_ids=inputs["input_ids"][keep][None],
        response_mask=inputs["response_mask"][keep][None],
        position_ids=torch.cat([torch.arange(12), torch.arange(9)])[None],
    )
    (packed * 2).sum().backward()
    torch.testing.assert_close(packed[0], separate[keep], atol=1e-5, rtol=1e-5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-4, rtol=1e-4)


def test_a_mask_beside_positions_is_refused() -> None:
    inputs = batch()
    with pytest.raises(ValueError, match="not both"):
        LogProbModel(tiny.model("llama"))(**inputs, position_ids=torch.arange(12).expand(2, -1))


def test_own_masks_pass_through() -> None:
    """A 4-D mask that hides the padding gives what the 2-D one gives."""
    inputs = batch()
    head = LogProbModel(tiny.model("llama"))
    expected = head(**inputs)
    causal = torch.ones(12, 12, dtype=torch.bool).tril()
    mask = causal & inputs.pop("attention_mask").bool()[:, None, None, :]
    mine = head(**inputs, attention_mask=mask, position_ids=torch.arange(12).expand(2, -1))
    torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-6)


def test_only_response_positions_have_values() -> None:
    inputs = batch()
    logps = LogProbModel(tiny.model("llama"))(**inputs)
    assert (logps[inputs["response_mask"]] < 0).all()
    assert (logps[~inputs["response_mask"]] == 0).all()


def test_no_response_at_all_gives_zero_gradients_everywhere() -> None:
    """An empty micro-batch evens out the ranks: every parameter must take part in its backward pass."""
    inputs = batch()
    inputs["response_mask"][:] = False
    model = tiny.model("qwen2")
    LogProbModel(model)(**inputs).sum().backward()
    assert all(grad is not None and not grad.any() for grad in gradients(model).values())


def test_a_response_at_position_0_is_an_error() -> None:
    inputs = batch()
    inputs["response_mask"][1, 0] = True
    with pytest.raises(ValueError, match="position 0"):
        LogProbModel(tiny.model("llama"))(**inputs)


def test_activation_checkpointing_changes_nothing() -> None:
    inputs, plain, saving = batch(), tiny.model("llama"), tiny.model("llama")
    saving.train()
    saving.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    LogProbModel(plain)(**inputs).sum().backward()
    LogProbModel(saving)(**inputs).sum().backward()
    for name, grad in gradients(saving).items():
        torch.testing.assert_close(grad, gradients(plain)[name], atol=1e-6, rtol=1e-6)


def test_a_head_that_scales_its_logits_is_refused_by_name() -> None:
    config = GraniteConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, logits_scaling=8.0
    )
    with pytest.raises(ModelError, match="'granite' model are not supported"):
        LogProbModel(GraniteForCausalLM(config))


def _sharded(rank: int, folder: Path) -> None:
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    head = LogProbModel(tiny.model("llama"), chunk_size=3)
    for layer in head.model.model.layers:
        fully_shard(layer)
    fully_shard(head)
    mine = {name: value[rank : rank + 1] for name, value in batch().items()}
    logps = head(**mine)
    logps.sum().backward()
    grads = {name: parameter.grad.full_tensor() for name, parameter in head.named_parameters()}
    if rank == 0:
        save_file({"logps": logps.detach(), **grads}, folder / "rank0.safetensors")
    distributed.barrier()
    distributed.destroy_process_group()


def test_sharded_over_two_processes(tmp_path: Path) -> None:
    """FSDP2 averages gradients over ranks; a tied head stays one parameter."""
    torch.multiprocessing.spawn(_sharded, args=(tmp_path,), nprocs=2)
    found = load_file(tmp_path / "rank0.safetensors")
    head = LogProbModel(tiny.model("llama"))
    whole = head(**batch())
    whole.sum().backward()
    torch.testing.assert_close(found.pop("logps"), whole[:1].detach(), atol=1e-6, rtol=1e-6)
    assert found.keys() == dict(head.named_parameters()).keys()
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(2 * found[name], parameter.grad, atol=1e-5, rtol=1e-5)
