"""Whether a model can give log-probs of the trained tokens: asked of its config, before any weight is loaded."""

from pipeline.errors import ConfigError
from pipeline.models.load import context_length, load_config
from pipeline.models.manifest import Manifest
from pipeline.models.rope import longrope_boundaries

# Architectures whose logits are `head(body(x))`, soft-capped where the config says so, and nothing else. Others scale
# their logits (Cohere, Granite) or add to them: a wrong log-probability looks like a right one, so they are refused.
SUPPORTED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")


def check_scoring(manifest: Manifest, max_tokens: int) -> None:
    """Raises ConfigError, naming `model.<role>`, for an architecture whose logits are not known, or where sequences of
    `max_tokens` (`tokenize.max_tokens`) are longer than the model reads with one rotary embedding."""
    config = load_config(manifest)
    named = f"model.{manifest.role}: {manifest.name}"
    if config.model_type not in SUPPORTED_MODEL_TYPES:
        raise ConfigError(
            f"{named} is a {config.model_type!r} model, whose log-probs are not supported; choose one of"
            f" {', '.join(SUPPORTED_MODEL_TYPES)}"
        )
    if (context := context_length(config)) < max_tokens:
        raise ConfigError(
            f"{named} reads {context} tokens, and tokenize.max_tokens is {max_tokens}; lower tokenize.max_tokens, or"
            " choose another model"
        )
    longest = min(longrope_boundaries(config), default=None)
    if longest is not None and max_tokens > longest:
        raise ConfigError(
            f"{named}: from {longest} tokens on it rotates all positions by other frequencies (longrope), and"
            f" tokenize.max_tokens is {max_tokens}; lower it to {longest}"
        )


def check_same_words(positive: Manifest, negative: Manifest) -> None:
    """Raises ConfigError where two models have logits of different numbers of words: these have no difference."""
    words = [load_config(manifest).get_text_config().vocab_size for manifest in (positive, negative)]
    if words[0] != words[1]:
        raise ConfigError(
            f"model.positive ({positive.name}) has logits of {words[0]} words and model.negative ({negative.name}) of"
            f" {words[1]}: weights.source: critical takes their difference; choose both from the same family"
        )
