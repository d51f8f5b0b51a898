"""Epochs differ; workers, hosts and a resumed run do not."""

import json
import pickle

import jax
import numpy as np
import pytest
import soundfile

from tests.helpers import augmenting, commands, recorded, small_data
from tml_jax import errors
from tml_jax.data import mixture
from tml_jax.data.splits import Split
from tml_jax.streams import framing

CALLS = 5
AUGMENT = (
  *("swap:0.5", "cut:0.5", "speed:0.5", "noise:0.8:snr=5..15", "room:0.3"),
  *("echo:0.5", "g711:0.3", "gain:1", "lost:0.5"),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """Short calls, and one that comes in stretches."""
  path = tmp_path_factory.mktemp("calls")
  items = [augmenting.call(name=f"c{i}", seed=i) for i in range(CALLS - 1)]
  items.append(augmenting.call(name="long", seconds=47.0))
  recorded.write(path, **{"a-calls": items})
  return path


def config(*augment, **data):
  fields = dict(logical_shards=2, group_size=3, stretch_seconds=20.0) | data
  return recorded.config("a-calls:1", augment=augment, **fields)


def taken(root, settings, *, steps=4, state=None, **process):
  batches = small_data.load(settings, root, **process)
  if state is not None:
    batches.set_state(state)
  found = small_data.take(batches, steps)
  state = json.loads(json.dumps(batches.get_state()))
  batches.close()
  return found, state


def equal(a, b):
  leaves = (jax.tree.leaves(x) for x in (a, b))
  return all(map(np.array_equal, *leaves))


@pytest.fixture(scope="module")
def reference(root):
  return taken(root, config(*AUGMENT))[0]


def test_the_same_seed_gives_the_same_and_another_another(root, reference):
  assert equal(taken(root, config(*AUGMENT))[0], reference)
  assert not equal(taken(root, config(*AUGMENT, seed=8))[0], reference)
  assert not equal(taken(root, config())[0], reference)


def test_nothing_asked_for_is_nothing_changed(root):
  plain = taken(root, config())[0]
  assert equal(taken(root, config("noise:0", "speed:0"))[0], plain)


def test_a_resumed_run_goes_on_bit_for_bit(root, reference):
  settings = config(*AUGMENT)
  first, state = taken(root, settings, steps=1)
  rest, _ = taken(root, settings, steps=3, state=state)
  assert equal([*first, *rest], reference)


def test_two_hosts_read_what_one_reads(root, reference):
  halves = [
    taken(root, config(*AUGMENT), steps=2, rows=rows)[0]
    for rows in ([0, 1], [2, 3])
  ]
  joined = [
    jax.tree.map(lambda *rows: np.concatenate(rows), *batches)
    for batches in zip(*halves, strict=True)
  ]
  assert equal(joined, reference[:2])


def test_a_state_of_other_transforms_is_refused(root):
  _, state = taken(root, config("gain:1"), steps=1)
  with pytest.raises(errors.UserError, match="augment: .*gain:1.* then"):
    taken(root, config("gain:0.5"), steps=1, state=state)
  taken(root, config("gain:0.5", on_change="go_on"), steps=1, state=state)
  # Of before there were any.
  _, state = taken(root, config(), steps=1)
  del state["identity"]["augment"]
  taken(root, config(), steps=1, state=state)


def _items(root, settings, *, count):
  opened = mixture.open_mixture(
    settings, data_dir=root, split=Split.TRAIN, in_stretches=True
  )
  found = [opened.items[i] for i in range(count)]
  return [i.timeline if isinstance(i, framing.Excerpt) else i for i in found]


def test_epochs_differ_and_stretches_of_one_agree(root):
  elements = CALLS - 1 + 3
  settings = config("gain:1:db=-20..-1", "swap:0.5")
  epochs = _items(root, settings, count=2 * elements)
  plain = {i.id: i for i in _items(root, config(), count=elements)}
  assert len(plain) == CALLS

  def levels(items):
    """By recording: the gains of each of its elements."""
    found = {}
    for item in items:
      sounds = {track.voice: track.audio for track in item.tracks}
      for track in plain[item.id].tracks:
        both = np.abs(track.audio) > 0.01
        # Samples that both have: other stretches have others.
        ratio = np.abs(sounds[track.voice][both]) / np.abs(track.audio[both])
        heard = ratio[ratio > 0]
        if len(heard):
          key = item.id, track.voice
          found.setdefault(key, set()).add(round(float(np.median(heard)), 4))
    return found

  first, second = levels(epochs[:elements]), levels(epochs[elements:])
  assert all(len(values) == 1 for values in [*first.values(), *second.values()])
  assert first.keys() == second.keys() and len(first) == 2 * CALLS
  assert all(first[key] != second[key] for key in first)
  values = [next(iter(v)) for v in first.values()]
  assert len({*values}) == len(values)


def test_probability_is_the_share_of_recordings(tmp_path):
  items = [augmenting.call(name=f"c{i}", seconds=4.2) for i in range(CALLS)]
  recorded.write(tmp_path, **{"a-calls": items})
  settings = config("gain:0.3", "lost:0.6:rate=0.5")
  done = [
    item.metadata.get("augment", ())
    for item in _items(tmp_path, settings, count=400)
  ]
  for name, share in (("gain", 0.3), ("lost", 0.6)):
    assert abs(np.mean([name in names for names in done]) - share) < 0.08
  assert abs(np.mean([len(names) == 2 for names in done]) - 0.18) < 0.06


def test_a_transform_more_leaves_the_draws_of_others(root):
  one = _items(root, config("gain:0.5:db=-9..-3"), count=6)
  two = _items(root, config("lost:0.5", "gain:0.5:db=-9..-3"), count=6)
  for a, b in zip(one, two, strict=True):
    for x, y in zip(a.tracks, b.tracks, strict=True):
      np.testing.assert_array_equal(x.audio, y.audio)


def test_an_entry_alone_is_changed(root, tmp_path_factory):
  path = tmp_path_factory.mktemp("two")
  for name in ("a-calls", "b-calls"):
    recorded.write(
      path, **{name: [augmenting.call(name=f"{name}{i}") for i in range(3)]}
    )
  settings = recorded.config(
    *("a-calls:1", "b-calls:1"), augment=("gain:1:entry=b-calls",)
  )
  for item in _items(path, settings, count=12):
    assert ("augment" in item.metadata) == item.id.startswith("b")


def test_speed_packs_whatever_its_length(root):
  """Sequences are cut from frames, so a slower recording takes more of them."""
  settings = config("speed:1:factor=0.5")
  slow, plain = (
    taken(root, settings, steps=3)[0],
    taken(root, config(), steps=3)[0],
  )
  for batch in slow:
    assert (
      batch.packed.inputs.tokens.shape == plain[0].packed.inputs.tokens.shape
    )
  assert (slow[0].packed.segment_ids > 0).mean() > 0.5


def test_a_noise_that_breaks_later_is_named(root, tmp_path):
  soundfile.write(tmp_path / "n.wav", np.full(90_000, 0.1), 16_000)
  settings = config(f"noise:1:folder={tmp_path}")
  opened = mixture.open_mixture(settings, data_dir=root, split=Split.TRAIN)
  (tmp_path / "n.wav").write_bytes((tmp_path / "n.wav").read_bytes()[:60_000])
  with pytest.raises(
    errors.UserError, match="n.wav cannot be used .*truncated"
  ):
    opened.items[0]


_WORKERS = """
import pickle, sys
from tests.helpers import small_data
if __name__ == "__main__":
  config, root, out = pickle.loads(bytes.fromhex(sys.argv[1]))
  batches = small_data.load(config, root)
  found = small_data.take(batches, 4)
  batches.close()
  with open(out, "wb") as file:
    pickle.dump(found, file)
"""


@pytest.mark.slow
def test_worker_processes_change_nothing(root, reference, tmp_path):
  script, out = tmp_path / "workers.py", tmp_path / "found"
  script.write_text(_WORKERS)
  given = pickle.dumps((config(*AUGMENT, workers=2), root, out)).hex()
  result = commands.run(str(script), given, timeout=300)
  assert result.returncode == 0, result.stderr[-3000:]
  assert equal(pickle.loads(out.read_bytes()), reference)
