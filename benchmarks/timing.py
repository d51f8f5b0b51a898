"""Timing shared by the benchmarks: forms of one function, in one run.

For: benchmarks/*.py. Not for: profiling. Start at `compare`. Rounds are
interleaved, so that a busy moment of the machine meets every form alike, and
ratios to the first form are taken round by round.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

from tml_jax import workdir


class Timing(NamedTuple):
  """Median milliseconds, and median of the ratios to the first form."""

  name: str
  median_ms: float
  min_ms: float
  ratio: float


def compare(
  forms: dict[str, Callable], *, arguments: tuple, rounds: int
) -> list[Timing]:
  """Compiles every form, then times them in turn, `rounds` times."""
  compiled = {
    name: jax.jit(form).lower(*arguments).compile()
    for name, form in forms.items()
  }
  times = {name: [] for name in forms}
  for form in compiled.values():
    jax.block_until_ready(form(*arguments))
  for _ in range(rounds):
    for name, form in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(form(*arguments))
      times[name].append(1e3 * (time.perf_counter() - start))
  first = times[next(iter(forms))]
  return [
    Timing(
      name,
      statistics.median(each),
      min(each),
      statistics.median(
        mine / theirs for mine, theirs in zip(each, first, strict=True)
      ),
    )
    for name, each in times.items()
  ]


def threaded(function, state, *, rounds: int = 35, warm: int = 5) -> float:
  """Median milliseconds of calls that hand a donated state on.

  `function` takes the state and returns (result, state).
  """
  times = []
  for _ in range(warm + rounds):
    start = time.perf_counter()
    out, state = function(state)
    jax.block_until_ready(out)
    times.append(1e3 * (time.perf_counter() - start))
  return statistics.median(times[warm:])


def made() -> str:
  """The line of a table's document that names its code."""
  return f"Made at {workdir.short_hash(workdir.git_hash())}."


def print_table(title: str, rows: list[Timing]) -> None:
  print(f"\n{title}")
  print(f"| {'form':38} | median ms | min ms | ratio |")
  print(f"|{'-' * 40}|----------:|-------:|------:|")
  for row in rows:
    print(
      f"| {row.name:38} | {row.median_ms:9.1f} | {row.min_ms:6.1f} |"
      f" {row.ratio:5.2f} |"
    )
