"""A session that calls and draws at random, its tools, what is written."""

import io
import json

import numpy as np
from absl import flags
from absl.testing import flagsaver

from tests.helpers import small_session
from tml_jax.live import session
from tml_jax.streams.frame import Control
from tml_jax.streams.timeline import Role, Timeline, Track
from tml_jax.tools import background, drawing
from tml_jax.tools import flags as flags_lib

_WINDOWS = 150


class Lenient(small_session.Letters):
  """Letters, and a question mark for what is none."""

  def encode(self, text):
    return super().encode(
      "".join(c if c in self._PIECES else "?" for c in text)
    )


class Echo:
  timeout = 20.0

  async def run(self, call):
    yield f"you said {call.text}"


def _decide(random: np.random.Generator) -> list[int]:
  """Output tokens as the grammar allows them, in place of a model's."""
  base, tokens = small_session.TEXT_ROWS, []
  for _ in range(random.integers(3)):
    channel = [Control.SHOW, Control.DRAW, Control.CALL][random.integers(3)]
    end = [Control.END, Control.MORE][random.integers(2)]
    text = random.integers(Lenient.num_pieces, size=random.integers(4))
    tokens += [base + channel, *text.tolist(), base + end]
  return [*tokens, base + Control.QUIET]


def _hold(out, *, runner):
  """One session with everything attached."""
  cfg, random = small_session.config(), np.random.default_rng(0)
  live = session.Session(cfg, seed=0)
  silence = np.zeros(_WINDOWS * 3200, np.float32)
  attached = flags_lib.Attached(
    runner,
    timeline=Timeline(
      id="t",
      duration=_WINDOWS * 0.2,
      tracks=(Track(Role.USER, silence, (), (), "u"),),
    ),
    tokenizer=Lenient(),
    config=cfg,
    out=out,
  )
  frames = []
  for k in range(_WINDOWS):
    frame = live.perceive(silence[k * 3200 : (k + 1) * 3200])
    frames.append(live.play(frame, tokens=_decide(random), mel=None))
    for tokens in attached.step(frames[-1]):
      live.type(Control.RESULT, tokens)
  return frames, attached.close()


def test_a_session_with_tools(tmp_path):
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(tool_delay=0.6):
    frames, files = _hold(
      tmp_path, runner=background.Runner({"echo": Echo()}, otherwise="echo")
    )
    again, same = _hold(
      tmp_path, runner=background.Runner({"echo": Echo()}, otherwise="echo")
    )
    _, unanswered = _hold(tmp_path, runner=None)
  # Results on the session's clock: the whole session is the same again.
  assert [f.text_in for f in frames] == [f.text_in for f in again]
  assert [f.text_out for f in frames] == [f.text_out for f in again]
  assert files == same
  called = [
    b
    for f in frames
    for b in f.text_out
    if b.channel == Control.CALL and b.complete
  ]
  records = [json.loads(line) for line in files["calls.jsonl"].splitlines()]
  assert len(records) == len(called) > 10
  answered = [r for r in records if r["outcome"] == "done"]
  assert answered
  for record in answered:
    assert record["result"].startswith("you said")
    # The third window after the call's begins 0.4 s after that one's end.
    assert record["ended_s"] >= record["time_s"] + 0.4 - 1e-6
  read = [b for f in frames for b in f.text_in]
  assert read and {b.channel for b in read} == {Control.RESULT}
  # Random letters are no path commands: marked, not drawn, no crash.
  assert b"data-malformed" in files[drawing.SVG]
  assert (tmp_path / drawing.SVG).exists()  # it grew while the session ran
  from matplotlib import image

  assert image.imread(io.BytesIO(files[drawing.PNG])).ndim == 3
  first = json.loads(unanswered["calls.jsonl"].splitlines()[0])
  assert first["outcome"] == "failed" and "nobody" in first["reason"]
