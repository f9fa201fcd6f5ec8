"""The verdict's token ids, with tokenizers of several kinds built here."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pipeline.attention.verdict import verdict, verdict_ids
from pipeline.errors import ModelError

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{% endif %}{% endfor %}"
)


def sentencepiece_like():
    pieces = ["<unk>", "▁", *(chr(code) for code in range(33, 127)), "▁A", "▁B", "\n"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "A"), ("▁", "B")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Replace("▁", " ")
    return tokenizer


def ids_of(tokenizer, *tokens):
    return tuple(tokenizer.convert_tokens_to_ids(list(tokens)))


def test_chatml_has_no_leading_space(byte_level, with_template):
    tokenizer = with_template(byte_level())
    assert verdict_ids(tokenizer) == ids_of(tokenizer, "A", "B")


def test_a_template_that_answers_after_a_space_has_one(with_template):
    tokenizer = with_template(sentencepiece_like(), INST)
    assert verdict_ids(tokenizer) == ids_of(tokenizer, "▁A", "▁B")


def test_a_thinking_block_before_the_answer_is_skipped(byte_level, with_template):
    tokenizer = with_template(byte_level(), THINKING)
    assert verdict_ids(tokenizer) == ids_of(tokenizer, "A", "B")


def test_another_template_replaces_the_tokenizers_own(byte_level, with_template):
    tokenizer = with_template(byte_level())
    assert verdict_ids(tokenizer, INST) == ids_of(tokenizer, "ĠA", "ĠB")


def test_default_model(default_tokenizer):
    assert verdict_ids(default_tokenizer) == ids_of(default_tokenizer, "A", "B")


def test_letters_that_are_no_token_are_refused(with_template):
    words = Tokenizer(models.WordLevel(vocab={"<unk>": 0, "user": 1, "assistant": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = with_template(words)
    with pytest.raises(ModelError, match=r"no single token.*`model\.judge`"):
        verdict_ids(tokenizer)


def test_no_template_names_the_param(byte_level, with_template):
    tokenizer = with_template(byte_level(), None)
    with pytest.raises(ModelError, match=r"model\.judge\.chat_template"):
        verdict_ids(tokenizer)


@pytest.mark.parametrize(("prob_a", "prob_b", "letter"), [(0.4, 0.3, "A"), (0.1, 0.2, "B"), (0.2, 0.2, "A")])
def test_the_more_probable_letter_wins(prob_a, prob_b, letter):
    assert verdict(prob_a, prob_b) == letter
