"""The micro-turn frame: how a window of conversation becomes tokens.

For: the one grammar that the training packer and the live session share. Not
for: batching (`packing`) or features (`dmel`, `patches`). Start reading at
`Frame`, then `layout`.

  <turn> | own audio or none | user audio or none | <video> patches
  | typed text and results || say-text | messages | <speak> or <quiet>
                           ^ from here on the model decides

What the model decides at the end of window k is played in window k + 1.
"""

import dataclasses
import enum

import numpy as np

from tml_jax.config import SayText, StreamsConfig
from tml_jax.streams import patches as patches_lib


class Control(enum.IntEnum):
  """Control tokens, as offsets from the end of the text vocabulary."""

  PAD = 0
  TURN = 1
  OWN_AUDIO = 2  # placeholder, overwritten by the dMel embedding
  USER_AUDIO = 3  # placeholder
  VIDEO = 4  # placeholder of one patch
  USER_TEXT = 5
  RESULT = 6
  SHOW = 7
  DRAW = 8
  CALL = 9
  END = 10  # ends a message
  MORE = 11  # ends a burst whose message goes on in a later frame
  SPEAK = 12
  QUIET = 13
  DOCUMENT = 14  # begins a text without a clock (`packing.Text`)


CHANNELS_IN = (Control.USER_TEXT, Control.RESULT)
CHANNELS_OUT = (Control.SHOW, Control.DRAW, Control.CALL)
BURST_ENDS = (Control.END, Control.MORE)
DECISIONS = (Control.SPEAK, Control.QUIET)


class Kind(enum.IntEnum):
  """What an output token is, for weights and losses per stream."""

  SAY = 0
  MESSAGE = 1
  SILENCE = 2  # `<quiet>` after `<quiet>`
  ONSET = 3  # the first `<speak>`
  GOING_ON = 4  # `<speak>` after `<speak>`
  STOP = 5  # the first `<quiet>`
  TEXT = 6  # of a document, and its `<end>`


def token_id(control: Control, *, config: StreamsConfig) -> int:
  """Row of `control` in the vocabulary."""
  return config.text_vocab_size + int(control)


@dataclasses.dataclass(frozen=True)
class Burst:
  """The part of one message that fits a frame.

  It starts with its channel's token and ends with `<end>` where the message
  is `complete`, else with `<more>`: typed text would otherwise run into the
  say-text behind it.
  """

  channel: Control
  tokens: tuple[int, ...]
  complete: bool

  def __len__(self) -> int:
    return 2 + len(self.tokens)


@dataclasses.dataclass(frozen=True)
class Frame:
  """One window as the model sees it, and what it decides at its end.

  Attributes:
    window: index on the clock.
    own_dmel: [A, 80] uint8, what the model says during this window; None
      where it is quiet. A is `Grid.audio_tokens`.
    user_dmel: [A, 80] uint8; None without a microphone.
    patches: [n, 2, 40, 40, 3] uint8; n = 0 where no video frame landed.
    text_in: typed text and results.
    say: tokens of what the model is saying.
    text_out: displayed text, drawing commands and calls.
    speak: whether the model sounds in the next window.
    target_mel: [4 A, 80] float32 log10 fine mel of the next window; None
      where `speak` is false or the frame is an input of a live session.
    is_past: it was trained on in an earlier sequence and is there to be
      remembered, without a loss.
  """

  window: int
  own_dmel: np.ndarray | None
  user_dmel: np.ndarray | None
  patches: np.ndarray
  text_in: tuple[Burst, ...]
  say: tuple[int, ...] = ()
  text_out: tuple[Burst, ...] = ()
  speak: bool = False
  target_mel: np.ndarray | None = None
  is_past: bool = False


def no_patches() -> np.ndarray:
  """The patches of a window without video."""
  return patches_lib.cut([], height=0, width=0)


@dataclasses.dataclass(frozen=True)
class Layout:
  """A frame as tokens.

  Attributes:
    tokens: ids, placeholders where embeddings come from elsewhere.
    num_inputs: the model decides from this index on.
    kinds: of the tokens from `num_inputs` on.
  """

  tokens: list[int]
  num_inputs: int
  kinds: list[Kind]


def layout_inputs(frame: Frame, *, config: StreamsConfig) -> list[int]:
  """Tokens of what is perceived in the window; a live session's chunk."""
  base = config.text_vocab_size
  tokens = [base + Control.TURN]
  if frame.own_dmel is not None:
    tokens += [base + Control.OWN_AUDIO] * len(frame.own_dmel)
  if frame.user_dmel is not None:
    tokens += [base + Control.USER_AUDIO] * len(frame.user_dmel)
  tokens += [base + Control.VIDEO] * len(frame.patches)
  return tokens + _burst_tokens(frame.text_in, base)


def layout(frame: Frame, *, config: StreamsConfig) -> Layout:
  """Tokens of a whole frame."""
  base = config.text_vocab_size
  inputs = layout_inputs(frame, config=config)
  messages = _burst_tokens(frame.text_out, base)
  decision = Control.SPEAK if frame.speak else Control.QUIET
  was_speaking = frame.own_dmel is not None
  if frame.speak:
    kind = Kind.GOING_ON if was_speaking else Kind.ONSET
  else:
    kind = Kind.STOP if was_speaking else Kind.SILENCE
  return Layout(
    tokens=inputs + list(frame.say) + messages + [base + decision],
    num_inputs=len(inputs),
    kinds=[Kind.SAY] * len(frame.say) + [Kind.MESSAGE] * len(messages) + [kind],
  )


