"""One `train` in a workdir at a time."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tests.helpers import commands
from tml_jax import errors, files, workdir
from tml_jax import lock as lock_lib

HOLD = (
  "import sys, time\n"
  "from tml_jax import lock\n"
  "held = lock.Lock(sys.argv[1], flag='--workdir', does='trains')\n"
  "held.take()\n"
  "print('held', flush=True)\n"
  "time.sleep(60)\n"
)


@pytest.fixture
def quick(monkeypatch):
  """Seconds as milliseconds."""
  monkeypatch.setattr(lock_lib, "BEAT_SECONDS", 0.05)
  monkeypatch.setattr(lock_lib, "PATIENCE_SECONDS", 0.5)
  monkeypatch.setattr(lock_lib, "_LOOK_SECONDS", 0.02)
  monkeypatch.setattr(lock_lib, "_SETTLE_SECONDS", 0.1)


def lock_of(path):
  return lock_lib.Lock(str(path), flag="--workdir", does="trains")


def file_of(path):
  return path / workdir.LOCK


def write(path, **fields) -> None:
  """As an owner does: never half of it."""
  content = json.dumps(lock_lib._me() | fields)
  files.write_atomically(file_of(path), content=content)


def test_the_second_is_refused_and_let_in_afterwards(tmp_path, quick):
  first, second = lock_of(tmp_path), lock_of(tmp_path)
  first.take()
  with pytest.raises(errors.TransientError) as error:
    second.take()
  assert f"process {os.getpid()} on " in str(error.value)
  assert "give another --workdir" in str(error.value)
  second.release()  # gives away nothing that it does not have
  assert file_of(tmp_path).exists()
  first.release()
  assert not list(tmp_path.iterdir())
  second.take()
  second.release()


def test_a_killed_owner_does_not_hold_it(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
    cwd=commands.ROOT,
  )
  assert process.stdout.readline() == "held\n"
  other = lock_of(tmp_path)
  with pytest.raises(errors.TransientError, match=f"process {process.pid} on"):
    other.take()
  process.kill()
  process.wait()
  start = time.monotonic()
  other.take()
  assert time.monotonic() - start < lock_lib.PATIENCE_SECONDS / 2
  other.release()


def test_another_process_with_the_number_of_the_dead_does_not_hold_it(tmp_path):
  write(tmp_path, process_start="1", id="old")
  lock = lock_of(tmp_path)
  lock.take()
  lock.release()


def test_on_another_host_it_is_held_as_long_as_it_moves(tmp_path, quick):
  write(tmp_path, machine="another", host="far", id="theirs")
  ended = threading.Event()

  def beat() -> None:
    for number in range(10_000):
      if ended.wait(0.05):
        return
      write(tmp_path, machine="another", host="far", id="theirs", beat=number)

  thread = threading.Thread(target=beat)
  thread.start()
  lock = lock_of(tmp_path)
  try:
    with pytest.raises(errors.TransientError, match="on far"):
      lock.take()
  finally:
    ended.set()
    thread.join()
  lock.take()  # it stands still
  assert json.loads(file_of(tmp_path).read_text())["id"] != "theirs"
  lock.release()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_a_damaged_file_is_one_of_a_dead_owner(tmp_path, quick, text):
  file_of(tmp_path).write_text(text)
  lock = lock_of(tmp_path)
  lock.take()
  lock.release()


@pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)
def test_whoever_was_only_asleep_ends_when_it_wakes(
  tmp_path, quick, monkeypatch
):
  ended = threading.Event()

  def end(status: int) -> None:
    assert status == errors.Status.FAILED
    ended.set()
    sys.exit()  # the thread

  monkeypatch.setattr(os, "_exit", end)
  lock = lock_of(tmp_path)
  lock.take()
  write(tmp_path, id="of another")
  assert ended.wait(5)
  lock.release()
  assert json.loads(file_of(tmp_path).read_text())["id"] == "of another"


def test_of_many_at_once_one_gets_it(tmp_path, quick, monkeypatch):
  monkeypatch.setattr(lock_lib, "BEAT_SECONDS", 60)
  monkeypatch.setattr(lock_lib, "_SETTLE_SECONDS", 1.0)
  write(tmp_path, process_start="1", id="dead")
  locks = [lock_of(tmp_path) for _ in range(8)]
  results = []

  def take(lock) -> None:
    try:
      lock.take()
      results.append(lock)
    except errors.TransientError:
      results.append(None)

  threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  (owner,) = filter(None, results)
  owner.release()
  assert not list(tmp_path.iterdir())
