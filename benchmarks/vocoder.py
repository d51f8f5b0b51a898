"""Vocoders on held-out speech: distances, intelligibility, time.

`python -m benchmarks.vocoder --weights=RUN --data_dir=DIR [--count=40]
[--json=FILE]`: recorded mel of held-out prompts through Griffin-Lim (offline),
streaming phases without weights and the streaming network of `train_vocoder`.
Two voices: one that the network was trained on, with other prompts, and one of
a language it never heard. Writes the tables to benchmarks/vocoder.md. Needs
`pip install -e .[eval]`.

- STFT: multi-resolution distance to the recording (windows of 32, 64 and 128
  ms): mean error of log10 magnitudes in dB, floor -80 dB.
- PESQ (wide band, ITU-T P.862.2) and STOI (Taal et al., 2011): up is better.
- WER: words that pocketsphinx gets wrong, US English, its own model.
"""

import functools
import json
import pathlib
import re
import statistics
import sys
import time

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app, flags, logging

from benchmarks import timing
from tml_jax.config import flags as config_flags
from tml_jax.data.splits import Split
from tml_jax.evals import from_sound
from tml_jax.streams import clock, dmel
from tml_jax.training import trained
from tml_jax.vocoder import clips as clips_lib
from tml_jax.vocoder import trained as vocoders

_WEIGHTS = flags.DEFINE_string("weights", "", "Workdir of a trained vocoder.")
_COUNT = flags.DEFINE_integer("count", 40, "Prompts of each voice, at most.")
_VOICES = flags.DEFINE_list(
  "voices", ["asterisk:en", "asterisk:ru"], "The first one in English."
)
_REPORT = pathlib.Path(__file__).parent / "vocoder.md"
_SHARE = 0.1  # held out, as in the experiments
_ITERATIONS = 32  # of Griffin-Lim, as in the experiments
_SECONDS = (1.0, 10.0)  # of a prompt
_ROUNDS = 30
_COLUMNS = ("stft_db", "pesq", "stoi", "wer")


def prompts(voice: str):
  """Held-out prompts of whole windows, with their text."""
  import numpy as np

  found = clips_lib.of_voice(
    voice, data_dir=config_flags.data_dir(), split=Split.HELDOUT, share=_SHARE
  )
  low, high = (seconds * clock.SAMPLE_RATE for seconds in _SECONDS)
  kept = [item for item in found if low <= len(item[0]) <= high]
  return [
    (np.pad(audio, (0, -len(audio) % clock.TICKS.samples)), text)
    for audio, text in kept[: _COUNT.value]
  ]


def forms():
  """Renderers by name: the mel of each window to samples."""
  from tml_jax.vocoder import griffin_lim, stream

  network, variables = vocoders.load(_WEIGHTS.value)
  return {
    "Griffin-Lim, offline": functools.partial(
      griffin_lim.render, grid=clock.TICKS, iterations=_ITERATIONS, seed=0
    ),
    "phases, streaming": functools.partial(
      stream.render, grid=clock.TICKS, network=None, variables={}
    ),
    "network and phases, streaming": functools.partial(
      stream.render, grid=clock.TICKS, network=network, variables=variables
    ),
  }


