"""What the next batches hold, and where it is from."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from tests.helpers import commands, pages, recorded, small, small_data
from tml_jax import errors
from tml_jax.data import corpus
from tml_jax.data.groups import Origin
from tml_jax.page import batches, segments
from tml_jax.streams import framing, packing, tokenizer
from tml_jax.streams.batch import Batch


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("batches")
  calls = [recorded.call(f"c{i}", seconds=30.0) for i in range(8)]
  calls += [pages.talk(f"v{i}", video=2, events=("yes",)) for i in range(4)]
  recorded.write(
    root,
    **{
      "a-calls": calls,
      "a-texts": [recorded.article(f"t{i}", words=200) for i in range(12)],
    },
  )
  return root


@pytest.fixture(scope="module")
def config():
  # Two seconds of the past before each later piece.
  return pages.config("a-calls:3", "a-texts:1", group_size=6, past_seconds=2.0)


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The first batches, and the state of the loader after two."""

  batches: list[Batch]
  origins: list[list[tuple[Origin, ...]]]
  state: dict[str, Any]

  def sequences(self):
    for batch, origins in zip(self.batches, self.origins, strict=True):
      for row, of_row in enumerate(origins):
        yield segments.row_of(batch, row), of_row


@pytest.fixture(scope="module")
def drawn(root, config):
  loader, drawn, origins = small_data.load(config, root), [], []
  for number in range(3):
    if number == 2:
      state = json.loads(json.dumps(loader.get_state()))
    drawn.append(next(loader))
    origins.append(loader.origins)
  loader.close()
  return Drawn(drawn, origins, state)


@pytest.fixture(scope="module")
def text(root, config, tmp_path_factory):
  return _page(root, config, tmp_path_factory.mktemp("out"), count=3)


def test_segments_are_of_the_recordings_that_are_named(root, config, drawn):
  sources = {n: corpus.RecordSource(root / n) for n in ("a-calls", "a-texts")}
  places = {
    (name, each): number
    for name, source in sources.items()
    for number, each in enumerate(source.columns("id")["id"])
  }
  streams = config.streams
  pieces = tokenizer.load(tokenizer.path(root), config=streams)
  kinds, past = set(), 0
  for sequence, origins in drawn.sequences():
    found = packing.unpack(sequence, config=streams)
    described = segments.read(sequence, origins=origins, config=streams)
    assert len(found) == len(origins) == len(described)
    for held, origin, told in zip(found, origins, described, strict=True):
      item = sources[origin.entry][places[origin.entry, origin.id]]
      kinds.add((origin.entry, told.is_document))
      past += told.past
      if told.is_document:
        whole = packing.Text.of(pieces.encode(item.text), config=streams)
        text = " ".join(map(str, whole.tokens.tolist()))
        assert " ".join(map(str, held.tokens.tolist())) in text
        continue
      frames = framing.frames(item, config=streams, tokenizer=pieces)
      first, last = told.windows
      for mine, its in zip(held, frames[first : last + 1], strict=True):
        np.testing.assert_array_equal(mine.user_dmel, its.user_dmel)
        assert (mine.window, mine.say) == (its.window, its.say)
        assert (mine.text_in, mine.speak) == (its.text_in, its.speak)
  assert kinds == {("a-calls", False), ("a-texts", True)}
  assert past > 0


def test_segments_and_padding_add_up(config, drawn):
  length, sequences = config.streams.seq_len, 0
  for sequence, origins in drawn.sequences():
    found = segments.read(sequence, origins=origins, config=config.streams)
    edges = [0, *(each.stop for each in found)]
    assert [each.first for each in found] == edges[:-1]  # one after the other
    used = sum(each.positions for each in found)
    padding = int((sequence.packed.segment_ids == 0).sum())
    assert used + padding == length
    targets, speech = sequence.targets, sequence.speech
    valid = targets.positions < length
    assert sum(each.targets for each in found) == valid.sum()
    assert sum(each.weight for each in found) == pytest.approx(
      float(targets.weights.sum()), rel=1e-5
    )
    assert (
      sum(each.speech for each in found) == (speech.positions < length).sum()
    )
    sequences += 1
  assert sequences == 3 * config.train.global_batch_size


