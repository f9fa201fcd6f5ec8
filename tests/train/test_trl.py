"""With uniform weights and the profile `clean`, loss and gradients are those of TRL's DPOTrainer on the same tokens."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import trl
from datasets import Dataset
from transformers import AutoTokenizer, LlamaForCausalLM

from pipeline.config.objective import NoSettings
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.packed.layout import Prompted
from pipeline.models.response_logps import response_logps
from pipeline.objectives.registry import find_objective
from pipeline.train.batch import collate
from pipeline.train.pairs import TrainedPair, TrainedResponse
from tests.models.tiny import budget


@pytest.mark.parametrize(
    ("loss_type", "objective", "beta"),
    [("sigmoid", "twdpo", 0.1), ("sigmoid", "twdpo", 1.0), ("sigmoid_norm", "twdpo_length_normalized", 2.0)],
)
def test_loss_and_gradients_equal_trl(
    start: Manifest, tmp_path: Path, loss_type: str, objective: str, beta: float
) -> None:
    policy = LlamaForCausalLM.from_pretrained(start.path)
    reference = copy.deepcopy(policy)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    random = np.random.default_rng(0)
    rows = [
        {
            name: random.integers(2, 64, random.integers(3, 15)).tolist()
            for name in ("prompt_ids", "chosen_ids", "rejected_ids")
        }
        for _ in range(5)
    ]

    # In float64: two float32 computations may differ by the errors of both.
    theirs = copy.deepcopy(policy).double()
    their_loss = _trl_loss(theirs, copy.deepcopy(reference).double(), start.path, tmp_path, rows, loss_type, beta)
    their_loss.backward()
    expected_loss = their_loss.item()

    ours = copy.deepcopy(policy)
    batch = collate([_uniform_pair(row, LogProbModel(reference)) for row in rows], True, torch.device("cpu"))
    judged = batch.judged(LogProbModel(ours)(batch.row))
    our_loss = find_objective(objective)(judged, beta, NoSettings()).losses.mean()
    our_loss.backward()

    assert abs(expected_loss - np.log(2)) > 1e-3  # the reference differs, so the comparison can fail
    assert our_loss.item() == pytest.approx(expected_loss, abs=1e-5)
    expected = {name.split("module.")[-1]: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - expected[name]).abs().max() < 1e-5, name


def _trl_loss(
    policy: LlamaForCausalLM,
    reference: LlamaForCausalLM,
    folder: Path,
    scratch: Path,
    rows: list[dict[str, list[int]]],
    loss_type: str,
    beta: float,
) -> torch.Tensor:
    """The trainer's own collator and loss; its data set is a stand-in, its rows are ours."""
    stand_in = Dataset.from_list([{"prompt": "w2 w3", "chosen": " w4", "rejected": " w5"}])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = "</s>"
    trainer = trl.DPOTrainer(
        model=policy,
        ref_model=reference,
        args=trl.DPOConfig(
            output_dir=str(scratch),
            beta=beta,
            loss_type=[loss_type],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            report_to=[],
        ),
        train_dataset=stand_in,
        processing_class=tokenizer,
    )
    policy.train()
    inputs = trainer._prepare_inputs(trainer.data_collator(rows))
    assert inputs["completion_mask"].sum() == sum(len(row["chosen_ids"] + row["rejected_ids"]) for row in rows)
    return trainer.compute_loss(policy, inputs)


def _uniform_pair(row: dict[str, list[int]], reference: LogProbModel) -> TrainedPair:
    def response(name: str) -> TrainedResponse:
        ids = row[f"{name}_ids"]
        [[ref_logps]] = response_logps(reference, [Prompted(row["prompt_ids"], [ids])], budget(4096))
        return TrainedResponse(np.array(ids), np.full(len(ids), 1 / len(ids), np.float32), ref_logps, float(len(ids)))

    return TrainedPair("pair", np.array(row["prompt_ids"]), response("chosen"), response("rejected"))
