"""Columns of sound and pictures that the package datasets has written."""

import io
import json

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import soundfile
from pyarrow import parquet

from tests.helpers import sound, streamed, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import EventKind, Role

GIVEN = {"language": "en", "licence": "CC0"}
WORDS = [
  {"speaker": "left", "word": "hi", "start": 0.2, "end": 1.2},
  {"speaker": "agent", "word": "yes", "start": 1.6, "end": 2.6},
  {"speaker": "nobody", "word": "x", "start": 1.6, "end": 2.6},
]


def file_of(samples, *, form="FLAC"):
  buffer = io.BytesIO()
  soundfile.write(buffer, samples.T, sound.RATE, format=form)
  return buffer.getvalue()


def still():
  buffer = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, (30, 60, 3), np.uint8)
  PIL.Image.fromarray(pixels).save(buffer, "PNG")
  return buffer.getvalue()


def write(path, *, sounds=(), images=(), **columns):
  """A table whose columns `sounds` are Audio and `images` Image."""
  data = datasets.Dataset.from_dict(columns)
  for column in sounds:
    data = data.cast_column(column, datasets.Audio(decode=False))
  for column in images:
    data = data.cast_column(column, datasets.Image(decode=False))
  path.parent.mkdir(parents=True, exist_ok=True)
  data.to_parquet(path)
  assert b"huggingface" in parquet.read_schema(path).metadata


def cell(data, path=None):
  return {"bytes": data, "path": path}


def sides(item):
  return {str(t.role): two_sides.side_of(t) for t in item.tracks}


def test_conversations_in_two_channels(tmp_path):
  call = cell(file_of(two_sides.samples()), "a.flac")
  write(
    tmp_path / "data" / "train-00000-of-00001.parquet",
    sounds=["audio"],
    audio=[call] * 3,
    words=[WORDS, WORDS[:1], []],
    n=[1, 2, 3],
  )
  items, bad = streamed.read(
    "hf_dataset",
    tmp_path,
    rows="conversation",
    user="left",
    words="words",
    **GIVEN,
  )
  assert not bad and len(items) == 3
  for item in items:
    timeline_lib.validate(item)
    assert sides(item) == {"user": "left", "agent": "right"}
  assert items[0].metadata == {
    "kind": "conversation",
    **GIVEN,
    "left out": {"words of other speakers": 1},
  }
  assert [w.text for w in items[0].track(Role.AGENT).words] == ["yes"]
  assert items[2].metadata["left out"] == {"recordings without words": 1}
  items, _ = streamed.read(
    "hf_dataset", tmp_path, rows="conversation", user="each"
  )
  assert len(items) == 6


def test_conversations_in_two_columns(tmp_path):
  left, right = two_sides.samples()
  write(
    tmp_path / "a.parquet",
    sounds=["caller", "bot"],
    caller=[cell(file_of(left[None])), cell(file_of(left[None]))],
    bot=[cell(file_of(right[None], form="WAV")), cell(None)],
    words=[json.dumps(WORDS), "[]"],
    name=["one", "two"],
  )
  (item,), bad = streamed.read(
    "hf_dataset",
    tmp_path / "a.parquet",
    rows="conversation",
    user_audio="caller",
    agent_audio="bot",
    words="words",
    id="name",
  )
  assert item.id == "one" and sides(item) == {"user": "left", "agent": "right"}
  assert item.metadata["left out"] == {"words of other speakers": 2}
  assert bad == [(Reason.MISSING, "two: bot is empty")]


