"""Documents as bytes, and long ones in parts."""

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from tml_jax.streams import document as document_lib
from tml_jax.streams.document import Document

ITEM = Document("a/1", "ünï ✓\r\n\ttext", {"kind": "document", "licence": "x"})


def test_comes_back():
  data = document_lib.to_bytes(ITEM)
  assert document_lib.from_bytes(data) == ITEM
  for broken in (data[:-3], b"", b"\x81\xa2id\x01"):
    with pytest.raises(ValueError, match="bytes are not a document"):
      document_lib.from_bytes(broken)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("text", None, "text is None and no text"),
    ("text", float("nan"), "text is nan and no text"),
    ("text", "half \ud83d", "text has half of a character"),
    ("text", " \n", "text is empty"),
    ("id", 7, "id is 7 and no text"),
    ("metadata", [], "metadata is"),
  ],
)
def test_what_is_no_document_is_refused(field, value, message):
  document_lib.validate(ITEM)
  with pytest.raises(ValueError, match=message):
    document_lib.validate(dataclasses.replace(ITEM, **{field: value}))


@hypothesis.given(
  st.text(st.sampled_from("ab é✓𝄞\n "), max_size=300), st.integers(4, 40)
)
def test_parts_add_up_to_the_whole(text, most):
  whole = Document("d", text, {"a": 1})
  parts = [*document_lib.cut(whole, max_bytes=most)]
  assert "".join(part.text for part in parts) == text
  assert all(len(part.text.encode()) <= most for part in parts)
  assert all(p.metadata["a"] == 1 for p in parts)
  if len(parts) > 1:
    assert {p.metadata[document_lib.PART_OF] for p in parts} == {whole.id}
  if len(text.encode()) <= most:
    assert parts == [whole]
  else:
    assert [part.id for part in parts] == [f"d#{i}" for i in range(len(parts))]
    assert all(part.text for part in parts)


def test_parts_end_at_lines():
  text = "".join(f"line {i} of some text\n" for i in range(60_000))
  parts = [*document_lib.cut(Document("d", text))]
  assert len(parts) == 2
  assert all(part.text.endswith("\n") for part in parts)
