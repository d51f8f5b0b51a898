import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import data_hosts
from tests.helpers import commands, small_data
from tml_jax import errors
from tml_jax.data import corpus, loader, mixture
from tml_jax.data.splits import Split
from tml_jax.streams import packing

HALVES = ([0, 1], [2, 3])  # rows of two processes


def assert_equal(a, b):
  assert len(a) == len(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def joined(parts):
  """Global batches from those of processes with neighbouring rows."""
  return [
    jax.tree.map(lambda *rows: np.concatenate(rows), *batches)
    for batches in zip(*parts, strict=True)
  ]


@pytest.fixture(scope="module")
def reference(config, data_dir):
  """The first eight batches, made by one process with threads."""
  batches = small_data.load(config, data_dir)
  result = small_data.take(batches, 8)
  batches.close()
  return result


def test_batches_are_full_of_valid_sequences(config, reference):
  shapes = jax.tree.map(
    lambda x: (4, *x.shape), packing.empty_sequence(config.streams)
  )
  for batch in reference:
    assert jax.tree.map(np.shape, batch) == shapes
    for row in range(4):
      sequence = jax.tree.map(lambda x, row=row: x[row], batch)
      frames = packing.unpack(sequence, config=config.streams)
      assert sum(map(len, frames)) > 5
      again = packing.pack(frames, config=config.streams)
      jax.tree.map(np.testing.assert_array_equal, again[0], sequence)
  tokens = {batch.packed.inputs.tokens.tobytes() for batch in reference}
  assert len(tokens) == 8


def test_two_processes_yield_the_rows_of_one(config, data_dir, reference):
  parts = []
  for rows in HALVES:
    batches = small_data.load(config, data_dir, rows=rows)
    parts.append(small_data.take(batches, 8))
    batches.close()
  assert_equal(joined(parts), reference)


@pytest.mark.parametrize("steps", [0, 1, 3, 5])
def test_state_resumes_bit_for_bit(config, data_dir, reference, steps):
  batches = small_data.load(config, data_dir)
  small_data.take(batches, steps)
  state = json.loads(json.dumps(batches.get_state()))
  ahead = small_data.take(batches, 1)
  assert_equal(ahead, reference[steps : steps + 1])
  batches.set_state(state)  # back, in the same process
  assert_equal(small_data.take(batches, 1), ahead)
  batches.close()
  resumed = small_data.load(config, data_dir)
  resumed.set_state(state)
  assert resumed.get_state() == state
  assert_equal(small_data.take(resumed, 8 - steps), reference[steps:])
  resumed.close()


def test_state_moves_between_process_counts(config, data_dir, reference):
  one = small_data.load(config, data_dir)
  small_data.take(one, 3)
  state = one.get_state()
  one.close()
  pair = [small_data.load(config, data_dir, rows=rows) for rows in HALVES]
  for batches in pair:
    batches.set_state(state)
  assert_equal(joined([small_data.take(b, 2) for b in pair]), reference[3:5])
  merged = loader.merge_states([b.get_state() for b in pair])
  for batches in pair:
    batches.close()
  one = small_data.load(config, data_dir)
  one.set_state(merged)
  assert_equal(small_data.take(one, 3), reference[5:8])
  one.close()


@pytest.mark.slow
def test_hosts_that_come_and_go_lose_and_repeat_nothing(tmp_path, monkeypatch):
  """One, two and four hosts, in the middle of documents, pairs and calls."""
  config = data_hosts.config(len(data_hosts.KINDS))
  data_hosts.write(config, root=tmp_path)
  counted = data_hosts.count(config, data_dir=tmp_path, steps=1)
  assert counted.things > 1000
  assert (counted.lost, counted.repeated, counted.again) == (0, 0, 0)
  merge = loader.merge_states

  def late(states):
    state = merge(states)
    state["shards"]["2"]["offset"] += 1
    return state

  monkeypatch.setattr(loader, "merge_states", late)  # what is lost is seen
  counted = data_hosts.count(
    config, data_dir=tmp_path, steps=1, hosts_in_turn=(1, 2)
  )
  assert counted.lost > 10 and counted.repeated == 0


def test_shards_that_drift_apart_start_anew(
  config, data_dir, reference, monkeypatch
):
  monkeypatch.setattr(loader, "_MAX_WAITING", 0)
  batches = small_data.load(config, data_dir)
  assert_equal(small_data.take(batches, 5), reference[:5])
  batches.close()


_WORKERS = """
import pickle, sys
from tests.helpers import small_data
if __name__ == "__main__":
  config = small_data.config(workers=2)
  batches = small_data.load(config, sys.argv[1])
  first = small_data.take(batches, 2)
  state = batches.get_state()
  small_data.take(batches, 1)
  batches.set_state(state)
  rest = small_data.take(batches, 6)
  batches.close()
  with open(sys.argv[2], "wb") as file:
    pickle.dump(first + rest, file)
"""


@pytest.mark.slow
def test_worker_processes_change_nothing(tmp_path, data_dir, reference):
  import pickle

  script = tmp_path / "workers.py"
  script.write_text(_WORKERS)
  result = subprocess.run(
    [sys.executable, str(script), str(data_dir), str(tmp_path / "out")],
    env=os.environ | {"PYTHONPATH": os.getcwd()},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == 0, result.stderr
  assert "leaked" not in result.stderr
  found = pickle.loads((tmp_path / "out").read_bytes())
  assert_equal(found, reference)


_KILLED = """
import os, signal, sys
from tests.helpers import small_data
if __name__ == "__main__":
  batches = small_data.load(small_data.config(workers=1), sys.argv[1])
  small_data.take(batches, 1)
  os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_worker_processes_end_with_a_killed_run(tmp_path, data_dir):
  script = tmp_path / "killed.py"
  script.write_text(_KILLED)
  process = subprocess.Popen(
    [sys.executable, str(script), str(data_dir)],
    env=os.environ | {"PYTHONPATH": os.getcwd()},
    start_new_session=True,  # a process group of its own
  )
  assert process.wait() == -signal.SIGKILL
  commands.wait_until_gone(process.pid)


def test_data_works_where_jax_cannot_be_imported(data_dir):
  """Ours never imports it; Grain tries, for its profiler, and goes on."""
  script = (
    "import sys\n"
    "sys.modules['jax'] = None\n"
    "from tests.helpers import small_data\n"
    f"batches = small_data.load(small_data.config(), {str(data_dir)!r})\n"
    "print(next(batches).packed.inputs.tokens.shape)\n"
    "batches.close()\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", script],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert result.returncode == 0, result.stderr
  config = small_data.config()
  shape = (config.train.global_batch_size, config.streams.seq_len)
  assert result.stdout.strip() == str(shape)


def test_what_does_not_divide_is_refused(config, data_dir):
  two = small_data.config(logical_shards=2)
  for rows in ([0], [1, 2, 3], [0, 1, 2]):
    with pytest.raises(errors.UserError, match="begin .*logical_shards=4"):
      small_data.load(two, data_dir, rows=rows)
  assert loader.shards_of([2, 3], config=two) == (1,)


def test_a_state_of_other_data_is_refused(config, data_dir, tmp_path):
  batches = small_data.load(config, data_dir)
  state = batches.get_state()
  batches.close()
  other = small_data.load(small_data.config(seed=1, group_size=3), data_dir)
  with pytest.raises(
    errors.UserError, match="seed: 0 then, 1 now; .*group_size"
  ):
    other.set_state(state)
  other.close()
  copy = tmp_path / "copy"
  shutil.copytree(data_dir, copy)
  with open(copy / "tokenizer.model", "ab") as file:
    file.write(b"\xa0\x06\x00")  # a field that sentencepiece passes over
  other = small_data.load(config, copy)
  with pytest.raises(errors.UserError, match="tokenizer: '[0-9a-f]{8}' then"):
    other.set_state(state)
  other.close()
  half = small_data.load(config, data_dir, rows=[0, 2])
  part = half.get_state()
  half.close()
  batches = small_data.load(config, data_dir)
  with pytest.raises(errors.UserError, match=r"shards \[1, 3\]"):
    batches.set_state(part)
  batches.close()
  assert loader.merge_states([part, part]) == part  # copies of the same rows
  ahead = part | {"shards": {"0": {"group": 9, "offset": 0}}}
  with pytest.raises(ValueError, match="shard 0 is at two places"):
    loader.merge_states([part, ahead])


def test_check_finds_what_is_missing(config, data_dir, tmp_path):
  mixture.check(config, data_dir=data_dir)
  copy = tmp_path / "copy"
  shutil.copytree(data_dir, copy)
  shard = corpus.read_index(copy / "procedural-low").shards[0].file
  for name, words in (
    ("tokenizer.model", "no tokenizer"),
    (f"procedural-low/{shard}", f"{shard} is missing"),
    ("procedural-high/index.json", "no prepared corpus"),
  ):
    (copy / name).unlink()
    with pytest.raises(errors.UserError, match=words):
      mixture.check(config, data_dir=copy)
    shutil.copy(data_dir / name, copy / name)
  mixed = small_data.config(mixture=("reply:1", "procedural-lou:1"))
  with pytest.raises(errors.UserError, match="did you mean 'procedural-low'"):
    mixture.check(mixed, data_dir=data_dir)


def test_missing_data_is_said_at_once(config, data_dir, tmp_path):
  with pytest.raises(errors.UserError, match="tml_jax.prepare"):
    small_data.load(config, tmp_path)
  copy = tmp_path / "copy"
  shutil.copytree(data_dir, copy)
  (copy / "tokenizer.model").unlink()
  with pytest.raises(errors.UserError, match="no tokenizer"):
    small_data.load(config, copy)


def test_a_record_that_breaks_while_training_is_named(
  config, data_dir, tmp_path
):
  copy = tmp_path / "copy"
  shutil.copytree(data_dir, copy)
  batches = small_data.load(config, copy)
  batches.close()
  for folder in ("procedural-low", "procedural-high"):
    for shard in corpus.read_index(copy / folder).shards:
      with open(copy / folder / shard.file, "r+b") as file:
        for at in range(70_000, shard.bytes, 5_000):
          file.seek(at)
          file.write(b"\xff")
  message = r"-00000\.array_record: record \d+ .*corrupt"
  batches.set_state(batches.get_state())  # prefetches again
  with pytest.raises(errors.UserError, match=message):
    small_data.take(batches, 10)
  batches.close()


def test_mixture_weights_and_order(config, data_dir):
  """A recorded corpus joins at its weight and disturbs nobody's order."""
  alone = mixture.build(config, data_dir=data_dir, split=Split.TRAIN)
  mixed = dataclasses.replace(
    config,
    data=dataclasses.replace(
      config.data, mixture=("reply:3.0", "procedural-low:1.0")
    ),
  )
  opened = mixture.open_mixture(mixed, data_dir=data_dir, split=Split.TRAIN)
  both = opened.items
  ids = [both[i].id for i in range(80)]
  replies = [name for name in ids if name.startswith("reply/")]
  # A reply is much longer than a prompt, so there are fewer of them.
  share = opened.stages[0].draws["reply"]
  assert len(replies) == pytest.approx(80 * share, abs=1)
  assert 5 < len(replies) < 40
  assert replies == [alone[i].id for i in range(len(replies))]
  assert len(set(ids)) == 80
  tested = mixture.build(mixed, data_dir=data_dir, split=Split.HELDOUT)
  heldout = {tested[i].id for i in range(80)}
  assert not heldout & set(ids)


def test_unknown_entry_of_the_mixture(data_dir):
  config = small_data.config(mixture=("repli:1.0",))
  with pytest.raises(errors.UserError, match="did you mean 'reply'"):
    mixture.build(config, data_dir=data_dir, split=Split.TRAIN)
