"""The streaming vocoder: equal to a whole run, in time, clean at the ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import vocoder as experiment
from tests.helpers import speech
from tml_jax.streams import clock, dmel
from tml_jax.vocoder import griffin_lim as offline
from tml_jax.vocoder import network as network_lib
from tml_jax.vocoder import phases, stream
from tml_jax.vocoder.config import VocoderModelConfig

CONFIG = VocoderModelConfig(
  width=16, depth=2, hidden=32, kernel=3, mel_mean=-2.0, mel_std=1.0
)


def _recording() -> np.ndarray:
  """A prompt of whole windows, [samples]."""
  clip = next(c for c in speech.clips() if len(c) > 1.5 * clock.SAMPLE_RATE)
  return clip[: len(clip) // clock.TICKS.samples * clock.TICKS.samples]


def _mel(audio: np.ndarray) -> np.ndarray:
  return dmel.fine_mel(audio).reshape(-1, 16, clock.MEL_CHANNELS)


def _network(kind: str):
  """None, or a network whose every parameter is random."""
  if kind == "without weights":
    return None, {}
  network = network_lib.Vocoder(CONFIG)
  shapes = jax.eval_shape(
    network.init,
    jax.random.key(0),
    *network_lib.example(CONFIG, batch_size=1, frames=1),
  )
  random = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: jnp.asarray(
      0.2 * random.standard_normal(leaf.shape), jnp.float32
    ),
    shapes,
  )
  return network, variables


KINDS = pytest.mark.parametrize("kind", ["without weights", "network"])


def _pieces():
  """Mel and sounds of two sessions, [2, 6 windows, 16, 80] and [2, 6].

  One talks all the time, one falls quiet and starts again.
  """
  mel_WNM = _mel(_recording())[:6]
  sounds_BW = np.array([[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 1]], bool)
  return np.stack([mel_WNM, mel_WNM[::-1]]), sounds_BW


@KINDS
def test_magnitudes_of_windows_equal_the_whole_utterance(kind):
  network, variables = _network(kind)
  mel_BWNM, sounds_BW = _pieces()
  sounds_BWN = np.repeat(sounds_BW[..., None], 16, axis=2)
  find = functools.partial(
    stream.magnitudes, network=network, variables=variables
  )
  begin = stream.start(network, batch_size=2).histories
  whole_BNF, _ = find(
    mel_BWNM.reshape(2, -1, 80), sounds_BWN.reshape(2, -1), begin
  )
  parts, histories = [], begin
  for k in range(6):
    part_BNF, histories = find(mel_BWNM[:, k], sounds_BWN[:, k], histories)
    parts.append(part_BNF)
  streamed_BNF = np.concatenate(parts, axis=1)
  assert streamed_BNF.max() > 1
  np.testing.assert_allclose(streamed_BNF, whole_BNF, rtol=1e-4, atol=1e-5)


@KINDS
def test_sound_of_windows_equals_the_whole_utterance(kind):
  network, variables = _network(kind)
  keywords = dict(network=network, variables=variables)
  find = jax.jit(functools.partial(stream.magnitudes, **keywords))
  mel_BWNM, sounds_BW = _pieces()
  state, parts = stream.start(network, batch_size=2), []
  histories, found = stream.start(network, batch_size=2).histories, []
  for k in range(6):
    sounds_BN = np.repeat(sounds_BW[:, k : k + 1], 16, axis=1)
    magnitudes_BNF, histories = find(mel_BWNM[:, k], sounds_BN, histories)
    found.append(magnitudes_BNF)
    state, sound_BS = stream.speak(
      state, mel_BWNM[:, k], sounds_BW[:, k], np.ones(2, bool), **keywords
    )
    parts.append(np.asarray(sound_BS))
  # All frames of all windows through the phases in one run.
  whole = jax.jit(
    lambda x: jax.lax.scan(phases.step, phases.start(batch_size=2), x)
  )
  _, hops_NBH = whole(jnp.moveaxis(jnp.concatenate(found, axis=1), 1, 0))
  sound = np.moveaxis(np.asarray(hops_NBH), 0, 1).reshape(2, -1)
  streamed = np.concatenate(parts, axis=1)
  assert np.abs(streamed).max() > 0.05
  np.testing.assert_array_equal(streamed, np.clip(sound, -1, 1))


@KINDS
def test_a_session_does_not_depend_on_its_neighbours(kind):
  network, variables = _network(kind)
  mel_NM, *others = _mel(_recording())[:3]

  def one_of(before, after):
    """The session behind `before` others and before `after`."""
    rows = before + 1 + after
    mel_BNM = np.stack([others[b % 2] for b in range(rows)])
    mel_BNM[before] = mel_NM
    sounds_B = np.arange(rows) % 3 > 0
    sounds_B[before] = True
    state = stream.start(network, batch_size=rows)
    keywords = dict(network=network, variables=variables)
    for _ in range(2):
      state, sound_BS = stream.speak(
        state, mel_BNM, sounds_B, np.ones(rows, bool), **keywords
      )
    return np.asarray(sound_BS[before])

  alone = one_of(0, 0)
  assert np.abs(alone).max() > 0.01
  for before, after in ((0, 2), (2, 0), (stream.TILE // 16 + 1, 3)):
    np.testing.assert_array_equal(alone, one_of(before, after))


@KINDS
def test_a_session_whose_clock_stands_still_keeps_its_state(kind):
  network, variables = _network(kind)
  keywords = dict(network=network, variables=variables)
  mels = _mel(_recording())[:3]

  def play(rests):
    state, sounds = stream.start(network, batch_size=2), []
    for mel_NM, rest in zip(mels, rests, strict=True):
      while True:
        state, sound_BS = stream.speak(
          state,
          np.stack([mels[2] if rest else mel_NM, mel_NM]),
          np.ones(2, bool),
          np.array([not rest, True]),
          **keywords,
        )
        if not rest:
          break
        rest -= 1
      sounds.append(np.asarray(sound_BS[0]))
    return np.concatenate(sounds)

  np.testing.assert_array_equal(play([0, 0, 0]), play([1, 0, 2]))


@KINDS
def test_silence_is_zero_and_a_sound_ends_within_the_delay(kind):
  network, variables = _network(kind)
  mels = [None, *_mel(_recording())[1:3], None, None]
  keywords = dict(network=network, variables=variables)
  keywords["grid"] = clock.TICKS
  sound = stream.render(mels, **keywords)
  assert sound.shape == (5 * clock.TICKS.samples,) and sound.dtype == np.float32
  windows = sound.reshape(5, -1)
  # A window reaches back: what sounds in the second begins in the first.
  past = phases.WINDOW - phases.HOP
  assert not windows[0, :-past].any()
  assert windows[1].any() and windows[2].any()
  assert not windows[3:].any()
  # It fades out and is not cut off.
  assert np.abs(sound[3 * clock.TICKS.samples - 8 :]).max() < 0.01
  assert not stream.render([None] * 2, **keywords).any()


@KINDS
def test_after_silence_a_sound_is_as_at_the_start(kind):
  network, variables = _network(kind)
  mels, keywords = list(_mel(_recording())[:2]), dict(variables=variables)
  sound = stream.render(
    [*mels, None, None, *mels],
    grid=clock.TICKS,
    network=network,
    **keywords,
  ).reshape(6, -1)
  np.testing.assert_allclose(sound[4:], sound[:2], atol=2e-5)


@pytest.mark.parametrize("ms", [50, 400])
def test_windows_of_other_lengths_sound_the_same(ms):
  grid, mel = clock.Grid(ms), _mel(_recording())
  cut = len(mel) // 2 * 2
  keywords = dict(network=None, variables={})
  want = stream.render(list(mel[:cut]), grid=clock.TICKS, **keywords)
  frames = mel[:cut].reshape(-1, grid.fine_frames, clock.MEL_CHANNELS)
  got = stream.render(list(frames), grid=grid, **keywords)
  np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_sound_is_in_time_and_has_the_mel_asked_for():
  audio = _recording()
  mel = _mel(audio)
  sound = stream.render(list(mel), grid=clock.TICKS, network=None, variables={})
  audible = mel > mel.max() - 3
  error = 20 * np.abs(_mel(sound) - mel)[audible].mean()
  assert error < 1.5  # dB
  late = np.roll(sound, clock.FINE_SAMPLES)
  assert error < 20 * np.abs(_mel(late) - mel)[audible].mean() / 2


def test_magnitudes_have_the_mel_asked_for_like_the_numpy_form():
  mel = _mel(_recording()).reshape(-1, clock.MEL_CHANNELS)
  smooth = network_lib.interpolate(jnp.asarray(mel))
  found = np.asarray(network_lib.fit(smooth, mel=jnp.asarray(mel)))
  for each in (found, offline.magnitudes(mel)):
    again = np.log10(each @ dmel.mel_filters(dmel.FINE_WINDOW))
    assert np.abs(20 * (again - mel)).max() < 0.5  # dB


def test_nothing_compiles_after_the_first_window():
  network, variables = _network("network")
  state = stream.start(network, batch_size=2)
  before = stream.speak._cache_size()
  for sounds in ([True, True], [False, True], [False, False]):
    state, _ = stream.speak(
      state,
      np.zeros((2, 16, 80), np.float32),
      np.array(sounds),
      np.ones(2, bool),
      network=network,
      variables=variables,
    )
  assert stream.speak._cache_size() <= before + 1


def test_the_small_experiment_is_small():
  config = experiment.get_config("small")
  shapes = jax.eval_shape(
    network_lib.Vocoder(config.model).init,
    jax.random.key(0),
    *network_lib.example(config.model, batch_size=1, frames=1),
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) < 2e6
