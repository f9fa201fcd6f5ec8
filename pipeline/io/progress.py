"""Progress of long work: done, total, rate, time left. One rewritten line on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Mapping

_log = logging.getLogger(__name__)
_PLAIN_SECONDS = 10.0
_TERMINAL_SECONDS = 0.2


class Progress:
    """Counts `unit`s (pairs, steps) and tokens. Work found finished on a resume does not count as speed."""

    def __init__(self, label: str, total: int, unit: str = "pairs", done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done: float = done
        self._resumed = done
        self.tokens = 0
        self._began = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._line_is_open = False

    def advance(
        self, units: float, tokens: int = 0, note: str = "", figures: Mapping[str, float] | None = None
    ) -> None:
        """So many more units are done. `note`: what is worth seeing now, such as the loss; `figures`: for the log."""
        self.update(self.done + units, self.tokens + tokens, note, figures)

    def update(self, done: float, tokens: int, note: str = "", figures: Mapping[str, float] | None = None) -> None:
        """So many units are done in all, resumed ones included, and so many tokens since the beginning."""
        self.done, self.tokens = done, tokens
        now = time.monotonic()
        if now - self._shown >= (_TERMINAL_SECONDS if self._terminal else _PLAIN_SECONDS) or self.done >= self.total:
            self._shown = now
            self._show(now - self._began, note, figures or {})

    def close(self) -> None:
        """End the line on a terminal, so that what is written next begins its own."""
        if self._line_is_open:
            sys.stderr.write("\n")
            sys.stderr.flush()
            self._line_is_open = False

    def _show(self, seconds: float, note: str, figures: Mapping[str, float]) -> None:
        rate = (self.done - self._resumed) / max(seconds, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        parts = [f"{self.label} {int(self.done)}/{self.total} {self.unit}", f"{rate:.2f} {self.unit}/s"]
        speed = self.tokens / max(seconds, 1e-9)
        if self.tokens:
            parts.append(f"{speed:,.0f} tokens/s")
        parts.append(f"{_clock(left)} left" if self.done < self.total else f"in {_clock(seconds)}")
        if note:
            parts.append(note)
        text = ", ".join(parts)
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()
            self._line_is_open = True
            if self.done >= self.total:
                self.close()
        else:
            fields: dict[str, float] = {"done": round(self.done, 2), "total": self.total, "rate": rate}
            if self.tokens:
                fields["tokens_per_s"] = speed
            if left != float("inf"):  # which JSON has not
                fields["seconds_left"] = left
            _log.info(text, extra={**fields, **figures})


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
