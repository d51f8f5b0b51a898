"""Clips that FFmpeg has written, with subtitles inside and beside them."""

import pytest

from tests.helpers import sound, streamed, talking_clips
from tml_jax import errors
from tml_jax.data import subtitles
from tml_jax.data.source import BadRecording, Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role

GIVEN = {"language": "en", "licence": "CC0", "size": "48x64"}
SRT = (
  "\ufeff1\r\n00:00:00,200 --> 00:00:01,200\r\n<i>hello</i>\r\nthere\r\n\r\n"
  "2\r\n00:00:01,600 --> 00:00:02,600\r\n{\\an8}caf&eacute;\r\n"
)
VTT = (
  "WEBVTT\n\nNOTE nothing\n\n00:00.200 --> 00:01.200 align:start\n"
  "<v Ann>hello there\n\nid\n00:00:01.600 --> 00:00:02.600\ncafé\n"
)


@pytest.mark.parametrize("kind", talking_clips.KINDS)
def test_subtitles_inside(tmp_path, kind):
  talking_clips.write(
    tmp_path / f"a b.{kind}",
    said=[(0.2, 1.2, "hello <i>there</i>"), (1.6, 2.6, "café")],
  )
  (item,), bad = streamed.read("video", tmp_path, role="user", fps="5", **GIVEN)
  assert not bad
  timeline_lib.validate(item)
  (track,) = item.tracks
  assert track.role == Role.USER and item.id == f"a b.{kind}"
  assert [w.text for w in track.words] == ["hello", "there", "café"]
  assert track.words[0].start == pytest.approx(0.2, abs=0.02)
  assert track.words[2].end == pytest.approx(2.6, abs=0.02)
  assert len(track.spans) == 2
  assert [round(f.time, 1) for f in item.video] == [i / 5 for i in range(15)]
  assert item.metadata == {
    "kind": "video",
    "language": "en",
    "licence": "CC0",
    "left out": {"words spread over a stretch that has times": 2},
  }


@pytest.mark.parametrize(("end", "text"), [("srt", SRT), ("vtt", VTT)])
def test_subtitles_beside(tmp_path, end, text):
  talking_clips.write(tmp_path / "a.mkv", said=[(0.2, 1.2, "other")])
  (tmp_path / f"a.{end}").write_bytes(text.encode())
  (item,), bad = streamed.read("video", tmp_path, role="environment", **GIVEN)
  (track,) = item.tracks
  assert not bad and track.role == Role.ENVIRONMENT
  found = [(w.text, w.start, w.end) for w in track.words]
  assert found == [
    ("hello", 0.2, 0.7),
    ("there", 0.7, 1.2),
    ("café", 1.6, 2.6),
  ]
  # Of a part that is kept.
  (item,), bad = streamed.read(
    "video", tmp_path, role="environment", seconds="1.4", fps="10", **GIVEN
  )
  assert not bad and item.duration == 1.4
  assert item.video[-1].time == pytest.approx(1.3, abs=0.05)
  assert [w.text for w in item.tracks[0].words] == ["hello", "there"]


def test_what_cannot_be_used_is_counted(tmp_path):
  talking_clips.write(tmp_path / "long.mkv", pictures_to=5.0)
  talking_clips.write(tmp_path / "mute.mkv", sounds=False)
  talking_clips.write(tmp_path / "text.mkv")
  (tmp_path / "text.srt").write_text("nothing")
  talking_clips.write(tmp_path / "latin.mkv")
  (tmp_path / "latin.srt").write_bytes(SRT.encode("utf-16"))
  talking_clips.write(tmp_path / "late.mkv")
  (tmp_path / "late.srt").write_text(SRT.replace("00:00:0", "01:00:0"))
  data = (tmp_path / "long.mkv").read_bytes()
  (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 3])
  (tmp_path / "empty.mkv").write_bytes(b"")
  (tmp_path / "text.mp4").write_bytes(b"nothing")
  sound.write_wav(tmp_path / "sound.mp4", sound.tone(1.0)[None])
  items, bad = streamed.read("video", tmp_path, role="user", **GIVEN)
  kept = {item.id: item for item in items}
  assert {*kept} <= {"long.mkv", "cut.mkv"}
  assert kept["long.mkv"].duration == pytest.approx(4.0)
  assert kept["long.mkv"].metadata["left out"] == {
    "recordings without words": 1
  }
  found = {detail.split()[0].rstrip(":"): str(r) for r, detail in bad}
  assert found["late.mkv"] == Reason.BROKEN_METADATA
  assert found["text.srt"] == Reason.NO_TRANSCRIPT
  assert found["latin.srt"] == Reason.NOT_UTF8
  assert found["mute.mkv"] == Reason.UNREADABLE
  assert len(bad) == 8 - ("cut.mkv" in kept)


def test_times_of_subtitles():
  with pytest.raises(BadRecording, match="no subtitle"):
    subtitles.parse(b"1\n00:00 --> 00:01\nx", name="a.srt")
  (said,) = subtitles.parse(b"102:03:04.5 --> 102:03:04.75\nx", name="a.vtt")
  assert (said.start, said.end, said.text) == (367384.5, 367384.75, "x")


def test_options_are_checked(tmp_path):
  talking_clips.write(tmp_path / "a.mkv")
  for options in ({}, {"role": "left"}, {"role": "user", "fps": "0"}):
    with pytest.raises(errors.UserError, match="write"):
      streamed.read("video", tmp_path, **options)