def test_other_origins_are_refused(config, drawn):
  sequence, origins = next(drawn.sequences())
  with pytest.raises(ValueError, match="segments of"):
    segments.read(sequence, origins=(*origins, *origins), config=config.streams)


def _page(root, config, out, *, count, state=None, step=0):
  file = batches.page(
    config,
    data_dir=str(root),
    tokenizer_file=tokenizer.path(root),
    count=count,
    state=state,
    step=step,
    out=out,
  )
  return file.read_text(encoding="utf-8")


def _number(text):
  return float(text.replace(",", ""))


def test_the_page_adds_up(config, drawn, text):
  pages.check_harmless(text)
  rows = [row for row in pages.rows(text) if len(row) == 11]
  heads = [row for row in rows if row[1] == "entry"]
  size = config.train.global_batch_size
  assert len(heads) == 3 * size
  counted = [row for row in rows if row[1] != "entry"]
  positions = sum(_number(row[5]) for row in counted)
  assert positions == 3 * size * config.streams.seq_len
  weight = sum(float(b.targets.weights.sum()) for b in drawn.batches)
  assert sum(_number(row[8]) for row in counted) == pytest.approx(
    weight, abs=0.01 * len(counted)
  )
  named = {(row[1], row[2]) for row in counted if row[0]}
  assert named == {
    (origin.entry, origin.id)
    for _, origins in drawn.sequences()
    for origin in origins
  }
  # What is said stands there as text.
  assert "“yes”" in text and "&lt;quiet&gt;" in text


def test_a_page_goes_on_where_a_run_stands(root, config, drawn, text, tmp_path):
  later = _page(root, config, tmp_path, count=1, state=drawn.state, step=2)
  body = "<section id=s{}"
  third = text[text.index(body.format(2)) : text.index("</main>")]
  first = later[later.index(body.format(0)) : later.index("</main>")]
  assert "Step 3" in first
  third = third.replace("=s2", "=s0").replace("=h2", "=h0")
  assert first == third.replace("labelledby=h2", "labelledby=h0")


@pytest.mark.slow  # trains two steps
def test_the_command_goes_on_behind_a_checkpoint(root, tmp_path):
  run, data = tmp_path / "run", f"--data_dir={root}"
  config = (
    *small.flags(),
    "--config.data.mixture=a-calls:3,a-texts:1",
    "--config.streams.video_height=40",
    "--config.streams.video_width=40",
    "--config.data.past_seconds=2",
  )
  result = commands.run(
    *("-m", "tml_jax.train", *config, data, f"--workdir={run}"),
    "--config.train.steps=2",
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  inspect = ("-m", "tml_jax.inspect", data)
  first, later = tmp_path / "first", tmp_path / "later"
  for flags in (
    (*config, "--batch=3", f"--out={first}"),
    (f"--workdir={run}", "--batch=1", f"--out={later}"),
  ):
    result = commands.run(*inspect, *flags)
    assert result.returncode == 0, result.stderr
  texts = [
    (each / batches.FILE).read_text(encoding="utf-8") for each in (first, later)
  ]
  titles = [[e.text for e in pages.read(t) if e.tag == "h2"] for t in texts]
  assert titles == [["Step 1", "Step 2", "Step 3"], ["Step 3"]]
  rows = [pages.rows(text) for text in texts]
  assert rows[1] == rows[0][-len(rows[1]) :] and len(rows[1]) > 4


def test_a_checkpoint_without_a_place_in_the_data_is_told(tmp_path):
  with pytest.raises(errors.UserError, match="leave --workdir out"):
    batches.newest_state(tmp_path, step=7, name="loader/metadata")
