"""Attention rollout without attention matrices (Abnar and Zuidema 2020; the paper's section 4.2; METHODS 2.3).

Rollout is the product of all layers, the residual connection taken as half of each: R = Â_L … Â_1 with
Â = 0.5 · headmean(A) + 0.5 · I. Only the row of the query position is wanted. So a row vector goes from the top layer
down: it starts as the query position's unit vector, and each layer makes m · Â of it, a few queries at a time. What a
layer costs in memory are its queries and keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.attention.forward.bounds import went_around
from pipeline.errors import ModelError
from pipeline.schemas.attention import ROLLOUT

SCORES_PER_BLOCK = 1 << 19
"""Scores held at once on the CPU: 2 MiB of float32, which the processor's caches can hold."""
SCORES_PER_BLOCK_ON_DEVICE = 1 << 24
"""Scores held at once on an accelerator, where a small block would not fill the device: 64 MiB of float32."""


@dataclass(frozen=True)
class _Layer:
    """One layer's states after rotary embedding and norms: per sequence query[H, n, d] and key[Hkv, n, d]."""

    queries: list[Tensor]
    keys: list[Tensor]
    scale: float
    softcap: float | None
    window: int | None


class RolloutCapture:
    """The rollout of one forward pass through all `num_layers` layers; takes RowCapture's place in `capturing`.

    `positions[b]` is the query position of sequence b in the right-padded batch; what lies behind it plays no part.
    Keeps every layer's queries and keys up to there in the model's dtype: O(layers · S · d). `scores_per_block` bounds
    the scores held at once (default: by device); it does not change the rows.
    """

    def __init__(self, num_layers: int, positions: Sequence[int], scores_per_block: int | None = None) -> None:
        self.num_layers = num_layers
        self.positions = tuple(positions)
        self._scores_per_block = scores_per_block
        self._layers: dict[int, _Layer] = {}

    def record(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        scale: float,
        *,
        softcap: float | None,
        window: int | None,
        mask: Tensor | None,
    ) -> None:
        """Keep one layer's query[B, H, S, d] and key[B, Hkv, S, d] after a look at the mask that it ran with."""
        if not 0 <= layer < self.num_layers:
            raise ModelError(f"layer {layer} ran, but rollout was set up for {self.num_layers} layers, counted from 0")
        if layer in self._layers:
            raise ModelError(
                f"layer {layer} ran twice in one forward pass; its place in the rollout would be ambiguous"
            )
        if query.shape[0] != len(self.positions) or query.shape[2] != key.shape[2]:
            raise ModelError(
                f"layer {layer} saw queries {tuple(query.shape)} and keys {tuple(key.shape)}, not the "
                f"{len(self.positions)} whole sequences of this batch; rollout runs without a key-value cache"
            )
        lengths = [position + 1 for position in self.positions]
        for sequence, length in enumerate(lengths):
            _check_every_query(mask, sequence, length, window, layer)
        # A view would keep the whole batch in memory, padding included.
        padded = min(lengths) < query.shape[2]
        self._layers[layer] = _Layer(
            queries=[_first(query[b], length, padded) for b, length in enumerate(lengths)],
            keys=[_first(key[b], length, padded) for b, length in enumerate(lengths)],
            scale=scale,
            softcap=softcap,
            window=window,
        )

    def rows(self) -> dict[int, list[Tensor]]:
        """ROLLOUT -> per sequence the row [1, position + 1] of R, float32 and of sum 1. To be called once.

        Each layer's states are released when the rows have passed it. Raises ModelError if a layer was not seen.
        """
        missing = sorted(set(range(self.num_layers)) - self._layers.keys())
        if missing:
            raise ModelError(went_around(missing))
        device = self._layers[0].keys[0].device
        rows = [torch.zeros(position + 1, device=device, dtype=torch.float32) for position in self.positions]
        for row in rows:
            row[-1] = 1
        for index in reversed(range(self.num_layers)):
            layer = self._layers.pop(index)
            for sequence, row in enumerate(rows):
                rows[sequence] = rollout_step(
                    row,
                    layer.queries[sequence],
                    layer.keys[sequence],
                    layer.scale,
                    softcap=layer.softcap,
                    window=layer.window,
                    scores_per_block=self._scores_per_block,
                )
        return {ROLLOUT: [row[None] for row in rows]}


