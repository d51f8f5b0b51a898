"""Lines of files in parts, wherever they are stored."""

import bz2
import gzip
import lzma

import fsspec
import hypothesis
import pytest
from hypothesis import strategies as st

from tml_jax import errors
from tml_jax.data import stored
from tml_jax.data.source import BadRecording, Reason


def lines_of(place, *, size, most=1 << 20):
  found = stored.ranges(place.files(ends=("",)), size=size)
  return [
    line
    for each in found.values()
    for line in stored.lines(place, each, most=most)
  ]


@hypothesis.settings(
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  st.lists(
    st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=30
  ),
  st.integers(1, 50),
  st.booleans(),
)
def test_every_line_is_in_one_part(tmp_path, texts, size, ends):
  data = b"\n".join(texts) + (b"\n" if ends else b"")
  path = tmp_path / "a.txt"
  path.write_bytes(data)
  found = lines_of(stored.Place(str(path)), size=size)
  want = data.removesuffix(b"\n").split(b"\n") if data else []
  if data == b"\n":
    want = [b""]
  want[:1] = [line.removeprefix(b"\xef\xbb\xbf") for line in want[:1]]
  assert [line.data for line in found] == [
    line.removesuffix(b"\r") for line in want
  ]
  for line in found:
    rest = data[line.at :]
    if line.at == 0:
      rest = rest.removeprefix(b"\xef\xbb\xbf")
    assert rest.startswith(line.data)


@pytest.mark.parametrize("packer", [gzip, bz2, lzma])
def test_compressed_files_are_read_whole(tmp_path, packer):
  end = {gzip: "gz", bz2: "bz2", lzma: "xz"}[packer]
  data = b"".join(b"line %d\n" % i for i in range(30_000))
  path = tmp_path / f"a.txt.{end}"
  path.write_bytes(packer.compress(data))
  place = stored.Place(str(path))
  found = lines_of(place, size=100)
  assert [line.data for line in found] == data.splitlines()
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  *_, last = lines_of(stored.Place(str(path)), size=100)
  assert isinstance(last, BadRecording) and last.reason == Reason.TRUNCATED


def test_a_line_too_long_is_passed_over_whatever_the_file_holds(tmp_path):
  """It is not kept in memory: 200 MB of zeros take 200 KB as gzip."""
  path = tmp_path / "bomb.gz"
  with gzip.open(path, "wb", compresslevel=1) as file:
    file.write(b"first\n")
    for _ in range(200):
      file.write(bytes(1 << 20))
    file.write(b"\nlast\n")
  first, long, last = lines_of(stored.Place(str(path)), size=1)
  assert (first.data, last.data) == (b"first", b"last")
  assert long.reason == Reason.TOO_LARGE and "bomb.gz at 6" in long.detail


def test_marks_and_ends_of_windows_are_left_out(tmp_path):
  path = tmp_path / "a.txt"
  path.write_bytes("\ufeffone\r\ntwo\r\n".encode())
  found = lines_of(stored.Place(str(path)), size=3)
  assert [line.data for line in found] == [b"one", b"two"]


def test_files_of_a_url():
  fs = fsspec.filesystem("memory")
  fs.pipe("/of_a_url/b/two.txt", b"2\n")
  fs.pipe("/of_a_url/one.TXT", b"1\n")
  fs.pipe("/of_a_url/one.json", b"{}")
  place = stored.Place("memory://of_a_url")
  files = place.files(ends=(".txt",))
  assert [file.name for file in files] == ["b/two.txt", "one.TXT"]
  before = [file.stamp for file in files]
  fs.pipe("/of_a_url/one.TXT", b"another\n")
  after = [file.stamp for file in place.files(ends=(".txt",))]
  assert before[0] == after[0] and before[1] != after[1]
  with pytest.raises(BadRecording, match="over 3 bytes"):
    place.read("/of_a_url/one.TXT", limit=3)
  with pytest.raises(BadRecording, match="its file is missing: no.wav"):
    place.read("/of_a_url/no.wav", limit=3)


def test_a_network_that_fails_is_no_broken_file(tmp_path, monkeypatch):
  (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"text\n"))
  place = stored.Place(str(tmp_path))

  def broken(*arguments, **keywords):
    raise ConnectionResetError("reset by peer")

  monkeypatch.setattr(gzip.GzipFile, "read", broken)
  with pytest.raises(ConnectionResetError):
    lines_of(place, size=100)
  monkeypatch.setattr(type(place.fs), "open", broken)
  with pytest.raises(ConnectionResetError):
    place.read(str(tmp_path / "a.txt.gz"), limit=10)


def test_what_is_not_there_is_one_clear_error(tmp_path):
  for src in (str(tmp_path / "no"), "memory://nothing/here"):
    with pytest.raises(errors.UserError, match="no such file or folder"):
      stored.Place(src)
  with pytest.raises(errors.UserError, match="nonsense://x cannot be opened"):
    stored.Place("nonsense://x")
  with pytest.raises(errors.UserError, match="no file that ends in .a, .b"):
    stored.Place(str(tmp_path)).files(ends=(".a", ".b"))


def test_a_manifest_cannot_reach_outside(tmp_path):
  (tmp_path / "in").mkdir()
  place = stored.Place(str(tmp_path / "in"))
  inside = place.below(place.root, "a/../b.wav")
  assert inside == str(tmp_path / "in" / "b.wav")
  for name in ("../b.wav", "/etc/passwd", "a/../../in2/b", "x\0y"):
    with pytest.raises(BadRecording, match="outside of"):
      place.below(place.root, name)


def test_messages_name_files_as_they_lie_in_the_source(tmp_path):
  """Where each call is a folder, `far.opus` alone would not say which."""
  (tmp_path / "src" / "call_7").mkdir(parents=True)
  (tmp_path / "src" / "call_7" / "far.opus").write_bytes(b"1234")
  place = stored.Place(str(tmp_path / "src"))
  (file,) = place.files(ends=["far.opus"])
  assert place.named(file.path) == file.name == "call_7/far.opus"
  for path, name in (
    (file.path.replace("far", "near"), "call_7/near.opus"),
    (str(tmp_path / "elsewhere" / "a.wav"), "a.wav"),
    ("", ""),
  ):
    with pytest.raises(BadRecording) as caught:
      place.read(path, limit=9)
    assert (caught.value.reason, caught.value.detail) == (Reason.MISSING, name)
    with pytest.raises(BadRecording) as caught, place.opened(path):
      pass
    assert caught.value.detail == name
