"""The paper's two prompts (Figures 7 and 8) as a conversation with the judge."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.judge.prompt import PromptTemplate
from pipeline.judge.question import question_text
from pipeline.models.chat import Chat
from pipeline.models.template import TemplateRefusal

SYSTEM = Path(__file__).parent / "system.txt"
"""Figure 7, word for word."""
USER = Path(__file__).parent / "user.txt"
"""Figure 8."""
_NAMES = ("prompt", "tokens")


@dataclass(frozen=True)
class VerbalPrompt:
    """A system turn, and a user turn with the placeholders `{prompt}` and `{tokens}`."""

    system: str
    user: PromptTemplate

    def messages(self, context: Sequence[Mapping[str, str]], response: str) -> list[dict[str, str]]:
        """The two turns. `{prompt}` is the question as the judge of pairs sees it, `{tokens}` the response's text."""
        text = self.user.fill({"prompt": question_text(context), "tokens": response}).text
        return [{"role": "system", "content": self.system}, {"role": "user", "content": text}]


class VerbalChat:
    """The conversation in the chat format of one judge; texts are data and never read as template or special tokens.

    A template without a system turn (Gemma) gets the system text at the head of the user turn, an empty line after it.
    """

    def __init__(self, chat: Chat, prompt: VerbalPrompt) -> None:
        self._chat = chat
        self._prompt = prompt
        try:
            chat.encode([{"role": "system", "content": "x"}, {"role": "user", "content": "x"}])
            self._has_system = True
        except TemplateRefusal:
            self._has_system = False

    def encode(self, context: Sequence[Mapping[str, str]], response: str) -> list[int]:
        """Token ids of the prompt about one response, up to where the answer begins."""
        messages = self._prompt.messages(context, response)
        if self._has_system:
            return self._chat.encode(messages)
        return self._chat.encode([{"role": "user", "content": "\n\n".join(turn["content"] for turn in messages)}])


def load_verbal_prompt(system: Path = SYSTEM, user: Path = USER) -> VerbalPrompt:
    """Read both prompt files (UTF-8). The line end that editors put at the end of a file is no part of a prompt.

    Raises ConfigError, naming the file, when it is not there or does not hold each placeholder once.
    """
    text = _read(user)
    pieces = re.split(r"\{(" + "|".join(_NAMES) + r")\}", text)
    literals, names = tuple(pieces[::2]), tuple(pieces[1::2])
    for name in _NAMES:
        if names.count(name) != 1:
            raise ConfigError(f"{user}: must hold {{{name}}} exactly once, not {names.count(name)} times")
    return VerbalPrompt(_read(system), PromptTemplate(literals, names))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; it holds a prompt of weights.source verbalized, restore it") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
