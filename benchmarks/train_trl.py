"""TRL's DPOTrainer as a side of the training benchmark."""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.memory import wait
from benchmarks.train_workload import BETA, LEARNING_RATE, MAX_GRAD_NORM, Steps, open_policy
from benchmarks.workload import PACKAGED
from pipeline.models.malloc import keep_freed_memory
from pipeline.schemas.base import RESPONSES
from pipeline.train.pairs import TrainedPair


class Trl:
    """TRL's DPOTrainer. Its rows hold our token ids, and our reference's sums as its precomputed ones.

    The rows of a global batch lie in order of length, so that its micro-batches pad little.
    """

    def __init__(self, given: argparse.Namespace, setting: dict[str, Any]) -> None:
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        import trl
        from datasets import Dataset
        from transformers import TrainerCallback
        from trl.trainer import dpo_trainer

        losses: list[torch.Tensor] = []
        self._losses, self._dataset, self._micro = losses, Dataset, setting["micro_batch"]

        class Trainer(trl.DPOTrainer):  # type: ignore[misc]
            def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
                return dataset  # it is tokenized

            def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
                return dataset  # it has them

            def compute_loss(self, *args: Any, **kwargs: Any) -> torch.Tensor:
                loss: torch.Tensor = super().compute_loss(*args, **kwargs)
                losses.append(loss.detach())
                return loss

        class Clock(TrainerCallback):  # type: ignore[misc]
            def __init__(self) -> None:
                self.norms, self.found = False, {"seconds": [], "grad_norms": []}

            def on_step_begin(self, *_: Any, **__: Any) -> None:
                wait(given.device)
                self._began = time.perf_counter()

            def on_pre_optimizer_step(self, *_: Any, model: PreTrainedModel, **__: Any) -> None:
                if self.norms:
                    norms = [each.grad.float().norm() for each in model.parameters() if each.grad is not None]
                    self.found["grad_norms"].append(float(torch.stack(norms).norm()))

            def on_step_end(self, *_: Any, **__: Any) -> None:
                wait(given.device)
                self.found["seconds"].append(time.perf_counter() - self._began)

        if setting["keep_freed_memory"]:
            keep_freed_memory()
        self._clock = Clock()
        self._folder = tempfile.TemporaryDirectory()
        policy, reference = _trl_models(given, setting)
        arguments = trl.DPOConfig(
            output_dir=self._folder.name,
            beta=BETA,
            loss_type=["sigmoid"],
            max_length=None,
            precompute_ref_log_probs=reference is None,
            per_device_train_batch_size=self._micro,
            gradient_accumulation_steps=given.global_batch // self._micro,
            gradient_checkpointing=setting["gradient_checkpointing"],
            optim=setting["optimizer"],
            bf16=setting["precision"] == "autocast",
            torch_compile=setting["torch_compile"],
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_grad_norm=MAX_GRAD_NORM,
            train_sampling_strategy="sequential",
            use_cpu=given.device == "cpu",
            dataloader_num_workers=0,
            dataloader_pin_memory=given.device == "cuda",
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            disable_tqdm=True,
            seed=given.seed,
        )
        # Of the weights, for the cache of reference log-probs that are not computed here.
        with mock.patch.object(dpo_trainer, "hash_module", return_value=""):
            self._trainer = Trainer(
                model=policy,
                ref_model=reference,
                args=arguments,
                train_dataset=self._dataset.from_list([{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}]),
                processing_class=_tokenizer(given.model),
                callbacks=[self._clock],
            )

    def run(self, batches: Sequence[Sequence[TrainedPair]], norms: bool) -> Steps:
        """An optimizer step on each of the global batches; the gradients' norms where they are asked for."""
        # One call of `train`; its first step, which prepares what the others use, is not counted.
        pairs = [pair for batch in [batches[0], *batches] for pair in sorted(batch, key=_longer, reverse=True)]
        self._trainer.train_dataset = self._dataset.from_list([_trl_row(pair) for pair in pairs])
        self._trainer.args.max_steps = len(batches) + 1
        self._clock.norms, self._clock.found = norms, {"seconds": [], "grad_norms": []}
        self._losses.clear()
        self._trainer.train()
        losses = torch.stack(self._losses).view(len(batches) + 1, -1).float().mean(1).tolist()
        return {name: values[1:] for name, values in {**self._clock.found, "losses": losses}.items()}


def _trl_models(given: argparse.Namespace, setting: dict[str, Any]) -> tuple[PreTrainedModel, PreTrainedModel | None]:
    """The policy, and the reference where TRL holds it as a second model."""
    dtype = torch.bfloat16 if setting["precision"] == "bfloat16" else torch.float32
    policy, start = (
        open_policy(given.model, given.layers, given.device, given.seed, moved).to(dtype)
        if moved or setting["reference"] == "model"
        else None
        for moved in (True, False)
    )
    assert policy is not None
    return policy, start


def _trl_row(pair: TrainedPair) -> dict[str, Any]:
    """A row as TRL's collator and loss take it."""
    return {
        "prompt_ids": pair.prompt_ids.tolist(),
        **{f"{name}_ids": getattr(pair, name).ids.tolist() for name in RESPONSES},
        **{f"ref_{name}_logps": float(getattr(pair, name).ref_logps.sum(dtype=float)) for name in RESPONSES},
    }


def _tokenizer(model: str) -> PreTrainedTokenizerFast:
    """TRL takes the padding's id from it, and nothing else, as its rows hold ids."""
    if model == "packaged":
        return AutoTokenizer.from_pretrained(PACKAGED, local_files_only=True)
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


def _longer(pair: TrainedPair) -> int:
    return max(len(pair.chosen.ids), len(pair.rejected.ids)) + len(pair.prompt_ids)
