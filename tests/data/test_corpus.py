import json
import pickle
import shutil

import numpy as np
import pytest

from tests.helpers import sound
from tml_jax import errors
from tml_jax.data import corpus as corpus_lib
from tml_jax.data import utterance


def records(count):
  return map(corpus_lib.Record.of, utterances(count))


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
def corpus(tmp_path):
  path = tmp_path / "v-a"
  corpus_lib.write(records(7), path=path, report={"skipped": {}})
  return path


def shard(path, number=0):
  return path / corpus_lib.read_index(path).shards[number].file


def test_records_come_back_in_order(corpus):
  recordings = corpus_lib.RecordSource(corpus)
  assert len(recordings) == 7
  assert recordings.index.seconds == pytest.approx(3.5, abs=0.1)
  for i, expected in enumerate(utterances(7)):
    found = recordings[i]
    assert found.metadata == expected.metadata
    np.testing.assert_allclose(
      found.tracks[0].audio, expected.tracks[0].audio, atol=2e-5
    )
  for i in (-1, 7):
    with pytest.raises(IndexError):
      recordings[i]


def test_a_corpus_survives_pickling(corpus):
  recordings = corpus_lib.RecordSource(corpus)
  recordings[3]
  assert pickle.loads(pickle.dumps(recordings))[3].id == recordings[3].id


def test_writing_is_deterministic_and_replaces(corpus):
  before = corpus_lib.read_index(corpus)
  corpus_lib.write(records(7), path=corpus, report={"skipped": {}})
  assert corpus_lib.read_index(corpus).digest == before.digest
  corpus_lib.write(records(5), path=corpus, report={"skipped": {}})
  assert len(corpus_lib.RecordSource(corpus)) == 5
  assert corpus_lib.read_index(corpus).digest != before.digest


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
  """A flipped byte in record 5 leaves the others readable."""
  path = shard(corpus, 1)  # records 1 and 5
  data = bytearray(path.read_bytes())
  at = data.find(b"text 5") - 2000
  data[at] ^= 255
  path.write_bytes(data)
  recordings = corpus_lib.RecordSource(corpus)
  assert recordings[1].id == "v/p1"
  with pytest.raises(errors.UserError) as caught:
    recordings[5]
  assert path.name in str(caught.value)
  assert "record 1 (index 5 of the corpus)" in str(caught.value)
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


SHARD = ("shards", 0)
EDITS = {
  "nothing": lambda text: "",
  "cut": lambda text: text[:40],
  "not UTF-8": lambda text: text.encode().replace(b"data", b"d\xff", 1),
  "deep": lambda text: '{"a":' * 100_000,
  "a number of 5000 digits": lambda text: text.replace("3.5", "9" * 5000),
  "a list": lambda text: "[1]",
  "a number": lambda text: "1",
  "null": lambda text: "null",
  "NaN seconds": field(["seconds"], float("nan")),
  "infinite seconds": field(["seconds"], float("inf")),
  "negative seconds": field(["seconds"], -1),
  "seconds as text": field(["seconds"], "3"),
  "another format": field(["format"], 99),
  "a format as text": field(["format"], "1"),
  "no seconds": field(["seconds"], ...),
  "no shards": field(["shards"], ...),
  "shards empty": field(["shards"], []),
  "shards null": field(["shards"], None),
  "shards a number": field(["shards"], 4),
  "shards a map": field(["shards"], {"a": 1}),
  "a shard null": field(SHARD, None),
  "a shard with more": field([*SHARD, "more"], 1),
  "a shard without file": field([*SHARD, "file"], ...),
  "a shard elsewhere": field([*SHARD, "file"], "../outside"),
  "a shard anywhere": field([*SHARD, "file"], "/etc/passwd"),
  "a shard as a number": field([*SHARD, "file"], 7),
  "a shard with NUL": field([*SHARD, "file"], "a\0"),
  "a shard that is the folder": field([*SHARD, "file"], ".."),
  "a shard in a line break": field([*SHARD, "file"], "a\nb"),
  "a shard twice": edited(
    lambda index: index | {"shards": index["shards"][:1] * 4}
  ),
  "a shard gone": edited(lambda index: index | {"shards": index["shards"][1:]}),
  "shards in another order": edited(
    lambda index: index | {"shards": index["shards"][::-1]}
  ),
  "no records": edited(
    lambda index: (
      index | {"shards": [s | {"records": 0} for s in index["shards"]]}
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
  "no report": field(["report"], ...),
  "report null": field(["report"], None),
  "report a list": field(["report"], [1]),
  "skipped a list": field(["report", "skipped"], [1]),
  "a reason without count": field(["report", "skipped"], {"a": {}}),
  "a reason as a number": field(["report", "skipped"], {"a": 1}),
  "a count as text": field(["report", "skipped"], {"a": {"count": "1"}}),
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
  content = json.loads(index.read_text())
  for entry, records in zip(content["shards"], (1, 1, 1, 1), strict=True):
    entry["records"] = records
  index.write_text(json.dumps(content))
  with pytest.raises(errors.UserError, match="says 1 records, there are 2"):
    corpus_lib.RecordSource(corpus)[0]


def test_a_link_out_of_the_folder_is_not_followed(corpus):
  path = shard(corpus)
  path.rename(corpus.parent / "outside")
  path.symlink_to(corpus.parent / "outside")
  with pytest.raises(errors.UserError, match="leads out of the corpus"):
    corpus_lib.RecordSource(corpus)


def test_an_interrupted_write_leaves_the_old_corpus(corpus):
  def stops():
    yield from records(3)
    raise KeyboardInterrupt

  before = corpus_lib.verify(corpus)
  with pytest.raises(KeyboardInterrupt):
    corpus_lib.write(stops(), path=corpus, report={})
  assert corpus_lib.verify(corpus) == before
  fresh = corpus.parent / "v-new"
  with pytest.raises(KeyboardInterrupt):
    corpus_lib.write(stops(), path=fresh, report={})
  assert not fresh.exists()
  corpus_lib.write(records(2), path=fresh, report={})  # over the remains
  assert len(corpus_lib.RecordSource(fresh)) == 2
  assert not list(corpus.parent.glob(".partial-v-new"))
  shutil.rmtree(fresh)
