"""The sources of raw scores by the name that `weights.source` gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.config.runtime import RuntimeParams
from pipeline.config.score import ScoreParams
from pipeline.config.tokenize import TokenizeParams
from pipeline.models.budget import TokenBudget
from pipeline.models.chat import Chat
from pipeline.models.generation.base import stop_ids
from pipeline.models.load import context_length, load_config, load_model, load_tokenizer
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.models.named import named_model
from pipeline.weights.sources.base import Source
from pipeline.weights.sources.contrast import ContrastSource
from pipeline.weights.sources.critical import CriticalSource
from pipeline.weights.sources.gradient import GradientSource
from pipeline.weights.sources.system import SystemPrompt
from pipeline.weights.sources.verbalized.generators import open_generator, open_partitions
from pipeline.weights.sources.verbalized.source import VerbalizedSource


@dataclass(frozen=True)
class Opening:
    """What a source is opened with."""

    root: Path
    params: ScoreParams
    limits: TokenizeParams
    """Of the prompts that a source makes itself."""
    runtime: RuntimeParams
    device: torch.device

    def manifest(self, role: str) -> Manifest:
        """The model of a role, checked to be still the one that was named."""
        return named_model(self.root, role)

    def log_probs(self, role: str) -> LogProbModel:
        """The model of a role, for log-probs of responses."""
        model = load_model(self.manifest(role), self.params.dtype, self.device)
        return LogProbModel(model, attention=self.runtime.attention)

    def budget(self) -> TokenBudget:
        """Of the packed rows in which responses are scored."""
        return TokenBudget(self.runtime.token_budget, self.device)


def open_source(name: str, opening: Opening) -> Source:
    """Load the models of a source. Raises KeyError for a source without raw scores."""
    return SOURCES[name](opening)


def _gradient(opening: Opening) -> Source:
    return GradientSource(opening.log_probs("start"), opening.params.gradient, opening.budget())


def _contrast(opening: Opening) -> Source:
    params, runtime = opening.params.contrast, opening.runtime
    if params.models == "given":
        positive, negative = opening.log_probs("positive"), opening.log_probs("negative")
        return ContrastSource(positive, negative, opening.budget(), runtime.share_prompts)
    manifest = opening.manifest("start")
    chat = Chat(load_tokenizer(manifest), manifest.chat_template, role="start")
    context = context_length(load_config(manifest))
    prompts = (
        SystemPrompt(chat, text, opening.limits.max_prompt_tokens, context)
        for text in (params.positive_prompt, params.negative_prompt)
    )
    model = opening.log_probs("start")
    return ContrastSource(model, model, opening.budget(), runtime.share_prompts, *prompts)


def _critical(opening: Opening) -> Source:
    positive, negative = opening.log_probs("positive"), opening.log_probs("negative")
    share = opening.runtime.share_prompts
    return CriticalSource(positive, negative, opening.params.critical, opening.budget(), share)


def _verbalized(opening: Opening) -> Source:
    manifest, params = opening.manifest("judge"), opening.params.verbalized
    tokenizer = load_tokenizer(manifest)
    chat = Chat(tokenizer, manifest.chat_template)
    rest = params.max_new_tokens, opening.params.dtype, opening.runtime, opening.device
    if params.answers == "partition":
        partitions = open_partitions(manifest, chat, *rest)
        return VerbalizedSource(partitions([], []), tokenizer, chat, params, partitions=partitions)
    generator = open_generator(manifest, stop_ids(tokenizer, chat), *rest)
    return VerbalizedSource(generator, tokenizer, chat, params)


SOURCES: dict[str, Callable[[Opening], Source]] = {
    "gradient": _gradient,
    "contrast": _contrast,
    "critical": _critical,
    "verbalized": _verbalized,
}
