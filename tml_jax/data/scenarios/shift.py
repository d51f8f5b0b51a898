"""The same conversation with a user unlike those of training.

For: evaluations of what training has not seen (`evals.conditions`): other
voices, longer or shorter silences, another rate of speech. Not for: noise,
which needs no other timing, or training. Start reading at `Shift`.

`family.Family` first composes an item as it always does, and then again from
the same random numbers, with the same sentences. The agent's times follow the
user's, and so do all annotations: nothing is moved afterwards.
"""

import dataclasses
import zlib
from collections.abc import Mapping

from tml_jax import errors
from tml_jax.data import source, tempo
from tml_jax.data.scenarios import bank as bank_lib
from tml_jax.data.scenarios import catalogue
from tml_jax.streams.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Shift:
  """What differs from the conversations of training.

  Attributes:
    voices: corpora by name, of which one of the user's language speaks for the
      user; none for the user's own.
    waits: times as long are the silences that a user chooses (`Score.wait`).
    rate: times as fast the user speaks, at the same pitch.
  """

  voices: Mapping[str, source.Source] = dataclasses.field(default_factory=dict)
  waits: float = 1.0
  rate: float = 1.0

  def speaker(
    self, user: bank_lib.Bank, *, name: str, item: str
  ) -> "tuple[str, Shifted]":
    """Name and bank of who speaks for `user`, called `name`, in an item.

    Raises:
      errors.UserError: no voice speaks the user's language and can say all that
        the user can.
    """
    speaks = user
    if self.voices:
      found = [v for v in sorted(self.voices) if _can(self.voices[v], user)]
      if not found:
        raise errors.UserError(
          f"none of the voices {', '.join(sorted(self.voices))} can speak for"
          f" {name}: its language is {user.language!r}"
          + "".join(
            f"; {voice} lacks {', '.join(sorted(lacks)[:3])}"
            for voice, corpus in sorted(self.voices.items())
            if (lacks := _lacks(corpus, user))
          )
          + "; prepare them from the same transcripts (tml_jax.prepare"
          " --unheard)"
        )
      name = found[zlib.crc32(item.encode()) % len(found)]
      speaks = _opened(self.voices[name])
    return name, Shifted(
      user.recordings,
      user.language,
      user.prompts,
      user.words,
      speaks=speaks,
      rate=self.rate,
    )


@dataclasses.dataclass(frozen=True)
class Shifted(bank_lib.Bank):
  """A user's bank whose prompts are said in another way.

  Attributes:
    speaks: says them.
    rate: times as fast.
  """

  speaks: bank_lib.Bank
  rate: float

  def load(self, prompt: str) -> Timeline:
    return tempo.changed(self.speaks.load(prompt), rate=self.rate)


def _can(recordings: source.Source, user: bank_lib.Bank) -> bool:
  """Whether a corpus can speak for the user."""
  opened = _opened(recordings)
  return opened.language == user.language and not _lacks(recordings, user)


def _lacks(recordings: source.Source, user: bank_lib.Bank) -> set[str]:
  """What the user can say and a corpus cannot."""
  return (user.prompts.keys() | user.words.keys()) - (
    _opened(recordings).prompts.keys()
  )


def _opened(recordings: source.Source) -> bank_lib.Bank:
  """A corpus in which everything may be said; families have chosen it."""
  entries = catalogue.of(recordings)
  return bank_lib.Bank(
    recordings,
    entries[0].language.split("-")[0],
    {entry.prompt: i for i, entry in enumerate(entries)},
    {},
  )
