"""What a model reads and is trained on: each array, with its shape, once.

For: the layout that packer, live tick, model and losses share, and
`place_frame`, which writes a frame into it. Not for: which tokens a frame has
(`frame`), or which frames share a sequence (`packing`). Start at `Inputs`.

Legend: T positions, A dMel tokens, P patches, N targets, S `<speak>` decisions
of F fine frames. Shapes are those of one sequence; a batch of B sequences or
sessions has B in front. A slot whose position is T is unused. NamedTuples are
pytrees of jax, whose arrays the model finds in them; nothing here needs it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tml_jax.streams import clock
from tml_jax.streams import patches as patches_lib
from tml_jax.streams.frame import Frame

# Of numpy on the host, of jax in what is traced.
Array = Any

OWN, USER = 0, 1  # values of `Inputs.audio_streams`


class Inputs(NamedTuple):
  """What is read at T positions.

  Attributes:
    tokens: [T] int32, placeholders where sound and patches go.
    windows: [T] int32, index of the window on the clock; in a document, which
      has no clock, that of the token (`packing.Text`).
    audio_dmel: [A, 80] uint8.
    audio_positions: [A] int32.
    audio_streams: [A] int32, `OWN` or `USER`.
    patches: [P, 2, 40, 40, 3] uint8.
    patch_positions: [P] int32.
  """

  tokens: Array
  windows: Array
  audio_dmel: Array
  audio_positions: Array
  audio_streams: Array
  patches: Array
  patch_positions: Array


class Packed(NamedTuple):
  """Recordings and documents, one after the other: what a forward pass takes.

  Attributes:
    inputs: of T positions.
    segment_ids: [T] int32, which recording or piece of a document, counted
      from 1; 0 for padding.
    positions: [T] int32, within the recording or the piece.
  """

  inputs: Inputs
  segment_ids: Array
  positions: Array


class Chunk(NamedTuple):
  """What B live sessions read at once.

  Attributes:
    inputs: of C positions, C in place of T.
    lengths: [B] int32, the valid positions of a row, which come first; 0 for a
      session that rests.
  """

  inputs: Inputs
  lengths: Array


class Targets(NamedTuple):
  """Tokens that the model decides.

  Attributes:
    positions: [N] int32, whose hidden state predicts the token.
    tokens: [N] int32.
    kinds: [N] int32, of `frame.Kind`.
    weights: [N] float32, of the loss; 0 where unused.
    sources: [N] int32, which entry of the mixture it is of, in their order.
  """

  positions: Array
  tokens: Array
  kinds: Array
  weights: Array
  sources: Array


class Speech(NamedTuple):
  """Sound of the windows after a `<speak>`.

  Attributes:
    positions: [S] int32, of the `<speak>`.
    mel: [S, F, 80] float32, log10.
    weights: [S] float32, 1 where there is a mel, else 0.
    sources: [S] int32, as `Targets` has them.
  """

  positions: Array
  mel: Array
  weights: Array
  sources: Array


class Batch(NamedTuple):
  """A packed sequence to train on, or B of them."""

  packed: Packed
  targets: Targets
  speech: Speech


def empty_inputs(
  shape: tuple[int, ...], *, audio: int, patches: int, pad: int
) -> Inputs:
  """Nothing but padding and unused slots.

  Args:
    shape: of the tokens, [T] or [B, T].
    audio: A.
    patches: P.
    pad: the token of padding.
  """
  *lead, length = shape
  pixels = (patches_lib.PAIR, patches_lib.PATCH, patches_lib.PATCH, 3)
  return Inputs(
    tokens=np.full(shape, pad, np.int32),
    windows=np.zeros(shape, np.int32),
    audio_dmel=np.zeros((*lead, audio, clock.MEL_CHANNELS), np.uint8),
    audio_positions=np.full((*lead, audio), length, np.int32),
    audio_streams=np.zeros((*lead, audio), np.int32),
    patches=np.zeros((*lead, patches, *pixels), np.uint8),
    patch_positions=np.full((*lead, patches), length, np.int32),
  )


def place_frame(
  inputs: Inputs,
  frame: Frame,
  *,
  tokens: list[int],
  position: int = 0,
  audio: int = 0,
  patch: int = 0,
) -> None:
  """Writes a frame into one sequence, behind what is there.

  Args:
    inputs: of the sequence, without leading dims; written in place.
    frame: whose sound and patches are placed.
    tokens: of the whole frame or of what is perceived (`frame.layout`,
      `frame.layout_inputs`).
    position: of its `<turn>`.
    audio: the first free slot for dMel.
    patch: the first free slot for patches.
  """
  stop = position + len(tokens)
  inputs.tokens[position:stop] = tokens
  inputs.windows[position:stop] = frame.window
  position += 1  # after <turn>
  for stream, levels in ((OWN, frame.own_dmel), (USER, frame.user_dmel)):
    if levels is not None:
      slots = slice(audio, audio + len(levels))
      stop = position + len(levels)
      inputs.audio_dmel[slots] = levels
      inputs.audio_positions[slots] = np.arange(position, stop)
      inputs.audio_streams[slots] = stream
      position, audio = stop, slots.stop
  count = len(frame.patches)
  slots = slice(patch, patch + count)
  inputs.patches[slots] = frame.patches
  inputs.patch_positions[slots] = np.arange(position, position + count)


def stack(sequences: Sequence[Batch], *, like: Batch) -> Batch:
  """Sequences as a batch; an array shorter than in `like` ends in zeros."""

  def one(arrays: Sequence[Any], want: Any) -> Any:
    if isinstance(want, tuple):
      return type(want)(*map(one, zip(*arrays, strict=True), want))
    out = np.zeros((len(arrays), *want.shape), want.dtype)
    for row, array in zip(out, arrays, strict=True):
      row[: len(array)] = array
    return out

  return one(sequences, like)
