"""Gaps and overlaps where the floor goes from one side to the other.

For: how people take turns in a corpus. Not for: how well an agent does
(`evals.metrics.floor`). Start at `transfers`.
"""

import dataclasses

from tml_jax.streams.timeline import Role, Timeline

# Pauses within an utterance: a stop consonant lasts as long. The threshold of
# Heldner and Edlund (2010).
JOINED = 0.18


@dataclasses.dataclass(frozen=True)
class Transfer:
  """A change of who has the floor.

  Attributes:
    offset: seconds from the end of one side to the begin of the other; below 0
      where both speak.
    to_agent: whether the agent takes it.
  """

  offset: float
  to_agent: bool


def transfers(timeline: Timeline) -> list[Transfer]:
  """All changes of the floor between the agent and others.

  Speech that ends within that of the other side is no change. Source: Heldner
  and Edlund, Pauses, gaps and overlaps in conversations, Journal of Phonetics
  38 (2010), section 2: gaps and between-speaker overlaps.
  """
  speech = sorted(
    (start, end, is_agent)
    for is_agent in (False, True)
    for start, end in _utterances(timeline, agent=is_agent)
  )
  result = []
  has: tuple[float, bool] | None = None  # until when, and who
  for start, end, is_agent in speech:
    if has is not None:
      until, by_agent = has
      if end <= until:
        continue
      if is_agent != by_agent:
        result.append(Transfer(start - until, is_agent))
    has = end, is_agent
  return result


def _utterances(
  timeline: Timeline, *, agent: bool
) -> list[tuple[float, float]]:
  """Speech of one side, with its short pauses."""
  spans = sorted(
    (span.start, span.end)
    for track in timeline.tracks
    if (track.role == Role.AGENT) == agent
    for span in track.spans
  )
  joined: list[tuple[float, float]] = []
  for start, end in spans:
    if joined and start - joined[-1][1] <= JOINED:
      joined[-1] = joined[-1][0], max(end, joined[-1][1])
    else:
      joined.append((start, end))
  return joined
