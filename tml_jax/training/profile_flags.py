"""Flags for looking into a run: traces, memory, stacks, router pictures.

For: `requested`, read before jax starts. Not for: doing it (`profiling.py`).
None of them changes what is learned, so they are no part of the config.
"""

import dataclasses
import re

from absl import flags

from tml_jax import errors

_STEPS = flags.DEFINE_string(
  "profile_steps",
  "",
  "FIRST:LAST, both included: traces these steps into WORKDIR/profile.",
)
_MEMORY = flags.DEFINE_integer(
  "profile_memory_step",
  0,
  "Writes what lies in device memory after this step into WORKDIR/profile.",
)
_STACKS = flags.DEFINE_float(
  "stack_dump_after",
  0.0,
  "Seconds without a finished step after which every thread's stack is"
  " printed, again and again until one finishes; 0 never. SIGUSR1 prints them"
  " at any time.",
)
_PICTURES = flags.DEFINE_integer(
  "router_picture_every",
  500,
  "Steps between pictures of the experts' load in WORKDIR/plots; 0 for none.",
)


@dataclasses.dataclass(frozen=True)
class Requested:
  """Values of the flags.

  Attributes:
    first: step that is traced first; 0 if none is.
    last: step that is traced last; -1 if none is.
    memory_step: step whose memory is written; 0 for none.
    stack_dump_after: seconds; 0 for never.
    router_picture_every: steps; 0 for never.
  """

  first: int
  last: int
  memory_step: int
  stack_dump_after: float
  router_picture_every: int


def requested(*, steps: int) -> Requested:
  """Values of the flags for a run of `steps` steps.

  Raises:
    errors.UserError: a range that is not one, or steps the run will not do.
  """
  first, last = 0, -1
  if _STEPS.value:
    match = re.fullmatch(r"(\d+):(\d+)", _STEPS.value)
    if match is None:
      raise errors.UserError(
        f"--profile_steps={_STEPS.value}: write FIRST:LAST, for instance 10:13"
      )
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last <= steps:
      raise errors.UserError(
        f"--profile_steps={_STEPS.value}: needs 1 <= FIRST <= LAST <="
        f" train.steps = {steps}"
      )
  for flag, most in ((_MEMORY, steps), (_STACKS, None), (_PICTURES, None)):
    if flag.value < 0 or (most is not None and flag.value > most):
      limit = "" if most is None else f" and at most train.steps = {most}"
      raise errors.UserError(
        f"--{flag.name}={flag.value}: must be 0 or more{limit}"
      )
  return Requested(
    first=first,
    last=last,
    memory_step=_MEMORY.value,
    stack_dump_after=_STACKS.value,
    router_picture_every=_PICTURES.value,
  )
