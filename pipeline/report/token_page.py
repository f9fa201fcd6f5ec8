"""The same pairs as a page of HTML, complete in itself: longer texts, and the weight of the token under the pointer."""

from collections.abc import Sequence
from html import escape

from pipeline.report.boxes import Box, BoxedResponse
from pipeline.report.characters import visible
from pipeline.report.shade import DARKEST, TICKS, shade
from pipeline.report.style import COLORS, INK, MUTED

_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 2rem auto; max-width: 76rem; padding: 0 1.5rem; background: #fff; color: {INK};
  font: 15px/1.6 -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }}
h1 {{ font-size: 1.5rem; margin-bottom: .2rem; }}
h2 {{ font-size: 1.05rem; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #d0d7de; }}
p, pre.prompt {{ color: {MUTED}; }}
pre {{ margin: 0; font: 13px/1.85 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1.5rem; margin-top: .8rem; }}
h3 {{ font-size: .9rem; margin: 0 0 .4rem; }}
h3 small {{ font-weight: 400; color: {MUTED}; margin-left: .5rem; }}
.chosen {{ --ink: {COLORS["chosen"]}; }} .rejected {{ --ink: {COLORS["rejected"]}; }}
.chosen h3, .rejected h3 {{ color: var(--ink); }}
span {{ unicode-bidi: isolate; border-radius: 3px; padding: 2px 0;
  background: color-mix(in srgb, var(--ink) calc(var(--s) * 100%), #fff); }}
span:hover {{ outline: 2px solid {INK}; }}
.legend span {{ display: inline-block; width: 3.2rem; text-align: center; border-radius: 0; font-size: .8rem; }}
"""


def token_page(pairs: Sequence[tuple[str, str, Sequence[BoxedResponse]]], shown_tokens: int) -> str:
    """The page, for pairs of (title, prompt, responses); of each response the first `shown_tokens` tokens."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        # Nothing is loaded and nothing runs, whatever a response holds.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Tokens by weight</title><style>{_STYLE}</style></head><body>",
        "<h1>Tokens by weight</h1>",
        "<p>Weight after the sink fix, as a multiple of the uniform weight 1/n. Rest the pointer on a token for its"
        " number.</p>",
        *(_legend(name) for name in COLORS),
    ]
    for title, prompt, responses in pairs:
        parts += [f"<h2>{escape(title)}</h2>", f'<pre class="prompt" dir="auto">{_shown(prompt)}</pre>']
        parts += ['<div class="pair">', *(_response(response, shown_tokens) for response in responses), "</div>"]
    return "\n".join([*parts, "</body></html>", ""])


def _legend(name: str) -> str:
    ticks = "".join(
        f'<span style="--s:{shade(tick):.2f}">{tick:g}{"+" if tick == DARKEST else ""}</span>' for tick in TICKS
    )
    return f'<div class="legend {name}">{ticks}</div>'


def _response(response: BoxedResponse, shown_tokens: int) -> str:
    cut = response.first(shown_tokens)
    notes = [f"{response.tokens:,} tokens"]
    if cut.shown < response.tokens:
        notes.append(f"the first {cut.shown:,} shown")
    if response.characters_cut:
        notes.append(f"{response.characters_cut:,} characters after the last judged token")
    heading = f"<h3>{response.name.capitalize()}<small>{', '.join(notes)}</small></h3>"
    text = "".join(_token(box) for box in cut.boxes)
    return f'<div class="{response.name}">{heading}<pre dir="auto">{text}</pre></div>'


def _token(box: Box) -> str:
    if not box.covered:
        return _shown(box.text)
    first, last = box.tokens
    which = f"token {first + 1}" if last - first == 1 else f"tokens {first + 1} to {last}"
    title = f"{which}: weight {box.weight:.5f}, {box.relative:.2f} × uniform"
    return f'<span style="--s:{shade(box.relative):.3f}" title="{title}">{_shown(box.text, "⏎")}</span>'


def _shown(text: str, new_line: str = "") -> str:
    lines = (escape(visible(line)) for line in text.replace("\r\n", "\n").split("\n"))
    return f"{new_line}\n".join(lines)
