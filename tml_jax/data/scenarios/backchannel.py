"""The scenario "backchannel": the user makes a sound, the agent goes on.

For: sounds that are no turn. Not for: speech of others (`side_talk`). Start
reading at `BackchannelScenario._compose`.

The user says "first" and a number, seven to nine, and the agent counts up to
it. Meanwhile the user says "received" or "thank you", hums or coughs, and the
agent goes on as if nothing had been said. It takes no notice of humming and
coughing in silence either. The rule of timing:

  reply onset window = window of the last sample of the question + 2
  and no other onset and no stop before its end

Split: by number, sounds and when they come, by hash.
"""

import numpy as np

from tml_jax.data.scenarios import family, instructed, sounds
from tml_jax.data.scenarios import score as score_lib
from tml_jax.streams import clock
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Timeline

UP_TO = (7, 9)
_TIC_SHARE = 0.25  # of what the user does meanwhile
_TIC_BEFORE = 0.4  # of items: one before the question
_FIRST_AFTER = (0.3, 0.8)  # seconds
_NEXT_AFTER = (0.8, 1.6)
_TIC_APART = (1.2, 1.8)  # seconds: no reply comes within 2 s of it
# Seconds that the agent speaks at least, after the end and the beginning of a
# sound: nobody takes its end for giving way.
_MARGIN, _GOES_ON = 0.3, 1.2


class BackchannelScenario(instructed.Instructed):
  """See the module; `family.Family` for the arguments."""

  name = "backchannel"
  needed = frozenset(
    [instructed.FIRST, *instructed.HEARD, *instructed.digits(*range(1, 10))]
  )

  def _compose(
    self, score: score_lib.Score, *, random: np.random.Generator
  ) -> None:
    """One long reply and what is not to stop it."""
    number, first = self._ours(
      score,
      lambda: (
        int(random.integers(UP_TO[0], UP_TO[1] + 1)),
        round(random.uniform(*_FIRST_AFTER), 2),
      ),
    )
    score.pause(instructed.LEAD, random=random)
    if random.random() < _TIC_BEFORE:
      self._tic(score, over=float("inf"), random=random)
      score.pause(_TIC_APART, random=random)
    start = self._instruct(
      score, instructed.FIRST, *instructed.digits(number), random=random
    )
    end, onset = score.cursor, score.quiet_window + instructed.REPLY_DELAY
    said = self._agent(score, *instructed.digits(*range(1, number + 1)))
    begins = score.onset(onset)
    over = score.speak(said, window=onset)
    score.annotate(
      Kind.TURN, start=start, end=end, onset=onset, until=over, said=said
    )
    score.cursor = round(begins + first * clock.SAMPLE_RATE)
    while self._meanwhile(score, over=over, random=random):
      score.pause(_NEXT_AFTER, random=random)
    score.cursor = over
    score.wait(instructed.BETWEEN, random=random)

  def _meanwhile(
    self, score: score_lib.Score, *, over: int, random: np.random.Generator
  ) -> bool:
    """The user makes a sound that ends well before `over`, if it does."""
    if random.random() < _TIC_SHARE:
      return self._tic(score, over=over, random=random)
    (word,) = self._user(score, family.choose(instructed.HEARD, random=random))
    return self._place(
      score, sound=word, kind=Kind.BACKCHANNEL, over=over, random=random
    )

  def _tic(
    self, score: score_lib.Score, *, over: float, random: np.random.Generator
  ) -> bool:
    make = sounds.hum if random.random() < 0.5 else sounds.cough
    tic = make(random=random)
    return self._place(
      score, sound=tic, kind=Kind.VOCAL_TIC, over=over, random=random
    )

  def _place(
    self,
    score: score_lib.Score,
    *,
    sound: Timeline,
    kind: Kind,
    over: float,
    random: np.random.Generator,
  ) -> bool:
    """The user makes a sound if it ends well before `over`; says whether."""
    needed = max(sound.duration + _MARGIN, _GOES_ON)
    if score.cursor + needed * clock.SAMPLE_RATE > over:
      return False
    start = score.cursor
    score.say(sound, gain_db=random.uniform(*instructed.GAIN_DB))
    score.annotate(kind, start=start, end=score.cursor)
    return True
