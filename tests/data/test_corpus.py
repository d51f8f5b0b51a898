"""Corpora on disk: round trips, stretches, damage."""

import json
import os
import pickle

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.helpers import commands, recorded, sound
from tml_jax import errors
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import splits, utterance
from tml_jax.data.corpus import coding, reading, writing
from tml_jax.streams import clock
from tml_jax.streams.document import Document
from tml_jax.streams.timeline import (
  Event,
  EventKind,
  Role,
  Span,
  Timeline,
  Track,
  VideoFrame,
  Word,
)


def utterances(count):
  for i in range(count):
    yield utterance.build(
      sound.tone(0.5, frequency=200 + 50 * i)[None],
      voice="v",
      language="en",
      prompt=f"p{i}",
      text=f"text {i}",
    )


@pytest.fixture
def corpus(tmp_path, monkeypatch):
  """Seven recordings in four shards."""
  monkeypatch.setattr(writing, "SHARD_BYTES", 4_000)
  path = tmp_path / "v-a"
  corpus_lib.write(utterances(7), path=path)
  assert len(corpus_lib.read_index(path).shards) == 4
  return path


def shard(path, number=0):
  return path / corpus_lib.read_index(path).shards[number].file


def pcm(audio):
  return np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16)


def test_records_come_back_in_order(corpus):
  recordings = corpus_lib.RecordSource(corpus)
  assert len(recordings) == 7
  assert recordings.index.seconds == pytest.approx(3.5, abs=0.1)
  for i, expected in enumerate(utterances(7)):
    found = recordings[i]
    assert found.metadata == expected.metadata
    np.testing.assert_array_equal(
      found.tracks[0].audio, pcm(expected.tracks[0].audio) / np.float32(32767)
    )
    assert recordings.seconds[i] == expected.duration
    assert recordings.split_hash[i] == splits.hash_of(expected.id)
  for i in (-1, 7):
    with pytest.raises(IndexError):
      recordings[i]
  assert [*recordings.texts()] == [f"text {i}" for i in range(7)]
  assert recordings.columns("prompt", "language") == {
    "prompt": [f"p{i}" for i in range(7)],
    "language": ["en"] * 7,
  }


def long_call(seconds):
  """Two voices that never rest, and a picture a second."""
  random = np.random.default_rng(0)
  tracks = tuple(
    Track(
      role=role,
      audio=random.uniform(
        -0.5, 0.5, size=round(part * clock.SAMPLE_RATE)
      ).astype(np.float32),
      words=(),
      spans=(),
      voice="v",
    )
    for role, part in ((Role.USER, seconds), (Role.AGENT, seconds - 1.25))
  )
  image = np.arange(40 * 80 * 3, dtype=np.uint8).reshape(40, 80, 3)
  return Timeline(
    id="long",
    duration=seconds,
    tracks=tracks,
    video=tuple(
      VideoFrame(float(t), np.roll(image, t, axis=1))
      for t in range(int(seconds))
    ),
  )


