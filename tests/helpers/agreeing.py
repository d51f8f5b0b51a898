"""One of several processes that agree, disagree or die; for test_distributed.

`python -m tests.helpers.agreeing --mode=MODE` with the flags of
`parallel/processes.py`.
"""

import os
import signal
import socket
import time

from absl import app, flags

from tml_jax import errors
from tml_jax.parallel import processes as processes_lib

_MODE = flags.DEFINE_string("mode", "", "What happens.")


def check_listens_there_only() -> None:
  """A socket of all interfaces takes these addresses as well."""
  host, _, port = flags.FLAGS.coordinator_address.rpartition(":")
  socket.create_connection((host, int(port)), 5).close()
  for other in ("127.0.0.2", "::1"):
    try:
      socket.create_connection((other, int(port)), 5).close()
    except OSError:
      continue
    raise AssertionError(f"it listens at {other} too")


def agree(processes: processes_lib.Processes) -> None:
  index = processes.index
  check_listens_there_only()
  for turn in range(4):  # keys of old turns are deleted
    mine = f"{turn} of {index}"
    assert processes.all_of(mine) == [f"{turn} of {i}" for i in range(2)]
    parts = processes.to_first(mine)
    assert parts == ([f"{turn} of 0", f"{turn} of 1"] if index == 0 else [])
  with processes.waiting():
    if index == 0:
      time.sleep(1)
  for problem, message in (("", "a mistake"), ("process 1: ", "one of 1")):
    try:
      with processes.together():
        if index == 1 or not problem:
          raise errors.TransientError(message)
    except processes_lib.AgreedError as error:
      assert str(error) == problem + message, error
      assert error.status is errors.Status.FAILED
    else:
      raise AssertionError("not raised")
  processes.check_same({"x": 1})
  processes.check_same({"x": index, "y": "z"})


def main(argv: list[str]) -> None:
  del argv
  processes = processes_lib.start()
  with processes.ending_all():
    if _MODE.value == "agree":
      try:
        agree(processes)
      except processes_lib.AgreedError as error:
        assert "x is 0 in process 0 and 1 in process 1" in str(error), error
      return
    processes.all_of("here")
    if processes.index == 1:
      if _MODE.value == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
      if _MODE.value == "error":
        raise errors.UserError("its disk is full")
    if _MODE.value == "hangs":
      processes.watch(step_timeout=2, where=lambda: "in step 7")
    time.sleep(120)


if __name__ == "__main__":
  app.run(main)
