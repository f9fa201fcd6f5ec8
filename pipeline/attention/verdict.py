"""The judge's verdict: the tokens "A" and "B" after the generation prompt, and which of them is more probable."""

from typing import Literal

from transformers import PreTrainedTokenizerFast

from pipeline.errors import ModelError
from pipeline.models.chat import Chat
from pipeline.models.template import TemplateRefusal

Verdict = Literal["A", "B"]


def verdict(prob_a: float, prob_b: float) -> Verdict:
    """The more probable letter; "A" on an exact tie, which `pipeline.attention.metrics` counts one half."""
    return "A" if prob_a >= prob_b else "B"


def verdict_ids(tokenizer: PreTrainedTokenizerFast, template: str | None = None) -> tuple[int, int]:
    """Token ids of "A" and "B" as the first token of an answer in the chat template (`template`, else its own).

    Whether the letter carries a leading space ("▁A" of SentencePiece models whose template opens no new line) is
    read off an assistant turn written by the template; where the template puts something else first, such as an empty
    thinking block, the letter is tokenized on its own.
    Raises ModelError when there is no template or a letter is not one token there.
    """
    chat = Chat(tokenizer, template)
    for token_of in (_in_a_turn, _alone):
        a, b = token_of(tokenizer, chat, "A"), token_of(tokenizer, chat, "B")
        if a is not None and b is not None and a != b:
            return a, b
    raise ModelError(
        'the judge\'s tokenizer has no single token for "A" or "B" after the generation prompt, so no verdict can be '
        "read; choose another `model.judge`, or a template that ends in a new line in `model.judge.chat_template`"
    )


def _in_a_turn(tokenizer: PreTrainedTokenizerFast, chat: Chat, letter: str) -> int | None:
    """The first token after the generation prompt of an assistant turn that says the letter, if it is just that."""
    user = {"role": "user", "content": "Question"}
    opening = chat.encode([user])
    try:
        ids = chat.encode([user, {"role": "assistant", "content": letter}], add_generation_prompt=False)
    except TemplateRefusal:
        return None
    if ids[: len(opening)] != opening or len(ids) == len(opening):
        return None
    return _if_letter(tokenizer, ids[len(opening)], letter)


def _alone(tokenizer: PreTrainedTokenizerFast, chat: Chat, letter: str) -> int | None:
    """The letter's token as a text of its own, if it is one."""
    ids = chat.text_ids(letter).ids
    return _if_letter(tokenizer, ids[0], letter) if len(ids) == 1 else None


def _if_letter(tokenizer: PreTrainedTokenizerFast, token: int, letter: str) -> int | None:
    return token if tokenizer.decode([token]).strip() == letter else None
