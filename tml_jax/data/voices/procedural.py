"""A formant voice in numpy: the default works where nothing is installed.

For: speech-like audio with exact word times, the same for everybody: letters
become phonemes, phonemes move three formants over the harmonics of a pitch
contour, fricatives and bursts are filtered noise. Not for: sounding natural;
spelling rules are a rough English. Start reading at `Voice`; deterministic
from (voice, text).
Source of the vowels' formants: Peterson and Barney (1952), table II, men.
"""

import dataclasses
import functools
import re
import zlib

import numpy as np

from tml_jax import errors
from tml_jax.data import source, utterance
from tml_jax.data.voices import phrases
from tml_jax.streams import clock
from tml_jax.streams.timeline import Span, Timeline, Word

_STEP = clock.SAMPLE_RATE // 200  # 5 ms between control points
_WORD_GAP = 12  # control points, 60 ms: does not split a span
_MAX_HARMONIC = 5200.0  # Hz
_BANDWIDTHS = np.array([80.0, 110.0, 170.0])  # Hz, of the three formants
_NOISE_BANDS = np.array([1200.0, 2200.0, 3600.0, 5600.0])  # Hz, centres


@dataclasses.dataclass(frozen=True)
class Speaker:
  """What makes a voice.

  Attributes:
    pitch: mean fundamental in Hz.
    formants: factor on all formants; above 1 is a shorter vocal tract.
    rate: factor on all durations.
    tilt: dB an octave by which harmonics fall.
    breath: level of aspiration under voiced sounds.
  """

  pitch: float
  formants: float
  rate: float
  tilt: float
  breath: float


SPEAKERS = {
  "low": Speaker(pitch=112.0, formants=1.00, rate=1.20, tilt=6.0, breath=0.004),
  "high": Speaker(
    pitch=205.0, formants=1.17, rate=1.15, tilt=7.0, breath=0.010
  ),
  "bright": Speaker(
    pitch=245.0, formants=1.24, rate=1.10, tilt=4.5, breath=0.006
  ),
  "dark": Speaker(pitch=95.0, formants=0.93, rate=1.30, tilt=8.0, breath=0.006),
  "breathy": Speaker(
    pitch=172.0, formants=1.10, rate=1.25, tilt=8.0, breath=0.020
  ),
  "brisk": Speaker(
    pitch=138.0, formants=1.05, rate=1.00, tilt=5.0, breath=0.002
  ),
}


@dataclasses.dataclass(frozen=True)
class Phoneme:
  """Targets of one sound; levels are relative to a vowel's."""

  milliseconds: float
  formants: tuple[float, float, float]
  voiced: float
  noise: float = 0.0
  band: int = 0  # of _NOISE_BANDS
  burst: bool = False  # closure first, then the noise


def _vowel(
  first: float, second: float, third: float, *, milliseconds: float = 110
) -> Phoneme:
  return Phoneme(milliseconds, (first, second, third), voiced=1.0)


_stop = functools.partial(Phoneme, burst=True)

