"""Users unlike those of training: the same items, exactly as long as said."""

import functools
import pickle

import numpy as np
import pytest

from experiments import interaction
from tests.helpers import small_data
from tests.helpers.families import of
from tml_jax import errors
from tml_jax.data import corpus, scenarios
from tml_jax.data.corpus import coding
from tml_jax.data.scenarios import family, instructed, reply, turns
from tml_jax.data.scenarios import shift as shift_lib
from tml_jax.data.splits import Split
from tml_jax.data.voices import procedural
from tml_jax.streams import annotation, clock, timeline
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role

STREAMS = interaction.get_config("interactive").streams
COUNT = 4


class Other:
  """What the voices of the test data say, by another speaker."""

  def __init__(self, heard, *, but=()):
    self._heard, self._but = heard, but
    self._prompts = [
      p for p in sorted(procedural.phrases.PHRASES) if p not in but
    ]

  def __len__(self):
    return len(self._prompts)

  def __getitem__(self, index):
    prompt = self._prompts[index]
    return _spoken(prompt)


@functools.cache
def _spoken(prompt):
  text = procedural.phrases.PHRASES[prompt]
  return procedural.speak(text, variant="brisk", prompt=prompt)


@pytest.fixture(scope="module", name="voices")
def _voices(data_dir):
  return {
    v: corpus.RecordSource(data_dir / v.replace(":", "-"))
    for v in small_data.VOICES
  }


@pytest.fixture(scope="module", name="opened")
def _opened(voices):
  def open_family(name, shift=None):
    return scenarios.FAMILIES[name](
      voices,
      split=Split.HELDOUT,
      seed=0,
      heldout_share=0.1,
      length=100,
      video_size=family.VideoSize(STREAMS.video_height, STREAMS.video_width),
      shift=shift,
    )

  return open_family


SHIFTS = {
  "same": shift_lib.Shift(),
  "waits 0.6": shift_lib.Shift(waits=0.6),
  "waits 1.6": shift_lib.Shift(waits=1.6),
  "rate 0.85": shift_lib.Shift(rate=0.85),
  "rate 1.2": shift_lib.Shift(rate=1.2),
}


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_a_shift_that_changes_nothing_changes_nothing(name, opened):
  plain, same = opened(name), opened(name, SHIFTS["same"])
  for i in range(COUNT):
    assert coding.encode(same[i]) == coding.encode(plain[i])


@pytest.mark.parametrize("name", scenarios.FAMILIES)
@pytest.mark.parametrize("shift", ["waits 0.6", "waits 1.6", "rate 0.85"])
def test_the_script_stays(name, shift, opened):
  plain, shifted = opened(name), opened(name, SHIFTS[shift])
  for i in range(COUNT):
    before, after = plain[i], shifted[i]
    timeline.validate(after)
    assert after.id == before.id
    assert after.metadata["asked"] == before.metadata["asked"]
    assert after.metadata["noise"] == before.metadata["noise"]
    kinds = {Kind.BACKCHANNEL, Kind.VOCAL_TIC}  # as many as there is time for
    for old, new in zip(
      *(
        [a for a in annotation.of(item) if a.kind not in kinds]
        for item in (before, after)
      ),
      strict=True,
    ):
      assert (old.kind, old.call) == (new.kind, new.call)
      if not of(before, Kind.BARGE_IN):  # which cuts elsewhere
        assert old.text == new.text
      # The user's own times do not depend on where its windows lie.
      assert new.end <= after.duration + 1e-6


def test_pauses_are_as_much_longer(opened):
  for factor in (0.6, 1.6):
    shift, found = SHIFTS[f"waits {factor}"], 0
    plain, shifted = opened("turns"), opened("turns", shift)
    for i in range(2 * COUNT):
      pauses = of(plain[i], Kind.PAUSE)
      for old, new in zip(pauses, of(shifted[i], Kind.PAUSE), strict=True):
        length = old.end - old.start
        low, high = turns.THINKING
        assert low - 1e-4 <= length <= high + 1e-4
        sample = 1 / clock.SAMPLE_RATE
        assert new.end - new.start == pytest.approx(
          factor * length, abs=3 * sample
        )
        # Nobody speaks in it, and somebody does before and after.
        spans = shifted[i].track(Role.USER).spans
        assert any(abs(s.end - new.start) < 0.02 for s in spans)
        assert any(abs(s.start - new.end) < 0.02 for s in spans)
        found += 1
    assert found >= COUNT


