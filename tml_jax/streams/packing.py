"""Whole frames of several recordings in sequences of fixed shape; and back.

For: what the train step eats. Not for: batching or shuffling (`data.loader`).
Start reading at `pack`. A recording that fits one sequence is never cut; a
longer one is cut between frames and goes on as a segment of its own, its
clock running on. Arrays: T positions, A dMel tokens, P patches, S `<speak>`
decisions of F fine frames, N targets; a slot whose position is T is unused.
"""

import dataclasses
import functools

import numpy as np

from tml_jax.config import StreamsConfig
from tml_jax.config import streams as streams_config
from tml_jax.streams import clock
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import patches as patches_lib
from tml_jax.streams.frame import Control, Frame, Kind

OWN, USER = 0, 1  # values of audio_streams
_LIMITS = streams_config.LIMITS


def pack(
  recordings: list[list[Frame]], *, config: StreamsConfig
) -> list[dict[str, np.ndarray]]:
  """First-fit packing, deterministic in the order of `recordings`.

  Returns:
    Sequences with the arrays of `empty_sequence`.

  Raises:
    ValueError: one frame exceeds a whole sequence; names the limit.
  """
  limits = np.array([getattr(config, name) for name in _LIMITS])
  bins: list[_Bin] = []
  for frames in recordings:
    placed = [_Placed(f, frame_lib.layout(f, config=config)) for f in frames]
    costs = np.array([p.cost for p in placed]).reshape(-1, len(_LIMITS))
    for piece in _cut(placed, costs, limits):
      need = sum((p.cost_array for p in piece), np.zeros_like(limits))
      for candidate in bins:
        if (candidate.used + need <= limits).all():
          break
      else:
        candidate = _Bin(np.zeros_like(limits), [])
        bins.append(candidate)
      candidate.used += need
      candidate.segments.append(piece)
  return [_write(b, config=config) for b in bins]


def empty_sequence(config: StreamsConfig) -> dict[str, np.ndarray]:
  """A sequence of nothing but padding; also the shapes and types of one.

  Returns:
    tokens, segment_ids (0 = padding), positions (within the segment),
    windows [T] int32; audio_dmel [A, 80] uint8, audio_positions,
    audio_streams [A] int32 (0 own, 1 user); patches [P, 2, 40, 40, 3] uint8,
    patch_positions [P] int32; target_positions (whose hidden state predicts),
    targets, target_kinds [N] int32, target_weights [N] float32;
    speak_positions [S] int32, speak_mel [S, F, 80] float32 (log10),
    speak_weights [S] float32.
  """
  c = config
  pad = frame_lib.token_id(Control.PAD, config=c)
  patch = (patches_lib.PAIR, patches_lib.PATCH, patches_lib.PATCH, 3)
  mel = (clock.of(c).fine_frames, clock.MEL_CHANNELS)
  unused = functools.partial(np.full, fill_value=c.seq_len, dtype=np.int32)
  return {
    "tokens": np.full(c.seq_len, pad, np.int32),
    "segment_ids": np.zeros(c.seq_len, np.int32),
    "positions": np.zeros(c.seq_len, np.int32),
    "windows": np.zeros(c.seq_len, np.int32),
    "audio_dmel": np.zeros((c.max_audio, clock.MEL_CHANNELS), np.uint8),
    "audio_positions": unused(c.max_audio),
    "audio_streams": np.zeros(c.max_audio, np.int32),
    "patches": np.zeros((c.max_patches, *patch), np.uint8),
    "patch_positions": unused(c.max_patches),
    "target_positions": unused(c.max_targets),
    "targets": np.zeros(c.max_targets, np.int32),
    "target_weights": np.zeros(c.max_targets, np.float32),
    "target_kinds": np.zeros(c.max_targets, np.int32),
    "speak_positions": unused(c.max_speak),
    "speak_mel": np.zeros((c.max_speak, *mel), np.float32),
    "speak_weights": np.zeros(c.max_speak, np.float32),
  }


@dataclasses.dataclass(frozen=True)
class _Placed:
  frame: Frame
  layout: frame_lib.Layout

  @property
  def cost(self) -> tuple[int, ...]:
    """What the frame takes of each of `_LIMITS`."""
    audio = (self.frame.own_dmel, self.frame.user_dmel)
    return (
      len(self.layout.tokens),
      sum(len(levels) for levels in audio if levels is not None),
      len(self.frame.patches),
      int(self.frame.speak),
      len(self.layout.kinds),
    )

  @property
  def cost_array(self) -> np.ndarray:
    return np.array(self.cost)


@dataclasses.dataclass
class _Bin:
  used: np.ndarray
  segments: list[list[_Placed]]


def _cut(
  placed: list[_Placed], costs: np.ndarray, limits: np.ndarray
) -> list[list[_Placed]]:
  """Pieces that fit one sequence each; one piece wherever that is enough."""
  pieces, used, start = [], np.zeros_like(limits), 0
  for i, cost in enumerate(costs):
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