PHONEMES = {
  "a": _vowel(730, 1090, 2440),
  "E": _vowel(660, 1720, 2410),
  "e": _vowel(530, 1840, 2480),
  "I": _vowel(390, 1990, 2550, milliseconds=85),
  "i": _vowel(270, 2290, 3010, milliseconds=130),
  "o": _vowel(570, 840, 2410, milliseconds=120),
  "U": _vowel(440, 1020, 2240, milliseconds=85),
  "u": _vowel(300, 870, 2240, milliseconds=125),
  "@": _vowel(640, 1190, 2390, milliseconds=80),
  "R": _vowel(490, 1350, 1690),
  "m": Phoneme(70, (250, 1000, 2200), voiced=0.30),
  "n": Phoneme(65, (250, 1600, 2500), voiced=0.30),
  "N": Phoneme(75, (250, 2100, 2600), voiced=0.28),
  "l": Phoneme(60, (360, 1150, 2700), voiced=0.50),
  "r": Phoneme(60, (330, 1250, 1600), voiced=0.50),
  "w": Phoneme(60, (290, 650, 2200), voiced=0.45),
  "y": Phoneme(55, (270, 2200, 2950), voiced=0.45),
  "v": Phoneme(60, (280, 1100, 2300), voiced=0.22, noise=0.05, band=3),
  "z": Phoneme(85, (280, 1600, 2500), voiced=0.18, noise=0.16, band=3),
  "D": Phoneme(50, (280, 1400, 2500), voiced=0.25, noise=0.04, band=3),
  "f": Phoneme(90, (340, 1100, 2300), voiced=0.0, noise=0.10, band=3),
  "s": Phoneme(100, (340, 1600, 2500), voiced=0.0, noise=0.30, band=3),
  "S": Phoneme(105, (340, 1800, 2500), voiced=0.0, noise=0.32, band=2),
  "T": Phoneme(85, (340, 1400, 2500), voiced=0.0, noise=0.07, band=3),
  "h": Phoneme(55, (500, 1500, 2500), voiced=0.0, noise=0.07, band=0),
  "p": _stop(80, (300, 900, 2200), voiced=0.0, noise=0.22, band=0),
  "t": _stop(80, (300, 1700, 2600), voiced=0.0, noise=0.28, band=3),
  "k": _stop(85, (300, 1900, 2300), voiced=0.0, noise=0.26, band=1),
  "b": _stop(70, (250, 900, 2200), voiced=0.12, noise=0.12, band=0),
  "d": _stop(65, (250, 1700, 2600), voiced=0.12, noise=0.16, band=3),
  "g": _stop(70, (250, 1900, 2300), voiced=0.12, noise=0.16, band=1),
}

# Longest spelling first. The right side is a string of phoneme symbols.
_SPELLINGS = {
  "tion": "S@n", "igh": "aI", "ough": "o", "eigh": "eI", "tch": "tS",
  "sh": "S", "ch": "tS", "th": "T", "ph": "f", "ng": "N", "ck": "k",
  "qu": "kw", "wh": "w", "ee": "i", "ea": "i", "oo": "u", "ou": "aU",
  "ow": "oU", "ai": "eI", "ay": "eI", "oa": "oU", "oi": "oI", "oy": "oI",
  "er": "R", "ir": "R", "ur": "R", "ar": "ar", "or": "or", "kn": "n",
  "a": "E", "b": "b", "c": "k", "d": "d", "e": "e", "f": "f", "g": "g",
  "h": "h", "i": "I", "j": "dS", "k": "k", "l": "l", "m": "m", "n": "n",
  "o": "o", "p": "p", "q": "k", "r": "r", "s": "s", "t": "t", "u": "@",
  "v": "v", "w": "w", "x": "ks", "y": "i", "z": "z",
}  # fmt: skip


class Voice:
  """One speaker saying every built-in phrase."""

  def __init__(self, variant: str):
    if variant not in SPEAKERS:
      raise errors.UserError(
        f"procedural:{variant}: no such voice; there are " + ", ".join(SPEAKERS)
      )
    self._variant = variant
    self._prompts = sorted(phrases.PHRASES.items())

  def __len__(self) -> int:
    return len(self._prompts)

  def __getitem__(self, index: int) -> Timeline:
    prompt, text = self._prompts[index]
    return speak(text, variant=self._variant, prompt=prompt)

  def stamp(self, index: int) -> str:
    return " ".join(self._prompts[index])


@source.register("procedural")
def open_voice(variant: str, *, settings: source.Settings) -> Voice:
  """The procedural voice `variant`; needs no files."""
  del settings
  return Voice(variant)


