"""Which tokens of a judge prompt are a response's, by the characters that they cover."""

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
Offsets = NDArray[np.int32]
"""[n, 2]: per token the half-open range of characters that it covers, as Python str indices."""


def as_offsets(offsets: list[Span]) -> Offsets:
    """Offsets of n tokens as an array [n, 2]."""
    return np.array(offsets, dtype=np.int32).reshape(-1, 2)


def token_span(offsets: Offsets, characters: Span) -> Span:
    """Half-open range of the tokens that cover at least one of the characters; (0, 0) when none does.

    A token of the edge may also cover characters of others. Several tokens that share one character (an emoji in bytes)
    all belong. Tokens that cover nothing belong only between two that do.
    """
    start, end = characters
    covering = (np.maximum(offsets[:, 0], start) < np.minimum(offsets[:, 1], end)).nonzero()[0]
    return (int(covering[0]), int(covering[-1]) + 1) if covering.size else (0, 0)


def response_offsets(offsets: Offsets, tokens: Span, characters: Span) -> Offsets:
    """Offsets of a token span as indices into the response alone, clipped to it.

    Characters between two tokens that neither covers are ones that the tokenizer drops, such as the white space of
    WordPiece, or joins with the one before, such as a combining accent under NFC.
    """
    return np.clip(offsets[slice(*tokens)], *characters) - np.int32(characters[0])
