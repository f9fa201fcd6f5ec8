"""Which of the cached rows the weights are made of: the source, one layer, some heads."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.attention.architectures import resolve_heads, resolve_layers
from pipeline.config.extract import ExtractParams
from pipeline.config.postprocess import Heads, PostprocessParams
from pipeline.errors import ConfigError
from pipeline.schemas.attention import MEAN_OVER_HEADS


@dataclass(frozen=True)
class RowsChosen:
    """What `postprocess` reads of `data/attention/`."""

    source: str
    """``attention`` or ``rollout``."""
    layer: int
    """0-based; -1 for rollout, as in the column `layer`."""
    heads: tuple[int, ...]
    """0-based and ascending; (MEAN_OVER_HEADS,) where `extract` cached their mean."""


def choose_rows(
    params: PostprocessParams, *, source: str, layers: Sequence[int], heads: Sequence[int], num_layers: int
) -> RowsChosen:
    """The rows that ``params`` ask for, among the cached ``source``, ``layers`` and ``heads``.

    ``num_layers``: of the judge. Raises ConfigError, naming the param and what is cached, for rows that are not there.
    """
    layer = layers[0] if source == "rollout" else _choose_layer(params.layer, layers, num_layers)
    return RowsChosen(source, layer, choose_heads(params.heads, heads, source))


def check_layer(extract: ExtractParams, params: PostprocessParams, num_layers: int) -> None:
    """Whether ``extract`` will cache the layer that ``params`` ask for, of a judge of so many.

    Raises ModelError for layers that the judge lacks, ConfigError for one that would not be cached.
    """
    if extract.source == "attention":
        _choose_layer(params.layer, resolve_layers(extract.layers, num_layers), num_layers)


def check_heads(extract: ExtractParams, params: PostprocessParams, num_heads: int) -> None:
    """As `check_layer`, of heads."""
    choose_heads(params.heads, resolve_heads(extract.heads, num_heads), extract.source)


def choose_heads(wanted: Heads, cached: Sequence[int], source: str = "attention") -> tuple[int, ...]:
    """The cached heads to average, ascending. Raises ConfigError naming `postprocess.heads` and what is cached."""
    if wanted == "all":
        return tuple(sorted(cached))
    if source == "rollout":
        raise ConfigError(
            f"postprocess.heads: {wanted} can't be chosen: rollout multiplies the means over heads and has no rows of"
            " single ones. Set postprocess.heads: all"
        )
    if list(cached) == [MEAN_OVER_HEADS]:
        raise ConfigError(
            f"postprocess.heads: {wanted} can't be chosen: only the mean over heads is cached. Set extract.heads: each"
            " (or a list with these heads), or postprocess.heads: all"
        )
    missing = sorted(set(wanted) - set(cached))
    if missing:
        raise ConfigError(
            f"postprocess.heads: {missing} not cached; there are rows of heads {sorted(cached)}. Choose among them, or"
            " set extract.heads to each or to a list with these heads, if the judge has them"
        )
    return tuple(sorted(wanted))


def _choose_layer(wanted: int, cached: Sequence[int], num_layers: int) -> int:
    layer = wanted + num_layers if wanted < 0 else wanted
    if layer not in cached:
        raise ConfigError(
            f"postprocess.layer: {wanted} of the judge's {num_layers} layers is not cached: extract.layers come to"
            f" {sorted(cached)}. Choose one of them, or add {layer} there"
        )
    return layer
