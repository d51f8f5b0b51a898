"""What a source of recordings is, and the list of those that exist.

For: the `Source` protocol, the registry and the ways a recording can be bad.
Not for: reading prepared shards (`records`). Start reading at `Source`; a
worked example is docs/add_a_data_source.md.
"""

import dataclasses
import difflib
import enum
import pathlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from tml_jax import errors
from tml_jax.streams import timeline


@runtime_checkable
class Source(Protocol):
  """Recordings by index.

  `source[i]` gives the same timeline every time. It raises `BadRecording` for
  a recording that cannot be used; `prepare` skips and counts those. A source
  must survive pickling, as `prepare` and the loader use several processes.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> timeline.Timeline: ...


class Reason(enum.StrEnum):
  """Why a recording was skipped; the text appears in the report."""

  UNREADABLE = "cannot be read"
  EMPTY = "empty"
  TRUNCATED = "truncated"
  NOT_FINITE = "NaN or infinite samples"
  CLIPPED = "clipped"
  SILENT = "silent"
  TOO_LONG = "too long"
  TOO_LARGE = "too large"
  TIMED_OUT = "too slow to decode"
  NOT_SCALED = "samples far over full scale"
  WRONG_CHANNELS = "wrong channel count"
  NO_TRANSCRIPT = "no transcript"
  NO_SPEECH = "transcript without speech"
  BROKEN_METADATA = "broken metadata"
  INVALID = "not a valid timeline"


class BadRecording(ValueError):
  """One recording that cannot be used, why, and the value that shows it."""

  def __init__(self, reason: Reason, detail: str):
    super().__init__(reason, detail)
    self.reason = reason
    self.detail = detail

  def __str__(self) -> str:
    return f"{self.reason}: {self.detail}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What every source is opened with besides its variant.

  Attributes:
    root: the directory under which sources look for files: `/` for installed
      packages, or a folder that holds unpacked ones.
  """

  root: pathlib.Path


Factory = Callable[..., Source]  # factory(variant, settings=Settings)

_FACTORIES: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
  """Decorator that makes `factory(variant, settings=...)` known as `name`.

  Raises:
    ValueError: another factory has this name.
  """

  def decorator(factory: Factory) -> Factory:
    known = _FACTORIES.get(name)
    if known is not None and known.__qualname__ != factory.__qualname__:
      raise ValueError(f"source {name!r} is registered twice")
    _FACTORIES[name] = factory
    return factory

  return decorator


def get(name: str) -> Factory:
  """The factory registered as `name`.

  Raises:
    errors.UserError: no such source; names the nearest ones.
  """
  if name not in _FACTORIES:
    raise errors.UserError(
      f"no data source is named {name!r}; "
      + nearest(name, names=sorted(_FACTORIES))
    )
  return _FACTORIES[name]


def nearest(name: str, *, names: list[str]) -> str:
  """The part of an error message that helps with a misspelt name."""
  close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
  if close:
    return "did you mean " + " or ".join(map(repr, close)) + "?"
  return "there are " + ", ".join(names)


@dataclasses.dataclass(frozen=True)
class Spec:
  """One entry of `config.data.voices`: "source:variant"."""

  source: str
  variant: str

  @property
  def folder(self) -> str:
    """Name of the prepared corpus inside data_dir."""
    return f"{self.source}-{self.variant}"


def parse(entry: str) -> Spec:
  """Reads "source:variant".

  Raises:
    errors.UserError: not of that form.
  """
  source, colon, variant = entry.partition(":")
  if not colon or not source or not variant or "/" in variant:
    raise errors.UserError(
      f"data.voices entry {entry!r} is not of the form source:variant, for "
      "example procedural:a"
    )
  return Spec(source, variant)
