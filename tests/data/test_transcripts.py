"""Texts of corpora, and samples of them in bounded memory."""

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers import recorded
from tml_jax import errors
from tml_jax.data import transcripts

_TEXTS = st.lists(st.text(max_size=8), max_size=30)


def _plain(texts, *, max_bytes):
  """All at once: sorted by hash, as many as fit."""
  import hashlib

  def number(text):
    return hashlib.blake2b(text.encode(), digest_size=8).digest()

  kept, size = [], 0
  for text in sorted({*texts}, key=number):
    size += len(text.encode())
    if size > max_bytes:
      break
    kept.append(text)
  return tuple(sorted(kept))


@hypothesis.given(_TEXTS, st.integers(32, 200), st.randoms())
def test_a_sample_depends_on_the_texts_alone(texts, max_bytes, random):
  wanted = _plain(texts, max_bytes=max_bytes)
  found = transcripts.sample(texts, max_bytes=max_bytes)
  assert found.texts == wanted
  assert found.bytes == sum(len(text.encode()) for text in wanted) <= max_bytes
  assert found.read == sum(len(text.encode()) for text in texts)
  again = texts + texts[:3]
  random.shuffle(again)
  assert transcripts.sample(again, max_bytes=max_bytes).texts == wanted


def test_what_is_not_kept_is_not_in_memory():
  """A stream of 40 MB through a sample of 1 MiB."""
  import tracemalloc

  def stream():
    for i in range(400):
      yield f"{i} " * 20_000

  tracemalloc.start()
  found = transcripts.sample(stream(), max_bytes=1 << 20)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert found.read > 25e6 and 0 < found.bytes <= 1 << 20
  assert peak < 4e6


def test_long_texts_are_cut_and_counted():
  found = transcripts.sample(["é" * (transcripts._PART + 1)])
  assert sorted(map(len, found.texts)) == [1, transcripts._PART]
  assert found.bytes == 2 * (transcripts._PART + 1)


def test_texts_of_a_corpus(tmp_path):
  items = [recorded.call("b", seconds=4), recorded.line("a", text="hello")]
  recorded.write(tmp_path, calls=items, more=items[:1])
  assert transcripts.corpora(tmp_path) == ["calls", "more"]
  assert {*transcripts.texts(tmp_path / "calls")} == {"hello", "yes yes"}
  with pytest.raises(errors.UserError, match="no prepared corpus"):
    list(transcripts.texts(tmp_path / "none"))