def loss_weights(config: StreamsConfig) -> np.ndarray:
  """Weight of the loss on each `Kind`, [7] float32; onsets are rare."""
  weights = np.ones(len(Kind), np.float32)
  weights[Kind.MESSAGE] = config.message_weight
  weights[Kind.SILENCE] = config.silence_weight
  weights[Kind.ONSET] = config.onset_weight
  weights[Kind.GOING_ON] = config.speak_weight
  weights[Kind.STOP] = config.stop_weight
  weights[Kind.TEXT] = config.document_weight
  return weights


class State(enum.IntEnum):
  """Where the output part of a frame stands."""

  SAY = 0  # nothing but say-text so far
  BURST = 1  # inside a message
  BETWEEN = 2  # after a burst
  QUIET = 3  # decided
  SPEAK = 4  # decided


FORBIDDEN = -1


def transitions(config: StreamsConfig, *, vocab_size: int) -> np.ndarray:
  """The output grammar as a table, for sampling and for parsing.

  Returns:
    [3, vocab_size] int32: the next `State` after a token, or FORBIDDEN.
  """
  base = config.text_vocab_size
  table = np.full((3, vocab_size), FORBIDDEN, np.int32)
  if config.say_text is SayText.WORDS:
    table[State.SAY, :base] = State.SAY
  table[State.BURST, :base] = State.BURST
  table[State.BURST, base + Control.END] = State.BETWEEN
  table[State.BURST, base + Control.MORE] = State.BETWEEN
  for state in (State.SAY, State.BETWEEN):
    for channel in CHANNELS_OUT:
      table[state, base + channel] = State.BURST
    table[state, base + Control.SPEAK] = State.SPEAK
    table[state, base + Control.QUIET] = State.QUIET
  return table


@dataclasses.dataclass(frozen=True)
class Outputs:
  """What the model decided in one frame."""

  say: tuple[int, ...]
  text_out: tuple[Burst, ...]
  speak: bool


def parse_outputs(tokens: list[int], *, config: StreamsConfig) -> Outputs:
  """Reads the output part of a frame, from its first say token on.

  Raises:
    ValueError: the tokens do not follow the grammar.
  """
  base = config.text_vocab_size
  cursor = _skip_text(tokens, 0, base)
  say = tuple(tokens[:cursor])
  text_out, cursor = parse_bursts(
    tokens, start=cursor, channels=CHANNELS_OUT, config=config
  )
  if cursor != len(tokens) - 1 or tokens[cursor] - base not in DECISIONS:
    raise ValueError(
      f"the outputs {tokens} leave the frame grammar at index {cursor}"
    )
  return Outputs(say, text_out, speak=tokens[cursor] == base + Control.SPEAK)


def parse_bursts(
  tokens: list[int],
  *,
  start: int,
  channels: tuple[Control, ...],
  config: StreamsConfig,
) -> tuple[tuple[Burst, ...], int]:
  """Reads bursts of `channels` from `start`; returns them and where they end.

  Raises:
    ValueError: a burst without `<end>` or `<more>`.
  """
  base, cursor, bursts = config.text_vocab_size, start, []
  while cursor < len(tokens) and tokens[cursor] - base in channels:
    channel = Control(tokens[cursor] - base)
    first, cursor = cursor + 1, _skip_text(tokens, cursor + 1, base)
    if cursor == len(tokens) or tokens[cursor] - base not in BURST_ENDS:
      raise ValueError(
        f"the {channel.name} burst at index {first - 1} of {tokens} has no "
        "<end> or <more>"
      )
    complete = tokens[cursor] == base + Control.END
    bursts.append(Burst(channel, tuple(tokens[first:cursor]), complete))
    cursor += 1
  return tuple(bursts), cursor


def _skip_text(tokens: list[int], cursor: int, base: int) -> int:
  while cursor < len(tokens) and tokens[cursor] < base:
    cursor += 1
  return cursor


class TextQueue:
  """Messages waiting for room; what does not fit a frame waits for the next.

  First in, first out within a channel; channels take turns burst by burst, so
  that a long result does not hold up typed text, nor a drawing a call. A
  message that spans frames restates its channel.

  Attributes:
    waiting: messages, or what is left of them, by channel; the channel whose
      turn it is comes first.
  """

  def __init__(self) -> None:
    self.waiting: dict[Control, list[list[int]]] = {}

  def __len__(self) -> int:
    return sum(map(len, self.waiting.values()))

  def push(self, channel: Control, tokens: list[int]) -> None:
    self.waiting.setdefault(channel, []).append(list(tokens))

  def take(self, budget: int) -> tuple[Burst, ...]:
    """The bursts of the next frame, at most `budget` tokens with markers."""
    bursts = []
    while self.waiting and budget >= 2:
      channel = next(iter(self.waiting))
      tokens, *others = self.waiting[channel]
      now, rest = tokens[: budget - 2], tokens[budget - 2 :]
      if rest and not now:
        break  # a burst without text would make no progress
      bursts.append(Burst(channel, tuple(now), complete=not rest))
      budget -= len(bursts[-1])
      del self.waiting[channel]
      if rest or others:
        self.waiting[channel] = [rest, *others] if rest else others
    return tuple(bursts)


def _burst_tokens(bursts: tuple[Burst, ...], base: int) -> list[int]:
  tokens = []
  for burst in bursts:
    end = Control.END if burst.complete else Control.MORE
    tokens += [base + burst.channel, *burst.tokens, base + end]
  return tokens
