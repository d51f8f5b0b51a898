"""One tensor in two layouts: split, pick, reverse and reorder its dims.

For: reading a slice of one layout from a slice of the other, in both
directions and without copies. Not for: which tensors there are
(`inkling_names`). Start reading at `Dims`.

A layout change is written as one line, "e (f g=0) d -> e d f": the dims of
the foreign tensor, split into factors (the last varies fastest), and the
factors in our order. `g=0` keeps entry 0 of a factor that we do not have,
`~k` runs backwards.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

# First and last + 1 in each dim.
Box = tuple[tuple[int, int], ...]

_DIM = re.compile(r"\(([^)]*)\)|(\S+)")
_FACTOR = re.compile(r"(~?)([a-z]+)(?:=(\d+))?")


@dataclasses.dataclass(frozen=True)
class Dims:
  """A foreign tensor and our view of it.

  Attributes:
    foreign: factors of each of its dims.
    ours: factors in our order.
    sizes: size of every factor.
    picks: entry kept of a factor that is not in `ours`.
    reversed: factors that run backwards.
  """

  foreign: tuple[tuple[str, ...], ...]
  ours: tuple[str, ...]
  sizes: dict[str, int]
  picks: dict[str, int]
  reversed: frozenset[str]

  @property
  def foreign_shape(self) -> tuple[int, ...]:
    return tuple(math.prod(self.sizes[f] for f in dim) for dim in self.foreign)

  @property
  def shape(self) -> tuple[int, ...]:
    """Of our view."""
    return tuple(self.sizes[factor] for factor in self.ours)

  def view(self, foreign: np.ndarray) -> np.ndarray:
    """Our view of a whole, contiguous foreign tensor; nothing is copied."""
    factors = [factor for dim in self.foreign for factor in dim]
    array = foreign.reshape([self.sizes[factor] for factor in factors])
    array = array[
      tuple(
        self.picks.get(factor, slice(None, None, self._step(factor)))
        for factor in factors
      )
    ]
    kept = [factor for factor in factors if factor not in self.picks]
    return array.transpose([kept.index(factor) for factor in self.ours])

  def _step(self, factor: str) -> int:
    return -1 if factor in self.reversed else 1

  def narrow(self, box: Box) -> tuple[Box, "Dims", Box]:
    """What to read of the foreign tensor for a part of ours.

    Args:
      box: the part of our view.

    Returns:
      the smallest box of the foreign tensor that holds it, the same layout
      change for that box alone, and the part of the view of it that was asked
      for.
    """
    wanted = dict(zip(self.ours, box, strict=True))
    outer, sizes, picks = [], dict(self.sizes), dict(self.picks)
    for dim in self.foreign:
      low, high = 0, 1
      for i, factor in enumerate(dim):
        size = self.sizes[factor]
        first, last = self._range(factor, wanted=wanted)
        sizes[factor] = last - first
        low, high = low * size + first, low * size + last
        if factor in picks:
          picks[factor] = 0
        else:
          wanted[factor] = (0, last - first)
        if last - first > 1:  # what varies faster is read whole
          inner = math.prod(self.sizes[f] for f in dim[i + 1 :])
          low, high = low * inner, high * inner
          for rest in dim[i + 1 :]:
            if rest in self.picks:
              picks[rest] = self.picks[rest]
          break
      outer.append((low, high))
    part = dataclasses.replace(self, sizes=sizes, picks=picks)
    return tuple(outer), part, tuple(wanted[factor] for factor in self.ours)

  def _range(self, factor: str, *, wanted: Mapping[str, tuple[int, int]]):
    """First and last + 1 entry of a factor in foreign order."""
    if factor in self.picks:
      return self.picks[factor], self.picks[factor] + 1
    first, last = wanted[factor]
    if factor in self.reversed:
      size = self.sizes[factor]
      return size - last, size - first
    return first, last


def parse(text: str, *, sizes: Mapping[str, int]) -> Dims:
  """`Dims` of a line such as "e (f g=0) d -> e d f".

  Args:
    text: the line.
    sizes: of every factor in it.
  """
  left, right = text.split("->")
  foreign, picks, backwards = [], {}, set()
  for group, single in _DIM.findall(left):
    dim = []
    for sign, name, pick in _FACTOR.findall(group or single):
      dim.append(name)
      if pick:
        picks[name] = int(pick)
      if sign:
        backwards.add(name)
    foreign.append(tuple(dim))
  ours = tuple(right.split())
  named = {factor for dim in foreign for factor in dim}
  if set(ours) != named - set(picks):
    raise ValueError(f"{text!r}: the factors of the two sides differ")
  return Dims(
    foreign=tuple(foreign),
    ours=ours,
    sizes={name: sizes[name] for name in named},
    picks=picks,
    reversed=frozenset(backwards),
  )


def slices(box: Box) -> tuple[slice, ...]:
  return tuple(slice(low, high) for low, high in box)
