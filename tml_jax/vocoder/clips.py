"""Pieces of prepared speech: what a vocoder is trained and tested on.

For: whole prompts of a split, and random pieces of them by step. Not for:
conversations (`mixture`). Start at `Clips`; `Loader` gives its pieces to the
train loop.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import source, splits, unheard
from tml_jax.streams import clock


def of_voice(
  voice: str,
  *,
  data_dir: str,
  split: splits.Split,
  share: float,
  dev: float = 0.0,
) -> list[tuple[np.ndarray, str]]:
  """Prompts of a voice in a split: samples at 16 kHz, and what is said."""
  folder = pathlib.Path(data_dir) / source.parse(voice).folder
  corpus = corpus_lib.RecordSource(folder)
  items = (corpus[i] for i in range(len(corpus)))
  return [
    (item.tracks[0].audio, item.metadata["text"])
    for item in items
    if splits.contains(split, item.metadata["prompt"], share=share, dev=dev)
  ]


class Clips:
  """Random pieces of many prompts, a pure function of the step.

  Attributes:
    identity: of the data; a resumed run must have the same.
  """

  def __init__(
    self,
    voices: tuple[str, ...],
    *,
    data_dir: str,
    split: splits.Split,
    share: float,
    seed: int,
    dev: float = 0.0,
  ):
    """Reads all prompts; two hours take 500 MB.

    Raises:
      errors.UserError: a voice is not prepared, or has no prompt in the split.
    """
    if split == splits.Split.TRAIN:
      unheard.refuse(voices, field="data.voices")
    self._split, self._seed = split, seed
    self._audio = []
    self.identity = {}
    for voice in voices:
      found = of_voice(
        voice, data_dir=data_dir, split=split, share=share, dev=dev
      )
      if not found:
        raise errors.UserError(
          f"{voice} has no prompt in split {split}; change data.heldout_share"
        )
      self._audio += [audio for audio, _ in found]
      path = pathlib.Path(data_dir) / source.parse(voice).folder
      self.identity[voice] = corpus_lib.read_index(path).digest
    lengths = np.array([len(audio) for audio in self._audio], float)
    self._odds = lengths / lengths.sum()
    self.seconds = lengths.sum() / clock.SAMPLE_RATE

  def batch(
    self, step: int, *, size: int, samples: int, gain_db: float
  ) -> np.ndarray:
    """Pieces [size, samples] float32 of step `step`.

    A prompt comes as often as it is long. Of a short one all is there, at a
    random place in silence. Each piece is up to `gain_db` louder or softer,
    as far as it does not clip.
    """
    random = splits.generator(
      family="clips", split=self._split, seed=self._seed, index=step
    )
    result = np.zeros((size, samples), np.float32)
    chosen = random.choice(len(self._audio), size=size, p=self._odds)
    for row, index in zip(result, chosen, strict=True):
      audio = self._audio[index]
      room = len(audio) - samples
      at = int(random.integers(min(room, 0), max(room, 0) + 1))
      piece = audio[max(at, 0) : max(at, 0) + samples]
      row[max(-at, 0) : max(-at, 0) + len(piece)] = piece
      gain = 10 ** (random.uniform(-gain_db, gain_db) / 20)
      row *= min(gain, 1.0 / max(float(np.abs(row).max()), 1e-3))
    return result


class Loader:
  """Batches of pieces, one step after the other (`task.Data`)."""

  def __init__(
    self,
    clips: Clips,
    *,
    rows: Sequence[int],
    size: int,
    samples: int,
    gain_db: float,
  ):
    """Starts at step 1.

    Args:
      clips: the prompts.
      rows: of the global batch, those of this process.
      size: pieces of a global batch.
      samples: of a piece.
      gain_db: pieces are played up to this much louder or softer.
    """
    self._clips, self._rows = clips, list(rows)
    self._keywords = dict(size=size, samples=samples, gain_db=gain_db)
    self._step = 0

  @property
  def identity(self) -> dict[str, Any]:
    return self._clips.identity

  def __next__(self) -> dict[str, np.ndarray]:
    """`audio` [rows, samples]; every process makes all rows and keeps its."""
    self._step += 1
    batch = self._clips.batch(self._step, **self._keywords)
    return {"audio": batch[self._rows]}

  def get_state(self) -> dict[str, Any]:
    return {"identity": self.identity, "shards": {"0": {"step": self._step}}}

  def set_state(self, state: dict[str, Any]) -> None:
    if state["identity"] != self.identity:
      raise errors.UserError(
        f"the checkpoint was trained on the voices {state['identity']} and"
        f" these are {self.identity}: give the --data_dir of its training, or"
        " another --workdir"
      )
    self._step = state["shards"]["0"]["step"]

  def close(self) -> None:
    """Nothing runs in the background."""
