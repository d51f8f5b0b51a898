"""A directory of safetensors files, read by slices and written in a stream.

For: checkpoints larger than memory, on a disk or in a bucket. Not for: what
the tensors mean. Start at `Reader`. Format: 8 bytes of header length, a JSON
header {name: {dtype, shape, data_offsets}}, then the data; several files
share an index, model.safetensors.index.json.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import tensorstore as ts

from tml_jax import buckets, errors
from tml_jax.interop.inkling import dims

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MOST = 1 << 60  # of every number in a header
_BROKEN = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_TIMEOUT = 120  # seconds for one read of a bucket
# At most this much is read at a time beyond what was asked for; and pieces
# shorter than this are not worth a request of their own.
CHUNK_BYTES = 32 << 20
_MIN_RUN_BYTES = 1 << 20


# What reading needs, by the scheme of a URL.
_NEEDS = {
  "gs": ": for gs:// this machine needs the network and Google credentials"
  " (GOOGLE_APPLICATION_CREDENTIALS or `gcloud auth application-default"
  " login`) that may read it",
  "s3": ": for s3:// this machine needs the network and AWS credentials"
  " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws configure`) that may"
  " read it; for a server that is not Amazon's AWS_ENDPOINT_URL and AWS_REGION",
}


@dataclasses.dataclass(frozen=True)
class Entry:
  """One tensor: its file, type, shape and first byte."""

  file: str
  dtype: np.dtype
  shape: tuple[int, ...]
  start: int

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


class Source:
  """Files below a directory or a bucket's URL, read by ranges of bytes.

  Attributes:
    path: the directory or URL.
    bytes_read: by this process until now.
  """

  def __init__(self, path: str):
    self.path = path
    self.bytes_read = 0
    self._need = ""
    if re.match(r"\w+://", path):
      spec: Any = buckets.spec(path if path.endswith("/") else path + "/")
      self._need = _NEEDS.get(path.split(":")[0], "")
    else:
      directory = pathlib.Path(path)
      if not directory.is_dir():
        raise errors.UserError(f"--src={path}: there is no such directory")
      spec = {"driver": "file", "path": f"{directory.absolute()}/"}
    try:
      self._store = ts.KvStore.open(spec).result()
    except ValueError as error:
      raise errors.UserError(
        f"--src={path} cannot be opened ({_brief(error)}): give a directory,"
        " or a URL of gs:// or s3://"
      ) from error

  def start_read(
    self, name: str, *, start: int, stop: int | None
  ) -> Callable[[], bytes | None]:
    """Starts to read bytes [start, stop); call the result for them.

    It gives None where there is no such file, and raises `errors.UserError`
    where the bytes cannot be had.
    """
    if stop == start:
      return lambda: b""
    future = self._store.read(name, byte_range=slice(start, stop))

    def finish() -> bytes | None:
      try:
        result = future.result(timeout=_TIMEOUT)
      except (ValueError, TimeoutError, OSError) as error:
        if "OUT_OF_RANGE" in str(error):
          raise errors.UserError(
            f"{self.path}/{name} is truncated: it ends before byte {stop};"
            " copy it again"
          ) from error
        raise errors.UserError(
          f"{self.path}/{name} cannot be read"
          f" ({_brief(error) or 'no answer'}){self._need}"
        ) from error
      if result.state == "missing":
        return None
      self.bytes_read += len(result.value)
      return bytes(result.value)

    return finish

  def read(self, name: str) -> bytes | None:
    return self.start_read(name, start=0, stop=None)()


def _brief(error: BaseException) -> str:
  return " ".join(str(error).split())[:300]


class Reader:
  """Headers of all files; data by boxes.

  Attributes:
    entries: by the name of a tensor.
    problems: what the index and the files say differently, for one error with
      all others that the caller finds.
  """

  def __init__(self, source: Source):
    """Reads index and headers; no data.

    Raises:
      errors.UserError: no safetensors there, or a broken or truncated file.
    """
    self.source = source
    self.entries: dict[str, Entry] = {}
    self.problems: list[str] = []
    listed = _index(source)
    if listed is None:
      found = self._header(SINGLE)
      if found is None:
        raise errors.UserError(
          f"--src={source.path} holds neither {INDEX} nor {SINGLE}"
        )
      self.entries = found
      return
    for file in sorted(set(listed.values())):
      found = self._header(file)
      if found is None:
        self.problems.append(f"{file} is in {INDEX} and not there")
        found = {}
      names = {name for name, where in listed.items() if where == file}
      missing = sorted(names - set(found)) if found else []
      extra = sorted(name for name in found if listed.get(name) != file)
      if missing:
        self.problems.append(f"not in {file}: {', '.join(missing)}")
      if extra:
        self.problems.append(
          f"in {file} and not in {INDEX}: {', '.join(extra)}"
        )
      self.entries |= {name: found[name] for name in names & set(found)}

  def _header(self, file: str) -> dict[str, Entry] | None:
    """Entries of one file, None where there is no such file."""
    length = self.source.start_read(file, start=0, stop=8)()
    if length is None:
      return None
    data = 8 + int.from_bytes(length, "little")
    if data > 100 << 20:
      raise errors.UserError(
        f"{self.source.path}/{file} does not begin like a safetensors file"
      )
    text = self.source.start_read(file, start=8, stop=data)()
    try:
      header = _json(text)
      header.pop("__metadata__", None)
      entries = {
        name: _entry(file, value, data=data) for name, value in header.items()
      }
      _check_places(entries, data=data)
    except _BROKEN as error:
      raise errors.UserError(
        f"{self.source.path}/{file} has a broken header ({_brief(error)})"
      ) from error
    if entries:
      end = max(entry.start + entry.nbytes for entry in entries.values())
      self.source.start_read(file, start=end - 1, stop=end)()
    return entries

  def read(self, name: str, *, box: dims.Box) -> np.ndarray:
    """A box of a tensor, in its own type.

    Reads whole runs of at least 1 MiB where there are any, and never more
    than 32 MiB beyond the result at a time.
    """
    entry = self.entries[name]
    result = np.empty([high - low for low, high in box], entry.dtype)
    pieces = list(_pieces(entry, box=box))
    for group in _groups(pieces, limit=CHUNK_BYTES):
      reads = [
        self.source.start_read(entry.file, start=start, stop=stop)
        for start, stop, _ in group
      ]
      for read, (_, _, part) in zip(reads, group, strict=True):
        shape = [high - low for low, high in part]
        data = np.frombuffer(read(), entry.dtype).reshape(shape)
        target = tuple(
          slice(max(a, low) - low, min(b, high) - low)
          for (a, b), (low, high) in zip(part, box, strict=True)
        )
        chosen = tuple(
          slice(max(a, low) - a, min(b, high) - a)
          for (a, b), (low, high) in zip(part, box, strict=True)
        )
        result[target] = data[chosen]
    return result


def _index(source: Source) -> dict[str, str] | None:
  text = source.read(INDEX)
  if text is None:
    return None
  try:
    listed = _json(text)["weight_map"].items()
    for name, file in listed:
      # Links are followed: the cache of Hugging Face is made of them.
      parts = pathlib.PurePath(file).parts
      if ".." in parts or pathlib.PurePath(file).is_absolute() or not parts:
        raise ValueError(f"{name} is said to be in {file!r}, out of --src")
    return dict(listed)
  except _BROKEN as error:
    raise errors.UserError(
      f"{source.path}/{INDEX} is broken ({_brief(error)})"
    ) from error


def _entry(file: str, value: Mapping[str, Any], *, data: int) -> Entry:
  if value["dtype"] not in DTYPES:
    raise ValueError(
      f"type {value['dtype']}; supported: {', '.join(DTYPES)}: quantised"
      " checkpoints are not read"
    )
  first, last = value["data_offsets"]
  for number in (first, last, *value["shape"]):
    if type(number) is not int or not 0 <= number < _MOST:
      raise ValueError(f"{number!r:.40} among shape and offsets")
  entry = Entry(
    file=file,
    dtype=DTYPES[value["dtype"]],
    shape=tuple(value["shape"]),
    start=data + first,
  )
  if last - first != entry.nbytes:
    raise ValueError(f"{last - first} bytes for shape {entry.shape}")
  return entry


def _check_places(entries: Mapping[str, Entry], *, data: int) -> None:
  """Tensors fill the file from `data` on, without holes, each once.

  Raises:
    ValueError: naming two of them.
  """
  before, end = "the header", data
  for name, entry in sorted(
    entries.items(), key=lambda item: (item[1].start, item[1].nbytes)
  ):
    if entry.start != end:
      kind = "overlaps" if entry.start < end else "does not follow"
      raise ValueError(f"{name} {kind} {before}")
    before, end = name, entry.start + entry.nbytes


def _json(text: bytes | None) -> Any:
  """The value of a text in which no name stands twice.

  Raises:
    ValueError: it does; or this is no JSON.
    RecursionError: brackets in brackets in brackets.
  """

  def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
      names = [name for name, _ in pairs]
      twice = next(name for name in names if names.count(name) > 1)
      raise ValueError(f"{twice} stands there twice")
    return found

  return json.loads(text or b"", object_pairs_hook=unique)


def _pieces(
  entry: Entry, *, box: dims.Box
) -> Iterator[tuple[int, int, dims.Box]]:
  """Ranges of bytes that cover a box, each with the box it holds."""
  shape = entry.shape
  if not shape:
    yield entry.start, entry.start + entry.nbytes, ()
    return
  box = list(box)
  # The last dim that is cut decides how long a run is. Where runs are short,
  # whole rows are read and the rest of them dropped.
  cut = max((i for i, n in enumerate(shape) if box[i] != (0, n)), default=0)
  while True:
    row = math.prod(shape[cut + 1 :]) * entry.dtype.itemsize
    low, high = box[cut]
    if cut == 0 or (high - low) * row >= _MIN_RUN_BYTES:
      break
    box[cut] = (0, shape[cut])
    cut -= 1
  step = max(1, CHUNK_BYTES // row)
  for outer in itertools.product(*(range(*pair) for pair in box[:cut])):
    base = 0
    for i, position in enumerate(outer):
      base += position * math.prod(shape[i + 1 :]) * entry.dtype.itemsize
    for first in range(low, high, step):
      last = min(first + step, high)
      part = [(i, i + 1) for i in outer] + [(first, last)]
      part += [(0, n) for n in shape[cut + 1 :]]
      start = entry.start + base
      yield start + first * row, start + last * row, tuple(part)


def _groups(pieces: Iterable, *, limit: int) -> Iterator[list]:
  """Neighbours whose bytes together stay below a limit."""
  group, total = [], 0
  for piece in pieces:
    size = piece[1] - piece[0]
    if group and total + size > limit:
      yield group
      group, total = [], 0
    group.append(piece)
    total += size
  if group:
    yield group


def shards(sizes: Mapping[str, int], *, limit: int) -> list[list[str]]:
  """Tensors in order, cut into files of at most `limit` bytes.

  A tensor larger than that has a file of its own.
  """
  result, total = [[]], 0
  for name, size in sizes.items():
    if result[-1] and total + size > limit:
      result.append([])
      total = 0
    result[-1].append(name)
    total += size
  return result


def write(
  directory: pathlib.Path,
  *,
  tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
  load: Callable[[str], np.ndarray],
  limit: int,
) -> None:
  """Files and index, one tensor in memory at a time.

  Args:
    directory: where.
    tensors: shape and type by name, in the order of writing.
    load: gives a tensor.
    limit: bytes of a file.
  """
  sizes = {
    name: math.prod(shape) * dtype.itemsize
    for name, (shape, dtype) in tensors.items()
  }
  files = shards(sizes, limit=limit)
  weight_map = {}
  for number, names in enumerate(files, start=1):
    file = f"model-{number:05d}-of-{len(files):05d}.safetensors"
    weight_map |= dict.fromkeys(names, file)
    with open(directory / file, "wb") as out:
      out.write(_header_bytes(names, tensors=tensors, sizes=sizes))
      for name in names:
        shape, dtype = tensors[name]
        array = load(name)
        if array.shape != shape or array.dtype != dtype:
          raise ValueError(f"{name}: {array.shape} {array.dtype}")
        out.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
  index = {
    "metadata": {"total_size": sum(sizes.values())},
    "weight_map": weight_map,
  }
  text = json.dumps(index, indent=2) + "\n"
  (directory / INDEX).write_text(text, encoding="utf-8")


def _header_bytes(names, *, tensors, sizes) -> bytes:
  header, start = {"__metadata__": {"format": "pt"}}, 0
  for name in names:
    shape, dtype = tensors[name]
    header[name] = {
      "dtype": _NAMES[dtype],
      "shape": list(shape),
      "data_offsets": [start, start + sizes[name]],
    }
    start += sizes[name]
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  return len(text).to_bytes(8, "little") + text
