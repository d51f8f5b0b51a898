"""Levels, places and delays of what transforms of sound do."""

import dataclasses

import hypothesis
import numpy as np
import pytest
import scipy.signal
import soundfile
from hypothesis import strategies as st

from tests.helpers import augmenting, sound
from tml_jax import errors
from tml_jax.data.augment import codec, filters, transform
from tml_jax.streams.timeline import Role, Span, Timeline, Track

RATE = sound.RATE


def heard(timeline):
  return timeline.track(Role.USER).audio.astype(np.float64)


def active(timeline):
  """Which samples are speech of the user."""
  track = timeline.track(Role.USER)
  found = np.zeros(len(track.audio), bool)
  for span in track.spans:
    found[round(span.start * RATE) : round(span.end * RATE)] = True
  return found


def db(power):
  return 10 * np.log10(power)


@pytest.fixture(scope="module")
def noises(tmp_path_factory):
  """Two files of other rates, one of them soft."""
  folder = tmp_path_factory.mktemp("noises") / "a" / "b"
  folder.mkdir(parents=True)
  random = np.random.default_rng(0)
  for name, rate, level in (
    ("hiss.flac", 44_100, 0.1),
    ("hum.wav", 8000, 0.01),
  ):
    samples = level * random.standard_normal((3 * rate, 2))
    soundfile.write(folder / name, samples, rate)
  (folder / "LICENSE.txt").write_text("not a sound")
  return folder.parent


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(
  snr=st.floats(-5, 30), seed=st.integers(0, 2**31), coloured=st.booleans()
)
def test_noise_is_at_the_ratio_that_was_asked_for(noises, snr, seed, coloured):
  item = augmenting.call()
  snr = round(snr, 2)
  folder = {} if coloured else {"folder": noises}
  found = augmenting.apply("noise", item, seed=seed, snr=snr, **folder)
  noise, speech = heard(found) - heard(item), active(item)
  hypothesis.assume(np.abs(heard(found)).max() < 1)  # else it is clipped
  measured = db(
    np.square(heard(item)[speech]).mean() / np.square(noise[speech]).mean()
  )
  assert abs(measured - snr) < 0.1
  # It is there all the time, to the last sample.
  for part in np.array_split(noise, 20):
    assert np.square(part).mean() > 0.001 * np.square(noise).mean()


def test_noise_that_is_silent_during_speech_is_not_made_deafening(tmp_path):
  samples = np.zeros(20 * RATE)
  samples[18 * RATE :] = 0.5 * np.random.default_rng(0).standard_normal(
    2 * RATE
  )
  soundfile.write(tmp_path / "typing.wav", samples, RATE)
  item = augmenting.call(seconds=12.0)
  loudest = -np.inf
  for seed in range(12):
    found = augmenting.apply("noise", item, seed=seed, snr=10, folder=tmp_path)
    noise, speech = heard(found) - heard(item), active(item)
    loudest = max(loudest, np.square(noise).mean())
  # 10 dB above the mean of a loop that would be 10 dB below the speech.
  wanted = np.square(heard(item)[speech]).mean()
  assert db(loudest / wanted) < -10 + 10 + db(20 / 12) + 0.5


def test_a_loop_goes_on_without_a_click(tmp_path):
  times = np.arange(round(1.013 * RATE)) / RATE
  soundfile.write(
    tmp_path / "hum.flac", 0.3 * np.sin(2 * np.pi * 110 * times), RATE
  )
  item = augmenting.call()
  found = augmenting.apply("noise", item, snr=5, folder=tmp_path)
  noise = heard(found) - heard(item)
  steps = np.abs(np.diff(noise))
  assert steps.max() < 1.7 * np.percentile(steps, 99)


def test_gain_is_in_decibels():
  item = augmenting.call()
  found = augmenting.apply("gain", item, db=-6)
  for a, b in zip(item.tracks, found.tracks, strict=True):
    np.testing.assert_allclose(b.audio, a.audio * 10 ** (-6 / 20), rtol=1e-6)
  drawn = augmenting.apply("gain", item, db="-12..12")
  factors = [
    np.abs(b.audio).max() / np.abs(a.audio).max()
    for a, b in zip(item.tracks, drawn.tracks, strict=True)
  ]
  assert abs(db(factors[0] / factors[1])) > 0.1
  loud = augmenting.apply("gain", item, db=40)
  assert np.abs(heard(loud)).max() == 1


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(
  delay=st.integers(0, 500), loss=st.integers(0, 60), seed=st.integers(0, 99)
)
def test_an_echo_is_the_agent_later_and_softer(delay, loss, seed):
  item = augmenting.call()
  found = augmenting.apply("echo", item, seed=seed, delay=delay, loss=loss)
  agent = item.track(Role.AGENT).audio.astype(np.float64)
  shift = delay * RATE // 1000
  expected = np.zeros_like(agent)
  expected[shift:] = agent[: len(agent) - shift]
  total = heard(item) + expected * 10 ** (-loss / 20)
  np.testing.assert_allclose(heard(found), total.clip(-1, 1), atol=1e-6)


