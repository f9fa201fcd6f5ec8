"""What all judge prompts of a run have in common, read off the shards before any work."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.attention.forward.prefixes import common_prefix
from pipeline.errors import ModelError
from pipeline.io.artifact import Shard
from pipeline.io.lists import arrays_of


@dataclass(frozen=True)
class Survey:
    """The longest prompt, and what all of them begin with."""

    longest: int
    """Tokens."""
    longest_name: str
    """Pair and round of that prompt."""
    header: list[int]
    """Token ids: as many as all prompts share, and fewer than any of them has."""


def survey(shards: Iterable[Shard]) -> Survey:
    """Look through all of `data/judge/`, whichever shards are done already, so that a resumed run shares alike."""
    longest, name = 0, ""
    header: npt.NDArray[np.integer] | None = None
    for shard in shards:
        table = shard.table(["pair_id", "round", "input_ids"])
        prompts = arrays_of(table["input_ids"])
        for row, ids in enumerate(prompts):
            header = ids[:-1] if header is None else header[: min(common_prefix(header, ids), len(ids) - 1)]
            if len(ids) > longest:
                longest = len(ids)
                name = f"pair {table['pair_id'][row].as_py()}, round {table['round'][row].as_py()}"
    return Survey(longest, name, [] if header is None else header.tolist())


def check_context(found: Survey, context: int, extra: int) -> None:
    """Raise ModelError when a prompt, and `extra` tokens after it, exceed the judge's `context`."""
    if found.longest + extra > context:
        raise ModelError(
            f"the judge prompt of {found.longest_name} has {found.longest} tokens"
            f"{f' and {extra} more to read' if extra else ''}, but the judge's context ends at {context}; lower "
            "`render.max_tokens` or choose a judge with a longer context"
        )
