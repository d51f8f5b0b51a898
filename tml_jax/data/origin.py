"""What a prepared corpus was made of, and what of it is still so.

For: `prepare`, which keeps what is up to date, decodes what is new or changed,
and says which. Not for: damage (`corpus.verify`). Start reading at `compare`.
A corpus has a file made_of.json beside its index:

  code        names the code that read and converted the recordings
  size        height and width that video had to have
  recordings  for each recording of the source, in order: its stamp
              (`source.Stamped`; "" of a source without), why it was skipped
              (null if it was not), and whether it has video

Libraries that decode are not part of it: a new FFmpeg rebuilds nothing.
"""

import ast
import collections
import dataclasses
import inspect
import pathlib
import sys
import types
import zlib
from typing import Any

from tml_jax import files
from tml_jax.data import source

FILE = "made_of.json"
SIZE = "video"  # of a corpus' report: height and width, where there is video
_PACKAGES = ("tml_jax.data", "tml_jax.streams")


@dataclasses.dataclass(frozen=True)
class Recording:
  """One recording of a source, as it was converted.

  Attributes:
    stamp: see the module.
    skipped: reason and detail, or None.
    video: whether it has some, or was skipped for it.
  """

  stamp: str
  skipped: tuple[str, str] | None
  video: bool


@dataclasses.dataclass
class Origin:
  """What a corpus is made of; `recordings` fills up while it is written."""

  code: str
  size: tuple[int, int]
  recordings: list[Recording]

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What is to be done about a corpus.

  Attributes:
    same: index in the corpus' source of then, by index in that of now, of
      recordings that need not be read again.
    why: in words; "" where nothing is to be done.
  """

  same: dict[int, int]
  why: str


def read(path: pathlib.Path) -> Origin | None:
  """Of the corpus in the folder `path`; None where nothing tells it."""
  try:
    content = files.load_json(path / FILE)
    height, width = content["size"]
    found = []
    for entry in content["recordings"]:
      skipped = entry["skipped"]
      if skipped is not None:
        reason, detail = map(str, skipped)
        skipped = (reason, detail)
      found.append(
        Recording(str(entry["stamp"]), skipped, bool(entry["video"]))
      )
    return Origin(str(content["code"]), (int(height), int(width)), found)
  except (OSError, ValueError, KeyError, TypeError, OverflowError):
    return None


def of(
  recordings: source.Source, *, code: str, size: tuple[int, int]
) -> Origin:
  """What a corpus of `recordings` would be made of now; nothing is read."""
  stamp = getattr(recordings, "stamp", lambda index: "")
  return Origin(
    code,
    size,
    [Recording(stamp(i), None, False) for i in range(len(recordings))],
  )


def compare(now: Origin, *, then: Origin | None) -> Comparison:
  """Which recordings are as they were, and what has changed."""
  if then is None:
    return Comparison({}, "nothing tells what it was made of")
  if then.code != now.code:
    return Comparison({}, "the code that converts it has changed")
  before, after = len(then.recordings), len(now.recordings)
  has_stamps = any(each.stamp for each in now.recordings)
  if not has_stamps and before != after:
    return Comparison({}, f"its source has {after} recordings, not {before}")
  places = collections.defaultdict(list)
  for place, each in enumerate(then.recordings):
    if now.size == then.size or not each.video:
      places[each.stamp].append(place)
  same = {}
  for index, each in enumerate(now.recordings):
    if places[each.stamp]:
      same[index] = places[each.stamp].pop(0)
  new, gone = after - len(same), before - len(same)
  resized = sum(each.video for each in then.recordings)
  if now.size != then.size and resized:
    was, want = ("x".join(map(str, each.size)) for each in (then, now))
    return Comparison(same, f"video is {want} now, and was {was}")
  if new or gone:
    return Comparison(same, f"{new} recordings are new or changed, {gone} gone")
  if list(same.values()) != list(range(before)):
    return Comparison(same, "its recordings come in another order")
  return Comparison(same, "")


def code_of(factory: source.Factory) -> str:
  """Names the code of a source and of ours that it imports.

  Comments, documentation and format do not count.
  """
  found: dict[str, types.ModuleType] = {}
  _collect(sys.modules[factory.__module__], found)
  checksum = 0
  for name in sorted(found):
    text = _meaning(inspect.getsource(found[name]))
    checksum = zlib.crc32(text.encode(errors="backslashreplace"), checksum)
  return f"{checksum:08x}"


def _collect(
  module: types.ModuleType, found: dict[str, types.ModuleType]
) -> None:
  """Adds a module and those of data and streams that it uses, once each."""
  if module.__name__ in found:
    return
  found[module.__name__] = module
  for value in vars(module).values():
    if isinstance(value, types.ModuleType):
      name = value.__name__
    else:
      name = getattr(value, "__module__", None) or ""
    if name.startswith(_PACKAGES) and name in sys.modules:
      _collect(sys.modules[name], found)


def _meaning(code: str) -> str:
  """Code without comments and documentation, in one format."""
  tree = ast.parse(code)
  for node in ast.walk(tree):
    body = getattr(node, "body", None)
    if isinstance(body, list):
      node.body = [  # type: ignore[attr-defined]  # of what has a body
        line
        for line in body
        if not (
          isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
        )
      ]
  return ast.unparse(tree)
