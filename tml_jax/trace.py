"""A trace by module: `python -m tml_jax.trace --workdir=DIR`.

For: measured seconds of the traced steps by scope and pass, on the terminal,
and what the train loop did meanwhile. Not for: making a trace (`python -m
tml_jax.train --profile_steps=FIRST:LAST`), nor a timeline: open the files in
XProf or Perfetto for that (docs/debugging.md). Start reading at `read`.

Times of a device are those of its own instructions, summed over its threads
where it has several (a CPU): more than the clock shows when they overlap.
"""

import collections
import dataclasses
import pathlib

from absl import flags

from tml_jax import buckets, errors
from tml_jax import workdir as workdir_lib
from tml_jax.config import Config
from tml_jax.config import flags as config_flags

_MODULES = flags.DEFINE_integer("modules", 30, "Rows of the table by module.")
# These last as long as what they call.
_CALLERS = frozenset("while call conditional async-start async-done".split())


@dataclasses.dataclass(frozen=True)
class Trace:
  """What one process recorded.

  Attributes:
    step_seconds: of the traced steps, as the host saw them, by step.
    parts: seconds of the loop's parts (`training/breakdown.py`).
    modules: seconds of instructions by (scope, pass).
    unknown: seconds of instructions that the program does not have.
    devices: that ran instructions.
  """

  step_seconds: dict[int, float]
  parts: dict[str, float]
  modules: dict[tuple[str, str], float]
  unknown: float
  devices: int


def newest(workdir: str) -> tuple[pathlib.Path, pathlib.Path]:
  """The program and the last trace of a run.

  Raises:
    errors.UserError: no run, or none that was traced.
  """
  if not workdir:
    raise errors.UserError("--workdir is missing: give the directory of a run")
  if buckets.is_url(workdir):
    raise errors.UserError(
      f"--workdir={workdir} is a URL and traces are read on a disk: copy"
      f" {workdir}/{workdir_lib.PROFILE} to DIR/{workdir_lib.PROFILE} and give"
      " --workdir=DIR"
    )
  folder = pathlib.Path(workdir) / workdir_lib.PROFILE
  found = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
  if not found or not (folder / workdir_lib.PROGRAM).is_file():
    raise errors.UserError(
      f"no trace in {folder}: run `python -m tml_jax.train"
      f" --workdir={workdir}` with --profile_steps=FIRST:LAST"
    )
  return folder / workdir_lib.PROGRAM, found[-1]


def read(program: pathlib.Path, trace: pathlib.Path) -> Trace:
  """Joins the events of a trace with the scopes of the program's text."""
  import jax

  from tml_jax.compiled import hlo, scopes
  from tml_jax.training import breakdown

  text = program.read_text(encoding="utf-8")
  # "HloModule jit_train_step, ..."
  module_name = text.split(None, 2)[1].rstrip(",")
  module = hlo.parse(text)
  names, callers = {}, set()
  for computation in module.computations.values():
    for item in computation.instructions:
      if item.opcode in _CALLERS:
        callers.add(item.name)
      else:
        scope = scopes.of_instruction(item, scope=computation, module=module)
        names[item.name] = (scope.path, str(scope.kind))

  step_seconds, unknown, devices = {}, 0.0, set()
  parts: collections.Counter[str] = collections.Counter()
  modules: collections.Counter[tuple[str, str]] = collections.Counter()
  known_parts = {str(part) for part in breakdown.Part}
  for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
    for line in plane.lines:
      for event in line.events:
        stats = dict(event.stats)
        seconds = event.duration_ns / 1e9
        if event.name == breakdown.STEP and "step_num" in stats:
          step_seconds[int(stats["step_num"])] = seconds
        elif event.name in known_parts and "hlo_op" not in stats:
          parts[event.name] += seconds
        elif stats.get("hlo_module", "").partition("(")[0] == module_name:
          devices.add((plane.name, str(stats.get("device_ordinal", ""))))
          name = stats.get("hlo_op", event.name).lstrip("%")
          if name in names:
            modules[names[name]] += seconds
          elif name not in callers:
            unknown += seconds
  return Trace(
    step_seconds=dict(sorted(step_seconds.items())),
    parts=dict(parts),
    modules=dict(modules),
    unknown=unknown,
    devices=len(devices),
  )


def table(trace: Trace, *, rows: int) -> str:
  """The trace as text; seconds a step, and on each device."""
  steps = len(trace.step_seconds)
  if not steps:
    raise errors.UserError("the trace holds no step: it was cut off")
  first, last = min(trace.step_seconds), max(trace.step_seconds)
  lines = [
    f"steps {first} to {last}: "
    f"{sum(trace.step_seconds.values()) / steps:.4f} s each on the host",
    *(
      f"  {name:<70}{seconds / steps:>10.4f}"
      for name, seconds in sorted(trace.parts.items(), key=lambda p: -p[1])
    ),
    "",
    f"instructions of {trace.devices} devices, seconds a step and device",
    f"  {'scope':<58}{'pass':<12}{'seconds':>10}{'share':>8}",
  ]
  per = 1 / steps / max(1, trace.devices)
  total = sum(trace.modules.values()) + trace.unknown
  ranked = sorted(trace.modules.items(), key=lambda item: -item[1])

  def add(path, kind, seconds):
    lines.append(
      f"  {path if len(path) <= 57 else '...' + path[-54:]:<58}{kind:<12}"
      f"{seconds * per:>10.4f}{seconds / max(total, 1e-12):>8.1%}"
    )

  for (path, kind), seconds in ranked[:rows]:
    add(path, kind, seconds)
  if len(ranked) > rows:
    add(f"{len(ranked) - rows} more", "", sum(s for _, s in ranked[rows:]))
  by_pass: collections.Counter[str] = collections.Counter()
  for (_, kind), seconds in ranked:
    by_pass[kind] += seconds
  for kind, seconds in by_pass.most_common():
    add("= all", kind, seconds)
  if trace.unknown:
    add("= not in the program", "", trace.unknown)
  return "\n".join(lines)


def main(config: Config) -> None:
  del config
  program, trace = newest(config_flags.WORKDIR.value)
  print(table(read(program, trace), rows=_MODULES.value))


if __name__ == "__main__":
  config_flags.run(main, config_from=config_flags.ConfigFrom.WORKDIR)