def far(timeline):
  """Clicks at the first word of each span, which are far apart."""
  tracks = []
  for track in timeline.tracks:
    starts = {s.start for s in track.spans}
    words = tuple(w for w in track.words if w.start in starts)
    tracks.append(dataclasses.replace(track, words=words))
  return augmenting.clicks(dataclasses.replace(timeline, tracks=tuple(tracks)))


# Samples by which a click may have moved. Speech coders at low rates code no
# single sample: their delay is measured below.
@pytest.mark.parametrize(
  ("name", "options", "within"),
  [
    ("speed", {"factor": 0.9}, 1),
    ("speed", {"factor": 1.085}, 1),
    ("speed", {"factor": "0.8..1.25"}, 1),
    ("band", {}, 0),
    ("g711", {"law": "mu"}, 1),
    ("g711", {"law": "a"}, 1),
    ("room", {"rt60": 0.5, "drr": 3}, 0),
    ("microphone", {"ripple": 6}, 0),
    ("noise", {"snr": 40}, 0),
    ("gain", {"db": -3}, 0),
    ("echo", {"loss": 20}, 0),
  ],
)
@hypothesis.settings(deadline=None, max_examples=6)
@hypothesis.given(seed=st.integers(0, 2**31), shift=st.integers(0, 4000))
def test_a_click_stays_at_the_start_of_its_word(
  name, options, within, seed, shift
):
  item = augmenting.call(seconds=10.0 + shift / RATE)
  item = far(item)
  found = augmenting.apply(name, item, seed=seed, **options)
  for track in found.tracks:
    assert track.words
    for word in track.words:
      at = word.start * RATE
      low = max(0, round(at) - 800)
      near = np.abs(track.audio[low : round(at) + 800])
      assert abs(low + near.argmax() - at) <= within + 0.5, word


def lag(a, b):
  """Samples by which `b` comes after `a`."""
  size = 1 << (len(a) + len(b)).bit_length()
  product = np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size))
  at = int(np.fft.irfft(product, size).argmax())
  return at - size if at > size // 2 else at


@pytest.mark.parametrize("kbps", [6, 12, 32, 64])
def test_the_delay_of_opus_is_taken_off(kbps):
  """Behind a joint of two blocks, too: they are coded apart."""
  item = augmenting.call(seconds=16.0, seed=kbps)
  found = augmenting.apply("opus", item, kbps=kbps)
  assert active(item)[11 * RATE :].any()
  for first, stop in ((0, 10), (10, 16)):
    part = slice(first * RATE, stop * RATE)
    delay = lag(heard(item)[part], heard(found)[part])
    assert abs(delay) <= 2 < RATE / 1000, delay
  assert not np.array_equal(heard(found), heard(item))


def test_more_bits_of_opus_are_nearer():
  item = augmenting.call()
  errors_ = [
    np.square(
      heard(augmenting.apply("opus", item, kbps=kbps)) - heard(item)
    ).mean()
    for kbps in (8, 24, 96)
  ]
  assert errors_[0] > errors_[1] > errors_[2]


def _expanded(code):
  """mu-law by the definition of G.711, table 2a: codes to 14 bits."""
  code = ~code & 0xFF
  sign, exponent, mantissa = code & 0x80, code >> 4 & 7, code & 15
  magnitude = ((mantissa << 1) + 33 << exponent) - 33
  return np.where(sign, -magnitude, magnitude) / 8192


def test_g711_holds_the_levels_of_the_standard():
  levels = np.unique(_expanded(np.arange(256)))
  random = np.random.default_rng(0)
  samples = (0.3 * random.standard_normal(5000)).clip(-0.97, 0.97)
  found = codec._companded(samples.astype(np.float32), law="ULAW")
  nearest = levels[np.abs(found[:, None] - levels).argmin(1)]
  np.testing.assert_allclose(found, nearest, atol=2e-4)
  # Less than a step: 1/16 of the segment of a level. libsndfile's rounding is
  # not always to the nearest; as noise it is 37 dB below.
  error = found - samples
  steps = np.abs(error) / (np.abs(samples) + 33 / 8192)
  assert steps.max() < 2 / 33
  assert db(np.square(samples).mean() / np.square(error).mean()) > 37


