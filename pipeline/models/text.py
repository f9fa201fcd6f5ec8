"""Plain text to token ids: special tokens in it stay text, and every token knows the characters it covers."""

import json
import secrets
from collections.abc import Set
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ModelError


class Encoded(NamedTuple):
    """Token ids and, for each, the half-open span of Python str indices that it covers in the text given."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class TextTokenizer:
    """Tokenizes text as data: `<|im_end|>` in a response is characters, never the end of a turn.

    Works on private copies of the tokenizer's backend that differ from it in three ways:

    - Special tokens are not looked for in text, and their names are taken out of the model's vocabulary:
      `split_special_tokens` alone does the former only, and a Unigram, WordPiece or WordLevel model would then find
      `</s>` in its own vocabulary. Added tokens that are not special (`<think>`) stay words of the vocabulary.
    - No post-processor: it would add begin- and end-of-text tokens, and the byte-level one cuts leading white space out
      of the offsets, so that characters of the text would belong to no token.
    - No truncation, no padding.

    `structural` names added tokens that count as special although the tokenizer does not say so.

    Offsets refer to the text as given, also where the tokenizer normalizes it. Each of several tokens of one character
    (an emoji in bytes) covers the whole character; a dummy prefix space covers what it was put before. Characters
    that a tokenizer drops are covered by no token: white space in WordPiece; in a byte-level BPE whose vocabulary lacks
    some bytes, the control characters of those bytes (six of them in the packaged model).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, structural: Set[str] = frozenset()) -> None:
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        for token in spec["added_tokens"]:
            token["special"] = token["special"] or token["content"] in structural
        self._special_ids = {t["id"] for t in spec["added_tokens"] if t["special"]} - {tokenizer.unk_token_id}
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        _hide_special_tokens(spec)
        self._start = _backend(spec)
        # SentencePiece-style tokenizers put a space before the very first word only: text that follows something else
        # in the same sequence must be tokenized as if it were not at the start.
        inside = spec | {"pre_tokenizer": _never_prepend(spec["pre_tokenizer"])}
        self._inside = self._start if inside == spec else _backend(inside)

    def encode(self, text: str, *, inside: bool = False) -> Encoded:
        """Ids and offsets of `text`; `inside` where something stands before it in the sequence.

        Raises ModelError when the tokenizer still makes a special token out of text.
        """
        result = (self._inside if inside else self._start).encode(text, add_special_tokens=False)
        if not self._special_ids.isdisjoint(result.ids):
            found = min(self._special_ids.intersection(result.ids))
            raise ModelError(
                f"This tokenizer turns ordinary text into its special token {found}, so a data set could change the "
                "structure of a conversation; it cannot be used. Choose a model with a byte-level BPE tokenizer."
            )
        return Encoded(result.ids, result.offsets)


class AddedTokenFinder:
    """Finds added tokens in text that a chat template wrote, as the tokenizer itself would."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        added = tokenizer.added_tokens_decoder
        self.ids = {token.content: i for i, token in added.items()}
        self.special = frozenset(token.content for token in added.values() if token.special)
        # The added tokens and the normalizer are all that finding them takes; any vocabulary will do.
        self._backend = Tokenizer(WordLevel({_REST: 0}, unk_token=_REST))
        self._backend.normalizer = tokenizer.backend_tokenizer.normalizer
        self._backend.add_tokens(list(added.values()))

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """Start, end (Python str indices) and name of every added token, in order.

        White space that a token swallows (`lstrip`, `rstrip`) is within its span.
        """
        found = self._backend.encode(text, add_special_tokens=False)
        # Not `found.tokens`: those are the matched text, with the white space that a token swallowed.
        names = [str(self._backend.id_to_token(i)) for i in found.ids]
        return [(*span, name) for span, name in zip(found.offsets, names, strict=True) if name != _REST]


_REST = "rest"


def _backend(spec: dict[str, Any]) -> Tokenizer:
    backend = Tokenizer.from_str(json.dumps(spec))
    backend.encode_special_tokens = True  # the backend's name for `split_special_tokens`
    return backend


def _hide_special_tokens(spec: dict[str, Any]) -> None:
    """Give special tokens names in `spec` that no text can hold by intent; ids stay.

    Names that a merge of a BPE builds must stay, and cannot be hidden: `encode` refuses them if they ever appear.
    """
    model = spec["model"]
    in_merges: set[str] = set()
    for merge in model.get("merges", ()):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        in_merges.update((*pair, "".join(pair)))
    stem = secrets.token_hex(16)
    hidden = {
        token["content"]: f"{stem}-{token['id']}"
        for token in spec["added_tokens"]
        if token["special"] and token["content"] not in in_merges
    }
    if isinstance(model["vocab"], dict):
        model["vocab"] = {hidden.get(piece, piece): i for piece, i in model["vocab"].items()}
    else:  # Unigram
        model["vocab"] = [[hidden.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = hidden.get(model["unk_token"], model["unk_token"])
    for token in spec["added_tokens"]:
        token["content"] = hidden.get(token["content"], token["content"])


def _never_prepend(pre_tokenizer: dict[str, Any] | None) -> dict[str, Any] | None:
    if pre_tokenizer is None:
        return None
    if pre_tokenizer["type"] == "Sequence":
        return pre_tokenizer | {"pretokenizers": [_never_prepend(part) for part in pre_tokenizer["pretokenizers"]]}
    if pre_tokenizer["type"] == "Metaspace" and pre_tokenizer["prepend_scheme"] == "first":
        return pre_tokenizer | {"prepend_scheme": "never"}
    return pre_tokenizer
