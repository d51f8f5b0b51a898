"""Recordings and documents in sequences of fixed shape; and back.

For: what the train step eats. Not for: batching or shuffling (`data.loader`).
Start reading at `pack`. A recording that fits one sequence is never cut; a
longer one is cut between frames and goes on as a segment of its own, its clock
running on, with some of its past in front if that is asked for. A document is
cut wherever there is room.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from tml_jax.config import StreamsConfig
from tml_jax.config import streams as streams_config
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.batch import Batch, Packed, Speech, Targets
from tml_jax.streams.frame import Control, Frame, Kind

_LIMITS = streams_config.LIMITS
_SPEAK, _TARGET = _LIMITS.index("max_speak"), _LIMITS.index("max_targets")
# Targets of a piece of a document: with fewer, most have next to no past.
_LEAST = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
  """A document, or a piece of one, as tokens.

  Every token but the first is a target. In a sequence it is a segment of its
  own, whose positions and windows count its tokens from 0: nothing before it
  is seen, and where attention measures time a token takes a window, about as
  long as it would be spoken.

  Attributes:
    tokens: [n] int32: of a document `<document>`, its text, `<end>`; of a
      piece that goes on, the last token of the piece before it and what follows
      that.
  """

  tokens: np.ndarray

  @classmethod
  def of(cls, tokens: Sequence[int], *, config: StreamsConfig) -> "Text":
    """A whole document, from the tokens of its text."""
    begin = frame_lib.token_id(Control.DOCUMENT, config=config)
    end = frame_lib.token_id(Control.END, config=config)
    return cls(np.array([begin, *tokens, end], np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class Filled:
  """A sequence, and what it is made of.

  Attributes:
    sequence: in the shapes of `empty_sequence`.
    items: which item each segment is of, or is a piece of; segment 1 first.
  """

  sequence: Batch
  items: tuple[int, ...]


def pack(
  items: Sequence[list[Frame] | Text],
  *,
  config: StreamsConfig,
  sources: Sequence[int] = (),
  past: int = 0,
) -> list[Batch]:
  """The sequences of `fill`."""
  filled = fill(items, config=config, sources=sources, past=past)
  return [each.sequence for each in filled]


def fill(
  items: Sequence[list[Frame] | Text],
  *,
  config: StreamsConfig,
  sources: Sequence[int] = (),
  past: int = 0,
) -> list[Filled]:
  """Recordings first fit, then documents into what these leave.

  Deterministic in the order of `items`. Recordings are packed as if there were
  no documents. A document fills what is left of each sequence in turn, and is
  cut where it does not fit; no piece has fewer than `_LEAST` targets unless
  the document has.

  Args:
    items: frames of recordings, and documents.
    config: limits and weights.
    sources: the entry of the mixture of each item; none for all of the first.
    past: frames before a later piece of a recording that stand in front of it,
      at most, without a loss; they take no more than half of a sequence.

  Returns:
    Sequences; those of documents alone are spread evenly among the others.

  Raises:
    ValueError: one frame exceeds a whole sequence; names the limit.
  """
  limits = np.array([getattr(config, name) for name in _LIMITS])
  numbers = sources or [0] * len(items)
  bins: list[_Bin] = []
  for number, frames in enumerate(items):
    if isinstance(frames, Text):
      continue
    placed = [_Placed.of(frame, config=config) for frame in frames]
    for piece in _cut(placed, limits, past=past):
      need = np.sum([each.cost for each in piece], axis=0)
      for candidate in bins:
        if (candidate.used + need <= limits).all():
          break
      else:
        candidate = _Bin(np.zeros_like(limits), [])
        bins.append(candidate)
      candidate.used += need
      candidate.segments.append((number, piece))
  filled = list(bins)
  for number, text in enumerate(items):
    if isinstance(text, Text):
      _pour(text, filled, limits, item=number)
  alone = filled[len(bins) :]
  return [
    Filled(
      _write(each, config=config, sources=numbers),
      tuple(number for number, _ in each.segments),
    )
    for each in _spread(bins, alone)
  ]


def _pour(
  text: Text, bins: list["_Bin"], limits: np.ndarray, *, item: int
) -> None:
  """Puts a document into what `bins` have left, and into new ones."""
  whole = _room(np.zeros_like(limits), limits)
  least = max(1, min(_LEAST, whole // 2))
  start, last = 0, len(text.tokens) - 1
  for number in itertools.count():
    left = last - start
    if not left:
      break
    if number == len(bins):
      bins.append(_Bin(np.zeros_like(limits), []))
    candidate = bins[number]
    count = min(_room(candidate.used, limits), left)
    if count < left:  # the rest must not be too short
      count = min(count, left - least)
    if count < min(left, least):
      continue
    piece = text.tokens[start : start + count + 1]
    candidate.used += _text_cost(piece)
    candidate.segments.append((item, piece))
    start += count


def _room(used: np.ndarray, limits: np.ndarray) -> int:
  """Targets of a document for which there is still room."""
  left = dict(zip(_LIMITS, (limits - used).tolist(), strict=True))
  return min(left["seq_len"] - 1, left["max_targets"])


def _text_cost(tokens: np.ndarray) -> np.ndarray:
  return np.array([len(tokens), 0, 0, 0, len(tokens) - 1])


def _spread(first: list["_Bin"], second: list["_Bin"]) -> list["_Bin"]:
  """Both in their order, the second evenly among the first.

  Else batches would have conversations alone and then text alone.
  """
  places = [
    ((i + 0.5) / len(bins), each)
    for bins in (first, second)
    for i, each in enumerate(bins)
  ]
  return [each for _, each in sorted(places, key=lambda place: place[0])]


def empty_sequence(config: StreamsConfig) -> Batch:
  """A sequence of nothing but padding; also the shapes and types of one."""
  c = config
  zeros = functools.partial(np.zeros, dtype=np.int32)
  weights = functools.partial(np.zeros, dtype=np.float32)
  unused = functools.partial(np.full, fill_value=c.seq_len, dtype=np.int32)
  mel = (c.max_speak, clock.of(c).fine_frames, clock.MEL_CHANNELS)
  return Batch(
    packed=Packed(
      inputs=batch_lib.empty_inputs(
        (c.seq_len,),
        audio=c.max_audio,
        patches=c.max_patches,
        pad=frame_lib.token_id(Control.PAD, config=c),
      ),
      segment_ids=zeros(c.seq_len),
      positions=zeros(c.seq_len),
    ),
    targets=Targets(
      positions=unused(c.max_targets),
      tokens=zeros(c.max_targets),
      kinds=zeros(c.max_targets),
      weights=weights(c.max_targets),
      sources=zeros(c.max_targets),
    ),
    speech=Speech(
      positions=unused(c.max_speak),
      mel=weights(mel),
      weights=weights(c.max_speak),
      sources=zeros(c.max_speak),
    ),
  )


@dataclasses.dataclass(frozen=True)
class _Placed:
  """A frame, and what it takes of each of `_LIMITS`."""

  frame: Frame
  layout: frame_lib.Layout
  cost: np.ndarray

  @classmethod
  def of(cls, frame: Frame, *, config: StreamsConfig) -> "_Placed":
    layout = frame_lib.layout(frame, config=config)
    audio = (frame.own_dmel, frame.user_dmel)
    cost = (
      len(layout.tokens),
      sum(len(levels) for levels in audio if levels is not None),
      len(frame.patches),
      0 if frame.is_past else int(frame.speak),
      0 if frame.is_past else len(layout.kinds),
    )
    return cls(frame, layout, np.array(cost))

  def as_past(self) -> "_Placed":
    """The same without a loss."""
    cost = self.cost.copy()
    cost[[_SPEAK, _TARGET]] = 0
    frame = dataclasses.replace(self.frame, is_past=True)
    return _Placed(frame, self.layout, cost)


@dataclasses.dataclass
class _Bin:
  """A sequence to be: what it takes, and segments with their items."""

  used: np.ndarray
  segments: list[tuple[int, list[_Placed] | np.ndarray]]


def _cut(
  placed: list[_Placed], limits: np.ndarray, *, past: int
) -> list[list[_Placed]]:
  """Pieces that fit one sequence each; one piece wherever that is enough."""
  for each in placed:
    if (each.cost > limits).any():
      worst = int(np.argmax(each.cost - limits))
      raise ValueError(
        f"the frame of window {each.frame.window} needs {each.cost[worst]} "
        f"where streams.{_LIMITS[worst]} allows {limits[worst]}; raise it"
      )
  # A stretch of a recording brings its past.
  brought = next((i for i, p in enumerate(placed) if not p.frame.is_past), 0)
  pieces: list[list[_Placed]] = []
  piece = _before(placed, brought, limits, most=brought)
  used = np.sum([np.zeros_like(limits), *(each.cost for each in piece)], axis=0)
  for i in range(brought, len(placed)):
    if (used + placed[i].cost > limits).any():
      pieces.append(piece)
      piece = _before(placed, i, limits, most=past)
      used = np.sum(
        [np.zeros_like(limits), *(each.cost for each in piece)], axis=0
      )
    piece.append(placed[i])
    used = used + placed[i].cost
  return [*pieces, piece] if piece else []


def _before(
  placed: list[_Placed], number: int, limits: np.ndarray, *, most: int
) -> list[_Placed]:
  """The past of a frame: of at most half a sequence, with room for the frame.

  Args:
    placed: the frames of a recording.
    number: of the frame.
    limits: of a sequence.
    most: frames of the past.
  """
  if number == len(placed):
    return []
  room = np.minimum(limits // 2, limits - placed[number].cost)
  found: list[_Placed] = []
  used = np.zeros_like(limits)
  for each in reversed(placed[max(0, number - most) : number]):
    quiet = each.as_past()
    used = used + quiet.cost
    if (used > room).any():
      break
    found.append(quiet)
  return found[::-1]


def _write(
  packed: _Bin, *, config: StreamsConfig, sources: Sequence[int]
) -> Batch:
  out, weights = empty_sequence(config), frame_lib.loss_weights(config)
  at = np.zeros_like(packed.used)
  for segment, (item, piece) in enumerate(packed.segments, start=1):
    origin, before = at[0], at.copy()
    if isinstance(piece, np.ndarray):
      _write_text(piece, out, at, weight=weights[Kind.TEXT])
      at += _text_cost(piece)
    else:
      for placed in piece:
        _write_frame(placed, out, at, weights=weights)
        at += placed.cost
    speak, target = (slice(before[i], at[i]) for i in (_SPEAK, _TARGET))
    out.speech.sources[speak] = sources[item]
    out.targets.sources[target] = sources[item]
    span = slice(origin, at[0])
    out.packed.segment_ids[span] = segment
    out.packed.positions[span] = np.arange(at[0] - origin)
  return out


def _write_text(
  tokens: np.ndarray, out: Batch, at: np.ndarray, *, weight: float
) -> None:
  """Writes a piece of a document into `out`; see `_write_frame`."""
  position, target, count = at[0], at[_TARGET], len(tokens)
  out.packed.inputs.tokens[position : position + count] = tokens
  out.packed.inputs.windows[position : position + count] = np.arange(count)
  slots, targets = slice(target, target + count - 1), out.targets
  targets.positions[slots] = position + np.arange(count - 1)
  targets.tokens[slots] = tokens[1:]
  targets.kinds[slots] = Kind.TEXT
  targets.weights[slots] = weight


def _write_frame(
  placed: _Placed, out: Batch, at: np.ndarray, *, weights: np.ndarray
) -> None:
  """Writes one frame into `out`, of which `at` counts what is taken."""
  frame, layout = placed.frame, placed.layout
  position, audio, patch, speak, target = at.tolist()
  batch_lib.place_frame(
    out.packed.inputs,
    frame,
    tokens=layout.tokens,
    position=position,
    audio=audio,
    patch=patch,
  )
  if frame.is_past:
    return
  first, stop = position + layout.num_inputs, position + len(layout.tokens)
  targets, slots = out.targets, slice(target, target + stop - first)
  targets.positions[slots] = np.arange(first - 1, stop - 1)
  targets.tokens[slots] = layout.tokens[layout.num_inputs :]
  targets.kinds[slots] = layout.kinds
  targets.weights[slots] = weights[layout.kinds]
  if layout.kinds[-1] == Kind.ONSET:
    # Speech begins with the first token that is not <quiet>.
    targets.weights[target] = weights[Kind.ONSET]
  if frame.speak:
    out.speech.positions[speak] = stop - 1
    if frame.target_mel is not None:
      out.speech.mel[speak] = frame.target_mel
      out.speech.weights[speak] = 1.0


def unpack(
  sequence: Batch, *, config: StreamsConfig
) -> list[list[Frame] | Text]:
  """What a packed sequence holds: frames or text of each segment.

  Raises:
    ValueError: the tokens do not follow the grammar; names the position.
  """
  slots = _Slots.of(sequence)
  turn = frame_lib.token_id(Control.TURN, config=config)
  tokens, segments = sequence.packed.inputs.tokens, sequence.packed.segment_ids
  used = int((segments > 0).sum())
  if not used:
    return []
  edges = [0, *(np.flatnonzero(np.diff(segments[:used])) + 1).tolist(), used]
  result: list[list[Frame] | Text] = []
  for first, last in itertools.pairwise(edges):
    if tokens[first] != turn:
      result.append(Text(tokens[first:last]))
      continue
    starts = first + np.flatnonzero(tokens[first:last] == turn)
    frames = [
      _read_frame(sequence, slots, start, stop, config=config)
      for start, stop in itertools.pairwise([*starts.tolist(), last])
    ]
    result.append(frames)
  return result


@dataclasses.dataclass(frozen=True)
class _Slots:
  """Slots of a sequence by position."""

  audio: dict[int, int]
  patch: dict[int, int]
  speak: dict[int, int]

  @classmethod
  def of(cls, sequence: Batch) -> "_Slots":
    positions = (
      sequence.packed.inputs.audio_positions,
      sequence.packed.inputs.patch_positions,
      sequence.speech.positions,
    )
    return cls(*({int(p): i for i, p in enumerate(each)} for each in positions))


def _read_frame(
  sequence: Batch,
  slots: _Slots,
  start: int,
  stop: int,
  *,
  config: StreamsConfig,
) -> Frame:
  """Parses the tokens [start, stop) of one frame."""
  base, inputs = config.text_vocab_size, sequence.packed.inputs
  tokens = inputs.tokens[start:stop].tolist()
  cursor = 1

  def run(
    placeholder: Control, slot: dict[int, int], values: np.ndarray
  ) -> np.ndarray:
    nonlocal cursor
    first = cursor
    while cursor < len(tokens) and tokens[cursor] == base + placeholder:
      cursor += 1
    return values[[slot[p] for p in range(start + first, start + cursor)]]

  own = run(Control.OWN_AUDIO, slots.audio, inputs.audio_dmel)
  user = run(Control.USER_AUDIO, slots.audio, inputs.audio_dmel)
  patches = run(Control.VIDEO, slots.patch, inputs.patches)
  text_in, cursor = frame_lib.parse_bursts(
    tokens, start=cursor, channels=frame_lib.CHANNELS_IN, config=config
  )
  outputs = frame_lib.parse_outputs(tokens[cursor:], config=config)
  mel = None
  if outputs.speak:
    slot = slots.speak.get(stop - 1)  # none in the past
    if slot is not None and sequence.speech.weights[slot] > 0:
      mel = sequence.speech.mel[slot]
  return Frame(
    window=int(inputs.windows[start]),
    own_dmel=own if len(own) else None,
    user_dmel=user if len(user) else None,
    patches=patches,
    text_in=text_in,
    say=outputs.say,
    text_out=outputs.text_out,
    speak=outputs.speak,
    target_mel=mel,
  )