def rollout_step(
    row: Tensor,
    query: Tensor,
    key: Tensor,
    scale: float,
    *,
    softcap: float | None = None,
    window: int | None = None,
    scores_per_block: int | None = None,
) -> Tensor:
    """row[S] · Â of one layer, float32 [S]: 0.5 · row + 0.5 · row · headmean(A).

    query[H, S, d] and key[Hkv, S, d] of one sequence; the attention A is that of `attention_row` at every position:
    causal, grouped heads, `softcap` c before the mask, `window` w the last w positions with the query's own. Queries
    where the row is exactly 0 are not computed: all but one in the top layer, and those beyond the windows' reach.
    """
    heads, length, size = query.shape
    key_heads = key.shape[0]
    if scores_per_block is None:
        scores_per_block = SCORES_PER_BLOCK if row.device.type == "cpu" else SCORES_PER_BLOCK_ON_DEVICE
    block = max(1, scores_per_block // (heads * length))
    # The upcast comes before the product, as for the query row (METHODS A9). Of one layer at a time it is small.
    keys = key.float().transpose(1, 2)
    attended = torch.zeros_like(row)
    indices = row.nonzero().squeeze(1)
    where = indices.tolist()
    for begin in range(0, len(where), block):
        queries = indices[begin : begin + block]
        first, last = where[begin], where[begin + len(queries) - 1]
        start = 0 if window is None else max(0, first + 1 - window)
        states = (query[:, queries].float() * scale).reshape(key_heads, -1, size)
        scores = torch.matmul(states, keys[:, :, start : last + 1])
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        scores = scores.view(heads, len(queries), last + 1 - start)
        # Keys before the first query are visible to all of the block unless a window ends there.
        edge = start if window is not None else first
        positions = torch.arange(edge, last + 1, device=row.device)
        scores[..., edge - start :].masked_fill_(~_visible(queries, positions, window), float("-inf"))
        probs = scores.softmax(dim=-1).view(heads * len(queries), last + 1 - start)
        attended[start : last + 1] += (row[queries] / heads).repeat(heads) @ probs
    return 0.5 * row + 0.5 * attended


def _visible(queries: Tensor, positions: Tensor, window: int | None) -> Tensor:
    """Which of the positions[n] each of the queries[m] sees: bool [m, n], causal and within the window."""
    visible = positions[None, :] <= queries[:, None]
    if window is not None:
        visible &= positions[None, :] > queries[:, None] - window
    return visible


def _first(states: Tensor, length: int, copy: bool) -> Tensor:
    """The first `length` positions of states[H, S, d]."""
    kept = states[:, :length]
    return kept.clone() if copy else kept


def _check_every_query(mask: Tensor | None, sequence: int, length: int, window: int | None, layer: int) -> None:
    """Rollout's own rule (causal, then window) must be the mask[B, 1, S, S] that the layer ran with, at every query."""
    if mask is None:
        agrees = window is None or window >= length
    else:
        agrees = mask.dtype == torch.bool
        positions = torch.arange(mask.shape[3], device=mask.device)
        block = max(1, SCORES_PER_BLOCK // mask.shape[3])
        for start in range(0, length, block):
            queries = positions[start : min(start + block, length)]
            given = mask[sequence, 0, start : start + len(queries)]
            agrees = agrees and bool(torch.equal(given, _visible(queries, positions, window)))
    if not agrees:
        raise ModelError(
            f"layer {layer} ran with a mask that is not its causal sliding window of {window}; this attention pattern "
            "is not supported"
        )
