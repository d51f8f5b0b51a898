"""Can this run start here? `python -m launch.preflight`, on every host.

For: before `python -m tml_jax.train`, with its flags. It says which host has
other code, no access to the workdir or the data, too little memory, a wrong
clock, or devices that do not add up; then it adds numbers over every mesh
axis. Leaves nothing behind. Not for: whether the step fits (`tml_jax.aot`).
Start reading at `check_all`; launch/host_checks.py is what a host looks at.

Exit status: 0 all is well; 2 something is not, with host, value and fix; 1 it
could not look everywhere (docs/reliability.md).
"""

import json
import math
import socket
from collections.abc import Callable
from typing import Any

from absl import logging

from launch import host_checks
from tml_jax import buckets, errors, train
from tml_jax.config import Config
from tml_jax.config import flags as config_flags
from tml_jax.config import text as config_text
from tml_jax.parallel import processes as processes_lib

_MAX_CLOCK_SECONDS = 5.0  # logs of several hosts are read side by side
_AXIS_SECONDS = 120.0  # for the first collective over an axis, compiled


class Report:
  """What was found, on all hosts; every method is called by all processes.

  Attributes:
    rows: name, value or "FAILED", for the table.
    problems: what is wrong, where, and the fix.
  """

  def __init__(self, processes: processes_lib.Processes):
    self.rows: list[tuple[str, str]] = []
    self.problems: list[str] = []
    self._processes = processes
    self._hosts = processes.all_of(socket.gethostname())
    self.add("hosts", f"{processes.count} processes on", self._names(limit=4))

  def add(self, name: str, *words: str) -> None:
    self.rows.append((name, " ".join(words)))

  def each(self, name: str, find: Callable[[], Any]) -> list[Any]:
    """Looks on every host; a UserError there is a problem of that host.

    Returns:
      What each process found, JSON values; empty when one has a problem.
    """
    found: dict[str, Any] = {}
    try:
      found["value"] = find()
    except errors.UserError as error:
      found["problem"] = str(error)
    everyone = [
      json.loads(x) for x in self._processes.all_of(json.dumps(found))
    ]
    problems: dict[str, list[int]] = {}
    for index, item in enumerate(everyone):
      if "problem" in item:
        problems.setdefault(item["problem"], []).append(index)
    for text, places in problems.items():
      self.fail(name, f"{self._where(places)}: {text}")
    return [] if problems else [item["value"] for item in everyone]

  def same(self, name: str, facts: dict[str, Any], *, fix: str) -> None:
    """Compares facts of this process with those of process 0."""
    everyone = self.each(name, lambda: facts)
    first = everyone[0]
    for key in sorted({key for other in everyone for key in other}):
      values: dict[str, list[int]] = {}
      for index, other in enumerate(everyone):
        values.setdefault(str(other.get(key, "absent")), []).append(index)
      want = str(first.get(key, "absent"))
      for value, places in values.items():
        if value != want:
          self.fail(
            name,
            f"{self._where(places)}: {key} is {value}, and {want} on"
            f" {self._where([0])}: {fix}",
          )

  def fail(self, name: str, problem: str) -> None:
    if not self.failed(name):
      self.rows.append((name, "FAILED"))
    self.problems.append(problem)

  def failed(self, name: str) -> bool:
    return (name, "FAILED") in self.rows

  def table(self) -> str:
    """A row for each check, and below it what is wrong."""
    width = max(len(name) for name, _ in self.rows)
    lines = [f"{name:<{width}}  {value}" for name, value in self.rows]
    return "\n".join(lines + [f"- {problem}" for problem in self.problems])

  def _where(self, places: list[int]) -> str:
    if len(places) == len(self._hosts):
      return "every host"
    names = [f"process {i} on {self._hosts[i]}" for i in places[:4]]
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    return ", ".join(names) + more

  def _names(self, *, limit: int) -> str:
    names = sorted(set(self._hosts))
    more = f", ... ({len(names)} hosts)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def check_all(
  config: Config, *, workdir: str, data_dir: str, processes: Any
) -> Report:
  """Every check that can be made, the later ones if the earlier are good."""
  report = Report(processes)

  # ------------------------------------------------ the same thing everywhere
  versions = host_checks.versions()
  report.same(
    "versions",
    versions,
    fix="install the same packages and check out the same commit on all",
  )
  if not report.failed("versions"):
    report.add(
      "versions",
      ", ".join(f"{name} {value}" for name, value in versions.items()),
    )
  report.same(
    "config",
    {name: repr(x) for name, x in config_text.flatten(config).items()},
    fix="start all with the same --config and --config. flags",
  )
  if not report.failed("config"):
    report.add("config", config.name, "equal on all")
  processes.all_of("")  # so that all look at their clocks at once
  times = report.each("clocks", host_checks.clock)
  spread = max(times) - min(times)
  if spread > _MAX_CLOCK_SECONDS:
    slow, fast = times.index(min(times)), times.index(max(times))
    report.fail(
      "clocks",
      f"the clock of process {fast} is {spread:.0f} s ahead of that of process"
      f" {slow}: set them by NTP (chronyc makestep)",
    )
  else:
    report.add("clocks", f"within {spread:.2f} s")

  # ------------------------------------------------------ directories, data
  _check_files(
    config,
    workdir=workdir,
    data_dir=data_dir,
    processes=processes,
    report=report,
  )

  # ---------------------------------------------------- devices, memory, mesh
  if report.failed("versions") or report.failed("config"):
    logging.info("devices are left alone until hosts run the same thing")
    return report
  local = host_checks.local_devices()
  report.same(
    "devices",
    local,
    fix="a chip is missing or held by another process: look at its log, or"
    " replace the slice",
  )
  meshes = report.each("mesh", lambda: host_checks.mesh_sizes(config))
  if meshes:
    report.add(
      "devices",
      f"{local['kind']}, {local['of a host']} of each process,"
      f" {local['together']} together",
    )
    sizes = [f"{axis} {n}" for axis, n in meshes[0].items() if n > 1]
    report.add("mesh", " ".join(sizes) or "one device")
    rows = report.each("batch", lambda: host_checks.local_rows(config))
    if rows:
      size = config.train.global_batch_size
      report.add("batch", f"{size} sequences, {max(rows)} made by a process")
    task = train.Pretraining(config)
    # What it refuses itself: --init_from, --local_checkpoint_dir, ...
    if report.each("train", lambda: train.check(task, processes=processes)):
      report.add("train", "takes these flags")
    _check_room(config, workdir=workdir, report=report)
  if not report.problems:
    _add_over_axes(config, processes=processes, report=report)
  return report