def stft_db(sound, recording) -> float:
  """Mean over three resolutions of the mean error of log magnitudes."""
  import numpy as np

  def log(audio, window):
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    view = np.lib.stride_tricks.sliding_window_view(audio, window)
    spectrum = np.abs(np.fft.rfft(view[:: window // 4] * hann, axis=-1))
    return np.log10(np.maximum(spectrum * 2 / window, 1e-4))

  errors = [
    np.abs(log(sound, window) - log(recording, window)).mean()
    for window in (512, 1024, 2048)
  ]
  return 20 * float(np.mean(errors))


class Recogniser:
  """pocketsphinx with the model of its wheel."""

  def __init__(self):
    import pocketsphinx

    self._decoder = pocketsphinx.Decoder(
      samprate=clock.SAMPLE_RATE, loglevel="FATAL"
    )

  def words(self, sound) -> list[str]:
    import numpy as np

    pcm = np.round(np.clip(sound, -1, 1) * 32767).astype("<i2")
    # Half a second of quiet on both sides, as it expects of a microphone.
    pcm = np.pad(pcm, clock.SAMPLE_RATE // 2)
    self._decoder.start_utt()
    self._decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
    self._decoder.end_utt()
    heard = self._decoder.hyp()
    return heard.hypstr.split() if heard else []


def word_errors(heard: list[str], *, said: str) -> tuple[int, int]:
  """Edit distance in words, and how many words were said."""
  wanted = re.sub(r"[^a-z' ]+", " ", said.lower()).split()
  return from_sound.word_errors(heard, said=wanted), len(wanted)


def compare(voice: str, *, renderers, recogniser) -> list[dict[str, float]]:
  """One row for the recordings and one for each form."""
  import numpy as np
  import pesq
  import pystoi

  items = prompts(voice)
  logging.info("%s: %d prompts", voice, len(items))
  rows = []
  for name, render in {"the recording itself": None, **renderers}.items():
    scores, wrong, said = [], 0, 0
    for audio, text in items:
      mel = dmel.fine_mel(audio).reshape(-1, 16, clock.MEL_CHANNELS)
      sound = audio if render is None else render(list(mel))
      rate = clock.SAMPLE_RATE
      scores.append(
        (
          stft_db(sound, audio),
          pesq.pesq(rate, audio, sound, "wb"),
          pystoi.stoi(audio, sound, rate),
        )
      )
      if recogniser is not None:
        errors, words = word_errors(recogniser.words(sound), said=text)
        wrong, said = wrong + errors, said + words
    means = np.mean(scores, axis=0)
    row = dict(zip(_COLUMNS, map(float, means), strict=False))
    row |= {"wer": 100 * wrong / said} if said else {}
    rows.append({"voice": voice, "form": name, "prompts": len(items), **row})
    logging.info("%s", rows[-1])
  return rows


def speed() -> list[dict[str, float]]:
  """Milliseconds of CPU for one window of 1, 4 and 16 sessions, median.

  Of all threads together, so that other processes on the machine count little.
  """
  import jax
  import numpy as np

  from tml_jax.vocoder import stream

  network, variables = vocoders.load(_WEIGHTS.value)
  variables = jax.device_put(variables)
  forms = {
    "phases, streaming": (None, {}),
    "network and phases, streaming": (network, variables),
  }
  rows = []
  for name, (network, variables) in forms.items():
    row = {"form": name}
    for size in (1, 4, 16):
      mel = np.random.default_rng(0).normal(-2, 1, (size, 16, 80))
      state, times = stream.start(network, batch_size=size), []
      for _ in range(_ROUNDS + 2):
        begin = time.process_time()
        state, sound = stream.speak(
          state,
          mel.astype(np.float32),
          np.ones(size, bool),
          np.ones(size, bool),
          network=network,
          variables=variables,
        )
        sound.block_until_ready()
        times.append(time.process_time() - begin)
      row[f"ms_{size}"] = 1000 * statistics.median(times[2:])
    rows.append(row)
  return rows


def report(rows, *, times) -> str:
  """The tables as Markdown."""
  lines = [
    "# Vocoders",
    "",
    timing.made(),
    "",
    "`python -m benchmarks.vocoder`; recorded fine mel of held-out prompts,"
    " back to sound. The network was trained by `experiments/vocoder.py:small`"
    " and never heard the Russian voice; phases come from `vocoder/phases.py`"
    " in both streaming forms, 62.5 ms late.",
    "",
    "| voice | form | prompts | STFT dB | PESQ | STOI | WER % |",
    "|---|---|--:|--:|--:|--:|--:|",
  ]
  for r in rows:
    wer = f"{r['wer']:.1f}" if "wer" in r else "-"
    lines.append(
      f"| {r['voice']} | {r['form']} | {r['prompts']} | {r['stft_db']:.2f} |"
      f" {r['pesq']:.2f} | {r['stoi']:.3f} | {wer} |"
    )
  lines += [
    "",
    "| ms of CPU, all threads, for 200 ms of sound | 1 session | 4 | 16 |",
    "|---|--:|--:|--:|",
  ]
  for r in times:
    cells = " | ".join(f"{r[f'ms_{size}']:.1f}" for size in (1, 4, 16))
    lines.append(f"| {r['form']} | {cells} |")
  return "\n".join(lines) + "\n"


def main(argv) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"unknown argument {argv[1]!r}; flags only")
  trained.check(_WEIGHTS.value, flag="weights", command="train_vocoder")
  times = speed()
  rows, renderers = [], forms()
  for voice in _VOICES.value:
    recogniser = Recogniser() if voice == _VOICES.value[0] else None
    rows += compare(voice, renderers=renderers, recogniser=recogniser)
  text = report(rows, times=times)
  print(text)
  _REPORT.write_text(text, encoding="utf-8")
  if config_flags.JSON.value:
    pathlib.Path(config_flags.JSON.value).write_text(
      json.dumps({"rows": rows, "times": times}, indent=2) + "\n",
      encoding="utf-8",
    )


if __name__ == "__main__":
  app.run(main)
