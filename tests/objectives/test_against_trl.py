"""Every objective that TRL has, against TRL's own loss methods on the same log-probs: losses, gradients and rewards.

TRL's methods run on a stand-in for the trainer, with a model that answers with given log-probs. Weights are even, in
the form that the `clean` profile makes of uniform weights: 1/T with |y| = T.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import trl
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.tpo import TPOTrainer

from pipeline.config.objective import parse_settings
from pipeline.objectives.registry import OBJECTIVES
from pipeline.objectives.response import Pairs
from tests.objectives.samples import Pair, make_pairs, tensors

ANSWER = 1
"""The id of every response token. Ids from 2 on are prompts of one token each; their number names the response."""


class Table:
    """A model over two tokens: prompt 2 + i is answered with the log-probs of response i."""

    def __init__(self, responses: Sequence[Tensor]) -> None:
        self.logps = [response.detach().clone().requires_grad_() for response in responses]

    def __call__(self, input_ids: Tensor, **_: Any) -> SimpleNamespace:
        """What a causal model gives, and what TRL's fused output head gives: position i scores token i + 1."""
        width = input_ids.shape[1] - 1
        rows = [self.logps[prompt - 2] for prompt in input_ids[:, 0].tolist()]
        logps = torch.stack([torch.nn.functional.pad(row, (0, width - len(row))) for row in rows])
        below_one = torch.where(logps < 0, logps, torch.full_like(logps, -1.0))
        logits = torch.stack([torch.log1p(-below_one.exp()), below_one], dim=-1)
        return SimpleNamespace(
            log_probs=logps,
            logits=torch.nn.functional.pad(logits, (0, 0, 0, 1)),
            entropy=torch.zeros_like(logps),
            mean_logits=torch.zeros_like(logps),
            is_top1=torch.zeros_like(logps, dtype=torch.bool),
        )

    def inputs(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The padded batch of these responses, as TRL's collators make it."""
        ids = [torch.tensor([2 + row, *[ANSWER] * len(self.logps[row])]) for row in rows]
        seen = [torch.ones_like(one) for one in ids]
        completion = [(one == ANSWER).long() for one in ids]
        names = ("input_ids", "attention_mask", "completion_mask")
        return {
            name: pad_sequence(list(values), batch_first=True)
            for name, values in zip(names, (ids, seen, completion), strict=True)
        }


def stand_in(**settings: Any) -> SimpleNamespace:
    """What TRL's loss methods read of a trainer."""
    return SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=_same, gather=_same),
        model=SimpleNamespace(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        is_encoder_decoder=False,
        label_smoothing=0.0,
        **settings,
    )


def _same(values: Any) -> Any:
    return values


def dpo_trainer(loss_type: str, pairs: Sequence[Pair], beta: float) -> tuple[Table, Tensor, Any]:
    table = Table([torch.tensor(side.logps) for side in [p.chosen for p in pairs] + [p.rejected for p in pairs]])
    trainer = stand_in(
        beta=beta,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        use_weighting=False,
    )
    inputs = table.inputs(range(2 * len(pairs)))
    inputs["ref_chosen_logps"] = torch.tensor([pair.chosen.refs.sum() for pair in pairs])
    inputs["ref_rejected_logps"] = torch.tensor([pair.rejected.refs.sum() for pair in pairs])
    return table, trl.DPOTrainer._compute_loss(trainer, table, inputs, False), trainer


