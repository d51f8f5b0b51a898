"""Two who talk change their roles.

For: `data.augment=swap:...`, calls between two people. Start at `Swap`.
"""

import dataclasses

import numpy as np

from tml_jax.data import options as options_lib
from tml_jax.data.augment import TRANSFORMS, transform
from tml_jax.streams import annotation
from tml_jax.streams.timeline import EventKind, Role, Timeline

_ROLES = {Role.USER: Role.AGENT, Role.AGENT: Role.USER}
_EVENTS = {
  EventKind.USER_TEXT: EventKind.SHOW,
  EventKind.SHOW: EventKind.USER_TEXT,
  EventKind.NOTE: EventKind.NOTE,
}


@TRANSFORMS.register("swap")
class Swap(transform.Transform):
  """Who was the user is the agent: sound, words, spans and written text.

  For recordings of two, of which nothing belongs to one of the roles alone: no
  tools or drawings, no camera, no microphone that is off, no annotations of
  what is asked of the agent, and no environment, which the user's microphone
  heard.
  """

  def __init__(self, options: options_lib.Options):
    pass

  def apply(
    self,
    timeline: Timeline,
    *,
    random: np.random.Generator,
    around: transform.Around,
  ) -> Timeline:
    why = _why_not(timeline)
    if why:
      raise transform.NotFor(why)
    return dataclasses.replace(
      timeline,
      tracks=tuple(
        dataclasses.replace(track, role=_ROLES[track.role])
        for track in timeline.tracks
      ),
      events=tuple(
        dataclasses.replace(event, kind=_EVENTS[event.kind])
        for event in timeline.events
      ),
    )


def _why_not(timeline: Timeline) -> str:
  """What belongs to one role alone; empty if nothing does."""
  if not transform.is_conversation(timeline):
    return "no conversation"
  roles = sorted(track.role for track in timeline.tracks)
  if roles != [Role.AGENT, Role.USER]:
    return f"tracks of {', '.join(roles) or 'nobody'}"
  alone = {e.kind for e in timeline.events} - _EVENTS.keys()
  if alone:
    return f"events of the kind {min(alone)}"
  if timeline.video:
    return "video"
  if timeline.muted:
    return "a microphone that is off"
  if timeline.metadata.get(annotation.KEY):
    return "annotations"
  return ""
