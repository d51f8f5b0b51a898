"""Documents of plain text, JSON lines and parquet."""

import json

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.helpers import streamed
from tml_jax import errors
from tml_jax.data import source, stored
from tml_jax.data.source import Reason
from tml_jax.streams import document
from tml_jax.streams.document import Document

METADATA = {"kind": "document", "licence": "CC-BY-4.0", "language": "en"}
GIVEN = {"licence": "CC-BY-4.0", "language": "en"}


def reasons(bad):
  return sorted(str(reason) for reason, _ in bad)


def test_jsonl(tmp_path):
  rows = [
    {"body": "one ünï ✓", "url": "a"},
    {"body": "two\r\nlines\u2028here", "url": "b"},
    {"body": None},
    {"body": float("nan")},
    {"body": " \n"},
    {"other": "x"},
    {"body": "half \ud83d"},
    ["body"],
  ]
  data = b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(r).encode() for r in rows)
  data += b'\n{"body": "cut\n\n' + b'{"body": "latin \xe9"}\n'
  data += b"[" * 100_000 + b"\n"
  (tmp_path / "a.jsonl").write_bytes(data)
  items, bad = streamed.read("jsonl", tmp_path, text="body", **GIVEN)
  assert [item.text for item in items] == [r["body"] for r in rows[:2]]
  assert [item.metadata for item in items] == [METADATA] * 2
  assert items[0].id == "a.jsonl@0"
  assert reasons(bad) == sorted(
    [Reason.NO_TEXT] * 4 + [Reason.NOT_UTF8] * 2 + [Reason.BROKEN_METADATA] * 3
  )
  assert all("a.jsonl@" in detail for _, detail in bad)
  named, _ = streamed.read("jsonl", tmp_path, text="body", id="url")
  assert [item.id for item in named] == ["a", "b"]


def test_large_files_are_read_in_parts(tmp_path, monkeypatch):
  with open(tmp_path / "a.jsonl", "w", encoding="utf-8") as file:
    for i in range(500):
      file.write(json.dumps({"text": f"document {i} " * (i % 7 + 1)}) + "\n")
  whole, _ = streamed.read("jsonl", tmp_path)
  monkeypatch.setattr(stored, "RANGE", 1000)
  opened = source.IMPORTERS["jsonl"](str(tmp_path), options={})
  parts = opened.parts()
  assert len(parts) > 20 and sum(p.bytes for p in parts) == (
    (tmp_path / "a.jsonl").stat().st_size
  )
  assert streamed.read("jsonl", tmp_path) == (whole, [])


def test_a_long_document_becomes_several(tmp_path):
  text = "".join(f"line {i} of a long text\n" for i in range(200_000))
  (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}) + "\n")
  (tmp_path / "a.txt").write_text(text)
  for name in ("jsonl", "text"):
    items, bad = streamed.read(name, tmp_path)
    assert (
      len(items) == len(text.encode()) // document.MAX_BYTES + 1 and not bad
    )
    assert all(len(i.text.encode()) <= document.MAX_BYTES for i in items)
    joined = "".join(
      item.text for item in sorted(items, key=lambda i: number(i.id))
    )
    assert joined.count("\n") >= 199_995 and joined.split() == text.split()


def number(name):
  """By which the parts of a document are in order."""
  return int(
    name.rpartition("#")[2] if "#" in name else name.rpartition("@")[2]
  )


def test_text_by_files_and_by_lines(tmp_path):
  (tmp_path / "sub").mkdir()
  (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\r\ntwo ünï".encode())
  (tmp_path / "sub" / "b.md").write_text("# three\n")
  (tmp_path / "c.txt").write_bytes(b"caf\xe9")
  (tmp_path / "d.txt").write_bytes(b"")
  (tmp_path / "e.png").write_bytes(b"\x89PNG")
  items, bad = streamed.read("text", tmp_path, **GIVEN)
  assert items == [
    Document("a.txt@0", "one\n\ntwo ünï", METADATA),
    Document("sub/b.md@0", "# three", METADATA),
  ]
  assert bad == [
    (Reason.EMPTY, "d.txt"),
    (Reason.NOT_UTF8, "c.txt@0: byte 0xe9"),
  ]
  lines, _ = streamed.read("text", tmp_path / "a.txt", document="line")
  assert [line.text for line in lines] == ["one", "two ünï"]


def test_parquet(tmp_path):
  texts = ["one", None, "two ✓", "", *(f"text {i}" for i in range(200))]
  table = pa.table({"body": texts, "n": range(len(texts))})
  parquet.write_table(table, tmp_path / "a.parquet", row_group_size=50)
  parts = source.IMPORTERS["parquet"](
    str(tmp_path), options={"text": "body"}
  ).parts()
  assert len(parts) == 5
  items, bad = streamed.read("parquet", tmp_path, text="body", **GIVEN)
  assert {item.text for item in items} == {t for t in texts if t}
  assert items[0].metadata == METADATA
  assert reasons(bad) == [Reason.NO_TEXT] * 2
  assert bad[0][1].startswith("a.parquet#1: body is None")
  with pytest.raises(errors.UserError, match="no column 'text'.*'body'|body"):
    streamed.read("parquet", tmp_path)


def test_parquet_of_bytes_dictionaries_and_strangers(tmp_path):
  latin = pa.array([b"good", b"caf\xe9"], pa.binary())
  parquet.write_table(pa.table({"text": latin}), tmp_path / "a.parquet")
  few = pa.array(["x y", "x y", "z"]).dictionary_encode()
  parquet.write_table(pa.table({"text": few}), tmp_path / "b.parquet")
  # A column that says it is text and is not.
  lying = pa.Array.from_buffers(
    pa.string(), 2, pa.array([b"fine", b"\xff"], pa.binary()).buffers()
  )
  parquet.write_table(pa.table({"text": lying}), tmp_path / "c.parquet")
  numbers = pa.table({"text": [1, 2]})
  parquet.write_table(numbers, tmp_path / "d.parquet")
  data = (tmp_path / "b.parquet").read_bytes()
  (tmp_path / "e.parquet").write_bytes(data[: len(data) // 2])
  (tmp_path / "f.parquet").write_bytes(
    data[:4] + bytes(40) + data[44:]  # a page that cannot be read
  )
  items, bad = streamed.read("parquet", tmp_path)
  assert [i.text for i in items] == ["good", "x y", "x y", "z", "fine"]
  assert reasons(bad) == sorted(
    [Reason.NOT_UTF8] * 2 + [Reason.NO_TEXT] * 2 + [Reason.UNREADABLE] * 2
  )


def test_parquet_of_a_url():
  fs = fsspec.filesystem("memory")
  with fs.open("/pq/a.parquet", "wb") as file:
    parquet.write_table(pa.table({"text": ["one", "two"]}), file)
  opened = source.IMPORTERS["parquet"]("memory://pq", options={})
  (part,) = opened.parts()
  assert [item.text for item in opened.read(part)] == ["one", "two"]


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    (
      "jsonl",
      {"txt": "body"},
      "jsonl has no option 'txt'; did you mean 'text'",
    ),
    ("text", {"document": "page"}, "document='page'; write one of file, line"),
  ],
)
def test_options_are_checked(tmp_path, name, options, message):
  (tmp_path / "a.txt").write_text("x")
  (tmp_path / "a.jsonl").write_text("{}")
  with pytest.raises(errors.UserError, match=message):
    streamed.read(name, tmp_path, **options)
