"""Sound and words for agents without a model, so that others can judge them.

`python -m tml_jax.evals.full_duplex_bench.mouth --held_by=echo --fdb_root=DIR
--data_dir=DATA --out=OUT` holds the clips of the benchmark with an agent of
`evals.agents`, and writes the `output.wav` and `output.json` that a model would
have left: wherever the agent sounds, a recorded voice is heard, which says
sentences one after the other. It ends with the table of `published`. Not for:
models (`suite`). Start at `speak`.

What the agent says has no meaning. Judges of Full-Duplex-Bench v1.0 count
words, and ask for none in particular.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from absl import flags

from tml_jax import errors, files
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.evals.full_duplex_bench import flags as fdb_flags
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.evals.full_duplex_bench import published, unheard
from tml_jax.evals.full_duplex_bench import suite as suite_lib
from tml_jax.evals.metrics import heard
from tml_jax.logs import ticks
from tml_jax.streams import clock
from tml_jax.streams.timeline import Timeline, Word

_HELD_BY = flags.DEFINE_string("held_by", "oracle", "Agent without a model.")
VOICE = "flite:awb"
_SHORTEST = 0.05  # seconds of a word that can be heard


@dataclasses.dataclass(frozen=True)
class Spoken:
  """What an agent says.

  Attributes:
    sound: [samples] float32, as long as the clip.
    words: in order, with the times at which they are heard.
  """

  sound: np.ndarray
  words: tuple[Word, ...]


def speak(log: ticks.Log, *, sentences: list[Timeline], samples: int) -> Spoken:
  """The agent's activity with the words of a voice.

  Each run begins a sentence; a long one goes on with the next, and is cut where
  it ends, words and all.
  """
  sound, words = np.zeros(samples, np.float32), []
  following = _endless(sentences)
  for run in heard.sounds(log):
    at = round(run.onset * clock.SAMPLE_RATE)
    stop = min(round(run.end * clock.SAMPLE_RATE), samples)
    while at < stop:
      track = next(following).tracks[0]
      part, start = track.audio[: stop - at], at / clock.SAMPLE_RATE
      sound[at : at + len(part)] = part
      for word in track.words:
        end = min(start + word.end, stop / clock.SAMPLE_RATE)
        if end - start - word.start > _SHORTEST:
          words.append(Word(float(start + word.start), float(end), word.text))
      at += len(track.audio)
  return Spoken(sound, tuple(words))


def _endless(sentences: list[Timeline]) -> Iterator[Timeline]:
  while True:
    yield from sentences


def write(
  root: str, *, agent: str, sentences: list[Timeline], out: str
) -> dict[str, ticks.Log]:
  """Holds every clip and writes its outputs below `out`.

  Args:
    root: of the benchmark; see `folders.open_root`.
    agent: one of `suite.FullDuplexBench.agents`.
    sentences: of the voice that is heard.
    out: folder of the outputs.

  Returns:
    The log of each clip, by its name.

  Raises:
    errors.UserError: no such agent, or the root cannot be used.
  """
  known = suite_lib.FullDuplexBench.agents
  if agent not in known:
    raise errors.UserError(
      f"--held_by={agent}: for clips there are {', '.join(known)}"
    )
  files.make(pathlib.Path(out), what=f"--out={out}")
  result = {}
  for clip in bench.open_root(root).clips:
    log = known[agent](clip.load())
    spoken = speak(log, sentences=sentences, samples=clip.num_samples)
    suite_lib.write_outputs(
      pathlib.Path(out) / clip.folder,
      clip=clip,
      sound=spoken.sound,
      words=list(spoken.words),
      provenance={"agent": agent},
    )
    result[clip.name] = log
  return result


def main(config: Config) -> None:
  out = config_flags.OUT.value
  if not out:
    raise errors.UserError("--out is missing: name a folder for the outputs")
  voices = unheard.open_voices(
    config_flags.data_dir(), share=config.data.heldout_share, names=(VOICE,)
  )
  found = write(
    fdb_flags.ROOT.value, agent=_HELD_BY.value, sentences=voices[VOICE], out=out
  )
  print(f"{len(found)} clips, held by {_HELD_BY.value}: {out}")
  print(published.table(published.measure(fdb_flags.ROOT.value, out=out)))


if __name__ == "__main__":
  config_flags.run(main, default="experiments/interaction.py:interactive")
