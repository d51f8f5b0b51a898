"""Full-Duplex-Bench's folders: read as they are, refused where broken."""

import json
import shutil

import numpy as np
import pytest

from tests.helpers import full_duplex_bench as layout
from tml_jax import errors
from tml_jax.data.corpus import coding
from tml_jax.evals.full_duplex_bench import folders as bench
from tml_jax.streams import annotation, clock, timeline
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role, Word


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  root = tmp_path_factory.mktemp("fdb")
  return root, layout.write(root)


@pytest.fixture
def copy(written, tmp_path):
  """A root of its own to break, and what is in it."""
  root = tmp_path / "fdb"
  shutil.copytree(written[0], root)
  return root


def test_every_clip_is_read(written):
  root, made = written
  found = bench.open_root(str(root))
  assert {clip.name for clip in found.clips} == made.keys()
  assert list({clip.task: 0 for clip in found.clips}) == list(bench.Task)
  assert found.left_out == {} and found.human == {}
  for clip in found.clips:
    assert clip.num_samples == made[clip.name].samples
    assert clip.num_samples % clock.TICKS.samples  # odd lengths are in it
    loaded = clip.load()
    timeline.validate(loaded)
    coding.encode(loaded)  # plain numbers all over
    assert len(loaded.track(Role.USER).audio) == clip.num_samples
    if clip.events:
      (event,) = clip.events
      assert (event.start, event.end) == pytest.approx(made[clip.name].event)


def test_rates_and_channels_carry_the_same_sound(written):
  root, _ = written
  low = bench.read(root / "v1.0/synthetic_pause_handling/12/input.wav")
  high = bench.read(root / "v1.0/candor_pause_handling/1/input.wav")
  assert len(low) == len(high)
  # Up by interpolation and down again: the same to -20 dB, sample by sample.
  assert np.square(low - high).sum() < 0.01 * np.square(low).sum()


def _asked(root, name):
  (clip,) = (c for c in bench.open_root(str(root)).clips if c.name == name)
  return [(a.kind, a.start, a.end) for a in annotation.of(clip.load())]


def test_annotations(written):
  root, made = written
  near = dict(abs=0.15)  # speech ends by energy, a prompt has quiet ends
  (pause,) = _asked(root, "candor_pause_handling/1")  # no room for a reply
  assert pause == (Kind.PAUSE, *made["candor_pause_handling/1"].event)
  (turn,) = _asked(root, "candor_turn_taking/3")
  assert turn[0] == Kind.TURN
  assert turn[2] == made["candor_turn_taking/3"].event[0]
  (turn,) = _asked(root, "icc_backchannel/0")
  assert turn[2] == pytest.approx(made["icc_backchannel/0"].turn_end, **near)
  kinds = {
    "synthetic_user_interruption/2": [Kind.BARGE_IN, Kind.TURN],
    "user_interruption/4": [Kind.BARGE_IN, Kind.TURN],
    "user_backchannel/5": [Kind.BACKCHANNEL],
    "talking_to_other/6": [Kind.SIDE_TALK],
    "background_speech/7": [Kind.BACKGROUND],
  }
  for name, expected in kinds.items():
    turn, *others = _asked(root, name)
    assert turn[0] == Kind.TURN
    assert turn[2] == pytest.approx(made[name].turn_end, **near)
    assert others == [(kind, *made[name].event) for kind in expected]


def test_a_version_or_a_task_is_a_root_too(written):
  root, _ = written
  assert len(bench.open_root(str(root / "v1.5")).clips) == 4
  (clip,) = bench.open_root(str(root / "v1.0/icc_backchannel")).clips
  assert clip.name == "icc_backchannel/0" and str(clip.folder) == "0"
  (clip,) = bench.open_root(str(root), tasks=("talking_to_other",)).clips
  assert clip.folder.as_posix() == "v1.5/talking_to_other/6"
  with pytest.raises(errors.UserError, match="did you mean 'icc_backchannel'"):
    bench.open_root(str(root), tasks=("icc_backchanel",))


