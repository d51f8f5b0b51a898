"""Every fault, planted in several sizes: measured, mended, skipped."""

import dataclasses

import numpy as np
import pytest

from benchmarks import planted
from tests.helpers import planted_calls
from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.mend import measures, options, stage
from tml_jax.data.mend.options import Check, Mending
from tml_jax.data.source import Reason
from tml_jax.streams import timeline
from tml_jax.streams.timeline import Role

ALL = Mending(mend=options.MENDS)


def applied(item, *, mending=options.DEFAULT):
  (result,) = stage.apply(planted.as_read(item), mending=mending)
  return result


def skipped(item, reason, *, number, unit=None):
  """It is skipped with a number near to this one; returns the text."""
  result = applied(item)
  assert isinstance(result, source.BadRecording) and result.reason is reason
  words = result.detail.replace(",", " ").split()
  found = []
  for word in words:
    try:
      found.append(float(word))
    except ValueError:
      pass
  assert any(abs(each - number[0]) <= number[1] for each in found), result
  assert unit is None or unit in result.detail
  return result.detail


def mended(item, *done):
  """What becomes of it; the mends must be these."""
  result = applied(item, mending=ALL)
  assert not isinstance(result, source.BadRecording), result
  assert result.done == done
  timeline.validate(result.item)
  assert not measures.faults(
    measures.of(result.item, mending=ALL),
    mending=ALL,
    duration=result.item.duration,
  )
  return result


def difference(found, item, role):
  """RMS of the difference of two tracks' sounds over that of the second, dB."""
  a, b = found.track(role).audio, item.track(role).audio
  count = min(len(a), len(b))
  error = a[:count].astype(float) - b[:count]
  power = np.square(b[:count].astype(float)).mean()
  return 10 * np.log10(np.square(error).mean() / power)


def word_error(found, item):
  """Median distance of the starts of words of two calls, in seconds."""
  starts = [
    [w.start for role in (Role.USER, Role.AGENT) for w in x.track(role).words]
    for x in (found, item)
  ]
  assert len(starts[0]) == len(starts[1])
  return float(np.median(np.abs(np.subtract(*starts))))


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("seconds", [30.0, 120.0])
def test_a_good_call_is_left_as_it_is(number, seconds):
  item = planted_calls.call(number, seconds=seconds)
  result = applied(item, mending=ALL)
  assert result.item is item and result.done == ()


def test_what_is_measured_of_a_good_call():
  values = applied(planted_calls.call(1, seconds=240.0)).values
  assert values[measures.SWAP] < -0.5
  assert values[measures.RATE] == 1
  assert abs(values[measures.WORDS_OFFSET]) < 0.05
  assert abs(values[measures.WORDS_DRIFT]) < 300
  assert values[measures.ECHO] == -80
  assert -30 < values[measures.LEVEL] < -10


def test_channels_that_are_swapped():
  item = planted_calls.call()
  bad = planted.swapped(item)
  detail = skipped(bad, Reason.SWAPPED, number=(0.9, 0.4))
  assert "--mend=swap" in detail
  found = mended(bad, "swap").item
  for track, right in zip(found.tracks, item.tracks, strict=True):
    np.testing.assert_array_equal(track.audio, right.audio)
    assert track == dataclasses.replace(right, audio=track.audio)


@pytest.mark.parametrize("late", [-3.0, -0.5, 0.5, 1.0, 5.0])
def test_words_that_are_late_or_early(late):
  item = planted_calls.call(seconds=180.0)
  bad = planted.words_moved(item, late=late)
  skipped(bad, Reason.OFFSET, number=(late, 0.05))
  found = mended(bad, "offset").item
  assert found.tracks[0].audio is item.tracks[0].audio
  # Words of the first seconds were cut at 0 when they were planted.
  assert len(found.track(Role.USER).words) > 0
  if abs(late) < 1:
    assert word_error(found, item) < 0.05


def test_few_words_tell_no_small_offset():
  """Those of a segment are wrong together, those of logs by a window."""
  for seconds, late in ((35.0, -0.45), (35.0, 0.45), (180.0, 0.3)):
    bad = planted.words_moved(planted_calls.call(seconds=seconds), late=late)
    assert applied(bad, mending=ALL).item is bad
  item = planted_calls.call(seconds=35.0)
  skipped(planted.words_moved(item, late=1.0), Reason.OFFSET, number=(1.0, 0.1))


