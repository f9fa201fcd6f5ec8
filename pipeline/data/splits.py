"""Which train pairs are held out for validation: a function of the prompt alone."""

_DIGITS = 13
"""Of the hash: 52 bits, which a float64 holds exactly."""


def in_validation(prompt_key: str, share: float) -> bool:
    """Whether a prompt is held out. Equal prompts are never divided, and no other row has a say.

    prompt_key: `pipeline.data.pairs.prompt_key`; its first digits are read as a number in [0, 1).
    share: expected share of prompts held out, in [0, 1).
    """
    return int(prompt_key[:_DIGITS], 16) / 16**_DIGITS < share
