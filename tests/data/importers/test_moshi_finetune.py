"""Two-channel calls of the trainers of Moshi, and what may be wrong in them."""

import gzip
import json
import os

import numpy as np
import pytest
import soundfile

from tests.helpers import sound, streamed, two_sides
from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role

GIVEN = {"language": "en", "licence": "CC0"}
METADATA = {"kind": "conversation", **GIVEN}
WORDS = [
  ["Hello", [0.2, 0.6], "SPEAKER_MAIN"],
  ["there", [0.6, 1.2], "SPEAKER_MAIN"],
]


def lines(path, *rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sides(item):
  return {str(t.role): two_sides.side_of(t) for t in item.tracks}


def words(item, role):
  return [(w.text, w.start, w.end) for w in item.track(role).words]


def test_a_manifest(tmp_path):
  for i in range(3):
    two_sides.write(tmp_path / "data_stereo" / f"{i}.wav", rate=24_000)
  sidecar = {"alignments": WORDS, "text_conditions": {"voice": "calm"}}
  (tmp_path / "data_stereo" / "0.json").write_text(json.dumps(sidecar))
  other = [["so", [1.6, 2.0], "SPEAKER_OTHER"], *reversed(WORDS)]
  (tmp_path / "data_stereo" / "1.json").write_text(
    json.dumps({"alignments": other}), encoding="utf-8-sig"
  )
  manifest = tmp_path / "data.jsonl"
  lines(
    manifest,
    *({"path": f"data_stereo/{i}.wav", "duration": 3.0} for i in range(3)),
  )
  items, bad = streamed.read("moshi_finetune", manifest, **GIVEN)
  assert not bad
  assert [item.id for item in items] == [
    f"data_stereo/{i}.wav" for i in range(3)
  ]
  for item in items:
    timeline_lib.validate(item)
    assert sides(item) == {"agent": "left", "user": "right"}
    assert item.duration == 3.0 and item.track(Role.USER).words == ()
    for track in item.tracks:
      two_sides.check_spans(track)
  expected = [("Hello", 0.2, 0.6), ("there", 0.6, 1.2)]
  assert words(items[0], Role.AGENT) == words(items[1], Role.AGENT) == expected
  assert items[0].metadata == METADATA | {"text_conditions": {"voice": "calm"}}
  assert items[1].metadata["left out"] == {"words of other speakers": 1}
  assert items[2].metadata["left out"] == {"recordings without words": 1}
  # The other way round the words stay those of the left.
  items, _ = streamed.read("moshi_finetune", manifest, user="left")
  assert sides(items[0]) == {"agent": "right", "user": "left"}
  assert words(items[0], Role.USER) == expected


def test_a_part_changes_with_its_sound_and_its_words(tmp_path):
  for name in ("a", "b"):
    two_sides.write(tmp_path / f"{name}.wav")
  with gzip.open(tmp_path / "data.jsonl.gz", "wt") as file:
    for name in ("a", "b"):
      file.write(json.dumps({"path": f"{name}.wav", "duration": 3.0}) + "\n")

  def parts():
    return source.IMPORTERS["moshi_finetune"](str(tmp_path), options={}).parts()

  first = parts()
  (tmp_path / "b.json").write_text(json.dumps({"alignments": WORDS}))
  os.utime(tmp_path / "a.wav", (1, 1))
  again = parts()
  assert [p.name for p in first] == [p.name for p in again]
  assert all(a.stamp != b.stamp for a, b in zip(first, again, strict=True))
  assert first[0].bytes == (tmp_path / "a.wav").stat().st_size
  report = streamed.prepare("moshi_finetune", tmp_path, tmp_path / "c" / "x")
  assert report["recordings"] == 2


def test_what_cannot_be_used_is_counted(tmp_path):
  two_sides.write(tmp_path / "ok.wav")
  two_sides.write(tmp_path / "a b%d.wav")
  two_sides.write(tmp_path / "mono.wav", channels=slice(0, 1))
  soundfile.write(tmp_path / "zero.wav", np.zeros((0, 2)), sound.RATE)
  data = (tmp_path / "ok.wav").read_bytes()
  (tmp_path / "cut.wav").write_bytes(data[: len(data) // 2])
  (tmp_path / "empty.wav").write_bytes(b"")
  for name in ("ms", "null", "list", "latin", "text"):
    two_sides.write(tmp_path / f"{name}.wav")
  (tmp_path / "ms.json").write_text(
    json.dumps({"alignments": [["a", [200, 900], "SPEAKER_MAIN"]]})
  )
  (tmp_path / "null.json").write_text('{"alignments": null}')
  (tmp_path / "list.json").write_text('{"alignments": [["a", 1, 2]]}')
  (tmp_path / "latin.json").write_bytes(b'{"alignments": [["caf\xe9"]]}')
  (tmp_path / "text.json").write_text(
    json.dumps(
      {
        "alignments": [
          [None, [0.2, 0.3], "SPEAKER_MAIN"],
          ["nan", [float("nan"), 0.3], "SPEAKER_MAIN"],
          ["late", [2.9, 9.0], "SPEAKER_MAIN"],
          ["over", [0.1, 0.9], "SPEAKER_MAIN"],
          ["lapping", [0.3, 0.5], "SPEAKER_MAIN"],
        ]
      }
    )
  )
  names = ("ok", "a b%d", "mono", "zero", "cut", "empty")
  names += ("ms", "null", "list", "latin", "text")
  (tmp_path / "data.jsonl").write_bytes(
    b"\xef\xbb\xbf"
    + b"".join(
      json.dumps({"path": f"{name}.wav", "duration": 3.0}).encode() + b"\r\n"
      for name in names
    )
    + b'{"path": "../ok.wav"}\n{"path": "gone.wav"}\n{"path": null}\n'
    + b'{"path": "ok.wav", "duration": 3.0}\n'
    + b'{"path": "-x.wav", "duration": "long"}\n'
    + b"[1]\nnothing\n\xff\xfe\n"
  )
  two_sides.write(tmp_path / "short.wav")
  with open(tmp_path / "data.jsonl", "ab") as file:
    file.write(b'{"path": "short.wav", "duration": 100.0}\n')
  items, bad = streamed.read("moshi_finetune", tmp_path / "data.jsonl")
  assert [item.id for item in items] == ["a b%d.wav", "ok.wav", "text.wav"]
  kept = items[2].track(Role.AGENT).words
  assert [w.text for w in kept] == ["over", "lapping", "late"]
  assert items[2].metadata["left out"] == {
    "words without text": 1,
    "words without times": 1,
  }
  assert sorted(str(reason) for reason, _ in bad) == sorted(
    [Reason.WRONG_CHANNELS]
    + [Reason.EMPTY, Reason.UNREADABLE]
    + [Reason.TRUNCATED] * 2
    + [Reason.BROKEN_METADATA] * 7
    + [Reason.MISSING] * 3
    + [Reason.NOT_UTF8] * 2
  ), bad


def test_nu_dialogue(tmp_path):
  text = [
    {"speaker": "B", "word": "fine", "start": 1.6, "end": 2.6},
    {"speaker": "A", "word": "hello", "start": 0.2, "end": 1.2},
    {"speaker": "C", "word": "who", "start": 0.2, "end": 1.2},
  ]
  two_sides.write(tmp_path / "audio" / "x" / "1.flac", rate=16_000)
  (tmp_path / "audio" / "x" / "1.json").write_text(json.dumps(text))
  (item,), bad = streamed.read(
    "nu_dialogue", tmp_path / "audio", user="A", **GIVEN
  )
  assert not bad and item.id == "x/1"
  assert sides(item) == {"user": "left", "agent": "right"}
  assert words(item, Role.USER) == [("hello", 0.2, 1.2)]
  assert words(item, Role.AGENT) == [("fine", 1.6, 2.6)]
  assert item.metadata == METADATA | {
    "left out": {"words of other speakers": 1}
  }
  # Words in a folder of their own, and each of both as the user.
  (tmp_path / "text" / "x").mkdir(parents=True)
  os.rename(
    tmp_path / "audio" / "x" / "1.json", tmp_path / "text" / "x" / "1.json"
  )
  items, _ = streamed.read(
    "nu_dialogue", tmp_path / "audio", user="each", words=tmp_path / "text"
  )
  assert [item.id for item in items] == ["x/1#A", "x/1#B"]
  assert [sides(item)["user"] for item in items] == ["left", "right"]
  assert words(items[1], Role.USER) == [("fine", 1.6, 2.6)]
  with pytest.raises(errors.UserError, match="user=''; write one of A, B, eac"):
    streamed.read("nu_dialogue", tmp_path / "audio")


@pytest.mark.parametrize("text", ["{}", "[7]", '[{"speaker": []}]', "[[]]"])
def test_words_of_nu_dialogue_that_are_none(tmp_path, text):
  two_sides.write(tmp_path / "1.wav")
  two_sides.write(tmp_path / "1.flac")
  (tmp_path / "1.json").write_text(text)
  items, bad = streamed.read("nu_dialogue", tmp_path, user="A")
  wrong = 0 if text == "{}" else 1
  assert [r for r, _ in bad] == [Reason.BROKEN_METADATA] * (1 + wrong)
  assert len(items) == 1 - wrong