def _check_files(config, *, workdir, data_dir, processes, report) -> None:
  """The workdir is writable and one for all, the data is there and equal."""
  with host_checks.Probe(workdir, processes=processes) as probe:
    seconds = report.each("workdir", probe.write_read_delete)
    if seconds:
      probe.leave_token()
      processes.all_of("")
      report.each("workdir", probe.find_token)
      processes.all_of("")
    run = report.each("resume", lambda: host_checks.resume(workdir, config))
  if seconds and not report.failed("workdir"):
    report.add(
      "workdir",
      f"written{'' if buckets.is_url(workdir) else ', renamed'} and read in"
      f" {max(seconds):.2f} s, shared",
    )
  if run:
    report.add("resume", run[0])
  found = report.each(
    "data",
    lambda: host_checks.read_data(
      config,
      data_dir,
      processes,
      tokenizer_file=train.Pretraining(config).tokenizer_file,
    ),
  )
  if not found:
    return
  seconds = [item.pop("seconds") for item in found]
  report.same(
    "data",
    found[processes.index],
    fix="copy the same prepared data to all hosts",
  )
  if not report.failed("data"):
    count = len(found[0]) - 1  # without the tokenizer
    report.add(
      "data", f"a record of {count} corpora read in {max(seconds):.2f} s"
    )


def _check_room(config: Config, *, workdir: str, report: Report) -> None:
  """Host memory for a copy of this host's state, disk for its checkpoints."""
  rooms = report.each("room", lambda: host_checks.room(config, workdir))
  if rooms:
    memory, disk = (min(item[k] for item in rooms) for k in ("memory", "disk"))
    state = max(item["state"] for item in rooms)
    report.add(
      "room",
      f"state of a host {state:.2f} GiB; free at least {memory:.1f} GiB of"
      f" memory, {disk:.1f} GiB where the workdir is"
      if disk < math.inf
      else f"state of a host {state:.2f} GiB; free at least {memory:.1f} GiB of"
      " memory; the workdir is a bucket",
    )


def _add_over_axes(config: Config, *, processes, report: Report) -> None:
  """One all-reduce over each mesh axis: the right sum, and its time."""
  at = "at the first collective"
  processes.watch(step_timeout=_AXIS_SECONDS, where=lambda: at)
  for axis, size in host_checks.mesh_sizes(config).items():
    if size == 1:
      continue
    name = f"sum over {axis}"
    at = f"in the sum over {axis}"
    found = report.each(name, lambda axis=axis: host_checks.add(config, axis))
    processes.progress()
    if found:
      seconds = max(item["seconds"] for item in found)
      mib = found[0]["mib"]
      report.add(
        name,
        f"{size} devices, {mib:.0f} MiB each: right, {seconds * 1e3:.2f} ms"
        f" ({2 * (size - 1) / size * mib / 1024 / seconds:.2f} GiB/s)",
      )
  processes.watch(step_timeout=math.inf, where=lambda: at)


def main(config: Config) -> None:
  processes = processes_lib.start()
  with processes.ending_all():
    with processes.together():
      if not config_flags.WORKDIR.value:
        raise errors.UserError("--workdir is missing: name that of the run")
    with processes.waiting():  # a host may copy it to --data_cache
      data_dir = config_flags.data_dir()
    report = check_all(
      config,
      workdir=config_flags.WORKDIR.value,
      data_dir=data_dir,
      processes=processes,
    )
    if processes.is_first:
      print(report.table(), flush=True)
      if config_flags.JSON.value:
        content = {"rows": report.rows, "problems": report.problems}
        with open(config_flags.JSON.value, "w", encoding="utf-8") as file:
          json.dump(content, file, indent=2)
    processes.all_of("")  # a process that ends early would end the others
    if report.problems:
      raise processes_lib.AgreedError(
        "; ".join(report.problems), status=errors.Status.BAD_INPUT
      )


if __name__ == "__main__":
  config_flags.run(main)