@pytest.mark.parametrize("ppm", [-4000, 1500, 12_000])
def test_words_that_drift(ppm):
  item = planted_calls.call(seconds=300.0)
  bad = planted.words_moved(item, ppm=ppm)
  skipped(bad, Reason.DRIFTS, number=(ppm, 300), unit="words by")
  assert word_error(mended(bad, "drift").item, item) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize("ppm", [-450, 400])
def test_a_channel_that_drifts_with_bleed(ppm):
  """Bleed tells the drift to a few ppm."""
  item = planted.bled(planted_calls.call(seconds=300.0), level=-25, delay=0.05)
  bad = planted.user_moved(item, ppm=ppm)
  skipped(bad, Reason.DRIFTS, number=(ppm, 8), unit="channels by")
  mended(bad, "drift", "echo")
  drift = dataclasses.replace(ALL, mend=(Check.DRIFT,), check=(Check.DRIFT,))
  found = applied(bad, mending=drift).item
  slip = measures.of(found, mending=ALL).values[measures.CHANNEL_DRIFT]
  assert abs(slip) < 8


@pytest.mark.slow
def test_a_channel_that_drifts_without_bleed():
  """Words alone tell that the two channels differ."""
  item = planted_calls.call(seconds=300.0)
  bad = planted.user_moved(item, ppm=-2500)
  skipped(bad, Reason.DRIFTS, number=(-2500, 400), unit="channels by")
  assert word_error(mended(bad, "drift").item, item) < 0.05


@pytest.mark.parametrize("late", [-0.6, 0.35])
def test_a_channel_that_begins_later(late):
  """Bleed in both directions tells it to the millisecond."""
  item = planted_calls.call(seconds=180.0)
  for role in (Role.AGENT, Role.USER):
    item = planted.bled(item, level=-37, delay=0.03, source_role=role)
  bad = planted.user_moved(item, late=late)
  skipped(bad, Reason.OFFSET, number=(late, 0.01), unit="user's channel")
  found = mended(bad, "offset")
  assert abs(found.values[measures.CHANNEL_OFFSET] - late) < 0.003
  assert difference(found.item, item, Role.USER) < -10


@pytest.mark.parametrize("level", [-10.0, -20.0, -30.0])
@pytest.mark.parametrize("delay", [0.02, 0.35])
def test_echo_of_the_agent(level, delay):
  item = planted_calls.call()
  bad = planted.bled(item, level=level, delay=delay)
  skipped(bad, Reason.ECHO, number=(level, 4.0))
  result = mended(bad, "echo")
  assert abs(result.values[measures.ECHO_DELAY] - 1000 * delay) < 3
  assert result.values[measures.ERLE] > 10
  assert result.item.track(Role.AGENT) is bad.track(Role.AGENT)
  # What is left of the echo, against the user's own channel.
  assert difference(result.item, item, Role.USER) < -25


def test_echo_that_is_faint_is_no_fault():
  item = planted.bled(planted_calls.call(), level=-45, delay=0.1)
  result = applied(item)
  assert result.item is item


@pytest.mark.parametrize("role", [Role.USER, Role.AGENT])
def test_a_silent_channel(role):
  bad = planted.silent(planted_calls.call(), role)
  result = applied(bad, mending=ALL)
  assert result.reason is Reason.ONE_SILENT
  assert f"the {role}'s" in result.detail and "dBFS" in result.detail


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 16 / 22.05, 44.1 / 48, 1.5, 2.0])
def test_a_wrong_rate(factor):
  item = planted_calls.call()
  bad = planted.at_rate(item, factor=factor)
  skipped(bad, Reason.WRONG_RATE, number=(factor, 0.002))
  found = mended(bad, "rate").item
  assert found.duration == pytest.approx(item.duration, rel=1e-3)
  at = int(40 * 16_000)
  a = found.track(Role.USER).audio[at : at + 320_000]
  b = item.track(Role.USER).audio[at : at + 320_000]
  # Noise above the lower of the two rates is gone.
  assert np.corrcoef(a, b)[0, 1] > 0.9


