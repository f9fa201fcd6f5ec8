"""Logic-RL (Xie et al. 2025, METHODS 5.10) by TRL's GRPOTrainer: rule-based RL on Knights-and-Knaves puzzles.

`--prompts` is a file of the Knights-and-Knaves data set: JSON lines with `quiz`, and `solution_text_format` with a line
such as `(1) Zoey is a knight` for each person. A response gets +1 or -1 for its format, and +2, -1.5 or -2 for its
answer.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError, PipelineError
from recipes.online import grpo_config, grpo_settings, parser, train
from recipes.prompts import Row, prompts_of, read_rows
from recipes.rewards.registry import REWARDS

if TYPE_CHECKING:
    from trl import GRPOConfig, GRPOTrainer

SETTINGS: Mapping[str, Any] = {
    "num_generations": 16,
    "learning_rate": 3e-7,
    # The weight of the KL term, whose low-variance estimate is the one that TRL computes.
    "beta": 0.001,
    "use_bias_correction_kl": False,
    # As the official code: a mean over all tokens that one process holds at a time.
    "loss_type": "bnpo",
    "scale_rewards": "group",
    "epsilon": 0.2,
    # The default of the official code's framework, which its script leaves as it is.
    "entropy_coef": 0.001,
    "max_completion_length": 2048,
    "num_train_epochs": 5,
    "per_device_train_batch_size": 64,
}
COMPLETIONS_PER_STEP = 512
"""32 prompts with 16 completions each; over 4 GPUs, as the official script."""
STEPS_PER_GENERATION = 2
"""Completions of 64 prompts are sampled at one time."""
MAX_PROMPT_TOKENS = 400

INSTRUCTION = (
    "You are a helpful assistant. First think about the puzzle, then answer it. Put your thoughts between <think> and "
    "</think> and your answer between <answer> and </answer>. In the answer, say of each person on a line of its own "
    "who they are, such as:\n(1) Zoey is a knight\n(2) Oliver is a knave"
)
"""In our words. The official prompt says the same, and ends with an opening <think>, which the model here writes."""


def configuration(output: Path, **changes: Any) -> "GRPOConfig":
    """The official script's configuration, `changes` to its fields made. Raises ConfigError as `grpo_config`."""
    return grpo_config(output, grpo_settings(SETTINGS, COMPLETIONS_PER_STEP, STEPS_PER_GENERATION, changes))


def puzzles(file: Path) -> list[Row]:
    """Prompts as turns, with their solutions. Raises DataError naming the line where one is missing or unreadable."""
    rows = read_rows(file)
    for number, row in rows.items():
        if not isinstance(row.get("quiz"), str) or not row["quiz"].strip():
            raise DataError(f"{file}: line {number}: `quiz` is missing or empty; correct the row")
        row["prompt"] = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": row["quiz"]}]
    return prompts_of(rows, file, REWARDS["knights"])


def main(arguments: Sequence[str] | None = None) -> "GRPOTrainer":
    """Train on the puzzles of a file."""
    command = parser(__doc__)
    command.add_argument("--max-prompt-tokens", type=int, default=MAX_PROMPT_TOKENS, help="longer ones are left out")
    given = command.parse_args(arguments)
    rows = puzzles(given.prompts)
    config = configuration(given.output, **dict(given.set))
    return train(given.model, rows, REWARDS["knights"], config, given.max_prompt_tokens)


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(str(error))