@pytest.mark.parametrize("direction", ["hear", "speak"])
def test_speech_with_text_and_pictures_with_captions(tmp_path, direction):
  speech = file_of(two_sides.samples()[:1])
  write(
    tmp_path / "a.parquet",
    sounds=["audio"],
    images=["image"],
    audio=[cell(speech), cell(b"nothing"), cell(speech), cell(speech)],
    image=[cell(still()), cell(still()), cell(b"no"), cell(still())],
    text=["one two", "x", "three", None],
  )
  items, bad = streamed.read(
    "hf_dataset", tmp_path, rows="speech_text", direction=direction, **GIVEN
  )
  assert [i.events[0].text for i in items] == ["one two", "three"]
  assert items[0].metadata == {"kind": "speech_text", **GIVEN}
  role = Role.USER if direction == "hear" else Role.AGENT
  assert items[0].tracks[0].role == role
  assert [str(r) for r, _ in bad] == [Reason.UNREADABLE, Reason.NO_TEXT]
  items, bad = streamed.read(
    "hf_dataset", tmp_path, rows="image_text", size="40x80"
  )
  assert [i.events[0].text for i in items] == ["one two", "x"]
  assert items[0].events[0].kind == EventKind.SHOW
  assert items[0].video[0].image.shape == (40, 80, 3)
  assert items[0].metadata["kind"] == "image_text"
  assert [str(r) for r, _ in bad] == [Reason.UNREADABLE, Reason.NO_TEXT]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_folders(tmp_path, form):
  """As AudioFolder reads them."""
  left, right = two_sides.samples()
  (tmp_path / "train" / "a b").mkdir(parents=True)
  names = ["a b/ü%d.flac", "a b/gone.flac", "../../x.flac", ""]
  (tmp_path / "train" / names[0]).write_bytes(file_of(two_sides.samples()))
  for name, channel in (("l.flac", left), ("r.flac", right)):
    (tmp_path / "train" / name).write_bytes(file_of(channel[None]))
  table = pa.table(
    {
      "file_name": names,
      "caller_file_name": ["l.flac"] * 4,
      "bot_file_name": ["r.flac"] * 4,
      "text": ["hello, there", "x", "x", "x"],
    }
  )
  path = tmp_path / "train" / f"metadata.{form}"
  if form == "parquet":
    parquet.write_table(table, path)
  elif form == "csv":
    table.to_pandas().to_csv(path, index=False, encoding="utf-8-sig")
  else:
    rows = [json.dumps(row) for row in table.to_pylist()]
    path.write_text("\r\n".join(rows))
  (item,), bad = streamed.read("hf_dataset", tmp_path, rows="speech_text")
  assert item.events[0].text == "hello, there"
  assert [str(r) for r, _ in bad] == [Reason.MISSING] * 3
  (item,), _ = streamed.read(
    "hf_dataset", tmp_path, rows="conversation", user="right"
  )
  assert sides(item) == {"user": "right", "agent": "left"}
  items, bad = streamed.read(
    "hf_dataset",
    tmp_path,
    rows="conversation",
    user_audio="caller",
    agent_audio="bot",
  )
  assert len(items) == 4 and not bad


def test_tables_that_are_broken(tmp_path):
  (tmp_path / "metadata.csv").write_bytes(
    b"file_name,text\nno.flac,x\ncaf\xe9.flac,x\n"
  )
  _, bad = streamed.read("hf_dataset", tmp_path, rows="speech_text")
  assert {str(r) for r, _ in bad} <= {Reason.MISSING, Reason.NOT_UTF8}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({}, "rows=''; write one of conversation, speech_text, image_text"),
    ({"rows": "conversation"}, "user=''; write one of left, right, each"),
    ({"rows": "conversation", "user_audio": "a"}, "agent_audio=''; write a co"),
    (
      {
        "rows": "conversation",
        "user_audio": "a",
        "agent_audio": "b",
        "user": "left",
      },
      "columns say who is who",
    ),
    ({"rows": "speech_text", "text": "txt"}, "no column 'txt'.*'text'"),
  ],
)
def test_options_are_checked(tmp_path, options, message):
  write(tmp_path / "a.parquet", sounds=["audio"], audio=[cell(b"")], text=["x"])
  with pytest.raises(errors.UserError, match=message):
    streamed.read("hf_dataset", tmp_path, **options)
