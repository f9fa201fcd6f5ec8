"""What the recipes share: TRL's configuration from documented values, the command line, and the run itself."""

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, ModelError
from recipes.prompts import Row, without_long
from recipes.rewards.registry import Reward

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer

COMMON: Mapping[str, Any] = {
    # Weights from safetensors only; TRL runs no code of a model unless `trust_remote_code` is set.
    "model_init_kwargs": {"use_safetensors": True},
    "report_to": "none",
    "logging_steps": 1,
    # Every completion of a prompt once, no second epoch over the same samples.
    "num_iterations": 1,
    # What the samples are drawn from is what is trained: no filtered distribution.
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "lr_scheduler_type": "constant",
}


def grpo_settings(
    settings: Mapping[str, Any], completions_per_step: int, steps_per_generation: int, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields of GRPOConfig: COMMON, then a recipe's, then a user's; with what the number of processes leaves open.

    Args:
        completions_per_step: completions of one optimizer step, over all processes.
        steps_per_generation: optimizer steps on the completions that are sampled at one time.

    Raises ConfigError where the completions of a step cannot be dealt to the processes.
    """
    values = {**COMMON, **settings, **changes}
    if "gradient_accumulation_steps" not in values:
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        size = values["per_device_train_batch_size"]
        if not isinstance(size, int) or size < 1 or completions_per_step % (processes * size):
            raise ConfigError(
                f"{completions_per_step} completions of an optimizer step are not a multiple of {processes} processes "
                f"times per_device_train_batch_size={size}; set that to a divisor, or "
                "set gradient_accumulation_steps (--set)"
            )
        values["gradient_accumulation_steps"] = completions_per_step // (processes * size)
    if not {"steps_per_generation", "generation_batch_size"} & values.keys():
        # TRL counts passes here, not optimizer steps.
        values["steps_per_generation"] = steps_per_generation * values["gradient_accumulation_steps"]
    return values


def grpo_config(output: Path, values: Mapping[str, Any]) -> "GRPOConfig":
    """TRL's configuration. Raises ConfigError where TRL is not installed, lacks a field, or refuses the values."""
    try:
        from trl import GRPOConfig
    except ImportError as error:
        raise ConfigError(f"The recipes need TRL ({error}); install it with: pip install -e '.[dev]'") from error
    known = {field.name for field in dataclasses.fields(GRPOConfig) if field.init}
    if unknown := sorted(values.keys() - known):
        raise ConfigError(f"{', '.join(unknown)}: TRL's GRPOConfig has no such field; see its documentation")
    try:
        return GRPOConfig(output_dir=str(output), **values)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"TRL's GRPOConfig refuses the settings: {error} (change them with --set)") from error


def train(
    model: str, rows: Sequence[Row], reward: Reward, config: "GRPOConfig", max_prompt_tokens: int | None = None
) -> "GRPOTrainer":
    """Train a model folder (or hub id) on the prompts, save it as a transformers folder, and return the trainer.

    Raises ModelError where model or tokenizer cannot be loaded, ConfigError where the prompts do not fill a batch.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOTrainer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left", truncation_side="left")
    except (OSError, ValueError) as error:
        raise ModelError(_failed("tokenizer", model, error)) from error
    kept = list(rows) if max_prompt_tokens is None else without_long(list(rows), tokenizer, max_prompt_tokens)
    at_once = config.generation_batch_size // config.num_generations
    # Only the first of several processes speaks.
    if config.process_index == 0:
        left_out = len(rows) - len(kept)
        note = f", {left_out} longer than {max_prompt_tokens} tokens left out" if max_prompt_tokens else ""
        print(f"prompts: {len(kept)}{note}; {at_once} × {config.num_generations} completions sampled at a time")
    if len(kept) < at_once:
        raise ConfigError(
            f"{len(kept)} prompts do not fill one batch of {at_once}: TRL would train on nothing; give more prompts, "
            "or lower gradient_accumulation_steps or per_device_train_batch_size (--set)"
        )
    try:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=list(reward.functions),
            args=config,
            train_dataset=Dataset.from_list(kept),
            processing_class=tokenizer,
        )
    except OSError as error:
        raise ModelError(_failed("weights", model, error)) from error
    trainer.train()
    trainer.save_model(config.output_dir)
    return trainer


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all recipes take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", required=True, help="the policy's start: a transformers folder or hub id")
    made.add_argument("--prompts", required=True, type=Path, help="JSON lines, one prompt each")
    made.add_argument("--output", required=True, type=Path, help="folder for the trained model")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        type=_change,
        metavar="FIELD=VALUE",
        help="a field of TRL's GRPOConfig, its value as JSON or text; repeat it for others",
    )
    return made


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _failed(what: str, model: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"--model {model}: its {what} cannot be loaded: {reason}"
