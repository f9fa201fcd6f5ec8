"""Pairs as plain float64 lists of their trained tokens, for formulas, and as padded tensors, for the losses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.objectives.response import Pairs, Response

FloatArray = NDArray[np.float64]
Kind = Literal["sum1", "uniform", "ones", "raw", "mask"]


@dataclass(frozen=True)
class Tokens:
    """One response of n trained tokens: arrays [n]."""

    logps: FloatArray
    refs: FloatArray
    weights: FloatArray
    kls: FloatArray
    length: float

    @property
    def ratios(self) -> FloatArray:
        return self.logps - self.refs


@dataclass(frozen=True)
class Pair:
    """What a formula sees: no padding, no other pair."""

    chosen: Tokens
    rejected: Tokens
    third: Tokens
    z: float = 0.0


def make_pairs(kind: Kind, count: int = 6, seed: int = 0, z: float = 0.4) -> list[Pair]:
    """Random pairs of 1 to 8 tokens; the third response has weights 1."""
    random = np.random.default_rng(seed)
    return [Pair(_tokens(random, kind), _tokens(random, kind), _tokens(random, "ones"), z) for _ in range(count)]


def _tokens(random: np.random.Generator, kind: Kind) -> Tokens:
    n = int(random.integers(1, 9))
    weights = {
        "sum1": (raw := random.exponential(size=n)) / raw.sum(),
        "uniform": np.full(n, 1 / n),
        "ones": np.ones(n),
        "raw": random.normal(size=n),
        "mask": np.maximum(random.random(n) < 0.4, np.arange(n) == n // 2).astype(float),
    }[kind]
    # |y| of Eq. 5 may count other tokens than those that are trained.
    length = {"sum1": n + 0.5, "uniform": float(n)}.get(kind, 1.0)
    refs = -random.exponential(1.5, n)
    logps = np.minimum(refs + random.normal(0, 0.5, n), -0.01)
    return Tokens(logps, refs, weights, random.exponential(0.2, n), length)


def at_reference(pairs: Sequence[Pair]) -> list[Pair]:
    """The same where the policy is the reference, so that z is 0 too."""
    return [
        Pair(*(replace(side, logps=side.refs, kls=0 * side.kls) for side in (pair.chosen, pair.rejected, pair.third)))
        for pair in pairs
    ]


def tensors(
    pairs: Sequence[Pair],
    dtype: torch.dtype = torch.float64,
    spare: Sequence[int] = (2, 4, 1),
    fill: float = float("nan"),
) -> Pairs:
    """Padded before and after, by other widths for chosen, rejected and third; `fill` stands outside the responses."""
    sides = zip(("chosen", "rejected", "third"), spare, strict=True)
    responses = {name: _padded([getattr(pair, name) for pair in pairs], dtype, more, fill) for name, more in sides}
    return Pairs(**responses, kl_baseline=torch.tensor(pairs[0].z, dtype=dtype))


def _padded(side: Sequence[Tokens], dtype: torch.dtype, spare: int, fill: float) -> Response:
    shape = len(side), max(len(tokens.logps) for tokens in side) + spare
    mask = np.zeros(shape, np.bool_)
    filled = {name: np.full(shape, fill) for name in ("logps", "refs", "weights", "kls")}
    for row, tokens in enumerate(side):
        begin = row % (shape[1] - len(tokens.logps) + 1)
        own = slice(begin, begin + len(tokens.logps))
        mask[row, own] = True
        for name, matrix in filled.items():
            matrix[row, own] = getattr(tokens, name)

    def tensor(values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype)

    return Response(
        logps=tensor(filled["logps"]).requires_grad_(),
        mask=torch.tensor(mask),
        weights=tensor(filled["weights"]),
        lengths=tensor([tokens.length for tokens in side]),
        ref_logps=tensor(filled["refs"]),
        kls=tensor(filled["kls"]).requires_grad_(),
    )