def kto_trainer(pairs: Sequence[Pair], beta: float, desirable: float, undesirable: float) -> tuple[Table, Tensor, Any]:
    """The third responses play the mismatched ones: one for each example."""
    sides = [p.chosen for p in pairs] + [p.rejected for p in pairs] + [p.third for p in pairs]
    table = Table([torch.tensor(side.logps) for side in sides])
    trainer = stand_in(
        beta=beta, loss_type="kto", calculate_KL=True, desirable_weight=desirable, undesirable_weight=undesirable
    )
    trainer._compute_kl_logps = partial(trl.KTOTrainer._compute_kl_logps, trainer)
    both, mismatched = range(2 * len(pairs)), range(2 * len(pairs), 3 * len(pairs))
    inputs = table.inputs(both)
    inputs |= {f"KL_{name}": values for name, values in table.inputs(mismatched).items()}
    inputs["label"] = torch.tensor([True] * len(pairs) + [False] * len(pairs))
    inputs["ref_logps"] = torch.tensor([side.refs.sum() for side in sides[: 2 * len(pairs)]])
    inputs["ref_KL_logps"] = torch.tensor([pair.third.refs.sum() for pair in pairs])
    return table, trl.KTOTrainer._compute_loss(trainer, table, inputs, False), trainer


def concatenating_trainer(trainer_class: Any, pair: Pair, **settings: Any) -> tuple[Table, Tensor, Any]:
    """CPO and ORPO, on one pair: their NLL is a mean over the tokens of the batch. ORPO's is over the prompt too, of
    whose single token nothing is predicted here."""
    table = Table([torch.tensor(side.logps) for side in (pair.chosen, pair.rejected)])
    trainer = stand_in(pad_token_id=0, padding_value=0, **settings)
    for method in ("concatenated_forward", "cpo_loss", "odds_ratio_loss"):
        if hasattr(trainer_class, method):
            setattr(trainer, method, partial(getattr(trainer_class, method), trainer))
    trainer.concatenated_inputs = trainer_class.concatenated_inputs
    trainer.get_batch_logps = trainer_class.get_batch_logps
    batch = {}
    for row, name in enumerate(("chosen", "rejected")):
        inputs = table.inputs([row])
        batch[f"{name}_input_ids"] = inputs["input_ids"]
        batch[f"{name}_attention_mask"] = inputs["attention_mask"]
        batch[f"{name}_labels"] = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    loss, metrics = trainer_class.get_batch_loss_metrics(trainer, table, batch)
    trainer._metrics["train"] |= {name: [value] for name, value in metrics.items()}
    return table, loss, trainer


def tpo_trainer(pair: Pair, **settings: Any) -> tuple[Table, Tensor, Any]:
    table = Table([torch.tensor(side.logps) for side in (pair.chosen, pair.rejected, pair.third)])
    trainer = stand_in(**settings)
    return table, TPOTrainer._compute_loss(trainer, table, table.inputs(range(3)), False), trainer


def check(name: str, settings: dict[str, Any], beta: float, padded: Pairs, theirs: tuple[Table, Tensor, Any]) -> None:
    """The batch's mean loss, its gradient by every log-prob, and the mean rewards that TRL logs.

    Within 1e-6, of the value where that is above 1: TRL computes the odds of ORPO in float32.
    """
    made = OBJECTIVES[name](padded, beta, parse_settings(name, settings))
    ours = made.losses.mean()
    ours.backward()
    table, loss, trainer = theirs
    loss.backward()
    assert ours.item() == pytest.approx(loss.item(), rel=1e-6, abs=1e-6)
    assert padded.third is not None
    sides = (padded.chosen, padded.rejected, padded.third)
    gradients = [
        (torch.zeros_like(side.logps) if side.logps.grad is None else side.logps.grad)[row][side.mask[row]]
        for side in sides
        for row in range(len(side.mask))
    ]
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients)
    for gradient, logps in zip(gradients, table.logps, strict=False):
        expected = torch.zeros_like(logps) if logps.grad is None else logps.grad
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)
    if name in ("ipo", "twdpo_length_normalized"):
        return  # TRL logs beta times the sum where the loss has means
    for side, rewards in (("chosen", made.chosen_rewards), ("rejected", made.rejected_rewards)):
        [expected_mean] = trainer._metrics["train"][f"rewards/{side}"]
        assert rewards.mean().item() == pytest.approx(expected_mean, abs=1e-6)