@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(
  st.floats(2.0, 75.0), st.floats(0.0, 75.0), st.floats(0.0, 40.0)
)
def test_a_stretch_has_what_the_whole_has_there(seconds, start, length):
  """And silence elsewhere; the sound is what a 16-bit file would have."""
  item = long_call(round(seconds, 3))
  records = coding.encode(item)
  assert len(records) == -(-len(item.tracks[0].audio) // 480_000)
  asked = []

  def read(numbers):
    asked.extend(numbers)
    return [records[number] for number in numbers]

  whole = coding.decode(read, records=len(records))
  for had, has in zip(item.tracks, whole.tracks, strict=True):
    np.testing.assert_array_equal(has.audio, pcm(had.audio) / np.float32(32767))
  assert [f.time for f in whole.video] == [f.time for f in item.video]
  asked.clear()
  stop = start + length
  part = coding.decode(read, records=len(records), seconds=(start, stop))
  assert len(asked) <= length / coding.CHUNK_SECONDS + 3
  assert part.duration == whole.duration
  window = slice(int(start * 16_000), int(stop * 16_000))
  for had, has in zip(whole.tracks, part.tracks, strict=True):
    assert len(has.audio) == len(had.audio)
    np.testing.assert_array_equal(has.audio[window], had.audio[window])
  times = {frame.time for frame in part.video}
  for frame in whole.video:
    if start <= frame.time < stop:
      assert frame.time in times


def test_pictures_are_kept_nearly_as_they_were():
  item = long_call(3.0)
  smooth = np.linspace(0, 255, 40 * 80 * 3).reshape(40, 80, 3).astype(np.uint8)
  item = Timeline(
    id="v", duration=3.0, tracks=item.tracks, video=(VideoFrame(1.0, smooth),)
  )
  records = coding.encode(item)
  found = coding.decode(lambda n: [records[i] for i in n], records=1)
  error = found.video[0].image.astype(int) - smooth
  assert np.abs(error).mean() < 1.5


def rich():
  """One of everything that a recording can hold."""
  rng = np.random.default_rng(0)
  audio = rng.uniform(-1, 1, 3200).astype(np.float32)
  image = rng.integers(0, 256, (40, 80, 3)).astype(np.uint8)
  track = Track(Role.USER, audio, (Word(0, 0.1, "hé"),), (Span(0, 0.1),), "v")
  return Timeline(
    id="x",
    duration=0.5,
    tracks=(track,),
    video=(VideoFrame(0.2, image),),
    events=(Event(0.1, EventKind.CALL, "x"),),
    metadata={"a": [1, {"b": "c"}]},
    muted=(Span(0.2, 0.4),),
  )


def decoded(records):
  return coding.decode(
    lambda numbers: [records[n] for n in numbers], records=len(records)
  )


def test_records_round_trip():
  want = rich()
  got = decoded(coding.encode(want))
  assert got.tracks[0].words == want.tracks[0].words
  assert got.tracks[0].spans == want.tracks[0].spans
  assert (got.events, got.metadata) == (want.events, want.metadata)
  assert got.muted == want.muted
  np.testing.assert_allclose(
    got.tracks[0].audio, want.tracks[0].audio, atol=1 / 32767
  )
  # 16-bit audio survives any number of further trips unchanged.
  again = decoded(coding.encode(got))
  np.testing.assert_array_equal(again.tracks[0].audio, got.tracks[0].audio)


@hypothesis.given(st.data())
def test_broken_records_are_refused(data):
  """Cut anywhere, or with any byte changed."""
  (good,) = coding.encode(rich())
  cut = data.draw(st.integers(0, len(good) - 1))
  with pytest.raises(ValueError):
    decoded([good[:cut]])
  changed = bytearray(good)
  changed[cut] ^= data.draw(st.integers(1, 255))
  with pytest.raises(ValueError):
    decoded([bytes(changed)])


def test_documents_and_calls_share_a_corpus(tmp_path):
  items = [
    Document("d", "Some\ntext.", {"licence": "CC0-1.0", "language": "en"}),
    recorded.call("c", seconds=4.0),
  ]
  corpus_lib.write(items, path=tmp_path / "both")
  found = corpus_lib.RecordSource(tmp_path / "both")
  assert found[0] == items[0]
  assert found[1].id == "c"
  assert [*found.texts()] == ["Some", "text.", "yes yes", "yes yes"]
  assert found.seconds.tolist() == [0.0, 4.0]
  with pytest.raises(AssertionError, match="is a document"):
    found.stretch(0, start=0, stop=1)


def test_a_table_says_what_is_in_a_corpus(tmp_path):
  """Any tool reads it."""
  corpus_lib.write([recorded.call("c", seconds=4.0)], path=tmp_path / "calls")
  rows = pq.read_table(next((tmp_path / "calls/units").glob("*.parquet")))
  (row,) = rows.to_pylist()
  assert row["kind"] == "conversation" and row["seconds"] == 4.0
  assert row["user_tokens"] == 20 and row["agent_tokens"] == 20
  assert row["overlap_tokens"] == 0 and row["letters"] == 14
  assert row["voices"] == ["c", "c"] and row["prompt"] is None


def test_an_outline_has_all_but_sound_and_pictures(tmp_path, monkeypatch):
  item = long_call(61.0)
  corpus_lib.write([item, Document("d", "text")], path=tmp_path / "c")
  found = corpus_lib.RecordSource(tmp_path / "c")
  whole = found[0]
  monkeypatch.setattr(coding, "_from_flac", None)
  monkeypatch.setattr(coding, "_from_jpeg", None)
  outline = found.outline(0)
  assert [f.time for f in outline.video] == [f.time for f in item.video]
  for had, has in zip(whole.tracks, outline.tracks, strict=True):
    assert (had.role, had.words, len(had.audio)) == (
      *(has.role, has.words, len(has.audio)),
    )
    assert not has.audio.any()
  assert found.outline(1) == Document("d", "text")


def test_a_corpus_survives_pickling(corpus):
  recordings = corpus_lib.RecordSource(corpus)
  recordings[3]
  assert pickle.loads(pickle.dumps(recordings))[3].id == recordings[3].id


def test_writing_is_deterministic_and_replaces(corpus):
  before = corpus_lib.read_index(corpus)
  corpus_lib.write(utterances(7), path=corpus)
  assert corpus_lib.read_index(corpus).digest == before.digest
  corpus_lib.write(utterances(5), path=corpus)
  assert len(corpus_lib.RecordSource(corpus)) == 5
  assert corpus_lib.read_index(corpus).digest != before.digest
  named = {s.file for s in corpus_lib.read_index(corpus).shards}
  there = {f"units/{p.name}" for p in (corpus / "units").glob("*.array_record")}
  assert there == named


def test_many_corpora_keep_few_files_open(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, "_READERS", reading._Readers(4))
  for number in range(12):
    corpus_lib.write(utterances(2), path=tmp_path / f"c{number}")
  opened = [corpus_lib.RecordSource(tmp_path / f"c{n}") for n in range(12)]
  before = len(os.listdir("/proc/self/fd"))
  for each in opened:
    assert each[1].id == "v/p1"
  assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_opening_a_corpus_imports_no_pandas(corpus):
  """As Arrow would: half a second and 40 MiB in each process."""
  result = commands.run(
    "-c",
    "import sys; from tml_jax.data import corpus\n"
    f"found = corpus.RecordSource({str(corpus)!r})\n"
    "print(len(found), found.seconds.dtype, 'pandas' in sys.modules)",
  )
  assert result.stdout.split() == ["7", "float64", "False"], result.stderr


def test_missing_corpus(tmp_path):
  with pytest.raises(errors.UserError, match="tml_jax.prepare"):
    corpus_lib.RecordSource(tmp_path / "v-b")


def test_missing_shard(corpus):
  path = shard(corpus, 2)
  path.unlink()
  with pytest.raises(errors.UserError, match=f"{path.name} is missing"):
    corpus_lib.RecordSource(corpus)


def test_truncated_shard(corpus):
  path = shard(corpus, 1)
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  with pytest.raises(errors.UserError, match=f"{path.name} has"):
    corpus_lib.RecordSource(corpus)


def test_corrupt_record_names_shard_and_index(corpus):
  """A flipped byte in one recording leaves the others readable."""
  path = shard(corpus, 1)  # recordings 2 and 3
  data = bytearray(path.read_bytes())
  data[data.find(b"text 3") - 200] ^= 255
  path.write_bytes(data)
  recordings = corpus_lib.RecordSource(corpus)
  assert recordings[2].id == "v/p2"
  with pytest.raises(corpus_lib.DamagedRecord) as caught:
    recordings[3]
  assert path.name in str(caught.value)
  assert "record 1 (recording 3 of the corpus)" in str(caught.value)
  with pytest.raises(errors.UserError, match=f"{path.name} is corrupt"):
    corpus_lib.verify(corpus)


def edited(change):
  """An edit of an index: a function of its value."""
  return lambda text: json.dumps(change(json.loads(text)))


def field(path, value):
  """Sets a value deep in the index; `...` deletes it."""

  def change(index):
    *parents, last = path
    at = index
    for key in parents:
      at = at[key]
    if value is ...:
      del at[last]
    else:
      at[last] = value
    return index

  return edited(change)


UNIT = ("units", 0)
SHARD = (*UNIT, "shards", 0)
EDITS = {
  "nothing": lambda text: "",
  "cut": lambda text: text[:40],
  "not UTF-8": lambda text: text.encode().replace(b"units", b"u\xff", 1),
  "deep": lambda text: '{"a":' * 100_000,
  "a number of 5000 digits": lambda text: text.replace("3.5", "9" * 5000),
  "a list": lambda text: "[1]",
  "a number": lambda text: "1",
  "null": lambda text: "null",
  "NaN seconds": field([*UNIT, "seconds"], float("nan")),
  "infinite seconds": field([*UNIT, "seconds"], float("inf")),
  "negative seconds": field([*UNIT, "seconds"], -1),
  "seconds as text": field([*UNIT, "seconds"], "3"),
  "another format": field(["format"], 99),
  "a format as text": field(["format"], "1"),
  "no seconds": field([*UNIT, "seconds"], ...),
  "no units": field(["units"], ...),
  "units empty": field(["units"], []),
  "units null": field(["units"], None),
  "units a number": field(["units"], 4),
  "units a map": field(["units"], {"a": 1}),
  "a unit null": field(UNIT, None),
  "a unit elsewhere": field([*UNIT, "name"], "../../outside"),
  "a unit twice": edited(lambda index: index | {"units": index["units"] * 2}),
  "a unit without shards": field([*UNIT, "shards"], []),
  "rows wrong": field([*UNIT, "rows"], 8),
  "rows none": field([*UNIT, "rows"], 0),
  "rows null": field([*UNIT, "rows"], None),
  "a shard null": field(SHARD, None),
  "a shard with more": field([*SHARD, "more"], 1),
  "a shard without file": field([*SHARD, "file"], ...),
  "a shard elsewhere": field([*SHARD, "file"], "../outside"),
  "a shard anywhere": field([*SHARD, "file"], "/etc/passwd"),
  "a shard as a number": field([*SHARD, "file"], 7),
  "a shard with NUL": field([*SHARD, "file"], "a\0"),
  "a shard that is the folder": field([*SHARD, "file"], ".."),
  "a shard in a line break": field([*SHARD, "file"], "a\nb"),
  "a shard gone": edited(
    lambda index: (
      index
      | {"units": [u | {"shards": u["shards"][1:]} for u in index["units"]]}
    )
  ),
  "fewer records": field([*SHARD, "records"], 1),
  "more records": field([*SHARD, "records"], 9),
  "records huge": field([*SHARD, "records"], 10**400),
  "records negative": field([*SHARD, "records"], -1),
  "records true": field([*SHARD, "records"], True),
  "records with a point": field([*SHARD, "records"], 2.0),
  "records null": field([*SHARD, "records"], None),
  "bytes wrong": field([*SHARD, "bytes"], 5),
  "bytes as text": field([*SHARD, "bytes"], "5"),
  "CRC null": field([*SHARD, "crc32"], None),
  "CRC wrong": field([*SHARD, "crc32"], 5),
  "a table elsewhere": field(["table", "file"], "../outside"),
  "a table of another size": field(["table", "bytes"], 5),
  "a unit's table elsewhere": field([*UNIT, "table", "file"], "x.parquet"),
  "no report": field(["report"], ...),
  "report null": field(["report"], None),
  "report a list": field(["report"], [1]),
  "skipped a list": field(["report"], {"skipped": [1]}),
  "a reason without count": field(["report"], {"skipped": {"a": {}}}),
  "a reason as a number": field(["report"], {"skipped": {"a": 1}}),
  "a count as text": field(["report"], {"skipped": {"a": {"count": "1"}}}),
}


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_of_an_index_is_one_line(corpus, name):
  (corpus.parent / "outside").write_bytes(shard(corpus).read_bytes())
  index = corpus / corpus_lib.INDEX
  changed = EDITS[name](index.read_text())
  index.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
  with pytest.raises(errors.UserError) as caught:
    corpus_lib.verify(corpus)
    recordings = corpus_lib.RecordSource(corpus)
    [recordings[i] for i in range(len(recordings))]
  assert str(corpus) in str(caught.value) and "\n" not in str(caught.value)
  assert len(str(caught.value)) < 1000 and "prepare` again" in str(caught.value)


def test_records_that_are_more_than_the_index_says(corpus):
  index = corpus / corpus_lib.INDEX
  before = corpus_lib.read_index(corpus)
  content = json.loads(index.read_text())
  for entry in content["units"][0]["shards"]:
    entry["records"] = 1
  units = reading.index_lib.parse(
    json.dumps(content | {"table": rename(content, before)}).encode()
  )
  (corpus / before.table.file).rename(corpus / units.table.file)
  index.write_text(reading.index_lib.to_text(units))
  with pytest.raises(errors.UserError, match="says 1 records, there are 2"):
    corpus_lib.RecordSource(corpus)[0]


def rename(content, index):
  """The table of an edited index, under the name that it must have."""
  units = tuple(reading.index_lib._unit_of(unit) for unit in content["units"])
  name = reading.index_lib.whole_table_name(units)
  return {"file": name, "bytes": index.table.bytes, "crc32": index.table.crc32}


@pytest.mark.parametrize("damage", ["cut", "other", "rows", "missing"])
def test_a_damaged_table_is_one_line(corpus, damage):
  index = corpus_lib.read_index(corpus)
  path = corpus / index.table.file
  data = path.read_bytes()
  if damage == "cut":
    path.write_bytes(data[:-20] + b"x" * 20)
  elif damage == "other":
    path.write_bytes(b"x" * len(data))
  else:
    rows = pq.read_table(path)
    if damage == "rows":
      rows = rows.slice(1)
    else:
      number = rows.schema.get_field_index("first")
      none = pa.nulls(len(rows), type=pa.uint32())
      rows = rows.set_column(number, rows.schema.field("first"), none)
    pq.write_table(rows, path)
    content = json.loads((corpus / corpus_lib.INDEX).read_text())
    content["table"]["bytes"] = path.stat().st_size
    (corpus / corpus_lib.INDEX).write_text(json.dumps(content))
  with pytest.raises(errors.UserError) as caught:
    corpus_lib.RecordSource(corpus)
  assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_a_link_out_of_the_folder_is_not_followed(corpus):
  path = shard(corpus)
  path.rename(corpus.parent / "outside")
  path.symlink_to(corpus.parent / "outside")
  with pytest.raises(errors.UserError, match="leads out of the corpus"):
    corpus_lib.RecordSource(corpus)


def test_an_interrupted_write_leaves_the_old_corpus(corpus):
  def stops():
    yield from utterances(3)
    raise KeyboardInterrupt

  before = corpus_lib.verify(corpus)
  with pytest.raises(KeyboardInterrupt):
    corpus_lib.write(stops(), path=corpus)
  assert corpus_lib.verify(corpus) == before
  fresh = corpus.parent / "v-new"
  with pytest.raises(KeyboardInterrupt):
    corpus_lib.write(stops(), path=fresh)
  assert not (fresh / corpus_lib.INDEX).exists()
  corpus_lib.write(utterances(2), path=fresh)  # over the remains
  assert len(corpus_lib.RecordSource(fresh)) == 2
  assert not list(fresh.rglob(".partial-*"))
