"""Parts of a page, with all that others wrote made harmless.

For: every file of this package. Not for: what is shown. Start at `page`. Texts
of recordings reach a page through `text` alone.
"""

import base64
import dataclasses
import hashlib
import html
import json
from collections.abc import Sequence
from typing import Any

from tml_jax.logs import transcript
from tml_jax.page import style

# Nothing is asked of the network, and no script runs but ours.
_POLICY = (
  "default-src 'none'; img-src data:; media-src data:;"
  " style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
)


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of a page that the list at its top leads to.

  Attributes:
    name: of it, plain text.
    body: HTML.
  """

  name: str
  body: str


def text(value: object) -> str:
  """Any text as HTML that shows it, on one line."""
  return html.escape(transcript.printable(str(value)))


def page(title: str, *, lead: str, sections: Sequence[Section]) -> str:
  """A whole page.

  Args:
    title: plain text.
    lead: HTML below the title.
    sections: in order.
  """
  digest = hashlib.sha256(style.SCRIPT.encode()).digest()
  policy = _POLICY.format(digest=base64.b64encode(digest).decode())
  links = "".join(
    f"<li><a href='#s{i}'>{text(section.name)}</a>"
    for i, section in enumerate(sections)
  )
  body = "\n".join(
    f"<section id=s{i} aria-labelledby=h{i}>"
    f"<h2 id=h{i}>{text(section.name)}</h2>\n{section.body}\n</section>"
    for i, section in enumerate(sections)
  )
  return (
    "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
    f'<meta http-equiv=Content-Security-Policy content="{policy}">'
    '<meta name=viewport content="width=device-width, initial-scale=1">'
    "<link rel=icon href='data:,'>"
    f"<title>{text(title)}</title>\n<style>{style.CSS}</style></head><body>\n"
    "<a class=skip href='#main'>To the content</a>"
    f"<header><h1>{text(title)}</h1>\n{lead}\n"
    f"<nav aria-label=Sections><ul>{links}</ul></nav></header>\n"
    f"<main id=main tabindex=-1>\n{body}\n</main>\n"
    f"<script>{style.SCRIPT}</script></body></html>\n"
  )


def table(
  head: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = ""
) -> str:
  """A table of texts and numbers; numbers stand on the right.

  Args:
    head: names of the columns; all empty for none.
    rows: a number, a text, or an `Html`, a cell.
    caption: plain text above it.
  """
  lines = ["<div class=scroll tabindex=0><table>"]
  if caption:
    lines.append(f"<caption>{text(caption)}</caption>")
  if any(head):
    cells = "".join(f"<th scope=col>{text(name)}</th>" for name in head)
    lines.append(f"<thead><tr>{cells}</tr></thead>")
  lines.append("<tbody>")
  for first, *others in rows:
    cells = "".join(map(_cell, others))
    lines.append(f"<tr><th scope=row>{_inner(first)}</th>{cells}</tr>")
  return "\n".join([*lines, "</tbody></table></div>"])


def facts(rows: Sequence[tuple[str, object]]) -> str:
  """Names and values, beside each other as far as there is room."""
  cells = "".join(
    f"<div><dt>{text(name)}</dt><dd>{_inner(value)}</dd></div>"
    for name, value in rows
  )
  return f"<dl class=facts>{cells}</dl>"


@dataclasses.dataclass(frozen=True)
class Html:
  """A cell that is HTML already."""

  code: str


def _cell(value: object) -> str:
  kind = " class=number" if isinstance(value, int | float) else ""
  return f"<td{kind}>{_inner(value)}</td>"


def _inner(value: object) -> str:
  return value.code if isinstance(value, Html) else text(number(value))


def number(value: object) -> str:
  """A number for people; a text as it is."""
  if isinstance(value, int):
    return f"{value:,}"
  if isinstance(value, float):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"
  return str(value)


def details(summary: str, *, body: str) -> str:
  """What opens on a click; `summary` is plain text, `body` HTML."""
  return f"<details><summary>{text(summary)}</summary>\n{body}\n</details>"


def data(value: Any) -> str:
  """JSON values for the script of the page."""
  code = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
  code = code.replace("<", "\\u003c").replace(">", "\\u003e")
  return f"<script type=application/json>{code}</script>"
