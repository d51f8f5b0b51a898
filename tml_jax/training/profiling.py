"""Looks into a running train loop: traces, device memory, stacks of a hang.

For: `Profiler`, which `train` tells when steps begin and end. Not for: which
steps (`profile_flags.py`), reading a trace (`tml_jax.trace`). Start at
`Profiler`.
"""

import collections
import contextlib
import faulthandler
import math
import os
import pathlib
from collections.abc import Iterator

import jax
from absl import logging

from tml_jax import buckets, files
from tml_jax import workdir as workdir_lib
from tml_jax.parallel import chips
from tml_jax.training import breakdown, profile_flags

_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


class Profiler:
  """What the flags asked for, done when the loop comes to it."""

  def __init__(
    self,
    requested: profile_flags.Requested,
    *,
    workdir: str,
    start: int,
    compiled: jax.stages.Compiled,
  ):
    """Starts the watchdog.

    Args:
      requested: by the flags.
      workdir: of the run.
      start: step that the run resumes from, 0 for a new one.
      compiled: the train step.
    """
    self._requested = requested
    self._place = files.path(workdir) / workdir_lib.PROFILE
    self._mirror = buckets.Mirror(self._place)
    self._folder = self._mirror.folder
    self._compiled = compiled
    self._analysis = compiled.memory_analysis()  # seconds for a large program
    self._is_tracing = False
    self._results: jax.Array | None = None
    if requested.first and requested.first <= start:
      # Not an error: a killed run is restarted by the same command.
      logging.warning(
        "--profile_steps=%d:%d begins before step %d, from which the run"
        " resumes: nothing is traced",
        requested.first,
        requested.last,
        start,
      )
    self.alive()

  def alive(self) -> None:
    """Tells the watchdog that the loop goes on."""
    if self._requested.stack_dump_after:
      faulthandler.dump_traceback_later(
        self._requested.stack_dump_after, repeat=True
      )

  def begin(self, step: int) -> None:
    """To be called before anything else of a step."""
    if step == self._requested.first:
      self._start()
    self._annotation = jax.profiler.StepTraceAnnotation(
      breakdown.STEP, step_num=step
    )
    self._annotation.__enter__()

  @contextlib.contextmanager
  def out_of_memory(self, step: int) -> Iterator[None]:
    """Around what runs the step: writes memory when it does not suffice."""
    try:
      yield
    except jax.errors.JaxRuntimeError as error:
      if _OUT_OF_MEMORY in str(error):
        self._write_memory(f"memory_oom_step_{step}")
      raise

  def end(self, step: int, *, results: jax.Array) -> None:
    """To be called last: ends a trace, writes memory.

    Args:
      step: that was dispatched last.
      results: of it; waited for where the trace ends.
    """
    self.alive()
    self._annotation.__exit__(None, None, None)
    self._results = results
    if step == self._requested.last and self._is_tracing:
      jax.block_until_ready(results)
      self.stop()
    if step == self._requested.memory_step:
      jax.block_until_ready(results)
      self._write_memory(f"memory_step_{step}")

  def _start(self) -> None:
    jax.block_until_ready(self._results)  # the step before is not in the trace
    self._folder.mkdir(parents=True, exist_ok=True)
    if jax.process_index() == 0:
      (self._folder / workdir_lib.PROGRAM).write_text(
        self._compiled.as_text(), encoding="utf-8"
      )
    jax.profiler.start_trace(self._folder)
    self._is_tracing = True

  def stop(self) -> None:
    """Writes the trace; of a run that ends inside the range too."""
    if self._is_tracing:
      self._is_tracing = False
      jax.profiler.stop_trace()
      self._mirror.push()
      logging.info(
        "trace of the steps up to %d in %s: `python -m tml_jax.trace"
        " --workdir=%s`",
        self._requested.last,
        self._place,
        self._place.parent,
      )

  def _write_memory(self, name: str) -> None:
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / f"{name}_process_{jax.process_index()}.prof"
    jax.profiler.save_device_memory_profile(os.fspath(path))
    text = path.with_suffix(".txt")
    text.write_text(live_arrays() + "\n", encoding="utf-8")
    self._mirror.push()
    logging.info(
      "what lies in device memory: %s, and for pprof %s",
      self._place / text.name,
      self._place / path.name,
    )

  def memory(self) -> dict[str, float]:
    """GiB of host and of the fullest device of this process, as metrics.

    memory/host is resident now. By the compiler: memory/arguments of the step,
    memory/temporaries, memory/step_peak at once. By the allocator, on devices
    that keep count (a CPU does not): memory/device and memory/device_peak.
    """
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    result = {"memory/host": pages * os.sysconf("SC_PAGE_SIZE") / chips.GIB}
    analysis = self._analysis
    result["memory/arguments"] = analysis.argument_size_in_bytes / chips.GIB
    result["memory/temporaries"] = analysis.temp_size_in_bytes / chips.GIB
    if jax.default_backend() != "cpu":  # whose compiler leaves temporaries out
      result["memory/step_peak"] = chips.peak_bytes(analysis) / chips.GIB
    stats = [device.memory_stats() for device in jax.local_devices()]
    for name, key in (
      ("memory/device", "bytes_in_use"),
      ("memory/device_peak", "peak_bytes_in_use"),
    ):
      known = [each[key] for each in stats if each and key in each]
      if known:
        result[name] = max(known) / chips.GIB
    return result

  def close(self) -> None:
    self.stop()
    self._mirror.close()
    faulthandler.cancel_dump_traceback_later()


def live_arrays() -> str:
  """Arrays that this process holds, largest first, as a table.

  What a running program needs besides is not here: `aot` tells that.
  """
  sizes: collections.Counter[str] = collections.Counter()
  counts: collections.Counter[str] = collections.Counter()
  for array in jax.live_arrays():
    shards = array.addressable_shards
    shape = shards[0].data.shape
    name = f"{array.dtype}{list(shape)} on {len(shards)} devices"
    sizes[name] += math.prod(shape) * array.dtype.itemsize * len(shards)
    counts[name] += 1
  lines = [
    f"{sum(sizes.values()) / chips.GIB:>9.3f} GiB in all, of this process"
  ]
  for name, size in sizes.most_common():
    lines.append(f"{size / chips.GIB:>9.3f} GiB {counts[name]:>5} x {name}")
  return "\n".join(lines)
