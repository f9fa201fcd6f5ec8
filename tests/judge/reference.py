"""Spans and offsets of a judge prompt from the bytes of its tokens alone: no tokenizer's offsets are trusted."""

from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from pipeline.judge.prompt import PromptTemplate

_BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}
_SENTINEL = "\ue0ff"


def frame(tokenizer: Any) -> tuple[str, str]:
    """What the chat template writes before and after one user turn."""
    messages = [{"role": "user", "content": _SENTINEL}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    before, after = rendered.split(_SENTINEL)
    return before, after


def token_bytes(tokenizer: Any, token_id: int) -> bytes:
    """The text of a token of a tokenizer that drops nothing: byte-level, or SentencePiece with byte fallback."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    if token_id in tokenizer.all_special_ids or token_id in tokenizer.added_tokens_decoder:
        return token.encode()
    if "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer):
        return bytes(_BYTE_OF[character] for character in token)
    if len(token) == 6 and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


def check_against_bytes(
    tokenizer: Any, prompt: PromptTemplate, pair: dict[str, Any], question: str, judged: Any, trimmed: int = 0
) -> None:
    """Both rounds: the tokens spell exactly the filled prompt in its frame, every span is right, every offset is right.

    `trimmed`: tokens that `official_trim` took off each span.
    """
    before, after = frame(tokenizer)
    # A Unigram makes one piece of neighbouring unknown characters: each byte of it covers all of these characters.
    fused = "Unigram" in str(tokenizer.backend_tokenizer.model)
    for number, of in enumerate(judged.rounds):
        pieces = [token_bytes(tokenizer, token_id) for token_id in of.input_ids]
        spelled = b"".join(pieces).decode()
        kept = dict.fromkeys(("chosen", "rejected"))
        for name in kept:
            kept[name] = pair[name]
            if judged.cut[name]:
                kept[name] = pair[name][: of.offsets[name][-1, 1]]
        answers = ("chosen", "rejected") if number == 0 else ("rejected", "chosen")
        values = {f"answer_{letter}": kept[name] for letter, name in zip("ab", answers, strict=True)}
        without = prompt.fill({"question": "", **values}).text
        asked = len(spelled) - len(before) - len(after) - len(without)
        assert 0 <= asked <= len(question)
        assert asked == len(question) or judged.cut["prompt"]
        filled = prompt.fill({"question": question[len(question) - asked :], **values})
        assert _spaces(before + filled.text + after) == _spaces(spelled)
        for letter, name in zip("ab", answers, strict=True):
            _check_span(
                spelled, pieces, of, name, [at + len(before) for at in filled.spans[f"answer_{letter}"]], trimmed, fused
            )


def _spaces(text: str) -> str:
    return text.replace("▁", " ")


def _check_span(
    spelled: str, pieces: list[bytes], of: Any, name: str, characters: list[int], trimmed: int, fused: bool
) -> None:
    first_byte = [0]
    for character in spelled:
        first_byte.append(first_byte[-1] + len(character.encode()))
    character_of = [index for index, character in enumerate(spelled) for _ in character.encode()]
    covered, at = [], 0
    for piece in pieces:
        covered.append((character_of[at], character_of[at + len(piece) - 1] + 1))
        at += len(piece)
    start, end = characters
    belonging = [index for index, (first, last) in enumerate(covered) if first < end and last > start]
    assert belonging == list(range(belonging[0], belonging[-1] + 1))
    if trimmed:
        belonging = belonging[:-trimmed]
    assert of.spans[name] == (belonging[0], belonging[-1] + 1)
    clipped = [(max(covered[i][0], start) - start, min(covered[i][1], end) - start) for i in belonging]
    given = [tuple(pair) for pair in of.offsets[name].tolist()]
    if fused:
        assert all(a <= first and last <= b for (a, b), (first, last) in zip(given, clipped, strict=True))
        assert given == sorted(given)
        assert {a for a, _ in given} | {b for _, b in given} <= {a for a, _ in clipped} | {b for _, b in clipped}
    else:
        assert given == clipped
