"""Section `reference`: per-token log-probs of the policy's first weights."""

from typing import Literal

from pipeline.config.base import Section


class ReferenceParams(Section):
    """The trainer must compute at the same dtype, or its first loss would not be the logarithm of 2."""

    dtype: Literal["float32", "bfloat16"] = "float32"
