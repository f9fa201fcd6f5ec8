"""Whether two models name the same tokens by the same ids."""

from pipeline.errors import ConfigError
from pipeline.models.load import load_tokenizer
from pipeline.models.manifest import Manifest


def check_vocabulary(contrasted: Manifest, start: Manifest) -> None:
    """Models whose log-probs of trained tokens are contrasted must have the ids of the policy's start.

    Tokens are compared where the files differ: a tokenizer that was saved again is the same. Raises ConfigError, naming
    `model.<role>`.
    """
    if contrasted.tokenizer_digest == start.tokenizer_digest:
        return
    if load_tokenizer(contrasted).get_vocab() != load_tokenizer(start).get_vocab():
        raise ConfigError(
            f"model.{contrasted.role}: {contrasted.name} has another tokenizer than model.start ({start.name}), so it"
            " cannot score the trained tokens; choose a model of the same vocabulary"
        )
