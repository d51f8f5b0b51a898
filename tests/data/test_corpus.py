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


@pytest.mark.parametrize("content", ["", "{}", '{"format": 99}', "[1]"])
def test_broken_index(corpus, content):
  (corpus / corpus_lib.INDEX).write_text(content)
  with pytest.raises(errors.UserError, match=r"index\.json is broken"):
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
