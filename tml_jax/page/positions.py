"""What each position of a packed sequence is.

For: counting and colouring sequences. Not for: the grammar itself
(`streams.frame`), by which they are read here. Start at `parts`.
"""

import enum

import numpy as np

from tml_jax.config import StreamsConfig
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import packing
from tml_jax.streams.batch import Batch
from tml_jax.streams.frame import Control, Frame, Kind


class Part(enum.IntEnum):
  """A part of a frame, a document, or nothing."""

  PADDING = 0
  TURN = 1
  OWN_AUDIO = 2
  USER_AUDIO = 3
  VIDEO = 4
  TEXT_IN = 5
  SAY = 6
  MESSAGE = 7
  DECISION = 8
  DOCUMENT = 9


NAMES = {
  Part.PADDING: "padding",
  Part.TURN: "<turn>",
  Part.OWN_AUDIO: "agent's sound",
  Part.USER_AUDIO: "user's sound",
  Part.VIDEO: "video",
  Part.TEXT_IN: "typed and results",
  Part.SAY: "say-text",
  Part.MESSAGE: "messages",
  Part.DECISION: "<speak>, <quiet>",
  Part.DOCUMENT: "documents",
}
# A class of the style sheet, and the same as red, green and blue for pictures.
COLOURS = {
  Part.PADDING: ("c-none", (200, 200, 200)),
  Part.TURN: ("c-black", (110, 110, 110)),
  Part.OWN_AUDIO: ("c-red", (213, 94, 0)),
  Part.USER_AUDIO: ("c-blue", (0, 114, 178)),
  Part.VIDEO: ("c-purple", (204, 121, 167)),
  Part.TEXT_IN: ("c-sky", (86, 180, 233)),
  Part.SAY: ("c-orange", (230, 159, 0)),
  Part.MESSAGE: ("c-yellow", (240, 228, 66)),
  Part.DECISION: ("c-green", (0, 158, 115)),
  Part.DOCUMENT: ("c-brown", (150, 110, 70)),
}
KINDS = {
  Kind.SAY: "say-text",
  Kind.MESSAGE: "messages",
  Kind.SILENCE: "silence: <quiet> after <quiet>",
  Kind.ONSET: "onset: the first <speak>",
  Kind.GOING_ON: "going on: <speak> after <speak>",
  Kind.STOP: "stop: the first <quiet>",
  Kind.TEXT: "documents",
}


def parts(sequence: Batch, *, config: StreamsConfig) -> np.ndarray:
  """[T] uint8 of `Part`.

  Args:
    sequence: one, without a leading dim.
    config: that it was packed with.

  Raises:
    ValueError: the tokens do not follow the grammar.
  """
  result = np.zeros(len(sequence.packed.segment_ids), np.uint8)
  at = 0
  for segment in packing.unpack(sequence, config=config):
    if isinstance(segment, packing.Text):
      stop = at + len(segment.tokens)
      result[at:stop] = Part.DOCUMENT
      at = stop
      continue
    for frame in segment:
      of_frame = _of_frame(frame, config=config)
      result[at : at + len(of_frame)] = of_frame
      at += len(of_frame)
  return result


def _of_frame(frame: Frame, *, config: StreamsConfig) -> list[Part]:
  layout, base = frame_lib.layout(frame, config=config), config.text_vocab_size
  inputs = {
    base + Control.TURN: Part.TURN,
    base + Control.OWN_AUDIO: Part.OWN_AUDIO,
    base + Control.USER_AUDIO: Part.USER_AUDIO,
    base + Control.VIDEO: Part.VIDEO,
  }
  decided = {Kind.SAY: Part.SAY, Kind.MESSAGE: Part.MESSAGE}
  perceived = layout.tokens[: layout.num_inputs]
  return [
    *(inputs.get(token, Part.TEXT_IN) for token in perceived),
    *(decided.get(kind, Part.DECISION) for kind in layout.kinds),
  ]
