"""Several processes as one run: how they start, agree and end together.

For: `train` on several hosts, one process each (or several on one machine, in
tests). Not for: what they compute together, which is the mesh's. Start reading
at `start`, then `Processes.together`.

Words go through the key-value store of jax's coordination service, which is
there before any device is and takes a time-out; arrays never do. One process
of its own needs none of this, and jax is not imported for it.
"""

import atexit
import contextlib
import dataclasses
import ipaddress
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from tml_jax import errors
from tml_jax.parallel import watch as watch_lib

_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "One of the processes that TPU, GKE or Slurm started: jax finds the others.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator_address",
  "",
  "HOST:PORT where process 0 listens, the same for all processes; default"
  " $JAX_COORDINATOR_ADDRESS. It listens at an address alone, for a name on all"
  " interfaces.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", 0, "Processes of the run; default $JAX_NUM_PROCESSES."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", -1, "Number of this one, from 0; default $JAX_PROCESS_ID."
)
_CONNECT_TIMEOUT = flags.DEFINE_integer(
  "connect_timeout",
  300,
  "Seconds in which all processes must have come, at the start and wherever"
  " they agree.",
  lower_bound=1,
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
  "heartbeat_timeout",
  100,
  "Seconds of silence after which a process counts as dead and the others end.",
  lower_bound=2,
)
# jax aborts with a stack trace where it waits in vain; ours speaks first.
_JAX_LATER_SECONDS = 30
_LONG_SECONDS = 7 * 86_400  # a dead process is found out by `watch`


class AgreedError(errors.UserError):
  """An error that all processes know of: all end by themselves.

  Its status is that of the errors which the processes found.
  """

  def __init__(self, text: str, *, status: errors.Status):
    super().__init__(text)
    self.status = status


def _nothing(_error: BaseException) -> None:
  """No crash is explained."""


@dataclasses.dataclass(frozen=True)
class _Place:
  coordinator: str
  count: int
  index: int


