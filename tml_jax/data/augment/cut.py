"""Agents who stop when they are interrupted.

For: `data.augment=cut:...`, calls between people, who talk on over each other.
Start at `Cut`.
"""

import dataclasses

import numpy as np

from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role, Span, Timeline, Track

_PAUSE = 0.5  # seconds of silence that end what the agent says at a time
_BEGUN = 0.5  # it has spoken so long, or both begin together
_FADE = clock.SAMPLE_RATE // 100


@TRANSFORMS.register("cut")
class Cut(transform.Transform):
  """The agent's speech ends `after` seconds into an interruption.

  An interruption is speech of the user of `least` seconds or more that begins
  while the agent is speaking; less is a backchannel. What the agent says up to
  its next pause of 0.5 s is taken out: sound, words and spans. A word that has
  begun stays in the text, as it was begun to be said. Where that would leave
  the agent silent for more than `rest` seconds after the user has ended, it
  stays as it was. The user's side and all times are not touched.
  """

  OPTIONS = {"least": "1", "after": "0.2..0.8", "rest": "3"}

  def __init__(self, options: options_lib.Options):
    self._least = options.number("least", low=0.1, high=60)
    self._after = options.range("after", low=0, high=5)
    self._rest = options.number("rest", low=0, high=3600)

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    agents = [
      (number, track)
      for number, track in enumerate(timeline.tracks)
      if track.role == Role.AGENT
    ]
    users = [t for t in timeline.tracks if t.role == Role.USER]
    if len(agents) != 1 or len(users) != 1:
      raise transform.NotFor("not one user and one agent")
    (number, agent), (user,) = agents[0], users
    gone = self._gone(agent, user=user, random=random)
    if not gone:
      raise transform.NotFor("no interruption")
    cut = transform.with_sound(
      agent, around=around, make=lambda x, first: _silenced(x, first, gone)
    )
    cut = dataclasses.replace(
      cut, words=_left(agent.words, gone), spans=_left(agent.spans, gone)
    )
    return transform.replaced(timeline, number, track=cut)

  def _gone(
    self, agent: Track, *, user: Track, random: np.random.Generator
  ) -> list[Span]:
    """What is taken out of the agent's speech, in order."""
    said: list[Span] = []
    for span in agent.spans:
      if said and span.start - said[-1].end < _PAUSE:
        said[-1] = Span(said[-1].start, span.end)
      else:
        said.append(span)
    gone: list[Span] = []
    for span in user.spans:
      at = span.start + self._after.draw(random)
      if span.end - span.start < self._least:
        continue
      for each in said:
        if not each.start + _BEGUN <= span.start <= at < each.end:
          continue
        if each.end > span.end + self._rest:
          continue
        if not gone or gone[-1].end <= at:
          gone.append(Span(at, each.end))
    return gone


def _left(
  times: tuple[transform.Timed, ...], gone: list[Span]
) -> tuple[transform.Timed, ...]:
  """Words or spans that begin before what is gone, ended where it begins."""
  result = []
  for each in times:
    within = [g for g in gone if g.start < each.end and each.start < g.end]
    if not within:
      result.append(each)
    elif each.start < within[0].start:
      result.append(dataclasses.replace(each, end=within[0].start))
  return tuple(result)


def _silenced(samples: np.ndarray, first: int, gone: list[Span]) -> np.ndarray:
  """Silent in these spans; the 10 ms before each fade."""
  result = samples.copy()
  for span in gone:
    begin = round(span.start * clock.SAMPLE_RATE) - first
    end = round(span.end * clock.SAMPLE_RATE) - first
    result[max(0, begin) : max(0, end)] = 0
    places = np.arange(max(0, begin - _FADE), min(len(result), max(0, begin)))
    result[places] *= ((begin - places) / _FADE).astype(np.float32)
  return result