def speak(text: str, *, variant: str, prompt: str) -> Timeline:
  """Synthesises `text`; words and speech activity are exact."""
  speaker = SPEAKERS[variant]
  seed = zlib.crc32(f"{variant}|{text}".encode())
  random = np.random.Generator(np.random.Philox(seed))
  controls, word_points = _plan(text, speaker=speaker, random=random)
  samples = _render(controls, speaker=speaker, random=random)
  words = [
    Word(start * _STEP / clock.SAMPLE_RATE, end * _STEP / clock.SAMPLE_RATE, w)
    for (start, end), w in zip(word_points, text.split(), strict=True)
  ]
  samples = samples[word_points[0][0] * _STEP : word_points[-1][1] * _STEP]
  spans = [Span(0.0, len(samples) / clock.SAMPLE_RATE)]
  return utterance.timeline_of(
    utterance.normalise(samples, spans=spans),
    spans=spans,
    words=words,
    voice=f"procedural:{variant}",
    language="en",
    prompt=prompt,
    text=text,
  )


def phonemes(word: str) -> list[str]:
  """Symbols of `PHONEMES` for one word, by rough rules of English spelling."""
  letters = re.sub(r"[^a-z]", "", word.lower())
  letters = (
    re.sub(r"(?<=[a-z]{2})e$", "", letters) if len(letters) > 3 else (letters)
  )
  letters = re.sub(r"([bcdfglmnprst])\1", r"\1", letters)
  symbols: list[str] = []
  at = 0
  while at < len(letters):
    for length in (4, 3, 2, 1):
      spelling = letters[at : at + length]
      if len(spelling) == length and spelling in _SPELLINGS:
        symbols += _SPELLINGS[spelling]
        at += length
        break
  return symbols or ["@"]  # a word without Latin letters is one vowel


@dataclasses.dataclass(frozen=True)
class _Controls:
  """Curves every 5 ms (F control points, 3 formants, K noise bands)."""

  pitch_F: np.ndarray  # Hz
  formants_F3: np.ndarray  # Hz
  voiced_F: np.ndarray
  noise_FK: np.ndarray
  speech_F: np.ndarray  # 1 inside words, 0 outside


def _plan(
  text: str, *, speaker: Speaker, random: np.random.Generator
) -> tuple[_Controls, list[tuple[int, int]]]:
  """Control curves of `text` and the control points of its words."""
  formants: list[tuple[float, float, float]] = []
  voiced: list[float] = []
  noise: list[np.ndarray] = []
  speech: list[float] = []
  words: list[tuple[int, int]] = []
  for word in text.split():
    start = len(voiced)
    for i, symbol in enumerate(phonemes(word)):
      phoneme = PHONEMES[symbol]
      length = phoneme.milliseconds * speaker.rate * random.uniform(0.9, 1.1)
      points = max(4, round(length / 5))
      levels = np.full(points, phoneme.noise)
      if phoneme.burst:
        closure = 0 if i == 0 else round(0.6 * points)
        points = points - closure if i == 0 else points
        levels = np.zeros(points)
        levels[closure:] = phoneme.noise * np.linspace(1, 0.2, points - closure)
      bands = np.zeros((points, len(_NOISE_BANDS)))
      bands[:, phoneme.band] = levels
      formants += [phoneme.formants] * points
      voiced += [phoneme.voiced] * points
      noise += [bands]
      speech += [1.0] * points
    words.append((start, len(voiced)))
    formants += [formants[-1]] * _WORD_GAP
    voiced += [0.0] * _WORD_GAP
    noise += [np.zeros((_WORD_GAP, len(_NOISE_BANDS)))]
    speech += [0.0] * _WORD_GAP
  speech_F = np.array(speech)
  controls = _Controls(
    pitch_F=_pitch(words, count=len(voiced), speaker=speaker, random=random),
    formants_F3=_smooth(np.array(formants), width=9) * speaker.formants,
    voiced_F=_smooth(np.array(voiced), width=5) * speech_F,
    noise_FK=_smooth(np.concatenate(noise), width=3) * speech_F[:, None],
    speech_F=speech_F,
  )
  return controls, words


