"""Whatever bytes a file has, an importer skips it and says why."""

import io
import json
import tarfile

import fsspec
import hypothesis
import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import soundfile
from hypothesis import strategies as st
from pyarrow import parquet

from tests.helpers import sound
from tml_jax.data import source
from tml_jax.streams import document
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.document import Document


def _still():
  buffer = io.BytesIO()
  PIL.Image.fromarray(
    np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  ).save(buffer, "JPEG")
  return buffer.getvalue()


def _speech():
  buffer = io.BytesIO()
  soundfile.write(buffer, sound.tone(0.6), sound.RATE, format="FLAC")
  return buffer.getvalue()


def _parquet():
  buffer = io.BytesIO()
  texts = [f"text {i} ünï" for i in range(40)]
  parquet.write_table(pa.table({"text": texts}), buffer, row_group_size=10)
  return buffer.getvalue()


def _tar(files):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return buffer.getvalue()


def _lines(*rows):
  return "".join(json.dumps(row) + "\n" for row in rows).encode()


STILLS = {"a.jpg": _still(), "a.txt": b"one", "b.jpg": _still(), "b.txt": b"2"}
PAIRS = {"a.flac": _speech(), "a.txt": b"one", "b.flac": _speech()}
# Importer, options, the file that is damaged, files beside it.
CASES = {
  "jsonl": ("jsonl", {}, "a.jsonl", _lines({"text": "one"}, {"text": "2"}), {}),
  "text": ("text", {}, "a.txt", "one\r\ntwo ünï\n".encode(), {}),
  "parquet": ("parquet", {}, "a.parquet", _parquet(), {}),
  "stills": (
    "image_text",
    {"layout": "webdataset", "size": "40x80"},
    "a.tar",
    _tar(STILLS),
    {},
  ),
  "pairs": (
    "speech_text",
    {"layout": "webdataset"},
    "a.tar",
    _tar(PAIRS),
    {},
  ),
  "manifest": (
    "speech_text",
    {"layout": "jsonl"},
    "a.jsonl",
    _lines({"audio": "a.flac", "text": "one", "offset": 0.1, "duration": 0.4}),
    PAIRS,
  ),
  "table": (
    "speech_text",
    {"layout": "tsv"},
    "a.tsv",
    b"audio\ttext\na.flac\tone\n",
    PAIRS,
  ),
  "kaldi": (
    "speech_text",
    {"layout": "kaldi"},
    "wav.scp",
    b"u1 a.flac\nu2 b.flac\n",
    PAIRS | {"text": b"u1 one\nu2 two\n"},
  ),
}


def read(name, src, options):
  """Everything, and that what can be used is valid."""
  opened = source.IMPORTERS[name](src, options=options)
  found = [item for part in opened.parts() for item in opened.read(part)]
  for item in found:
    if isinstance(item, Document):
      document.validate(item)
    elif not isinstance(item, source.BadRecording):
      timeline_lib.validate(item)
    else:
      str(item).encode()  # can be written
  return found


@pytest.fixture
def bucket():
  """An empty bucket."""
  fs = fsspec.filesystem("memory")
  fs.store.clear()
  return fs


@pytest.mark.parametrize("case", CASES)
def test_sources_are_read_from_a_bucket(case, bucket):
  name, options, file, data, beside = CASES[case]
  for path, content in {**beside, file: data}.items():
    bucket.pipe(f"/bucket/{path}", content)
  found = read(name, "memory://bucket", options)
  assert any(not isinstance(item, source.BadRecording) for item in found)


@pytest.mark.parametrize("case", CASES)
@hypothesis.settings(
  deadline=None,
  max_examples=25,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(data=st.data())
def test_damaged_files_are_skipped(case, bucket, data):
  name, options, file, good, beside = CASES[case]
  bad = bytearray(good)
  for _ in range(data.draw(st.integers(0, 8))):
    bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(
      st.integers(0, 255)
    )
  cut = data.draw(st.integers(0, len(bad)))
  if data.draw(st.booleans()):
    del bad[cut:]
  elif data.draw(st.booleans()):
    bad[cut:cut] = data.draw(st.binary(max_size=40))
  bucket.store.clear()
  for path, content in {**beside, file: bytes(bad)}.items():
    bucket.pipe(f"/bucket/{path}", content)
  try:
    read(name, "memory://bucket", options)
  except source.errors.UserError as error:
    # A column that is not called so any more.
    assert case == "parquet" and "no column" in str(error)
