"""Whole frames of several recordings in sequences of fixed shape; and back.

For: what the train step eats. Not for: batching or shuffling (`data.loader`).
Start reading at `pack`. A recording that fits one sequence is never cut; a
longer one is cut between frames and goes on as a segment of its own, its
clock running on.
"""

import dataclasses
import functools

import numpy as np

from tml_jax.config import StreamsConfig
from tml_jax.config import streams as streams_config
from tml_jax.streams import batch as batch_lib
from tml_jax.streams import clock
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.batch import Batch, Packed, Speech, Targets
from tml_jax.streams.frame import Control, Frame, Kind

_LIMITS = streams_config.LIMITS


def pack(
  recordings: list[list[Frame]], *, config: StreamsConfig
) -> list[Batch]:
  """First-fit packing, deterministic in the order of `recordings`.

  Returns:
    Sequences in the shapes of `empty_sequence`.

  Raises:
    ValueError: one frame exceeds a whole sequence; names the limit.
  """
  limits = np.array([getattr(config, name) for name in _LIMITS])
  bins: list[_Bin] = []
  for frames in recordings:
    placed = [_Placed.of(frame, config=config) for frame in frames]
    for piece in _cut(placed, limits):
      need = np.sum([each.cost for each in piece], axis=0)
      for candidate in bins:
        if (candidate.used + need <= limits).all():
          break
      else:
        candidate = _Bin(np.zeros_like(limits), [])
        bins.append(candidate)
      candidate.used += need
      candidate.segments.append(piece)
  return [_write(b, config=config) for b in bins]


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
    ),
    speech=Speech(
      positions=unused(c.max_speak),
      mel=weights(mel),
      weights=weights(c.max_speak),
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
      int(frame.speak),
      len(layout.kinds),
    )
    return cls(frame, layout, np.array(cost))


@dataclasses.dataclass
class _Bin:
  used: np.ndarray
  segments: list[list[_Placed]]


def _cut(placed: list[_Placed], limits: np.ndarray) -> list[list[_Placed]]:
  """Pieces that fit one sequence each; one piece wherever that is enough."""
  pieces, used, start = [], np.zeros_like(limits), 0
  for i, cost in enumerate(each.cost for each in placed):
    if (cost > limits).any():
      worst = int(np.argmax(cost - limits))
      raise ValueError(
        f"the frame of window {placed[i].frame.window} needs {cost[worst]} "
        f"where streams.{_LIMITS[worst]} allows {limits[worst]}; raise it"
      )
    if (used + cost > limits).any():
      pieces.append(placed[start:i])
      used, start = np.zeros_like(limits), i
    used = used + cost
  return [*pieces, placed[start:]] if placed else []


def _write(packed: _Bin, *, config: StreamsConfig) -> Batch:
  out, weights = empty_sequence(config), frame_lib.loss_weights(config)
  at = np.zeros_like(packed.used)
  for segment, piece in enumerate(packed.segments, start=1):
    origin = at[0]
    for placed in piece:
      _write_frame(placed, out, at, weights=weights)
      at += placed.cost
    span = slice(origin, at[0])
    out.packed.segment_ids[span] = segment
    out.packed.positions[span] = np.arange(at[0] - origin)
  return out


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


def unpack(sequence: Batch, *, config: StreamsConfig) -> list[list[Frame]]:
  """The frames of a packed sequence, one list per segment.

  Raises:
    ValueError: the tokens do not follow the grammar; names the position.
  """
  slots = _Slots.of(sequence)
  turn = frame_lib.token_id(Control.TURN, config=config)
  tokens, segments = sequence.packed.inputs.tokens, sequence.packed.segment_ids
  used = int((segments > 0).sum())
  starts = [*np.flatnonzero(tokens[:used] == turn).tolist(), used]
  recordings: dict[int, list[Frame]] = {}
  for start, stop in zip(starts[:-1], starts[1:], strict=True):
    frame = _read_frame(sequence, slots, start, stop, config=config)
    recordings.setdefault(int(segments[start]), []).append(frame)
  return list(recordings.values())


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
    slot = slots.speak[stop - 1]
    if sequence.speech.weights[slot] > 0:
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
