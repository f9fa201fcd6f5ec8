"""Decoding of one batch: prompts padded on their left, one cache, rows that leave when they end."""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from pipeline.errors import NonFiniteError
from pipeline.models.generation.base import Answer

Choose = Callable[[Tensor, Sequence[int], int], list[int]]
"""(logits [n, V] float32, which row of the batch each of them is of, number of the step) -> a token for each."""


def most_likely(logits: Tensor, rows: Sequence[int], step: int) -> list[int]:
    """Greedy: the token of the largest logit, the first one of several."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    return tokens


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    names: Sequence[str],
    room: Sequence[int],
    stops: Collection[int],
    choose: Choose,
    restart_at: Collection[int] = (),
) -> list[Answer]:
    """An answer to each prompt of a batch, `choose`n token by token until one of `stops` or `room` tokens.

    The model's generation config plays no part. Padding is masked and has no position, so a row's logits are those of
    the row alone but for their last bits.

    Args:
        names: how errors call each prompt.
        restart_at: lengths beyond which the keys of all earlier positions are other ones (longrope): they are computed
            again there. Rows of such a batch must pass them together.

    Raises NonFiniteError, naming the prompt, for logits that are no numbers.
    """
    sequences = [list(ids) for ids in prompts]
    answers: list[Answer | None] = [None] * len(prompts)
    rows = list(range(len(prompts)))
    cache: Cache | None = None
    mask = torch.empty(0)
    step = 0
    while rows:
        if cache is None or any(len(sequences[row]) - 1 in restart_at for row in rows):
            cache = None
            ids, mask = _padded([sequences[row] for row in rows])
            positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
        else:
            ids = torch.tensor([[sequences[row][-1]] for row in rows])
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = mask.sum(dim=1, keepdim=True) - 1
        output = model(
            input_ids=ids.to(model.device),
            # Without padding there is nothing to mask, and kernels without a mask are the faster ones.
            attention_mask=None if bool(mask.all()) else mask.to(model.device),
            position_ids=positions.to(model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        logits = output.logits[:, -1].float()
        _check(logits, [names[row] for row in rows])
        stay = []
        for place, (row, token) in enumerate(zip(rows, choose(logits, rows, step), strict=True)):
            written = sequences[row][len(prompts[row]) :]
            if token in stops:
                answers[row] = Answer(written, token)
            elif len(written) + 1 == room[row]:
                answers[row] = Answer([*written, token], None)
            else:
                sequences[row].append(token)
                stay.append(place)
        if len(stay) < len(rows):
            rows, mask = [rows[place] for place in stay], mask[stay]
            if rows:
                cache.batch_select_indices(torch.tensor(stay, device=model.device))
        step += 1
    return [answer for answer in answers if answer is not None]


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids [B, T] padded on the left, and a mask of 1 at tokens and 0 at padding."""
    longest = max(len(ids) for ids in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros(len(sequences), longest, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence)
        mask[row, longest - len(sequence) :] = 1
    return ids, mask


def _check(logits: Tensor, names: Sequence[str]) -> None:
    broken = logits.isnan().any(dim=-1)
    if bool(broken.any()):
        raise NonFiniteError(
            f"{names[int(broken.nonzero()[0])]}: the model's logits are not numbers; its weights are broken, or its "
            "dtype is too narrow: try float32"
        )
