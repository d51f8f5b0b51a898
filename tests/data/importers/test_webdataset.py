"""Conversations in tar files that WebDataset itself has written."""

import io
import json

import pytest
import soundfile
import webdataset

from tests.helpers import sound, streamed, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role

GIVEN = {"language": "en", "licence": "CC0"}
WORDS = {
  "words": [
    {"role": "user", "text": "hi", "start": 0.2, "end": 1.2},
    {"role": "right", "text": "yes", "start": 1.6, "end": 2.6},
    {"role": "x", "text": "no", "start": 1.6, "end": 2.6},
  ]
}
SEGMENTS = [
  {
    "session_id": "a",
    "speaker": "S1",
    "start_time": 0.2,
    "end_time": 1.2,
    "words": "well hi",
    "word_alignment": [["well", 0.2, 0.6], ["hi", 0.6, 1.2]],
  },
  {
    "session_id": "a",
    "speaker": "S2",
    "start_time": "1.6",
    "end_time": "2.6",
    "words": "yes",
  },
  {"speaker": "S3", "start_time": 0, "end_time": 1, "words": "not me"},
]


def file_of(samples, *, form="FLAC"):
  buffer = io.BytesIO()
  soundfile.write(buffer, samples.T, sound.RATE, format=form)
  return buffer.getvalue()


def write(folder, *samples):
  with webdataset.ShardWriter(
    f"{folder}/shard-%06d.tar", maxcount=2, verbose=0
  ) as sink:
    for each in samples:
      sink.write(each)


def test_words_in_json_and_in_segments(tmp_path):
  both = two_sides.samples()
  write(
    tmp_path,
    {"__key__": "c/a", "flac": file_of(both), "json": WORDS},
    {"__key__": "c/b", "wav": file_of(both, form="WAV")},
    {"__key__": "c/s", "flac": file_of(both), "seglst.json": SEGMENTS},
    {
      "__key__": "c/x",
      "user.flac": file_of(both[:1]),
      "agent.wav": file_of(both[1:], form="WAV"),
      "json": {"words": WORDS["words"][:1]},
    },
  )
  items, bad = streamed.read(
    "webdataset", tmp_path, user="left", speakers="S1,S2", **GIVEN
  )
  assert not bad and len(items) == 4
  for item in items:
    timeline_lib.validate(item)
    assert {str(t.role): two_sides.side_of(t) for t in item.tracks} == {
      "user": "left",
      "agent": "right",
    }
    assert item.metadata["kind"] == "conversation"
  a, b, s, x = sorted(items, key=lambda item: item.id.rpartition("/")[2])
  texts = [
    [[w.text for w in i.track(r).words] for r in (Role.USER, Role.AGENT)]
    for i in (a, b, s, x)
  ]
  assert texts == [
    [["hi"], ["yes"]],
    [[], []],
    [["well", "hi"], ["yes"]],
    [["hi"], []],
  ]
  assert a.metadata["left out"] == {"words of other speakers": 1}
  assert b.metadata["left out"] == {"recordings without words": 1}
  assert s.metadata["left out"] == {"words of other speakers": 2}
  for track in s.tracks:
    two_sides.check_spans(track, within=1e-6)
  report = streamed.prepare(
    "webdataset", tmp_path, tmp_path / "c" / "x", user="left"
  )
  assert report["recordings"] == 4


def test_what_cannot_be_used_is_counted(tmp_path):
  both = two_sides.samples()
  write(
    tmp_path,
    {"__key__": "mono", "flac": file_of(both[:1])},
    {"__key__": "half", "user.flac": file_of(both[:1])},
    {"__key__": "list", "flac": file_of(both), "json": {"words": 7}},
    {"__key__": "segs", "flac": file_of(both), "seglst.json": {"a": 1}},
    {"__key__": "noise", "flac": b"nothing"},
    {"__key__": "words", "json": WORDS},
  )
  data = (tmp_path / "shard-000002.tar").read_bytes()
  (tmp_path / "shard-000002.tar").write_bytes(data[:600])
  items, bad = streamed.read("webdataset", tmp_path, user="left")
  assert not items
  assert sorted(str(r) for r, _ in bad) == sorted(
    [Reason.WRONG_CHANNELS, Reason.MISSING]
    + [Reason.BROKEN_METADATA] * 2
    + [Reason.TRUNCATED]
  )
  _, bad = streamed.read("webdataset", tmp_path / "shard-000000.tar")
  assert "who is on the left?" in bad[0][1]
  for options in ({"user": "both"}, {"speakers": "A"}):
    with pytest.raises(errors.UserError, match="write"):
      streamed.read("webdataset", tmp_path, **options)


def test_words_are_json(tmp_path):
  write(
    tmp_path,
    {
      "__key__": "a",
      "flac": file_of(two_sides.samples()),
      "json": json.dumps(WORDS["words"]).encode("utf-8-sig"),
    },
  )
  (item,), bad = streamed.read("webdataset", tmp_path, user="right")
  assert not bad
  # Roles in words are those that the option gave.
  assert [w.text for w in item.track(Role.USER).words] == ["hi", "yes"]
