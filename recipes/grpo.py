"""GRPO (Shao et al. 2024, METHODS 5.9) by TRL's GRPOTrainer, in the paper's form.

For each prompt, G completions are sampled from the policy and rewarded; a completion's advantage is its reward minus
the group's mean, over the group's standard deviation. The loss is PPO's clipped ratio times the advantage, plus beta
times a
KL estimate to the start, averaged over each completion's tokens, then over completions.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from recipes.online import grpo_config, grpo_settings, parser, train
from recipes.prompts import prompts_of, read_rows
from recipes.rewards.registry import REWARDS

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer

SETTINGS: Mapping[str, Any] = {
    # Tokens averaged within a completion; TRL's default, `dapo`, averages over all tokens of the batch.
    "loss_type": "grpo",
    # G
    "num_generations": 64,
    # To a frozen copy of the start; TRL's default is 0, without a reference.
    "beta": 0.04,
    # The paper's k3 estimate as it is. By default TRL multiplies it by the importance ratio: another gradient.
    "use_bias_correction_kl": False,
    "scale_rewards": "group",
    # The clip. With one optimizer step per sampling, as here and in the paper, the ratio is 1 and nothing is clipped.
    "epsilon": 0.2,
    "learning_rate": 1e-6,
    "max_completion_length": 1024,
    # Of one process; it changes speed and memory, not the step.
    "per_device_train_batch_size": 8,
}
COMPLETIONS_PER_STEP = 1024
"""16 prompts with 64 completions each."""


def configuration(output: Path, **changes: Any) -> "GRPOConfig":
    """The paper's configuration, `changes` to its fields made. Raises ConfigError as `recipes.online.grpo_config`."""
    return grpo_config(output, grpo_settings(SETTINGS, COMPLETIONS_PER_STEP, 1, changes))


def main(arguments: Sequence[str] | None = None) -> "GRPOTrainer":
    """Train on the prompts of a file."""
    command = parser(__doc__)
    command.add_argument("--reward", required=True, choices=REWARDS)
    command.add_argument("--max-prompt-tokens", type=int, help="longer prompts are left out, and counted")
    given = command.parse_args(arguments)
    reward = REWARDS[given.reward]
    rows = prompts_of(read_rows(given.prompts), given.prompts, reward)
    return train(given.model, rows, reward, configuration(given.output, **dict(given.set)), given.max_prompt_tokens)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(str(error))