def test_g711_passes_the_band_of_a_telephone_alone():
  times = np.arange(4 * RATE) / RATE
  for frequency, passes in ((500, True), (3300, True), (4200, False)):
    tone = (0.5 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)
    track = Track(Role.USER, tone, (), (Span(0.0, 4.0),), "a")
    item = Timeline(id="t", duration=4.0, tracks=(track,))
    found = heard(augmenting.apply("g711", item))[RATE:-RATE]
    level = db(np.square(found).mean() / 0.125)
    assert abs(level) < 0.2 if passes else level < -40, frequency
    if passes:
      error = found - tone[RATE:-RATE]
      assert db(np.square(found).mean() / np.square(error).mean()) > 35


def test_a_band_is_what_it_says():
  taps = filters.band(300, 3400, taps=511, rate=RATE)
  frequencies, response = scipy.signal.freqz(taps, worN=8192, fs=RATE)
  level = 20 * np.log10(np.abs(response) + 1e-9)
  inside = (frequencies > 400) & (frequencies < 3300)
  outside = (frequencies < 200) | (frequencies > 3500)
  assert np.abs(level[inside]).max() < 0.1 and level[outside].max() < -60


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
  count=st.integers(1, 3000),
  taps=st.integers(1, 3000),
  first=st.integers(0, 100_000),
  seed=st.integers(0, 99),
  share=st.floats(0, 1),
)
def test_blocks_join_to_the_convolution(count, taps, first, seed, share):
  """Against numpy's, at any place of the recording."""
  random = np.random.default_rng(seed)
  x = random.standard_normal(count).astype(np.float32)
  h = random.standard_normal(taps)
  centre = int(share * (taps - 1))
  found = filters.convolve(x, taps=h, first=first, centre=centre)
  full = np.convolve(x.astype(np.float64), h.astype(np.float32))
  expected = full[centre : centre + count]
  scale = max(1.0, np.abs(full).max())
  np.testing.assert_allclose(found / scale, expected / scale, atol=2e-6)


@hypothesis.settings(deadline=None, max_examples=10)
@hypothesis.given(
  rt60=st.floats(0.2, 1.2), drr=st.integers(-3, 20), seed=st.integers(0, 999)
)
def test_a_drawn_room_decays_as_asked(rt60, drr, seed):
  """Schroeder's integral of the response that a click shows."""
  audio = np.zeros(2 * RATE, np.float32)
  audio[0] = 1.0
  track = Track(Role.USER, audio, (), (), "a")
  item = Timeline(id="r", duration=2.0, tracks=(track,))
  found = augmenting.apply("room", item, seed=seed, rt60=rt60, drr=drr)
  response = heard(found)
  assert abs(np.square(response).sum() - 1) < 1e-3
  measured = db(response[0] ** 2 / np.square(response[1:]).sum())
  assert abs(measured - drr) < 0.1
  energy = np.cumsum(np.square(response[40:])[::-1])[::-1]
  level = db(energy / energy[0] + 1e-12)
  first, last = np.argmax(level < -5), np.argmax(level < -25)
  assert abs((last - first) * 3 / RATE / rt60 - 1) < 0.2


@pytest.mark.parametrize("name", ["room", "microphone"])
def test_a_response_of_a_folder_has_its_peak_at_the_sound(name, tmp_path):
  random = np.random.default_rng(1)
  response = np.zeros(3000)
  response[500] = 0.8
  response[501:] = (
    0.1 * random.standard_normal(2499) * np.exp(-np.arange(2499) / 500)
  )
  response[450:500] = 0.02
  soundfile.write(tmp_path / "hall.wav", response, RATE, subtype="FLOAT")
  item = far(augmenting.call())
  found = heard(augmenting.apply(name, item, folder=tmp_path))
  kept = response[500:] if name == "room" else response[340:]
  kept = kept / np.sqrt(np.square(kept).sum())
  before = 0 if name == "room" else 160
  expected = np.convolve(heard(item), kept)[before:][: len(found)]
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("name", ["noise", "room", "microphone"])
def test_folders_are_looked_at_at_once(name, tmp_path):
  with pytest.raises(errors.UserError, match="there is no folder"):
    augmenting.made(name, folder=tmp_path / "none")
  with pytest.raises(errors.UserError, match="no file that ends with .wav"):
    augmenting.made(name, folder=tmp_path)
  (tmp_path / "a.wav").write_bytes(b"RIFF and no sound")
  with pytest.raises(errors.UserError, match="a.wav cannot be used"):
    augmenting.made(name, folder=tmp_path)


def test_noise_needs_speech_to_be_compared_with():
  item = augmenting.call()
  user, agent = item.tracks
  silent = dataclasses.replace(user, audio=np.zeros_like(user.audio))
  quiet = dataclasses.replace(user, spans=())
  for tracks in ((silent, agent), (quiet, agent), (agent,)):
    with pytest.raises(transform.NotFor):
      augmenting.apply("noise", dataclasses.replace(item, tracks=tracks))
