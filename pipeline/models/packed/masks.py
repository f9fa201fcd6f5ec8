"""Which tokens of a packed row see which: the masks of attention functions that take the row as a whole."""

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from pipeline.models.packed.layout import PackedRow


def dense_mask(row: PackedRow) -> Tensor:
    """[1, 1, N, N] bool, True where the query (row) sees the key (column)."""
    start, prefix_start, prefix_stop = _bounds(row)
    places = torch.arange(row.input_ids.shape[1], device=row.input_ids.device)
    keys = places[None, :]
    own = (keys <= places[:, None]) & (keys >= start[:, None])
    return (own | ((keys >= prefix_start[:, None]) & (keys < prefix_stop[:, None])))[None, None]


def block_mask(row: PackedRow) -> BlockMask:
    """The same for flex attention, which skips blocks that are all False."""
    start, prefix_start, prefix_stop = _bounds(row)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (key <= query) & (key >= start[query])
        return own | ((key >= prefix_start[query]) & (key < prefix_stop[query]))

    length = row.input_ids.shape[1]
    return create_block_mask(sees, None, None, length, length, device=row.input_ids.device.type)


def _bounds(row: PackedRow) -> tuple[Tensor, Tensor, Tensor]:
    """Of every token [N]: where its segment starts, where its prefix starts and stops."""
    lengths = torch.tensor([segment.stop - segment.start for segment in row.segments])
    of_segments = torch.tensor([[segment.start, *segment.prefix] for segment in row.segments])
    of_tokens = of_segments.repeat_interleave(lengths, dim=0).to(row.input_ids.device)
    return of_tokens[:, 0], of_tokens[:, 1], of_tokens[:, 2]