@pytest.mark.parametrize("beta", [0.05, 0.7, 2.0])
@pytest.mark.parametrize(
    ("loss_type", "name", "settings"),
    [
        ("sigmoid", "dpo", {}),
        ("sigmoid", "twdpo", {}),
        ("sigmoid", "tisdpo", {"alpha": 0.0}),
        ("sigmoid_norm", "twdpo_length_normalized", {}),
        ("ipo", "ipo", {}),
        ("ipo", "ipo", {"divide_by": "tokens"}),
    ],
)
def test_dpo_trainer(loss_type: str, name: str, settings: dict[str, Any], beta: float) -> None:
    pairs = make_pairs("uniform")
    check(name, settings, beta, tensors(pairs), dpo_trainer(loss_type, pairs, beta))


@pytest.mark.parametrize("seed", range(4))
def test_kto_trainer(seed: int) -> None:
    """With baselines above 0 and ones that are cut at 0."""
    pairs = make_pairs("uniform", seed=seed)
    # Mismatched responses of seeds 0 and 1 are likelier than under the reference, of 2 and 3 less likely.
    shift = 0.3 if seed < 2 else -0.3
    pairs = [replace(pair, third=replace(pair.third, logps=pair.third.logps + shift)) for pair in pairs]
    baseline = max(0.0, sum(float(pair.third.ratios.sum()) for pair in pairs) / len(pairs))
    assert (baseline > 0) == (seed < 2)
    padded = tensors([replace(pair, z=baseline) for pair in pairs])
    settings = {"desirable_weight": 1.3, "undesirable_weight": 0.7}
    check("kto", settings, 0.4, padded, kto_trainer(pairs, 0.4, 1.3, 0.7))


Each = Callable[[Pair, float], tuple[Table, Tensor, Any]]


@pytest.mark.parametrize("beta", [0.05, 0.7, 2.0])
@pytest.mark.parametrize(
    ("name", "settings", "trainer"),
    [
        (
            "cpo",
            {"nll_weight": 0.6},
            lambda pair, beta: concatenating_trainer(
                CPOTrainer, pair, beta=beta, loss_type="sigmoid", cpo_alpha=0.6, simpo_gamma=0.5, alpha=0.0
            ),
        ),
        (
            "simpo",
            {"gamma": 0.9},
            lambda pair, beta: concatenating_trainer(
                CPOTrainer, pair, beta=beta, loss_type="simpo", cpo_alpha=0.0, simpo_gamma=0.9, alpha=0.0
            ),
        ),
        (
            "simpo",
            {"gamma": 0.9, "divide_by": "tokens"},
            lambda pair, beta: concatenating_trainer(
                CPOTrainer, pair, beta=beta, loss_type="simpo", cpo_alpha=0.0, simpo_gamma=0.9, alpha=0.0
            ),
        ),
        ("orpo", {}, lambda pair, beta: concatenating_trainer(ORPOTrainer, pair, beta=beta)),
        ("orpo", {"divide_by": "tokens"}, lambda pair, beta: concatenating_trainer(ORPOTrainer, pair, beta=beta)),
        (
            "tpo",
            {"nll_weight": 0.4},
            lambda pair, beta: tpo_trainer(pair, beta=beta, loss_type="sigmoid", tpo_alpha=0.4, tpo_l_gamma=0.5),
        ),
        (
            "tpo",
            {"nll_weight": 0.4, "length_normalized": True, "gamma": 0.8},
            lambda pair, beta: tpo_trainer(pair, beta=beta, loss_type="tpo-l", tpo_alpha=0.4, tpo_l_gamma=0.8),
        ),
    ],
    ids=["cpo", "simpo", "simpo-tokens", "orpo", "orpo-tokens", "tpo", "tpo-l"],
)
def test_reference_free_trainers(name: str, settings: dict[str, Any], trainer: Each, beta: float) -> None:
    for pair in make_pairs("uniform"):
        check(name, settings, beta, tensors([pair]), trainer(pair, beta))