def _pitch(
  words: list[tuple[int, int]],
  *,
  count: int,
  speaker: Speaker,
  random: np.random.Generator,
) -> np.ndarray:
  """A falling line with an accent on each word and a little jitter; Hz."""
  line = np.linspace(1.10, 0.86, count)
  at = np.arange(count)
  for start, end in words:
    middle, width = start + 0.4 * (end - start), 0.3 * (end - start) + 1
    height = random.uniform(0.04, 0.16)
    line = line + height * np.exp(-0.5 * ((at - middle) / width) ** 2)
  jitter = _smooth(random.standard_normal(count), width=9) * 0.015
  return speaker.pitch * (line + jitter)


def _smooth(values: np.ndarray, *, width: int) -> np.ndarray:
  """Moving Hann average along axis 0, edges repeated."""
  kernel = np.hanning(width + 2)[1:-1]
  kernel /= kernel.sum()
  columns = values.reshape(len(values), -1)
  padded = np.pad(columns, ((width // 2, width // 2), (0, 0)), mode="edge")
  smooth = sum(
    weight * padded[i : i + len(columns)] for i, weight in enumerate(kernel)
  )
  return smooth.reshape(values.shape)


def _render(
  controls: _Controls, *, speaker: Speaker, random: np.random.Generator
) -> np.ndarray:
  """Sums shaped harmonics and noise bands; [n] float32, not levelled."""
  count = len(controls.pitch_F)
  times = np.arange(count * _STEP) / _STEP
  points = np.arange(count) + 0.5

  def at_samples(curve: np.ndarray) -> np.ndarray:
    return np.interp(times, points, curve)

  phase = 2 * np.pi * np.cumsum(at_samples(controls.pitch_F))
  phase /= clock.SAMPLE_RATE
  rotation = np.exp(1j * phase)
  turned = np.ones_like(rotation)
  audio = np.zeros(len(times))
  for k in range(1, int(_MAX_HARMONIC / controls.pitch_F.min()) + 1):
    turned *= rotation
    frequency_F = k * controls.pitch_F
    level_F = controls.voiced_F * _response(
      frequency_F, formants_F3=controls.formants_F3, tilt=speaker.tilt
    )
    level_F = level_F * (frequency_F < _MAX_HARMONIC)
    audio += at_samples(level_F) * turned.imag
  levels_FK = controls.noise_FK.copy()
  levels_FK[:, 1] += speaker.breath * controls.voiced_F
  spectrum = np.fft.rfft(random.standard_normal(len(times)))
  frequencies = np.fft.rfftfreq(len(times), 1 / clock.SAMPLE_RATE)
  for level_F, centre in zip(levels_FK.T, _NOISE_BANDS, strict=True):
    # Gaussian on a logarithmic axis, a third of an octave wide.
    octaves = np.log2(np.maximum(frequencies, 1.0) / centre)
    band = np.fft.irfft(
      spectrum * np.exp(-0.5 * (octaves / 0.35) ** 2), n=len(times)
    )
    audio += 3 * at_samples(level_F) * band / (band.std() + 1e-9)
  gate = np.repeat(controls.speech_F, _STEP)
  return (audio * _soften(gate)).astype(np.float32)


def _soften(gate: np.ndarray) -> np.ndarray:
  """Ramps of 2.5 ms inside the open parts of a 0/1 gate."""
  half = _STEP // 2
  kernel = np.full(half, 1 / half)
  closing = np.convolve(gate, kernel)[: len(gate)]
  opening = np.convolve(gate[::-1], kernel)[: len(gate)][::-1]
  return gate * np.minimum(closing, opening)


def _response(
  frequency_F: np.ndarray, *, formants_F3: np.ndarray, tilt: float
) -> np.ndarray:
  """Amplitude of a harmonic: source slope times three resonances."""
  slope = (np.maximum(frequency_F, 50.0) / 100.0) ** (-tilt / 6.02)
  ratio = frequency_F[:, None] / formants_F3
  width = ratio * _BANDWIDTHS / formants_F3
  gains = 1 / np.sqrt((1 - ratio**2) ** 2 + width**2)
  # The product falls by 12 dB an octave above each resonance; higher poles of
  # the vocal tract make up for it.
  return slope * gains.prod(axis=1) * (1 + (frequency_F / 1500.0) ** 2) ** 2
