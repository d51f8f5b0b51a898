"""Units of work: which parts of a source are written together.

For: `job`. Not for: doing it (`convert`). Start reading at `plan`. A plan
follows from names, sizes and stamps alone, so that every run of `prepare` cuts
the same units, and a unit that is finished is known by its name. Units of an
older corpus stay as they are while all their parts do: what is new makes units
of its own.
"""

import dataclasses
import hashlib
import json
import types
from collections.abc import Collection, Iterable, Mapping, Sequence

from tml_jax import errors
from tml_jax.data import source
from tml_jax.data.source import Part

UNIT_BYTES = 64 << 20  # of the source
_MOST_PARTS = 4096
# Of a recording of a source that gives them by number: a prompt, or a call.
_RECORDING_BYTES = 256 << 10

Key = tuple[str, str]  # name and stamp of a part


@dataclasses.dataclass(frozen=True)
class Unit:
  """Parts that become one unit of a corpus.

  Attributes:
    name: says of what it is made, 16 hexadecimal digits.
    parts: in order.
    places: number of each among all parts of the source.
  """

  name: str
  parts: tuple[Part, ...]
  places: tuple[int, ...]

  @property
  def keys(self) -> tuple[Key, ...]:
    return tuple((part.name, part.stamp) for part in self.parts)

  @property
  def bytes(self) -> int:
    return sum(part.bytes for part in self.parts)


@dataclasses.dataclass(frozen=True)
class Plan:
  """What makes a corpus.

  Attributes:
    units: in order.
    kept: names of those that are there.
    new: parts that no unit of before has.
    gone: parts of units of before that are there no more.
  """

  units: tuple[Unit, ...]
  kept: frozenset[str]
  new: int
  gone: int

  @property
  def todo(self) -> tuple[Unit, ...]:
    return tuple(unit for unit in self.units if unit.name not in self.kept)


def parts_of(recordings: source.Source | source.Streamed) -> list[Part]:
  """The parts of a source; of one by number, a part is a recording.

  Raises:
    errors.UserError: there is none, or two have the same name.
  """
  if isinstance(recordings, source.Streamed):
    parts = recordings.parts()
  else:
    count = len(recordings)
    stamp = getattr(
      recordings, "stamp", lambda number: f"number {number} of {count}"
    )
    parts = [
      Part(stamp(number), stamp(number), _RECORDING_BYTES)
      for number in range(count)
    ]
  if not parts:
    raise errors.UserError(f"{recordings!r:.200} has nothing to read")
  names = set()
  for part in parts:
    if part.name in names:
      raise errors.UserError(
        f"{recordings!r:.200} has two parts named {part.name!r:.99}: the source"
        " must name each differently"
      )
    names.add(part.name)
  return parts


def plan(
  parts: Sequence[Part],
  *,
  maker: str,
  before: Iterable[tuple[str, Collection[Key]]],
  finished: Collection[str] = (),
  order: Mapping[str, int] = types.MappingProxyType({}),
) -> Plan:
  """The units of a corpus.

  Args:
    parts: of the source, in its order.
    maker: what converts them (code, options, size of video); part of the name.
    before: units of the corpus that is there, in its order: name, and parts of
      each. One is kept if all its parts are still there and in no unit before
      it.
    finished: names of units that are there and in no corpus yet, as a run that
      was killed leaves them. They change neither the cut nor the order, so that
      the corpus becomes what it would have been.
    order: place of each unit of the corpus that is there; one that was damaged
      and is made again gets its own.
  """
  places = {(p.name, p.stamp): number for number, p in enumerate(parts)}
  taken: set[int] = set()
  kept: list[Unit] = []
  gone: set[Key] = set()
  known: set[Key] = set()
  for name, keys in before:
    known |= {*keys}
    gone |= {key for key in keys if key not in places}
    numbers = [places.get(key, -1) for key in keys]
    if min(numbers, default=-1) < 0 or taken & {*numbers}:
      continue
    taken |= {*numbers}
    kept.append(Unit(name, tuple(parts[n] for n in numbers), tuple(numbers)))
  left = [number for number in range(len(parts)) if number not in taken]
  new = [*_cut(left, parts, maker=maker)]
  return Plan(
    units=tuple(
      sorted([*kept, *new], key=lambda unit: order.get(unit.name, len(order)))
    ),
    kept=frozenset(
      [unit.name for unit in kept]
      + [unit.name for unit in new if unit.name in finished]
    ),
    new=len(places.keys() - known),
    gone=len(gone),
  )


def _cut(
  numbers: Sequence[int], parts: Sequence[Part], *, maker: str
) -> Iterable[Unit]:
  """Units of some parts, of about `UNIT_BYTES` each."""
  chosen: list[int] = []
  size = 0
  for number in numbers:
    each = parts[number].bytes
    if chosen and (size + each > UNIT_BYTES or len(chosen) == _MOST_PARTS):
      yield _unit(chosen, parts, maker=maker)
      chosen, size = [], 0
    chosen.append(number)
    size += each
  if chosen:
    yield _unit(chosen, parts, maker=maker)


def _unit(numbers: list[int], parts: Sequence[Part], *, maker: str) -> Unit:
  of = tuple(parts[number] for number in numbers)
  content = json.dumps([maker, [(part.name, part.stamp) for part in of]])
  name = hashlib.sha1(content.encode("utf-8", "backslashreplace")).hexdigest()
  return Unit(name[:16], of, tuple(numbers))
