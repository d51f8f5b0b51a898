"""What a composed conversation has, from its track and its annotations."""

from tml_jax.streams import annotation, clock, framing
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role


def onsets(item) -> list[int]:
  """Windows in which the agent begins, from its track."""
  windows = framing.speech_windows(item.track(Role.AGENT), grid=clock.TICKS)
  return [w for w in windows if w - 1 not in windows]


def of(item, *kinds: Kind):
  return [a for a in annotation.of(item) if a.kind in kinds]
