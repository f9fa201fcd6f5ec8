"""What the judge sees as the question."""

from pipeline.judge.question import question_text


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_a_single_user_turn_is_verbatim() -> None:
    assert question_text([turn("user", " Why?\n\nAssistant: x ")]) == " Why?\n\nAssistant: x "


def test_other_contexts_are_a_block_per_turn() -> None:
    turns = [turn("system", "Be brief."), turn("user", "Hi"), turn("assistant", "Hello.\n"), turn("user", "Why?")]
    assert question_text(turns) == "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\n\nUser: Why?"
    assert question_text(turns[:1]) == "System: Be brief."
