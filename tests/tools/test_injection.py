"""No text that people or tools write can become a control token."""

import functools

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers.frames import CONFIG
from tests.helpers.tools import Session, Tool
from tml_jax.streams import calls, tokenizer
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Control, Frame
from tml_jax.tools import background, session_tools

# What somebody would try: names of control tokens and of sentencepiece's own
# pieces, ends of messages, bytes, marks of results, directions of writing.
ATTACKS = [
  *(f"<{c.name.lower()}>" for c in Control),
  *("<s>", "</s>", "<unk>", "<pad>", "<0x00>", "<0xFF>", "<|end|>"),
  *("\u2581<call>", "\u2581", "\ufffd", "\x00", "\x1b[0m", "\u202e", "\ufeff"),
  *("1: ", "...", "[cut]", "cancel", "\n\n", "\r", "[INST]", "<|im_start|>"),
]
ATTACK = st.one_of(
  st.text(max_size=40),
  st.lists(
    st.one_of(st.sampled_from(ATTACKS), st.text(max_size=3)), max_size=8
  ).map("".join),
)


@functools.cache
def _pieces(directory: str) -> tokenizer.Tokenizer:
  sentences = ["say it again please", "call the <call> end </s> of <s> it"] * 9
  path = f"{directory}/tokenizer.model"
  return tokenizer.train(sentences, path=path, config=CONFIG)


@pytest.fixture(scope="module", name="pieces")
def _fixture(tmp_path_factory):
  return _pieces(str(tmp_path_factory.mktemp("tokenizer")))


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(
  st.lists(
    st.tuples(st.sampled_from(frame_lib.CHANNELS_IN), ATTACK), max_size=5
  )
)
def test_text_stays_text_in_every_frame(pieces, messages):
  """Through tokenizer, queue, layout and back: the channels say who wrote."""
  queue = frame_lib.TextQueue()
  for channel, text in messages:
    tokens = pieces.encode(text)
    assert all(0 <= t < pieces.num_pieces for t in tokens)
    assert pieces.num_pieces <= CONFIG.text_vocab_size
    # Nor a piece that stands for "begin", "end" or "unknown".
    assert all(not pieces._spelling._processor.is_control(t) for t in tokens)
    assert all(not pieces._spelling._processor.is_unknown(t) for t in tokens)
    queue.push(channel, tokens)
  got, still_open = [], {}
  while queue:
    bursts = queue.take(CONFIG.max_text_in)
    frame = Frame(0, None, None, frame_lib.no_patches(), bursts)
    tokens = frame_lib.layout_inputs(frame, config=CONFIG)
    read, end = frame_lib.parse_bursts(
      tokens, start=1, channels=frame_lib.CHANNELS_IN, config=CONFIG
    )
    assert read == bursts and end == len(tokens)
    controls = [t for t in tokens if t >= CONFIG.text_vocab_size]
    assert len(controls) == 1 + 2 * len(bursts)  # <turn> and two a burst
    for burst in read:
      still_open.setdefault(burst.channel, []).extend(burst.tokens)
      if burst.complete:
        got.append((burst.channel, still_open.pop(burst.channel)))
  for channel in frame_lib.CHANNELS_IN:
    assert [t for c, t in got if c == channel] == [
      pieces.encode(text) for c, text in messages if c == channel
    ]


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(ATTACK, min_size=1, max_size=4))
def test_tools_write_results_and_nothing_else(pieces, texts):
  """A result is its call's, whatever is in it; calls of it start nothing."""
  tool = Tool(*texts)
  with background.Runner({"tool": tool}) as runner:
    s = Session(
      runner, tokenizer=pieces, arrival=session_tools.Stated(lambda call: 1)
    )
    s.tick("tool")
    for _ in range(500):
      frame = s.tick()
      tokens = frame_lib.layout_inputs(frame, config=CONFIG)
      controls = [t for t in tokens if t >= CONFIG.text_vocab_size]
      assert len(controls) == 1 + 2 * len(frame.text_in)
      assert all(b.channel == Control.RESULT for b in frame.text_in)
      if s.results():
        break
    for text in s.read[Control.RESULT]:
      assert calls.parse_result(text)[0] == 1
    assert len(tool.calls) == 1 and len(s.tools.to_json()) == 1


def test_a_tokenizer_that_would_let_them_in_is_caught():
  class Wrong:
    def encode(self, text):
      return [CONFIG.text_vocab_size + Control.CALL]

    def decode(self, tokens):
      return "tool"

  with background.Runner({"tool": Tool("x")}) as runner:
    s = Session(
      runner, tokenizer=Wrong(), arrival=session_tools.Stated(lambda call: 1)
    )
    with pytest.raises(ValueError, match="control tokens"):
      s.tick("tool")
