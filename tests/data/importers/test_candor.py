"""Calls over video, their turns and backchannels."""

import json

import pytest

from tests.helpers import streamed, talking_clips, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role

HEAD = "turn_id,speaker,start,stop,utterance"
TURNS = '0,ann,0.2,1.2,"well, hello"\n1,ben,1.6,2.6,fine\n2,x,1.6,2.6,who\n'
BACKBITER = (
  "turn_id,speaker,start,stop,utterance,backchannel,backchannel_count,"
  "backchannel_speaker,backchannel_start,backchannel_stop\n"
  "0,ann,0.2,1.2,hello,yeah,1,ben,0.7,0.9\n"
  '1,ben,1.6,2.6,fine,"mhm, oh",2,ann,"[1, 2]","[1, 2]"\n'
)
OPTIONS = {"language": "en", "licence": "CANDOR", "size": "48x64"}


def write(folder, *, name="0a-1b", channels=None, turns=TURNS):
  processed = folder / name / "processed"
  two_sides.write(
    processed / f"{name}.mp3",
    rate=48_000,
    format="MP3",
    bitrate_mode="CONSTANT",
  )
  (processed / "channel_map.json").write_text(
    json.dumps(channels or {"L": "ann", "R": "ben"})
  )
  talking_clips.write(processed / "ann.mp4")
  texts = folder / name / "transcription"
  texts.mkdir()
  (texts / "transcript_audiophile.csv").write_text(
    f"{HEAD}\n{turns}", encoding="utf-8-sig"
  )
  (texts / "transcript_backbiter.csv").write_text(BACKBITER)


def test_turns_and_cameras(tmp_path):
  write(tmp_path)
  items, bad = streamed.read("candor", tmp_path, user="each", **OPTIONS)
  assert not bad and [i.id for i in items] == ["0a-1b#L", "0a-1b#R"]
  for item, side in zip(items, ("left", "right"), strict=True):
    timeline_lib.validate(item)
    user = item.track(Role.USER)
    assert two_sides.side_of(user) == side
    two_sides.check_spans(user, within=1e-6)
  assert [w.text for w in items[0].track(Role.USER).words] == ["well,", "hello"]
  assert items[0].track(Role.USER).voice == "ann"
  assert len(items[0].video) == 3 and not items[1].video
  assert items[0].metadata["left out"] == {
    "recordings whose video cannot be read": 1,
    "words of other speakers": 1,
    "words spread over a stretch that has times": 2,
  }


def test_backchannels(tmp_path):
  write(tmp_path)
  (item,), bad = streamed.read(
    "candor", tmp_path, user="L", video="no", transcript="backbiter", **OPTIONS
  )
  assert not bad and not item.video
  agent = item.track(Role.AGENT)
  assert [w.text for w in agent.words] == ["yeah", "fine"]
  assert [(s.start, s.end) for s in agent.spans] == [(0.7, 0.9), (1.6, 2.6)]
  assert item.metadata["left out"]["words without times"] == 2
  (item,), _ = streamed.read(
    "candor", tmp_path, user="L", transcript="cliffhanger", **OPTIONS
  )
  assert item.metadata["left out"] == {"recordings without words": 1}
  for track in item.tracks:
    two_sides.check_spans(track, within=0.1)


def test_what_cannot_be_used(tmp_path):
  write(tmp_path, name="same", channels={"L": "ann", "R": "ann"})
  write(tmp_path, name="far", channels={"L": "../../ann", "R": "ben"})
  write(tmp_path, name="none", channels={"L": "ann"})
  write(tmp_path, name="gone")
  (tmp_path / "gone" / "processed" / "channel_map.json").unlink()
  write(tmp_path, name="text", turns="0,ann,soon,1.2,hello\n")
  write(tmp_path, name="short", turns="0,ann\n")
  write(tmp_path, name="table")
  (
    tmp_path / "table" / "transcription" / "transcript_audiophile.csv"
  ).write_text("a,b\n1,2\n")
  items, bad = streamed.read("candor", tmp_path, user="R", **OPTIONS)
  assert {i.id for i in items} <= {"short"}
  assert sorted(str(r) for r, _ in bad if r != Reason.MISSING) == [
    Reason.BROKEN_METADATA
  ] * (len(bad) - 1)
  assert len(bad) + len(items) == 7
  with pytest.raises(errors.UserError, match="one of L, R, each"):
    streamed.read("candor", tmp_path)
