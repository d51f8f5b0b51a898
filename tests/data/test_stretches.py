"""Long recordings in stretches: the clock runs on, and nothing is lost."""

import collections
import dataclasses
import shutil

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests.helpers import recorded, small_data
from tml_jax import errors
from tml_jax.config import Damaged
from tml_jax.data import corpus, groups, mixture, splits, subset
from tml_jax.data.splits import Split
from tml_jax.streams import clock, framing, packing, tokenizer

SECONDS = (95.0, 3.0, 61.3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("long")
  items = [recorded.call(f"c{i}", seconds=s) for i, s in enumerate(SECONDS)]
  recorded.write(path, **{"a-calls": items})
  return path


def config(**data):
  return recorded.config("a-calls:1", stretch_seconds=20.0, **data)


def pieces_of(root, streams):
  return tokenizer.load(tokenizer.path(root), config=streams)


def same_frame(a, b):
  assert (a.window, a.text_in, a.say, a.text_out, a.speak) == (
    *(b.window, b.text_in, b.say, b.text_out, b.speak),
  )
  for name in ("own_dmel", "user_dmel", "patches", "target_mel"):
    x, y = getattr(a, name), getattr(b, name)
    assert (x is None) == (y is None), name
    if x is not None:
      np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("past", [0.0, 3.0])
def test_stretches_join_to_the_frames_of_the_whole(root, past):
  """Bit for bit, read from the disk in chunks."""
  settings = config(past_seconds=past)
  streams, pieces = settings.streams, pieces_of(root, settings.streams)
  whole = corpus.RecordSource(root / "a-calls")
  cut = subset.Cut(
    windows=100,
    past=mixture.past_windows(settings),
    grid=clock.of(streams),
  )
  elements = subset.Subset(whole, split=Split.TRAIN, share=1e-9, cut=cut)
  assert len(elements) == 5 + 1 + 4
  joined = collections.defaultdict(list)
  for i in range(len(elements)):
    item = elements[i]
    if not isinstance(item, framing.Excerpt):
      assert elements.seconds[i] == item.duration
      continue
    frames = framing.frames(
      item.timeline, config=streams, tokenizer=pieces, stretch=item.stretch
    )
    before = [f for f in frames if f.is_past]
    assert len(before) == (round(past * 5) if item.stretch.first else 0)
    assert elements.seconds[i] == pytest.approx(
      min(len(frames) * 0.2, item.timeline.duration), abs=0.21
    )
    for each in (item, elements.outline(i)):
      assert framing.count_positions(
        each.timeline, config=streams, tokenizer=pieces, stretch=each.stretch
      ) == framing.length(frames, config=streams)
    for frame in before:  # they are what they were
      same_frame(frame, joined[item.timeline.id][frame.window])
    joined[item.timeline.id] += [f for f in frames if not f.is_past]
  assert len(joined) == 2
  for i in (0, 2):
    item = whole[i]
    expected = framing.frames(item, config=streams, tokenizer=pieces)
    for a, b in zip(joined[item.id], expected, strict=True):
      same_frame(a, b)


def targets_of(sequences, streams):
  """How often each output token of each window is a target, by segment."""
  found, speech = collections.Counter(), collections.Counter()
  for sequence in sequences:
    inputs, targets = sequence.packed.inputs, sequence.targets
    used = targets.positions < streams.seq_len
    within = collections.Counter()
    for position in targets.positions[used]:
      window = int(inputs.windows[position])
      found[window, within[window]] += 1
      within[window] += 1
    heard = sequence.speech.weights > 0
    speech.update(inputs.windows[sequence.speech.positions[heard]].tolist())
  return found, speech


@hypothesis.settings(deadline=None, max_examples=15)
@hypothesis.given(
  past=st.integers(0, 60), seconds=st.floats(5.0, 70.0), talk=st.floats(0.3, 1)
)
def test_no_target_is_lost_or_seen_twice(root, past, seconds, talk):
  """With a past in front of every piece, whatever its length."""
  streams = config().streams
  item = recorded.call("c", seconds=round(seconds, 2), talk=talk)
  frames = framing.frames(
    item, config=streams, tokenizer=pieces_of(root, streams)
  )
  without = packing.pack([frames], config=streams)
  packed = packing.pack([frames], config=streams, past=past)
  targets, speech = targets_of(packed, streams)
  assert set(targets.values()) == {1} and set(speech.values()) <= {1}
  assert (targets, speech) == targets_of(without, streams)
  if past and len(without) > 1:
    assert len(packed) >= len(without)
  windows = []
  for sequence in packed:
    used = sequence.packed.segment_ids > 0
    clock_of = sequence.packed.inputs.windows[used]
    # The clock of a piece runs on, from its past into what is new.
    assert (np.diff(clock_of) >= 0).all() and (np.diff(clock_of) <= 1).all()
    new = {w for w, _ in targets_of([sequence], streams)[0]}
    assert len(new) > 0
    front = min(new) - clock_of[0]
    assert front <= past
    windows.append((clock_of[0], min(new), max(new)))
  assert [w[1] for w in windows[1:]] == [w[2] + 1 for w in windows[:-1]]
  for sequence in packed:
    (again,) = packing.unpack(sequence, config=streams)
    assert all(frame.target_mel is None or frame.speak for frame in again)


def test_a_past_takes_half_of_a_sequence_at_most(root):
  streams = config().streams
  item = recorded.call("c", seconds=70.0)
  frames = framing.frames(
    item, config=streams, tokenizer=pieces_of(root, streams)
  )
  packed = packing.pack([frames], config=streams, past=10_000)
  for sequence in packed[1:]:
    first = int(sequence.targets.positions.min())
    # A frame goes in whole: its perceived part stands before its targets.
    assert first <= streams.seq_len // 2 + 20
    assert first > streams.seq_len // 4


def test_a_loader_reads_stretches_and_goes_on_in_the_middle_of_a_call(root):
  settings = config(past_seconds=2.0, group_size=3, logical_shards=2)
  batches = small_data.load(settings, root)
  reference = small_data.take(batches, 6)
  batches.close()
  assert batches._mixture.longest <= 22.0
  again = small_data.load(settings, root)
  small_data.take(again, 2)
  state = again.get_state()
  again.close()
  resumed = small_data.load(settings, root)
  resumed.set_state(state)
  for a, b in zip(small_data.take(resumed, 4), reference[2:], strict=True):
    for x, y in zip(
      [*a.packed.inputs, *a.targets],
      [*b.packed.inputs, *b.targets],
      strict=True,
    ):
      np.testing.assert_array_equal(x, y)
  resumed.close()


def test_an_epoch_has_every_stretch_once(root):
  settings = config(past_seconds=2.0)
  mixed = mixture.open_mixture(
    settings, data_dir=root, split=Split.TRAIN, in_stretches=True
  )
  for epoch in range(2):
    items = [mixed.items[10 * epoch + i] for i in range(10)]
    names = sorted(
      (i.timeline.id, i.stretch.first)
      if isinstance(i, framing.Excerpt)
      else (i.id, 0)
      for i in items
    )
    assert len({*names}) == 10


def test_a_damaged_recording_is_refused_or_left_out(root, tmp_path, caplog):
  shutil.copytree(root, tmp_path / "data")
  folder = tmp_path / "data/a-calls"
  shard = folder / corpus.read_index(folder).shards[0].file
  data = bytearray(shard.read_bytes())
  at = data.find(b"fLaC") + 300  # of the sound of the first recording
  data[at] ^= 255
  shard.write_bytes(data)
  settings = config(group_size=10, logical_shards=1)

  def group(damaged):
    changed = dataclasses.replace(
      settings, data=dataclasses.replace(settings.data, damaged=damaged)
    )
    opened = mixture.open_mixture(
      changed, data_dir=tmp_path / "data", split=Split.TRAIN, in_stretches=True
    )
    made = groups.Groups(
      opened,
      shards=(0,),
      first=((0, 0),),
      num_shards=1,
      group_size=10,
      tokenizer_path=tokenizer.path(root),
      config=changed,
    )
    return made[0]["sequences"]

  with pytest.raises(errors.UserError, match="is corrupt"):
    group(Damaged.REFUSE)
  found = group(Damaged.SKIP)
  assert found and "left out of training" in caplog.text
  assert str(shard) in caplog.text


@hypothesis.given(st.lists(st.text(max_size=5)), st.floats(0.001, 0.999))
def test_splits_of_a_table_are_those_of_the_ids(ids, share):
  hashes = np.array([splits.hash_of(i) for i in ids], np.uint64)
  for split in (Split.TRAIN, Split.HELDOUT):
    assert splits.members(split, hashes, share=share).tolist() == [
      n for n, i in enumerate(ids) if splits.contains(split, i, share=share)
    ]