def test_gaps_between_turns_are_as_much_longer(opened):
  """From where the agent is over to the user's next turn."""
  plain = opened("timed_reply")
  for factor in (0.6, 1.6):
    shifted, found = opened("timed_reply", SHIFTS[f"waits {factor}"]), 0
    for i in range(2 * COUNT):
      gaps = []
      for item in (plain[i], shifted[i]):
        first, *later = of(item, Kind.TIMED)
        for following in later:
          agent = item.track(Role.AGENT).spans
          over = max(s.end for s in agent if s.end < following.start)
          gaps.append(following.start - over)
      if gaps:
        assert gaps[1] == pytest.approx(factor * gaps[0], abs=0.02)
        found += 1
    assert found


@pytest.mark.parametrize("rate", [0.85, 1.2])
def test_the_user_speaks_at_the_rate(rate, opened):
  plain, shifted = opened("reply"), opened("reply", SHIFTS[f"rate {rate}"])
  for i in range(COUNT):
    before, after = plain[i], shifted[i]
    old, new = before.track(Role.USER), after.track(Role.USER)
    for track, other in ((old.words, new.words), (old.spans, new.spans)):
      for a, b in zip(track, other, strict=True):
        length = (a.end - a.start) / rate
        assert b.end - b.start == pytest.approx(length, abs=2e-4)
    assert [w.text for w in new.words] == [w.text for w in old.words]
    # The agent's speech is what it was, a whole number of windows elsewhere.
    agents = (before.track(Role.AGENT), after.track(Role.AGENT))
    heard = [
      [w for w in a.audio.reshape(-1, clock.TICKS.samples) if w.any()]
      for a in agents
    ]
    np.testing.assert_array_equal(*heard)
    for a in of(after, Kind.TURN):
      last = (round(a.end * clock.SAMPLE_RATE) - 1) // clock.TICKS.samples
      delay = a.due / clock.TICKS.seconds - last
      assert round(delay) == reply.PROMPT_DELAY + 1


@pytest.mark.slow
def test_somebody_else_says_the_same(opened, voices):
  shift = shift_lib.Shift(voices={"other": Other(voices)})
  plain, shifted = opened("reply"), opened("reply", shift)
  again = pickle.loads(pickle.dumps(opened("reply", SHIFTS["rate 1.2"])))
  assert again[0].id == plain[0].id
  for i in range(COUNT):
    before, after = plain[i], shifted[i]
    assert before.track(Role.USER).voice in small_data.VOICES
    assert after.track(Role.USER).voice == "other"
    assert after.track(Role.AGENT).voice == before.track(Role.AGENT).voice
    words = [w.text for w in after.track(Role.USER).words]
    assert words == [w.text for w in before.track(Role.USER).words]
    spoken = [_spoken(p) for p in after.metadata["asked"]]
    lengths = [round(s.end - s.start, 3) for s in after.track(Role.USER).spans]
    assert {round(s.duration, 3) for s in spoken} <= {*lengths}


def test_a_voice_that_cannot_is_named(opened, voices):
  lacking = Other(voices, but={instructed.FIRST})
  shifted = opened("barge_in", shift_lib.Shift(voices={"other": lacking}))
  with pytest.raises(
    errors.UserError, match="procedural:.*other lacks vm-first"
  ):
    shifted[0]
  spanish = type("Spanish", (Other,), {})(voices)
  entry = spanish[0]
  entry.metadata["language"] = "es"
  one = type(
    "One", (), {"__len__": lambda _: 1, "__getitem__": lambda *_: entry}
  )
  shifted = opened("reply", shift_lib.Shift(voices={"una": one()}))
  with pytest.raises(errors.UserError, match="una can speak .*'en'"):
    shifted[0]
