"""Time, frames and vocabulary, and the constants that they rest on.

For: what `tml_jax.streams` makes and other sections must agree with. Not for:
making it (`tml_jax.streams` takes the constants from here). Start reading at
`StreamsConfig`.
"""

import dataclasses
import enum

from tml_jax.config import checks

TOKEN_MS = 50  # of sound in one dMel token; a micro-turn holds whole tokens
TURN_MS = (50, 100, 200, 400, 600, 800)  # scenarios have rules for these
TICK_MS = 200  # of scenarios and logs
MEL_CHANNELS = 80
DMEL_LEVELS = 16
PATCH = 40  # pixels; the side of a video patch
# Rows of the vocabulary kept for the frame's control tokens, right after the
# text rows; streams/frame.py uses the first ones.
CONTROL_ROWS = 64
# Fields that bound the arrays of one packed sequence.
LIMITS = ("seq_len", "max_audio", "max_patches", "max_speak", "max_targets")


class SayText(enum.StrEnum):
  """What of its speech the model writes before it makes the sound."""

  WORDS = "words"
  NONE = "none"  # no say-text tokens, in training and sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamsConfig:
  """Time, frames and vocabulary: what `tml_jax.streams` needs to know."""

  text_vocab_size: int  # rows [0, text_vocab_size) are the tokenizer's
  max_text_in: int  # tokens of typed text and results in one frame
  max_text_out: int  # tokens of say-text and messages in one frame
  say_lead: int  # windows by which say-text precedes its sound's decision
  video_height: int  # pixels; a multiple of 40
  video_width: int  # pixels; a multiple of 40
  # One packed sequence:
  seq_len: int
  max_audio: int  # dMel tokens, own and user together
  max_patches: int  # 40x40x2 patches
  max_speak: int  # `<speak>` decisions, each a flow target
  max_targets: int  # output tokens with a loss
  # Loss weights; say-text weighs 1.
  message_weight: float  # tokens of messages, channels and their ends
  silence_weight: float  # `<quiet>` after `<quiet>`
  speak_weight: float  # `<speak>` after `<speak>`
  onset_weight: float  # first `<speak>`
  stop_weight: float  # first `<quiet>`
  document_weight: float = 1.0  # every token of a document
  say_text: SayText = SayText.WORDS
  turn_ms: int = 200  # one micro-turn; long ones want a larger max_text_*

  @property
  def patches_per_frame(self) -> int:
    """Patches of one video frame (or pair of frames)."""
    return (self.video_height // PATCH) * (self.video_width // PATCH)

  def __post_init__(self) -> None:
    checks.require_range(
      self,
      section="streams",
      names="text_vocab_size seq_len max_audio max_speak max_targets"
      " video_height video_width",
      low=1,
    )
    # A message goes on in later frames only if one token fits between its
    # marks.
    checks.require_range(
      self, section="streams", names="max_text_in max_text_out", low=3
    )
    checks.require_range(
      self,
      section="streams",
      names="say_lead message_weight silence_weight speak_weight onset_weight"
      " stop_weight document_weight",
      low=0,
    )
    checks.require(
      self.turn_ms in TURN_MS,
      f"streams.turn_ms = {self.turn_ms}: one of"
      f" {', '.join(map(str, TURN_MS))}: whole tokens of {TOKEN_MS} ms, and"
      f" boundaries where scenarios have theirs, every {TICK_MS} ms",
    )
    for name in ("video_height", "video_width"):
      value = getattr(self, name)
      checks.require(
        value % PATCH == 0,
        f"streams.{name} = {value}: must be a multiple of {PATCH}, for"
        f" instance {(value // PATCH + 1) * PATCH}",
      )
    for name in LIMITS:
      value = getattr(self, name)
      checks.require(
        value <= self.seq_len,
        f"streams.{name} = {value}: at most streams.seq_len = {self.seq_len},"
        " as each takes a position",
      )
    checks.require(
      self.max_patches >= self.patches_per_frame,
      f"streams.max_patches = {self.max_patches}: one video frame of"
      f" {self.video_height}x{self.video_width} has"
      f" {self.patches_per_frame} patches; raise max_patches or make the"
      " video smaller",
    )
    self._require_frame_fits()

  def _require_frame_fits(self) -> None:
    """The largest frame must fit one sequence."""
    decided = self.max_text_out + 1
    audio = 2 * self.turn_ms // TOKEN_MS  # both sides sound
    perceived = 1 + audio + self.patches_per_frame + self.max_text_in
    for name, need in (
      ("seq_len", perceived + decided),
      ("max_audio", audio),
      ("max_targets", decided),
    ):
      checks.require(
        getattr(self, name) >= need,
        f"streams.{name} = {getattr(self, name)}: one frame with sound, video"
        f" and text takes {need}; raise it",
      )
