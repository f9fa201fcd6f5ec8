"""Chunked log-probabilities against float64, for every supported architecture, packed, with shared prompts, sharded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GraniteConfig, GraniteForCausalLM, PreTrainedModel

from pipeline.errors import ModelError
from pipeline.models.logps import LogProbModel, token_logps
from pipeline.models.packed.layout import Prompted, pack
from pipeline.models.scoring import SUPPORTED_MODEL_TYPES
from tests.models import tiny


def reference(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None) -> Tensor:
    """The definition, in the precision of its arguments."""
    logits = hidden @ weight.T
    if bias is not None:
        logits = logits + bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize(
    ("tokens_at_once", "logits_at_once"), [(1, 1), (1, 10), (7, 100), (20, 1940), (1000, 300), (1000, 10**6)]
)
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_token_logps_against_float64(
    tokens_at_once: int, logits_at_once: int, softcap: float | None, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.head.TOKENS_AT_ONCE", tokens_at_once)
    torch.manual_seed(0)
    values = [torch.randn(50, 16), torch.randn(97, 16), torch.randn(97) if with_bias else None]
    targets, upstream = torch.randint(97, (50,)), torch.randn(50)
    single = [None if v is None else v.clone().requires_grad_() for v in values]
    double = [None if v is None else v.double().requires_grad_() for v in values]
    ours = token_logps(single[0], single[1], targets, bias=single[2], softcap=softcap, logits_at_once=logits_at_once)
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
    (token_logps(*single, targets, logits_at_once=1000) * upstream).sum().backward()
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
        token_logps(hidden, weight, torch.randint(300, (400,)), logits_at_once=6000)
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


def items(*lengths: tuple[int, tuple[int, ...]], vocabulary: int = 97) -> list[Prompted]:
    random = np.random.default_rng(1)
    chosen = lengths or ((4, (8, 3)), (7, (3, 9, 1)), (1, (1, 2)))
    return [
        Prompted(random.integers(3, vocabulary, prompt), [random.integers(3, vocabulary, each) for each in responses])
        for prompt, responses in chosen
    ]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def padded_logps(model: PreTrainedModel, given: list[Prompted]) -> Tensor:
    """[M] from transformers' eager attention over right-padded rows of prompt + response, and whole logits.

    With a sliding window one row at a time: there, padding beyond the window is NaN in float64.
    """
    model.set_attn_implementation("eager")
    sequences = [(item.prompt_ids, response) for item in given for response in item.responses]
    if getattr(model.config, "sliding_window", None):
        return torch.cat([_padded(model, [sequence]) for sequence in sequences])
    return _padded(model, sequences)


def _padded(model: PreTrainedModel, sequences: list[tuple[ArrayLike, ArrayLike]]) -> Tensor:
    width = max(len(prompt) + len(response) for prompt, response in sequences)
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    attention, predicted = torch.zeros_like(ids), torch.zeros(ids.shape, dtype=torch.bool)
    for row, (prompt, response) in enumerate(sequences):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.from_numpy(np.concatenate([prompt, response]))
        attention[row, :end] = 1
        predicted[row, len(prompt) : end] = True
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0][predicted[:, 1:]]


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("kind", SUPPORTED_MODEL_TYPES)
def test_equals_padded_rows_of_the_models_own_in_float64(kind: str, share: bool) -> None:
    """Values and gradients; sliding windows of 5 are shorter than the sequences, soft-caps bend the scores."""
    model, double = tiny.model(kind), tiny.model(kind, torch.float64)
    ours = LogProbModel(model, logits_at_once=500)(pack(items(), share))
    theirs = padded_logps(double, items())
    upstream = torch.randn(len(theirs))
    (ours * upstream).sum().backward()
    (theirs * upstream.double()).sum().backward()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, atol=1e-5, rtol=1e-5)
    largest = max(float(grad.abs().max()) for grad in gradients(double).values())
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad.double(), gradients(double)[name], atol=1e-5 * max(1.0, largest), rtol=1e-4)


def test_only_response_tokens_carry_gradient() -> None:
    model = tiny.model("qwen2")
    (LogProbModel(model)(pack(items(), share=True)) * 0.0).sum().backward()
    assert all(grad is not None and not grad.any() for grad in gradients(model).values())


def test_a_longrope_model_is_refused_beyond_its_boundary() -> None:
    model = tiny.model("phi3")
    model.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 12}
    head = LogProbModel(model)
    head(pack(items((4, (8, 3))), share=True))
    with pytest.raises(ModelError, match=r"a sequence of 13 tokens: beyond 12 .* lower tokenize\.max_tokens"):
        head(pack(items((4, (8, 9))), share=True))


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
    head = LogProbModel(tiny.model("llama"), logits_at_once=300)
    for layer in head.model.model.layers:
        fully_shard(layer)
    fully_shard(head)
    logps = head(pack(items()[rank : rank + 1], share=True))
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
    whole = head(pack(items()[:2], share=True))
    whole.sum().backward()
    torch.testing.assert_close(found.pop("logps"), whole[:11].detach(), atol=1e-6, rtol=1e-6)
    assert found.keys() == dict(head.named_parameters()).keys()
    for name, parameter in head.named_parameters():
        torch.testing.assert_close(2 * found[name], parameter.grad, atol=1e-5, rtol=1e-5)
