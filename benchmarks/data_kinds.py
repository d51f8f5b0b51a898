"""Corpora of calls, of calls with video and of text, for one loader.

For: benchmarks.data. Not for: training. Start reading at `write`.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from experiments import pretrain
from tml_jax.config import Config
from tml_jax.data import corpus, source
from tml_jax.streams import tokenizer
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import Timeline, VideoFrame

MIXTURES = {
  "calls": ("made-calls:1",),
  "calls, video at 1 fps": ("made-video:1",),
  "text": ("made-text:1",),
  "all three": ("made-calls:1", "made-video:1", "made-text:1"),
}
_ROOT = pathlib.Path(__file__).parents[1]
_TEXTS = ("docs", "tml_jax", "tests")


def config(mixture: tuple[str, ...], *, workers: int) -> Config:
  """`pretrain.py:tiny_pretrain` with room for the video of a sequence."""
  tiny = pretrain.tiny_pretrain()
  return dataclasses.replace(
    tiny,
    streams=dataclasses.replace(tiny.streams, max_patches=288),
    data=dataclasses.replace(
      tiny.data,
      voices=("made:calls", "made:video", "made:text"),
      mixture=mixture,
      # One stream of groups of half an hour: four would be two hours of calls
      # until the first batch.
      logical_shards=1,
      workers=workers,
    ),
  )


def write(root: pathlib.Path) -> None:
  """What is missing beside `made-calls`; the tokenizer last."""
  if (root / tokenizer.FILENAME).exists():
    return
  streams = config(("made-calls:1",), workers=0).streams
  calls = corpus.RecordSource(root / "made-calls")
  size = (streams.video_height, streams.video_width)
  corpus.write(
    (_with_video(calls[i], size=size) for i in range(len(calls))),
    path=root / "made-video",
  )
  corpus.write(_texts(), path=root / "made-text")
  texts = {
    text
    for name in ("made-calls", "made-text")
    for text in corpus.RecordSource(root / name).texts()
  }
  tokenizer.train(sorted(texts), path=tokenizer.path(root), config=streams)


def _with_video(call: Timeline, *, size: tuple[int, int]) -> Timeline:
  """The call with a smooth picture every second."""
  y, x = np.mgrid[: size[0], : size[1]]

  def picture(time: int) -> np.ndarray:
    waves = [np.sin(x / 9 + time), np.sin(y / 7 - time), np.sin((x + y) / 11)]
    return (127 * (1 + np.stack(waves, axis=-1))).astype(np.uint8)

  times = range(int(call.duration))
  video = tuple(VideoFrame(float(time), picture(time)) for time in times)
  return dataclasses.replace(call, id=f"{call.id}/video", video=video)


def _texts() -> Iterator[Document]:
  """The text of this repository."""
  for folder in _TEXTS:
    opened = source.IMPORTERS["text"](
      str(_ROOT / folder), options={"ends": ".md,.py"}
    )
    for part in opened.parts():
      for item in opened.read(part):
        if not isinstance(item, source.BadRecording):
          yield dataclasses.replace(item, id=f"{folder}/{item.id}")
