"""Which recordings are shown: those that are asked for, or a few that differ.

For: `write`. Not for: reading them (`recording`). Start at `asked`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tml_jax import errors, registry
from tml_jax.data import corpus
from tml_jax.page.facts import Facts

_NEAR = 100_000  # ids among which near ones are looked for


@dataclasses.dataclass(frozen=True)
class Chosen:
  """A recording or document to be shown.

  Attributes:
    corpus: name of the corpus.
    number: in it.
    why: it was chosen.
  """

  corpus: str
  number: int
  why: str


def asked(
  wanted: Sequence[str], *, sources: Mapping[str, corpus.RecordSource]
) -> list[Chosen]:
  """Those of some ids or numbers, in the order in which they were named.

  Args:
    wanted: an id, or the number of a recording, each with CORPUS: before it
      where there are several that have it.
    sources: corpora by name.

  Raises:
    errors.UserError: there is none, or several corpora have one.
  """
  if not wanted:
    return []
  places: dict[str, dict[str, int]] = {}
  for name, source in sources.items():
    ids = source.columns("id")["id"]
    places[name] = {each: number for number, each in enumerate(ids)}
  return [_one(each, places=places) for each in wanted]


def _one(wanted: str, *, places: Mapping[str, Mapping[str, int]]) -> Chosen:
  prefix, colon, rest = wanted.partition(":")
  if colon and prefix in places:
    found = _in(places[prefix], rest)
    if found is not None:
      return Chosen(prefix, found, f"asked for as {wanted}")
  numbers = {name: _in(ids, wanted) for name, ids in places.items()}
  found_in = {name: n for name, n in numbers.items() if n is not None}
  if len(found_in) > 1:
    named = " or ".join(f"--recording={name}:{wanted}" for name in found_in)
    raise errors.UserError(
      f"--recording={wanted}: {' and '.join(found_in)} have it: write {named}"
    )
  for name, number in found_in.items():
    return Chosen(name, number, f"asked for as {wanted}")
  name = prefix if colon and prefix in places else ""
  ids = [
    each
    for corpus_name, of_corpus in places.items()
    if not name or name == corpus_name
    for each in of_corpus
  ]
  counts = ", ".join(
    f"{name} has the numbers 0 to {len(of_corpus) - 1}"
    for name, of_corpus in places.items()
  )
  raise errors.UserError(
    f"--recording={wanted}: there is no such id or number; {counts};"
    f" {_near(wanted, ids)}"
  )


def _near(wanted: str, ids: Sequence[str]) -> str:
  """The ids that are most like it, or a few."""
  said = registry.nearest(wanted, names=list(ids[:_NEAR]))
  if said.startswith("there are"):
    return f"ids are, for instance, {', '.join(ids[:3])}"
  return said


def _in(ids: Mapping[str, int], wanted: str) -> int | None:
  """Number of what is called so; ids come before numbers."""
  if wanted in ids:
    return ids[wanted]
  is_number = wanted.isascii() and wanted.isdecimal() and len(wanted) < 18
  return int(wanted) if is_number and int(wanted) < len(ids) else None


def differing(facts: Facts) -> list[Chosen]:
  """The shortest, the median, the longest, and those at other extremes.

  One that is several of these is there once.
  """
  has_sound = facts.seconds > 0
  sizes = np.where(has_sound, facts.seconds, facts.letters)
  order = np.argsort(sizes, kind="stable")
  reasons: dict[int, list[str]] = {}
  for why, number in (
    ("the shortest", order[0]),
    ("the median", order[len(order) // 2]),
    ("the longest", order[-1]),
  ):
    reasons.setdefault(int(number), []).append(why)
  if has_sound.any():
    seconds = np.where(has_sound, facts.seconds, 1)
    for why, part in (
      ("the most overlap", facts.overlap),
      ("the most silence", facts.silence),
    ):
      share = np.where(has_sound, part / seconds, -1)
      if share.max() > 0:
        reasons.setdefault(int(np.argmax(share)), []).append(why)
  return [
    Chosen(facts.name, number, ", ".join(why))
    for number, why in reasons.items()
  ]
