"""Agents of long micro-turns act at their boundaries, and know no future."""

import functools

import numpy as np
import pytest

from experiments import interaction
from tests.helpers import small_data
from tests.helpers.families import of, onsets
from tml_jax.data import corpus, scenarios
from tml_jax.data.scenarios import family
from tml_jax.data.splits import Split
from tml_jax.streams import clock, framing, timeline
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role


@pytest.fixture(scope="module", name="open_family")
def _open_family(data_dir):
  streams = interaction.tiny().streams
  voices = {
    v: corpus.RecordSource(data_dir / v.replace(":", "-"))
    for v in small_data.VOICES
  }

  @functools.cache
  def open_family(name, grid):
    return scenarios.FAMILIES[name](
      voices,
      split=Split.TRAIN,
      seed=0,
      heldout_share=0.1,
      length=10**6,
      video_size=family.VideoSize(streams.video_height, streams.video_width),
      grid=grid,
    )

  return open_family


@pytest.mark.parametrize("ms", [600, 800])
@pytest.mark.parametrize("name", ["barge_in", "correction"])
def test_an_agent_of_long_turns_falls_silent(name, ms, open_family):
  source, grid = open_family(name, clock.Grid(ms)), clock.Grid(ms)
  for i in range(40):
    item = source[i]
    windows = framing.speech_windows(item.track(Role.AGENT), grid=grid)
    for a in of(item, Kind.BARGE_IN):
      # It was speaking, hears at least two ticks, and is quiet for a window.
      assert grid.window_of(a.start) in windows
      later = range(grid.window_of(a.start + 0.4), windows[-1])
      assert any(w not in windows for w in later)


def test_an_agent_of_long_turns_is_heard_under_backchannels(open_family):
  source = open_family("backchannel", clock.Grid(800))
  for i in range(20):
    item = source[i]
    starts = [s.start for s in item.track(Role.AGENT).spans]
    for a in of(item, Kind.BACKCHANNEL):
      assert min(starts) < a.start


@pytest.mark.parametrize("ms", [400, 600, 800])
def test_an_agent_of_long_turns_has_read_what_it_says(ms, open_family):
  source, grid = open_family("typed", clock.Grid(ms)), clock.Grid(ms)
  for i in range(40):
    item = source[i]
    words = item.track(Role.AGENT).words
    after = 0.0
    for event in sorted(item.events, key=lambda event: event.time):
      text = event.text.split()
      starts = [
        words[k].start
        for k in range(len(words) - len(text) + 1)
        if [w.text for w in words[k : k + len(text)]] == text
        and words[k].start > max(after, event.time)
      ]
      after = starts[0]
      # Read in a frame before the one that sounds.
      assert grid.window_of(event.time) < grid.window_of(after)


@pytest.mark.parametrize("name", scenarios.FAMILIES)
def test_an_agent_of_long_turns_acts_at_their_boundaries(name, open_family):
  grid = clock.Grid(800)
  for i in range(4):
    item = open_family(name, grid)[i]
    timeline.validate(item)
    spans = item.track(Role.AGENT).spans
    assert all(
      a.end <= b.start + 1e-6
      for a, b in zip(spans[:-1], spans[1:], strict=True)
    )
    before = 0.0
    for span in spans:
      if span.start - before > 0.3:  # no pause of a recording
        late = span.start % grid.seconds
        # Recordings begin with up to 10 ms of silence.
        assert min(late, grid.seconds - late) < 0.011, (span, spans)
      before = span.end
    if name in ("reply", "timed_reply", "turns"):
      # Never before it is due: too little would have been heard.
      starts = np.array(onsets(item)) * clock.TICKS.seconds
      for a in of(item, Kind.TURN, Kind.TIMED):
        waits = starts - a.due
        assert ((waits > -1e-6) & (waits < grid.seconds)).any()
