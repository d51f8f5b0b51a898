"""Subtitles, inside of a clip or in a file beside it, as text with times.

For: importers of video. Not for: pictures of text, as DVDs have them. Start at
`inside` and `parse` (SubRip's .srt and WebVTT's .vtt).
"""

import html
import re
from typing import BinaryIO

from tml_jax.data import calls, media, stored
from tml_jax.data.source import BadRecording, Reason

ENDS = ("srt", "vtt")
_TIME = re.compile(
  r"^\s*(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})\s*-->"
  r"\s*(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
)
# Tags of HTML, WebVTT and ASS, and what ASS writes for the end of a line.
_TAGS = re.compile(r"<[^<>]*>|\{[^{}]*\}|\\[Nnh]")


def inside(
  file: BinaryIO, *, name: str, limits: media.Limits
) -> list[calls.Said]:
  """The first stream of subtitles of a clip; nothing where there is none.

  Raises:
    BadRecording: the clip cannot be read.
  """
  return [
    calls.Said(start, end, _plain(text.decode("utf-8", "replace")))
    for start, end, text in media.subtitles_of_file(
      file, name=name, limits=limits
    )
  ]


def parse(data: bytes, *, name: str) -> list[calls.Said]:
  """What a file of subtitles says.

  Raises:
    BadRecording: it is not in UTF-8, or has no subtitle.
  """
  lines = stored.text(data, name=name).removeprefix("\ufeff").splitlines()
  found: list[calls.Said] = []
  times: tuple[float, float] | None = None
  text: list[str] = []
  for line in [*lines, ""]:
    match = _TIME.match(line)
    if match:
      times, text = _times(match), []
    elif times is not None and line.strip():
      text.append(line)
    elif times is not None:
      found.append(calls.Said(*times, _plain(" ".join(text))))
      times = None
  if not found:
    raise BadRecording(Reason.NO_TRANSCRIPT, f"{name} has no subtitle")
  return found


def _times(match: re.Match[str]) -> tuple[float, float]:
  def seconds(first: int) -> float:
    hours, minutes, whole, part = match.groups()[first : first + 4]
    value = int(hours or 0) * 3600 + int(minutes) * 60 + int(whole)
    return value + int(part) / 10 ** len(part)

  return seconds(0), seconds(4)


def _plain(text: str) -> str:
  return html.unescape(_TAGS.sub(" ", text)).strip()
