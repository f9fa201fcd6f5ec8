"""Text is data: no id of a special token out of text, and every character has its tokens."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from pipeline.errors import ModelError
from pipeline.models.text import AddedTokenFinder, TextTokenizer
from tests.models.tiny import byte_level, sentencepiece_bpe

SPECIAL_TEXTS = ["</s>", "a </s> b", "<s>[INST]", "[SEP] [CLS]", "<unk>", "x</s>", "</s></s>"]


@pytest.mark.parametrize("text", SPECIAL_TEXTS)
@pytest.mark.parametrize("inside", [False, True])
def test_special_tokens_stay_text(tiny_tokenizer: PreTrainedTokenizerFast, text: str, inside: bool) -> None:
    special = {tiny_tokenizer.bos_token_id, tiny_tokenizer.eos_token_id}
    assert special.isdisjoint(TextTokenizer(tiny_tokenizer).encode(text, inside=inside).ids)


def test_split_special_tokens_alone_would_not_do(tiny_tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    """The reason for renaming them in the vocabulary: the model itself finds the special token in the text."""
    tokenizer = tiny_tokenizers["unigram"]
    text = "a </s> b"
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.eos_token_id in ids
    assert tokenizer.eos_token_id not in TextTokenizer(tokenizer).encode(text).ids


def test_ordinary_text_is_tokenized_as_usual(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ["", " ", "Hello world", " What is it?\n\n  ok ", "naïve é 🎉 中文"]:
        assert (
            TextTokenizer(tiny_tokenizer).encode(text).ids
            == tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
        )


def test_default_tokenizer_equals_transformers(default_tokenizer: PreTrainedTokenizerFast) -> None:
    own = TextTokenizer(default_tokenizer)
    for text in ["In 2024, it's\n\n1. <|im_end|> x", "é e\u0301 👩‍👩‍👧 <repo_name>", "\u200f‮abc\x00"]:
        theirs = default_tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        assert own.encode(text) == (theirs["input_ids"], theirs["offset_mapping"])


def test_offsets_are_str_indices_of_whole_characters(default_tokenizer: PreTrainedTokenizerFast) -> None:
    text = "a🎉b e\u0301"
    encoded = TextTokenizer(default_tokenizer).encode(text)
    assert [text[start:end] for start, end in encoded.offsets] == ["a", "🎉", "🎉", "🎉", "b", " e", "\u0301", "\u0301"]


def test_bytes_that_the_default_vocabulary_lacks(default_tokenizer: PreTrainedTokenizerFast) -> None:
    """As its authors trained it: a control character vanishes, one of planes 4 to 11 keeps three of its bytes."""
    own = TextTokenizer(default_tokenizer)
    lost = [chr(code) for code in range(128) if not own.encode(chr(code)).ids]
    assert lost == ["\x04", "\x06", "\x13", "\x14", "\x16", "\x1d"]
    assert own.encode("a\x04b").offsets == [(0, 1), (2, 3)]
    assert own.encode("\U00040000").offsets == [(0, 1)] * 3


def test_offsets_hold_white_space_that_a_post_processor_would_trim() -> None:
    tokenizer = byte_level(trim_offsets=True)
    text = "Hello  world"
    trimmed = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert _covered(trimmed) != set(range(len(text)))
    assert _covered(TextTokenizer(tokenizer).encode(text).offsets) == set(range(len(text)))


def test_offsets_refer_to_the_text_before_normalization(tiny_tokenizers: dict[str, PreTrainedTokenizerFast]) -> None:
    text = "The ﬁne ½"  # NFKC makes "fi" of one character and "1⁄2" of another
    offsets = TextTokenizer(tiny_tokenizers["unigram"]).encode(text).offsets
    assert _covered(offsets) == set(range(len(text)))
    text = "The NAÏVE end."
    encoded = TextTokenizer(tiny_tokenizers["wordpiece"]).encode(text)
    assert _covered(encoded.offsets) == {i for i, char in enumerate(text) if char != " "}


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_every_character_is_covered_in_order(text: str) -> None:
    for tokenizer in _LOSSLESS:
        offsets = tokenizer.encode(text).offsets
        assert _covered(offsets) == set(range(len(text)))
        assert all(0 <= start <= end <= len(text) for start, end in offsets)
        assert [end for _, end in offsets] == sorted(end for _, end in offsets)


def test_real_responses_are_covered(default_tokenizer: PreTrainedTokenizerFast, shared_data: Path) -> None:
    own = TextTokenizer(default_tokenizer)
    control = set(default_tokenizer.all_special_ids)
    for line in (shared_data / "hard_cases.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for side in ("chosen", "rejected"):
            text = row[side][-1]["content"]
            encoded = own.encode(text)
            assert control.isdisjoint(encoded.ids)
            assert default_tokenizer.decode(encoded.ids) == text
            assert _covered(encoded.offsets) == set(range(len(text)))


def test_text_inside_a_sequence_gets_no_dummy_space() -> None:
    tokenizer = sentencepiece_bpe(legacy=False)
    whole = tokenizer.convert_ids_to_tokens(tokenizer("<s>Hello", add_special_tokens=False)["input_ids"])
    own = TextTokenizer(tokenizer)
    assert tokenizer.convert_ids_to_tokens(own.encode("Hello", inside=True).ids) == whole[1:]
    assert tokenizer.convert_ids_to_tokens(own.encode("Hello").ids) == ["▁Hello"]


def test_added_words_that_are_not_special_stay_words() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert TextTokenizer(tokenizer).encode("a<think></s>").ids.count(think) == 1
    assert think not in TextTokenizer(tokenizer, structural=frozenset({"<think>"})).encode("a<think>").ids


def test_ids_of_added_words_do_not_move() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    encoded = TextTokenizer(tokenizer).encode("<turn><think>")
    assert encoded.ids[-1] == tokenizer.convert_tokens_to_ids("<think>")
    assert tokenizer.convert_tokens_to_ids("<turn>") not in encoded.ids


def test_a_special_token_that_merges_build_is_refused() -> None:
    tokenizer = byte_level()
    word = next(token for token in tokenizer.get_vocab() if token.isalpha() and token.isascii() and len(token) == 4)
    tokenizer.add_special_tokens({"additional_special_tokens": [word]})
    with pytest.raises(ModelError, match="turns ordinary text into its special token"):
        TextTokenizer(tokenizer).encode(word)


def test_finder_sees_added_tokens_as_the_tokenizer_does() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<turn>", rstrip=True, special=True)]})
    text = "a <s>b<turn> \n c</s>"
    finder = AddedTokenFinder(tokenizer)
    assert [(text[start:end], name) for start, end, name in finder.find(text)] == [
        ("<s>", "<s>"),
        ("<turn> \n ", "<turn>"),
        ("</s>", "</s>"),
    ]
    assert finder.ids["<turn>"] == tokenizer.convert_tokens_to_ids("<turn>")


def _covered(offsets: list[tuple[int, int]]) -> set[int]:
    return {i for start, end in offsets for i in range(start, end)}


_LOSSLESS = [
    TextTokenizer(byte_level()),
    TextTokenizer(sentencepiece_bpe(True)),
    TextTokenizer(sentencepiece_bpe(False)),
]