class Processes:
  """The processes of this run, and this one among them.

  Attributes:
    index: number of this process.
    count: how many there are.
  """

  def __init__(self, *, index: int = 0, count: int = 1, client: Any = None):
    self.index = index
    self.count = count
    self._client = client
    self._numbers = itertools.count()
    self._watch = None
    if client is not None:
      self._watch = watch_lib.Watch(
        client, index=index, heartbeat_timeout=_HEARTBEAT_TIMEOUT.value
      )
      # jax ends the client it talks through in a function of its own, which
      # was registered before and so runs after this one.
      atexit.register(self._watch.stop)

  @property
  def is_first(self) -> bool:
    """Whether this is the one that writes what is written once."""
    return self.index == 0

  def all_of(self, value: str) -> list[str]:
    """What every process gave here, in their order."""
    if self.count == 1:  # whose flags need not be there
      return [value]
    return self._all_of(value, seconds=_CONNECT_TIMEOUT.value)

  def _all_of(self, value: str, *, seconds: int) -> list[str]:
    if self.count == 1:
      return [value]
    number = next(self._numbers)
    self._client.key_value_set(watch_lib.key("all", number, self.index), value)
    values = [
      self._get(watch_lib.key("all", number, i), seconds=seconds)
      for i in range(self.count)
    ]
    if number > 1:  # whoever is here has read the call before the last
      self._client.key_value_delete(
        watch_lib.key("all", number - 2, self.index)
      )
    return values

  def to_first(self, value: str) -> list[str]:
    """What every process gave here, on the first; the others do not wait."""
    if self.count == 1:
      return [value]
    number = next(self._numbers)
    if not self.is_first:
      self._client.key_value_set(
        watch_lib.key("first", number, self.index), value
      )
      return []
    seconds = _CONNECT_TIMEOUT.value
    keys = [watch_lib.key("first", number, i) for i in range(1, self.count)]
    values = [value, *(self._get(key, seconds=seconds) for key in keys)]
    for key in keys:
      self._client.key_value_delete(key)
    return values

  @contextlib.contextmanager
  def together(self) -> Iterator[None]:
    """Bad input that one process finds inside ends all of them.

    Every process must come here. What only one does and what all do looks
    the same.

    Raises:
      AgreedError: a process raised `errors.UserError` inside.
    """
    if self.count == 1:
      yield
      return
    problem = ""
    try:
      yield
    except errors.UserError as error:
      problem = f"{error.status:d} {error}"
    found = self.all_of(problem)
    for index, problem in enumerate(found):
      if problem:
        status, text = problem.split(" ", 1)
        same = all(other == problem for other in found)
        raise AgreedError(
          text if same else f"process {index}: {text}",
          status=errors.Status(int(status)),
        )

  def check_same(self, facts: dict[str, Any]) -> None:
    """Refuses processes that differ in what must be one run's.

    Raises:
      AgreedError: every difference from process 0, with both values.
    """
    texts = self.all_of(json.dumps(facts, default=str, sort_keys=True))
    first, *others = (json.loads(text) for text in texts)
    problems = [
      f"{name} is {first.get(name)!r} in process 0 and {other.get(name)!r} in"
      f" process {index}"
      for index, other in enumerate(others, 1)
      for name in sorted(first.keys() | other.keys())
      if first.get(name) != other.get(name)
    ]
    if problems:
      raise AgreedError(
        f"the processes are not of one run ({'; '.join(problems)}): start all"
        " with the same command, code and packages",
        status=errors.Status.BAD_INPUT,
      )

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """What one process does inside, however long, the others wait for.

    Every process must come here, not within `together`. An error inside ends
    the others once this process ends (`ending_all`), whatever they do inside.
    """
    if self.count == 1:
      yield
      return
    timeout, self._watch.step_timeout = self._watch.step_timeout, float("inf")
    yield
    self._all_of("", seconds=_LONG_SECONDS)
    self._watch.progress()
    self._watch.step_timeout = timeout

  @contextlib.contextmanager
  def ending_all(
    self,
    *,
    explain: Callable[[BaseException], errors.UserError | None] = _nothing,
  ) -> Iterator[None]:
    """An error inside, known to this process only, ends all of them.

    With several processes no cleanup is waited for that needs the others: the
    reason is printed once and handed to the others, whose `watch` prints it
    and ends them with the same status.

    Args:
      explain: gives what to say instead of a crash that is no `UserError`, if
        there is anything; a traceback stands before it.
    """
    try:
      yield
    except (AgreedError, SystemExit):
      raise
    except errors.UserError as error:
      if self.count == 1:
        raise
      self.end(str(error), status=error.status)
    except BaseException as error:
      if self.count > 1:
        traceback.print_exc()
        if "JaxRuntimeError" in type(error).__name__:
          # Perhaps of a collective whose peer is dead, which `watch` says.
          self._watch.await_reason()
      explained = explain(error)
      if self.count == 1:
        if explained is None:
          raise
        traceback.print_exc()
        raise explained from error
      status = errors.Status.FAILED if explained is None else explained.status
      text = " ".join(f"{type(error).__name__}: {error}".split())[:600]
      self.end(
        text if explained is None else f"{text}; {explained}", status=status
      )
    self._finish()

  def end(self, reason: str, *, status: errors.Status) -> None:
    """Ends this process now and tells the others why; never returns."""
    print(f"error: process {self.index}: {reason}", file=sys.stderr, flush=True)
    self._watch.leave(reason, status=status)

  def watch(self, *, step_timeout: float, where: Callable[[], str]) -> None:
    """From now on a step may take `step_timeout` seconds; see `watch`."""
    if self._watch is not None:
      self._watch.where = where
      self._watch.step_timeout = step_timeout
      self._watch.progress()

  def progress(self) -> None:
    """A step has ended."""
    if self._watch is not None:
      self._watch.progress()

  def _finish(self) -> None:
    """The end of a run that went well, or that all agreed to end."""
    if self.count > 1:
      with self.waiting():
        pass
      self._watch.stop()

  def _get(self, key: str, *, seconds: int) -> str:
    try:
      return self._client.blocking_key_value_get(key, seconds * 1000)
    except RuntimeError as error:
      raise errors.TransientError(
        f"process {key.rsplit('/', 1)[1]} did not come within {seconds} s"
        " (--connect_timeout): look into its log, then run the same command on"
        " all again"
      ) from error