def _write(packed: _Bin, *, config: StreamsConfig) -> dict[str, np.ndarray]:
  out = empty_sequence(config)
  at = {"token": 0, "audio": 0, "patch": 0, "speak": 0, "target": 0}
  for segment, piece in enumerate(packed.segments, start=1):
    origin = at["token"]
    for placed in piece:
      _write_frame(placed, out, at, config=config)
    span = slice(origin, at["token"])
    out["segment_ids"][span] = segment
    out["positions"][span] = np.arange(at["token"] - origin)
  return out


def _write_frame(
  placed: _Placed,
  out: dict[str, np.ndarray],
  at: dict[str, int],
  *,
  config: StreamsConfig,
) -> None:
  """Appends one frame to the arrays `out` at the cursors `at`."""
  frame, layout, token = placed.frame, placed.layout, at["token"]
  stop = token + len(layout.tokens)
  out["tokens"][token:stop] = layout.tokens
  out["windows"][token:stop] = frame.window
  cursor = token + 1  # after <turn>
  for stream, levels in ((OWN, frame.own_dmel), (USER, frame.user_dmel)):
    if levels is not None:
      slots = slice(at["audio"], at["audio"] + len(levels))
      out["audio_dmel"][slots] = levels
      out["audio_positions"][slots] = np.arange(cursor, cursor + len(levels))
      out["audio_streams"][slots] = stream
      cursor, at["audio"] = cursor + len(levels), slots.stop
  count = len(frame.patches)
  slots = slice(at["patch"], at["patch"] + count)
  out["patches"][slots] = frame.patches
  out["patch_positions"][slots] = np.arange(cursor, cursor + count)
  at["patch"] = slots.stop
  first = token + layout.num_inputs
  slots = slice(at["target"], at["target"] + stop - first)
  out["target_positions"][slots] = np.arange(first - 1, stop - 1)
  out["targets"][slots] = layout.tokens[layout.num_inputs :]
  out["target_kinds"][slots] = layout.kinds
  weights = frame_lib.loss_weights(config)
  out["target_weights"][slots] = weights[layout.kinds]
  if layout.kinds[-1] == Kind.ONSET:
    # Speech begins with the first token that is not <quiet>.
    out["target_weights"][slots.start] = weights[Kind.ONSET]
  at["target"] = slots.stop
  if frame.speak:
    out["speak_positions"][at["speak"]] = stop - 1
    if frame.target_mel is not None:
      out["speak_mel"][at["speak"]] = frame.target_mel
      out["speak_weights"][at["speak"]] = 1.0
    at["speak"] += 1
  at["token"] = stop


def unpack(
  sequence: dict[str, np.ndarray], *, config: StreamsConfig
) -> list[list[Frame]]:
  """The frames of a packed sequence, one list per segment.

  Raises:
    ValueError: the tokens do not follow the grammar; names the position.
  """
  slot = {
    name: {int(p): i for i, p in enumerate(sequence[f"{name}_positions"])}
    for name in ("audio", "patch", "speak")
  }
  turn = frame_lib.token_id(Control.TURN, config=config)
  tokens, segments = sequence["tokens"], sequence["segment_ids"]
  used = int((segments > 0).sum())
  starts = [*np.flatnonzero(tokens[:used] == turn).tolist(), used]
  recordings: dict[int, list[Frame]] = {}
  for start, stop in zip(starts[:-1], starts[1:], strict=True):
    frame = _read_frame(sequence, slot, start, stop, config=config)
    recordings.setdefault(int(segments[start]), []).append(frame)
  return list(recordings.values())


def _read_frame(sequence, slot, start, stop, *, config) -> Frame:
  """Parses the tokens [start, stop) of one frame."""
  base = config.text_vocab_size
  tokens = sequence["tokens"][start:stop].tolist()
  cursor = 1

  def run(placeholder: Control, name: str, values: str) -> np.ndarray:
    nonlocal cursor
    first = cursor
    while cursor < len(tokens) and tokens[cursor] == base + placeholder:
      cursor += 1
    slots = [slot[name][p] for p in range(start + first, start + cursor)]
    return sequence[values][slots]

  own = run(Control.OWN_AUDIO, "audio", "audio_dmel")
  user = run(Control.USER_AUDIO, "audio", "audio_dmel")
  patches = run(Control.VIDEO, "patch", "patches")
  text_in, cursor = frame_lib.parse_bursts(
    tokens, start=cursor, channels=frame_lib.CHANNELS_IN, config=config
  )
  outputs = frame_lib.parse_outputs(tokens[cursor:], config=config)
  mel = None
  if outputs.speak and sequence["speak_weights"][slot["speak"][stop - 1]] > 0:
    mel = sequence["speak_mel"][slot["speak"][stop - 1]]
  return Frame(
    window=int(sequence["windows"][start]),
    own_dmel=own if len(own) else None,
    user_dmel=user if len(user) else None,
    patches=patches,
    text_in=text_in,
    say=outputs.say,
    text_out=outputs.text_out,
    speak=outputs.speak,
    target_mel=mel,
  )
