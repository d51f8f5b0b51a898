"""The recordings of a corpus that belong to a split, as elements of a mixture.

For: `mixture`. Not for: how they are mixed. Start at `Subset`. Training takes a
long recording in stretches, each an element of its own, so that what is in
memory does not grow with the recording; everything else takes it whole.
"""

import dataclasses
from typing import Any

import numpy as np

from tml_jax import errors
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import splits
from tml_jax.data.augment import transform
from tml_jax.data.splits import Split
from tml_jax.streams import clock, framing
from tml_jax.streams.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Cut:
  """How long recordings are cut.

  Attributes:
    windows: of a stretch.
    past: windows before a later stretch that are there again in front of it.
    grid: of the windows.
    margin: seconds of sound before and behind a stretch that are read, too.
  """

  windows: int
  past: int
  grid: clock.Grid
  margin: float = 0.0


class Subset:
  """Elements of a corpus: recordings, their stretches, or documents.

  `Split.FRESH` would have to be new conversations, which a recorded corpus
  does not have: it is refused.

  Attributes:
    recordings: the corpus.
    seconds: [elements] of each, with the past of a stretch; 0 of a document.
    letters: [elements] of each document; 0 of a recording.
  """

  def __init__(
    self,
    recordings: corpus_lib.RecordSource,
    *,
    split: Split,
    share: float,
    dev: float = 0.0,
    cut: Cut | None = None,
  ):
    """Looks at the table of the corpus and reads no recording.

    Args:
      recordings: the corpus.
      split: the split.
      share: of the recordings that is held out.
      dev: of them that the dev split has.
      cut: of long recordings; all are whole where it is None.

    Raises:
      errors.UserError: nothing of the corpus is in the split.
    """
    if split == Split.FRESH:
      raise errors.UserError(
        f"{recordings!r} has recorded conversations, and none of them is "
        "new; evaluate it on its held-out recordings"
      )
    kept = splits.members(split, recordings.split_hash, share=share, dev=dev)
    if not len(kept):
      raise errors.UserError(
        f"{recordings!r} has no recording in the {split} split; add "
        "recordings or change data.heldout_share"
      )
    self.recordings, self._cut = recordings, cut
    seconds = recordings.seconds[kept]
    pieces = np.ones(len(kept), np.int64)
    if cut is not None:
      # As many windows as `Grid.num_windows` counts.
      length = cut.windows * cut.grid.ms / 1000
      pieces = np.maximum(1, np.ceil(seconds / length - 1e-9).astype(np.int64))
    self._kept = np.repeat(kept, pieces)
    self.letters: Any = recordings.letters[self._kept]
    first = np.repeat(np.cumsum(pieces) - pieces, pieces)
    self._piece = np.arange(len(self._kept)) - first
    self._pieces = np.repeat(pieces, pieces)
    self.seconds: Any = np.repeat(seconds, pieces)
    if cut is not None:
      begin = np.maximum(0, self._piece * cut.windows - cut.past)
      begin = begin * cut.grid.ms / 1000
      stop = (self._piece + 1) * length
      self.seconds = np.minimum(self.seconds, stop) - begin

  def __len__(self) -> int:
    return len(self._kept)

  def __getitem__(self, index: int) -> Any:
    """Element `index`: a Timeline, a Document or a `framing.Excerpt`."""
    stretch = self._stretch(index)
    number = int(self._kept[index])
    if stretch is framing.WHOLE:
      return self.recordings[number]
    assert self._cut is not None  # or there would be no stretches
    start, stop = stretch.seconds(self._cut.grid)
    margin = self._cut.margin
    timeline = self.recordings.stretch(
      number, start=start - margin, stop=stop + margin
    )
    return framing.Excerpt(timeline, stretch)

  def measured(self, index: int) -> transform.Measured:
    """The recording of element `index` where its levels are measured.

    Its sound is there and `Cut.margin` seconds around it, and silent elsewhere.
    """
    number = int(self._kept[index])
    margin = 0.0 if self._cut is None else self._cut.margin
    whole = self.recordings.outline(number)
    assert isinstance(whole, Timeline)  # a document has no level
    places = transform.places(whole)
    for place in places:
      start, stop = place.start - margin, place.end + margin
      part = self.recordings.stretch(number, start=start, stop=stop)
      span = slice(
        max(0, round(start * clock.SAMPLE_RATE)),
        round(stop * clock.SAMPLE_RATE),
      )
      for track, found in zip(whole.tracks, part.tracks, strict=True):
        track.audio[span] = found.audio[span]
    return transform.Measured(dataclasses.replace(whole, video=()), places)

  def outline(self, index: int) -> Any:
    """Element `index` without its sound and pictures, to be counted."""
    stretch = self._stretch(index)
    item = self.recordings.outline(int(self._kept[index]))
    if stretch is framing.WHOLE:
      return item
    assert isinstance(item, Timeline)  # a document has no stretches
    return framing.Excerpt(item, stretch)

  def _stretch(self, index: int) -> framing.Stretch:
    if self._cut is None or self._pieces[index] == 1:
      return framing.WHOLE
    piece, cut = int(self._piece[index]), self._cut
    is_last = piece + 1 == self._pieces[index]
    return framing.Stretch(
      first=piece * cut.windows,
      stop=None if is_last else (piece + 1) * cut.windows,
      past=cut.past if piece else 0,
    )

  def __repr__(self) -> str:  # Grain puts it in error messages
    return f"Subset({self.recordings!r})"
