"""Who runs the units: a pool of processes here, or a Beam pipeline.

For: `prepare`. Not for: what a unit is (`plan`) or becomes (`convert`). Both
call the same function, and what a unit becomes depends on the unit alone.
"""

import contextlib
import enum
import functools
import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from concurrent import futures
from concurrent.futures import process
from typing import Any

import tqdm

from tml_jax import errors, plugins
from tml_jax.data import corpus, workers
from tml_jax.data.prepare import convert, plan

Work = Sequence[tuple[convert.Task, plan.Unit]]


class Runner(enum.StrEnum):
  """Where units are made."""

  LOCAL = "local"
  BEAM = "beam"


class Pool:
  """Processes of this machine.

  Spawned, not forked: a fork would copy the locks of FFmpeg's threads. An
  executor, not a multiprocessing Pool, which waits for ever for a killed
  process. They start with the first work.
  """

  def __init__(self, processes: int):
    self._processes = processes
    self._executor: futures.ProcessPoolExecutor | None = None

  def run(self, work: Work) -> Generator[convert.Task, None, None]:
    """Makes all units, and shows how far it is; the task of each when done.

    Raises:
      errors.UserError: a process was killed, or as of `convert`.
    """
    if self._executor is None:
      self._executor = futures.ProcessPoolExecutor(
        self._processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=workers.begin,
        initargs=(plugins.files(),),
      )
    left = {
      self._executor.submit(convert.convert, *each): each for each in work
    }
    hours = 0.0
    with tqdm.tqdm(
      total=sum(unit.bytes for _, unit in work),
      desc="prepared",
      unit="B",
      unit_scale=True,
      mininterval=1.0,
    ) as bar:
      try:
        for done in futures.as_completed(left):
          made: corpus.Unit = done.result()
          hours += made.seconds / 3600
          bar.set_postfix_str(f"{hours:.2f} h", refresh=False)
          task, unit = left[done]
          bar.update(unit.bytes)
          yield task
      except process.BrokenProcessPool as error:
        raise errors.UserError(
          "a decoding process was killed, perhaps for want of memory; run this"
          f" again with fewer than --processes={self._processes}: finished"
          " units stay"
        ) from error
      finally:
        for future in left:
          future.cancel()

  def close(self) -> None:
    if self._executor is not None:
      self._executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def pool(processes: int) -> Iterator[Pool]:
  """A pool that ends with the block."""
  made = Pool(processes)
  try:
    yield made
  finally:
    made.close()


def run_beam(work: Work, *, options: Sequence[str]) -> None:
  """Makes all units in a pipeline.

  Args:
    work: the units.
    options: of Beam, for instance --runner=DataflowRunner; see docs/data.md.

  Raises:
    errors.UserError: Beam is not installed, does not take the options, or
      failed.
  """
  try:
    import apache_beam as beam
    from apache_beam.options import pipeline_options
  except ImportError as error:
    raise errors.UserError(
      f"--runner=beam needs Apache Beam ({error}): pip install"
      " 'tml_jax[beam]', or leave the flag out"
    ) from error
  # Beam would read the flags of this command.
  chosen = pipeline_options.PipelineOptions(list(options))
  unknown = _unknown(chosen, options)
  if unknown:
    raise errors.UserError(
      f"--beam_options has {unknown[0]!r}, which Beam does not know; write"
      " them as --NAME=VALUE, separated by commas"
    )
  try:
    with beam.Pipeline(options=chosen) as pipeline:
      (
        pipeline
        | "units" >> beam.Create(list(work))
        | "spread" >> beam.Reshuffle()
        | "convert" >> beam.Map(functools.partial(_convert, plugins.files()))
      )
  except errors.UserError:
    raise
  except Exception as error:  # what a runner raises is its own
    raise errors.UserError(
      f"the Beam pipeline failed: {_last_line(error)}; run this again:"
      " finished units stay"
    ) from error


def _convert(files: tuple[str, ...], pair: tuple[Any, Any]) -> None:
  plugins.load(files)
  convert.convert(*pair)


def _unknown(options: Any, given: Sequence[str]) -> list[str]:
  known = options.get_all_options()
  names = [each.lstrip("-").partition("=")[0] for each in given]
  return [
    each
    for each, name in zip(given, names, strict=True)
    if not each.startswith("--") or name.removeprefix("no_") not in known
  ]


def _last_line(error: Exception) -> str:
  lines = [line for line in str(error).splitlines() if line.strip()]
  return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
