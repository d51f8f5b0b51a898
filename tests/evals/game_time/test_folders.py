"""Game-Time's folders as clips and timelines."""

import shutil

import pytest

from tests.helpers import game_time as layout
from tml_jax import errors
from tml_jax.evals.game_time import folders as bench
from tml_jax.evals.game_time.folders import Family
from tml_jax.streams import annotation
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role, Word, validate


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  root = tmp_path_factory.mktemp("game") / "time"
  layout.write(root)
  return root


@pytest.fixture
def copy(written, tmp_path):
  return shutil.copytree(written, tmp_path / "copy")


def test_every_clip_is_read(written):
  found = bench.open_root(str(written))
  assert not found.left_out
  assert len(found.clips) == len(layout.TEXTS)
  assert len({clip.family for clip in found.clips}) == len(layout.TEXTS)
  for clip in found.clips:
    timeline = clip.load()
    validate(timeline)
    text = layout.TEXTS[f"{clip.folder}/{clip.task}"]
    track = timeline.track(Role.USER)
    spoken = text.replace("|", "-").replace("--", "-").split("-")
    assert [word.text for word in track.words] == spoken
    assert clip.end <= clip.num_samples / 16_000 < timeline.duration
    assert abs(track.audio[: clip.num_samples]).max() > 0.01
    assert not track.audio[clip.num_samples :].any()


def test_what_is_asked_for(written):
  asked = {c.family: c.asked for c in bench.open_root(str(written)).clips}
  assert asked == {
    Family.SEQUENCE: None,
    Family.OPEN_ENDED: None,
    Family.TIME_FAST: 3.0,
    Family.TIME_SLOW: 2.5,
    Family.TIME_SILENCE: 4.0,
    Family.TEMPO_INTERVAL: 1.0,
    Family.TEMPO_ADHERE: pytest.approx(1.3),
    Family.SHADOW: None,
    Family.CUE: None,
  }


@pytest.mark.parametrize(
  ("text", "seconds"),
  [
    ("Please count from one to ten in 10 seconds.", 10),
    ("Leave a 2.5-second pause.", 2.5),
    ("Wait half a second, please", 0.5),
    ("one and a half seconds", 1.5),
    ("twenty-five seconds", 25),
    ("for thirty seconds!", 30),
    ("take one minute", 60),
    ("a word every second", None),
    ("two point five seconds", 2.5),
    ("first five seconds, then eight seconds", 8),
    ("quickly", None),
    ("a few seconds", None),
    ("seventeen secondary schools", None),
  ],
)
def test_seconds_of_a_text(text, seconds):
  assert bench.seconds(text) == seconds


def test_tempo_of_an_example():
  def row(*starts):
    return tuple(Word(s, s + 0.2, "x") for s in starts)

  assert bench.tempo(row(0, 0.25, 0.5, 2.0, 3.0, 4.0)) == 1.0
  assert bench.tempo(row(0, 0.25, 0.5, 2.0)) is None
  assert bench.tempo(row(0, 1, 2, 2.3, 4, 6)) == 1.85  # of 2.3, 4, 6


def test_annotations_for_our_panel(written):
  found = {c.family: c for c in bench.open_root(str(written)).clips}
  kinds = {
    family: [a.kind for a in annotation.of(clip.load())]
    for family, clip in found.items()
  }
  assert kinds[Family.SEQUENCE] == kinds[Family.TIME_FAST] == [Kind.TURN]
  assert kinds[Family.SHADOW] == kinds[Family.CUE] == []
  clip = found[Family.TIME_SILENCE]
  (timed,) = annotation.of(clip.load())
  assert (timed.kind, timed.due) == (Kind.TIMED, clip.end + 4)


@pytest.mark.parametrize(
  ("content", "why"),
  [
    (None, "missing"),
    ("nonsense", "Expecting value"),
    ("[]", "has no"),
    ('[["a", [2.0, 1.0], "USER"]]', "from 2.0 to 1.0"),
    ('[["a", [NaN, 1.0], "USER"]]', "from nan"),
  ],
)
def test_a_broken_clip_is_left_out_and_counted(copy, content, why):
  (path,) = copy.glob("advanced_instructions/alignments/F-*/**/0.jsonl")
  path.unlink()
  if content is not None:
    path.write_text(content)
  found = bench.open_root(str(copy))
  assert len(found.clips) == len(layout.TEXTS) - 1
  ((name, reason),) = found.left_out.items()
  assert name == "F-1-Simul-Shadow/0"
  assert why in reason


def test_a_broken_sound_is_left_out(copy):
  (path,) = copy.glob("basic_instructions/audios/1-*/test/0.wav")
  path.write_bytes(b"RIFF")
  assert [*bench.open_root(str(copy)).left_out] == ["1-a-Sequence-Number/0"]


def test_tasks_are_chosen_by_name_or_family(written):
  found = bench.open_root(str(written), tasks=("time_fast", "G-1-Simul-Cue"))
  families = [clip.family for clip in found.clips]
  assert families == [Family.TIME_FAST, Family.CUE]
  with pytest.raises(errors.UserError, match="time_fast"):
    bench.open_root(str(written), tasks=("time_fats",))


def test_folders_that_are_no_benchmark(copy, tmp_path):
  for root in ("", str(tmp_path / "nothing"), str(tmp_path)):
    with pytest.raises(errors.UserError, match="basic_instructions"):
      bench.open_root(root)
  (copy / "basic_instructions" / "audios" / "9-New").mkdir()
  with pytest.raises(errors.UserError, match="9-New is no task"):
    bench.open_root(str(copy))


def test_a_link_out_of_the_root_is_not_followed(copy, tmp_path):
  (path,) = copy.glob("basic_instructions/audios/1-*/test/0.wav")
  outside = tmp_path / "outside.wav"
  path.rename(outside)
  path.symlink_to(outside)
  (reason,) = bench.open_root(str(copy)).left_out.values()
  assert "leads" in reason or "outside" in reason
