"""What the judge sees as the question (METHODS A10: the paper has single turns only)."""

from collections.abc import Mapping, Sequence


def question_text(turns: Sequence[Mapping[str, str]]) -> str:
    """A single user turn verbatim; otherwise one block `Role: content` per turn, with an empty line between blocks."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)
