"""The rewards that a recipe chooses by name. TRL adds up the functions of one, and logs each by its own name."""

from collections.abc import Callable
from dataclasses import dataclass

from recipes.rewards.answer import exact_reward, words
from recipes.rewards.format import format_reward
from recipes.rewards.knights import knights_reward, read_solution

RewardFunction = Callable[..., list[float]]


@dataclass(frozen=True)
class Reward:
    """What is added up, and the text column beside `prompt` that it compares a response with."""

    functions: tuple[RewardFunction, ...]
    column: str | None = None
    read: Callable[[str], object | None] = words
    """Gives None for a value of the column that nothing can be compared with."""


REWARDS = {
    "format": Reward((format_reward,)),
    "exact": Reward((format_reward, exact_reward), "answer"),
    "knights": Reward((format_reward, knights_reward), "solution_text_format", read_solution),
}
