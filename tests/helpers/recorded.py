"""Corpora of conversations, pairs and lines of text, written in a moment."""

import numpy as np

from tests.helpers import small_data, sound
from tml_jax.data import corpus
from tml_jax.streams import tokenizer
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  Word,
)


def call(name, *, seconds, talk=0.5):
  """User and agent take turns of a second for a share of the time."""
  silence = np.zeros(round(seconds * sound.RATE), np.float32)
  tone, tracks = sound.tone(talk), []
  for role, offset in ((Role.USER, 0.0), (Role.AGENT, 0.5)):
    audio, spans = silence.copy(), []
    for start in np.arange(offset, seconds - 1, 2.0):
      at = round(start * sound.RATE)
      audio[at : at + len(tone)] = tone
      spans.append(Span(float(start), float(start + talk)))
    words = tuple(Word(s.start, s.end, "yes") for s in spans)
    tracks.append(Track(role, audio, words, tuple(spans), name))
  return Timeline(id=name, duration=seconds, tracks=tuple(tracks))


def line(name, *, text):
  """Typed text and nothing else."""
  return Timeline(
    id=name,
    duration=0.2,
    tracks=(),
    events=(Event(0.0, EventKind.USER_TEXT, text),),
  )


def article(name, *, words):
  """A document of so many words."""
  text = " ".join(
    "a line of text that is typed".split()[i % 7] for i in range(words)
  )
  return Document(name, text, {"kind": "document"})


def write(root, **corpora):
  """Writes corpora by name, and a tokenizer."""
  for name, items in corpora.items():
    corpus.write(items, path=root / name)
  tokenizer.train(
    ["yes", "a line of text that is typed"],
    path=tokenizer.path(root),
    config=small_data.config().streams,
  )


def config(*mixture, **data):
  """Reads those corpora; no voices."""
  fields = dict(voices=mixture_voices(mixture), heldout_share=0.01) | data
  return small_data.config(mixture=mixture, **fields)


def mixture_voices(mixture):
  """`data.voices` as `prepare` would be given them."""
  return tuple(
    entry.rpartition(":")[0].replace("-", ":", 1) for entry in mixture
  )