@pytest.mark.parametrize(
  "file, text, why",
  [
    ("input.wav", None, "cannot be read"),
    ("input.wav", "", "empty"),
    ("input.wav", "no sound", "cannot be read"),
    ("pause.json", None, "pause.json is missing"),
    ("pause.json", '[{"timestamp": [0.5', "broken metadata"),
    ("pause.json", "[]", "0 events"),
    ("pause.json", '{"timestamp": [1, 2]}', "no timestamps"),
    ("pause.json", '[{"timestamp": [1]}]', "no timestamps"),
    ("pause.json", '[{"timestamp": [2, 1]}]', "from 2.0 to 1.0 s"),
    ("pause.json", '[{"timestamp": [NaN, 1]}]', "from nan"),
    ("pause.json", '[{"timestamp": [900, 901]}]', "from 900.0"),
  ],
)
def test_a_broken_clip_is_left_out_and_counted(copy, file, text, why):
  path = copy / "v1.0/candor_pause_handling/1" / file
  path.unlink()
  if text is not None:
    path.write_text(text)
  found = bench.open_root(str(copy))
  assert len(found.clips) == 8
  ((name, said),) = found.left_out.items()
  assert name == "candor_pause_handling/1" and why in said


@pytest.mark.parametrize("name", ["input.wav", "pause.json", ""])
def test_a_link_out_of_the_root_is_not_followed(copy, tmp_path, name):
  path = copy / "v1.0/candor_pause_handling/1" / name
  path.rename(tmp_path / "outside")
  path.symlink_to(tmp_path / "outside")
  found = bench.open_root(str(copy))
  assert len(found.clips) == 8
  ((clip, said),) = found.left_out.items()
  assert clip == "candor_pause_handling/1" and "leads out of --fdb_root" in said
  # The root may be a link itself, and links inside of it are followed.
  path.unlink()
  (copy / ".kept").mkdir()
  (tmp_path / "outside").rename(copy / ".kept" / "it")
  path.symlink_to(copy / ".kept" / "it")
  (tmp_path / "link").symlink_to(copy)
  assert len(bench.open_root(str(tmp_path / "link")).clips) == 9


def test_folders_that_are_no_benchmark(copy, tmp_path):
  with pytest.raises(errors.UserError, match="no such directory"):
    bench.open_root(str(tmp_path / "nowhere"))
  (tmp_path / "empty").mkdir()
  with pytest.raises(errors.UserError, match="no folder of a task"):
    bench.open_root(str(tmp_path / "empty"))
  (tmp_path / "empty/icc_backchannel").mkdir()
  with pytest.raises(errors.UserError, match="its folders are empty"):
    bench.open_root(str(tmp_path / "empty"))
  (copy / ".cache").mkdir()
  (copy / "v1.0/icc_backchannel/.DS_Store").write_text("")
  (copy / "notes").mkdir()
  assert len(bench.open_root(str(copy)).clips) == 9
  (copy / "v1.0/icc_backchannel").rename(copy / "v1.0/icc_backchanel")
  with pytest.raises(errors.UserError, match="did you mean 'icc_backchannel'"):
    bench.open_root(str(copy))
  shutil.copytree(copy / "v1.5", copy / "v1_5")
  shutil.rmtree(copy / "v1.0")
  with pytest.raises(errors.UserError, match="background_speech twice"):
    bench.open_root(str(copy))


def test_all_clips_broken(copy):
  root = copy / "v1.5/user_backchannel"
  (root / "5/metadata.json").unlink()
  with pytest.raises(errors.UserError, match="user_backchannel/5 .* missing"):
    bench.open_root(str(root))


def test_shares_of_humans(copy):
  (copy / bench.HUMAN).write_text('{"0": [0.25, 0.75]}')
  np.testing.assert_array_equal(
    bench.open_root(str(copy)).human["0"], [0.25, 0.75]
  )
  for text in ("[", '{"0": 3}', '{"0": []}', '["0"]', '{"0": [null]}'):
    (copy / bench.HUMAN).write_text(text)
    with pytest.raises(errors.UserError, match="icc_gt_distribution.json"):
      bench.open_root(str(copy))
  (copy / bench.HUMAN).rename(copy.parent / "shares")
  (copy / bench.HUMAN).symlink_to("../shares")
  with pytest.raises(errors.UserError, match="leads out of --fdb_root"):
    bench.open_root(str(copy))


def test_words_of_a_recogniser(written):
  root, made = written
  clips = {clip.name: clip for clip in bench.open_root(str(root)).clips}
  words = [Word(0.4, 1.0, "over"), Word(1.0, 90.0, "there"), Word(90, 91, "x")]
  found = json.loads(
    bench.to_json(words, clip=clips["candor_turn_taking/3"], provenance={})
  )
  assert found["text"] == "over there x"
  assert found["chunks"][0] == {"text": "over", "timestamp": [0.4, 1.0]}
  # Cut at the interruption's end, as the benchmark's recogniser gets it.
  name = "synthetic_user_interruption/2"
  found = json.loads(bench.to_json(words, clip=clips[name], provenance={}))
  end = round(made[name].event[1], 3)
  assert [c["timestamp"] for c in found["chunks"]] == [[end, 90], [90, 91]]
