"""Pages read back, and recordings to show on them.

For: `tests/page`. Not for: browsers (`browser`). Start at `read`.
"""

import base64
import dataclasses
import hashlib
import html.parser
import re

import numpy as np

from tests.helpers import recorded, sound
from tml_jax.config import Config
from tml_jax.config import text as config_text
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)

HOSTILE = "</script><script>alert('\"&')</script>"
_VOID = {"meta", "link", "img", "br"}
# Ends that HTML lets one leave out.
_OPTIONAL = {"li", "dd", "dt"}


@dataclasses.dataclass
class Element:
  """A tag with its attributes and all text inside."""

  tag: str
  attributes: dict[str, str]
  text: str = ""


class _Reader(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.elements: list[Element] = []
    self.open: list[Element] = []

  def handle_starttag(self, tag, attrs):
    element = Element(tag, {name: value or "" for name, value in attrs})
    self.elements.append(element)
    if tag not in _VOID:
      self.open.append(element)

  def handle_startendtag(self, tag, attrs):
    self.elements.append(Element(tag, dict(attrs)))

  def handle_endtag(self, tag):
    while self.open[-1].tag != tag:
      assert self.open[-1].tag in _OPTIONAL, (self.open[-1], tag)
      self.open.pop()
    self.open.pop()

  def handle_data(self, data):
    for element in self.open:
      element.text += data


def read(text: str) -> list[Element]:
  """All elements of a page, in order; every tag is closed."""
  reader = _Reader()
  reader.feed(text)
  reader.close()
  assert not reader.open, reader.open
  return reader.elements


def rows(text: str) -> list[list[str]]:
  """The cells of all tables, a list a row."""
  found: list[list[str]] = []
  for element in read(text):
    if element.tag == "tr":
      found.append([])
    elif element.tag in ("td", "th"):
      found[-1].append(element.text)
  return found


def facts(text: str) -> dict[str, list[str]]:
  """Values of the lists of facts, by name."""
  found: dict[str, list[str]] = {}
  name = ""
  for element in read(text):
    if element.tag == "dt":
      name = element.text
    elif element.tag == "dd":
      found.setdefault(name, []).append(element.text)
  return found


def check_harmless(text: str) -> None:
  """One script runs, which the policy names; nothing else is asked for."""
  elements = read(text)
  runs = [
    e.text
    for e in elements
    if e.tag == "script" and e.attributes.get("type") != "application/json"
  ]
  (script,) = runs
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  (policy,) = (
    e.attributes["content"]
    for e in elements
    if e.attributes.get("http-equiv") == "Content-Security-Policy"
  )
  assert f"script-src 'sha256-{digest}'" in policy
  assert policy.startswith("default-src 'none'; ")
  for element in elements:
    assert element.tag not in ("iframe", "object", "embed", "base", "form")
    for name, value in element.attributes.items():
      assert not name.startswith("on"), element
      if name in ("src", "href", "xlink:href", "action", "poster"):
        assert re.match(r"data:|#", value), value[:99]
  assert "url(" not in text and "@import" not in text


def config(*mixture: str, **data) -> Config:
  """Of corpora whose video has 40 x 40 pixels."""
  made = recorded.config(*mixture, voices=("procedural:low",), **data)
  size = {"streams.video_height": 40, "streams.video_width": 40}
  return config_text.with_fields(made, size)


def talk(name, *, seconds=6.0, words=("hello",), video=0, events=()):
  """The user says the words from 0.5 s on, the agent from 2.5 s on.

  Args:
    name: id, and the name of both voices.
    seconds: duration.
    words: of both; each lasts 0.3 s.
    video: pictures of 40 x 40 pixels, one a second.
    events: typed by the user, one a second.
  """
  tracks = []
  for role, start in ((Role.USER, 0.5), (Role.AGENT, 2.5)):
    audio = np.zeros(round(seconds * sound.RATE), np.float32)
    tone = sound.tone(0.3 * len(words))
    at = round(start * sound.RATE)
    audio[at : at + len(tone)] = tone
    times = [start + 0.3 * i for i in range(len(words))]
    said = tuple(Word(t, t + 0.3, w) for t, w in zip(times, words, strict=True))
    span = Span(start, start + 0.3 * len(words))
    tracks.append(Track(role, audio, said, (span,), name))
  random = np.random.default_rng(0)
  return Timeline(
    id=name,
    duration=seconds,
    tracks=tuple(tracks),
    video=tuple(
      VideoFrame(float(t), random.integers(0, 255, (40, 40, 3), np.uint8))
      for t in range(video)
    ),
    events=tuple(
      Event(float(t), EventKind.USER_TEXT, text)
      for t, text in enumerate(events)
    ),
    metadata={"language": name, "licence": name, "title": name},
  )
