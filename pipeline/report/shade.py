"""From a weight to a shade, the same in every picture."""

import math

DARKEST = 10.0
"""Weight, as a multiple of the uniform weight 1/n, from which on the shade grows no darker."""
TICKS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
OPACITY = 0.75
"""Of the darkest shade: black text on it keeps a contrast above 4.5 to 1 in both colours."""


def shade(relative: float) -> float:
    """Opacity for a weight given as a multiple of 1/n: its square root, so that small weights stay visible."""
    return OPACITY * math.sqrt(min(max(relative, 0.0), DARKEST) / DARKEST)