def start() -> Processes:
  """Connects this process with the others that its flags speak of.

  Must come before anything asks jax for a device. Where not all processes
  come in time it prints one line and ends with `Status.FAILED`: what waits for
  them inside jax cannot be interrupted.

  Raises:
    errors.UserError: half of the flags.
    errors.TransientError: not all processes come in time, or the port is taken.
  """
  place = _place()
  if place is None and not _DISTRIBUTED.value:
    return Processes()
  import jax
  from jax._src import distributed  # no public name for the key-value store

  # Ignored where devices have collectives of their own.
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  seconds = _CONNECT_TIMEOUT.value
  arguments = {}
  if place is not None:
    arguments = dict(
      coordinator_address=place.coordinator,
      coordinator_bind_address=_listen_at(place.coordinator),
      num_processes=place.count,
      process_id=place.index,
    )
    if place.index > 0:
      _await_coordinator(place.coordinator, seconds=seconds)
  problem = (
    f"start {place.count if place else 'all'} processes with one"
    " --coordinator_address, a free port on the host of process 0, and a"
    " --process_id each (on TPU, GKE and Slurm --distributed instead)"
  )
  timer = threading.Timer(seconds, _give_up, args=(seconds, problem))
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(
      **arguments,
      initialization_timeout=seconds + _JAX_LATER_SECONDS,
      heartbeat_timeout_seconds=watch_lib.JAX_TIMES * _HEARTBEAT_TIMEOUT.value,
      shutdown_timeout_seconds=seconds,
    )
  except (RuntimeError, ValueError, TypeError, OSError, KeyError) as error:
    raise errors.TransientError(
      "the processes of this run cannot be connected"
      f" ({' '.join(str(error).split())[:300]}): {problem}"
    ) from error
  finally:
    timer.cancel()
  state = distributed.global_state
  return Processes(
    index=state.process_id, count=state.num_processes, client=state.client
  )


def _listen_at(coordinator: str) -> str | None:
  """Where process 0 listens when the others are told `coordinator`.

  There alone where that is an address: whoever reaches the port can take part
  in the run. None, which is everywhere, where it is a name: a host may know
  its own as a loopback address. $JAX_COORDINATOR_BIND_ADDRESS, of jax, is for
  a host that is reached at an address which it does not have itself.
  """
  if told := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
    return told
  host = coordinator.rpartition(":")[0].strip("[]")
  if host == "localhost":
    return coordinator
  try:
    ipaddress.ip_address(host)
  except ValueError:
    return None
  return coordinator


def _place() -> _Place | None:
  """What flags, else the environment say; None for a run of one process."""
  values = {
    "coordinator_address": _COORDINATOR.value,
    "num_processes": _NUM_PROCESSES.value or "",
    "process_id": "" if _PROCESS_ID.value < 0 else _PROCESS_ID.value,
  }
  values = {
    name: str(value) or os.environ.get(f"JAX_{name.upper()}", "")
    for name, value in values.items()
  }
  if not any(values.values()):
    return None
  missing = [f"--{name}" for name, value in values.items() if not value]
  if missing and _DISTRIBUTED.value:  # the environment of a managed pod
    return None
  if missing:
    raise errors.UserError(
      f"{', '.join(missing)} is missing: a process of several needs"
      " --coordinator_address, --num_processes and --process_id (or"
      " $JAX_COORDINATOR_ADDRESS, $JAX_NUM_PROCESSES, $JAX_PROCESS_ID)"
    )
  host, _, port = values["coordinator_address"].rpartition(":")
  count, index = values["num_processes"], values["process_id"]
  if not host or not port.isdecimal():
    raise errors.UserError(
      f"--coordinator_address={values['coordinator_address']}: write HOST:PORT"
    )
  if not count.isdecimal() or not index.isdecimal() or int(index) >= int(count):
    raise errors.UserError(
      f"--process_id={index} of --num_processes={count}: from 0 to one less"
      " than their number"
    )
  return _Place(values["coordinator_address"], int(count), int(index))


def _give_up(seconds: int, problem: str) -> None:
  print(
    "error: not all processes of this run came within"
    f" {seconds} s (--connect_timeout): {problem}",
    file=sys.stderr,
    flush=True,
  )
  os._exit(errors.Status.FAILED)


def _await_coordinator(address: str, *, seconds: int) -> None:
  """Returns when process 0 listens: jax aborts, says nothing, where it waits.

  Raises:
    errors.TransientError: nobody listens there in time.
  """
  host, _, port = address.rpartition(":")
  end = time.monotonic() + seconds
  while True:
    try:
      socket.create_connection((host.strip("[]"), int(port)), 5).close()
      return
    except OSError as error:
      if time.monotonic() > end:
        raise errors.TransientError(
          f"--coordinator_address={address}: process 0 did not listen there"
          f" within {seconds} s ({error}); start it, or mend the address"
        ) from error
      time.sleep(0.2)