@pytest.mark.parametrize(
  ("second", "name"),
  [
    (1e3, "milliseconds"),
    (1e6, "microseconds"),
    (16_000, "samples of 16000 Hz"),
    (44_100, "samples of 44100 Hz"),
  ],
)
def test_words_in_another_unit(second, name):
  item = planted_calls.call()
  bad = planted.in_units(item, second=second)
  result = applied(bad)
  assert result.reason is Reason.BROKEN_METADATA
  assert name in result.detail and "--mend=units" in result.detail
  assert word_error(mended(bad, "units").item, item) < 1e-6


def test_words_of_another_recording_are_not_mended():
  item = planted_calls.call(2)
  other = planted.in_units(planted_calls.call(3, seconds=300.0), second=1e3)
  bad = dataclasses.replace(
    item,
    tracks=tuple(
      dataclasses.replace(a, words=b.words)
      for a, b in zip(item.tracks, other.tracks, strict=True)
    ),
  )
  result = applied(bad, mending=ALL)
  assert result.reason is Reason.BROKEN_METADATA


@pytest.mark.slow
def test_several_faults_at_once():
  item = planted_calls.call(seconds=240.0)
  bad = planted.bled(item, level=-20, delay=0.1)
  bad = planted.words_moved(planted.swapped(bad), late=0.5)
  result = mended(bad, "swap", "offset", "echo")
  assert word_error(result.item, item) < 0.05


def test_what_cannot_be_measured_is_not_guessed():
  """Without words, and without bleed, there is nothing to measure by."""
  item = planted_calls.call()
  mute = dataclasses.replace(
    item, tracks=tuple(dataclasses.replace(t, words=()) for t in item.tracks)
  )
  values = applied(mute).values
  assert values.keys() == {measures.LEVEL, measures.ECHO}
  assert values[measures.ECHO] == -80
  short = dataclasses.replace(
    item,
    tracks=tuple(
      dataclasses.replace(t, words=t.words[:5]) for t in item.tracks
    ),
  )
  assert measures.SWAP not in applied(planted.swapped(short)).values


def test_only_what_is_asked_for_is_measured():
  bad = planted.swapped(planted_calls.call())
  assert applied(bad, mending=options.OFF).values == {}
  assert applied(bad, mending=options.OFF).item is bad
  echo = Mending(check=(Check.ECHO,))
  assert applied(bad, mending=echo).item is bad


def test_spans_that_came_with_words_move_with_them():
  item = planted_calls.call(seconds=180.0)
  given = dataclasses.replace(
    item,
    tracks=tuple(
      dataclasses.replace(
        t, spans=tuple(timeline.Span(w.start, w.end) for w in t.words[::2])
      )
      for t in item.tracks
    ),
  )
  bad = planted.words_moved(given, late=0.6)
  found = mended(bad, "offset").item
  for track, before in zip(found.tracks, bad.tracks, strict=True):
    shift = track.spans[3].start - before.spans[3].start
    assert shift == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize(
  ("make", "text"),
  [
    (lambda: options.checks(["ehco"]), "did you mean 'echo'"),
    (lambda: Mending(check=(), mend=(Check.ECHO,)), "add echo to --check"),
    (lambda: Mending(max_leakage_db=3.0), "--max_leakage_db=3: write a level"),
    (
      lambda: options.chosen(["silent"], among=options.MENDS, flag="--mend"),
      "--mend='silent'",
    ),
  ],
)
def test_flags_that_are_wrong(make, text):
  with pytest.raises(errors.UserError, match=text):
    make()


def test_the_text_tells_values_apart():
  texts = {
    str(each)
    for each in (
      options.DEFAULT,
      options.OFF,
      ALL,
      Mending(mend=(Check.ECHO,)),
      Mending(annotate=(options.Annotation.WORDS,)),
      Mending(annotate=(options.Annotation.WORDS,), recogniser="whisper:a"),
      Mending(max_leakage_db=-20.0),
    )
  }
  assert len(texts) == 7 and "" in texts


def test_a_side_with_two_tracks_is_not_measured():
  item = planted_calls.call(seconds=30.0)
  user, agent = item.tracks
  both = dataclasses.replace(item, tracks=(user, user, agent))
  assert measures.sides(both) == (agent,)
  assert measures.LEVEL not in applied(both).values


def test_words_that_are_too_late_for_a_check_that_is_off():
  """The sound is too short for its words, and nobody may measure its rate."""
  bad = planted.at_rate(planted_calls.call(seconds=60.0), factor=0.4)
  result = applied(bad, mending=Mending(check=(Check.ECHO,)))
  assert result.reason is Reason.BROKEN_METADATA
