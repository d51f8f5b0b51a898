"""Sessions on disk: what cannot be written, what is too much, what is left."""

import asyncio
import os
import time

import numpy as np
import pytest

from tests.helpers import served
from tml_jax import errors
from tml_jax.live.saved import Snapshot
from tml_jax.live.server.attached import Attached
from tml_jax.live.server.line import Line
from tml_jax.live.server.resting import Resting
from tml_jax.streams import clock
from tml_jax.tools import background

_SNAPSHOT = Snapshot([np.zeros(3)], {"seed": 1}, "f")


@pytest.fixture(name="line")
def _line():
  runner = background.Runner({})

  def make(name):
    attached = Attached(
      runner,
      tokenizer=served.TOKENIZER,
      config=served.config().streams,
      patience=1.0,
    )
    return Line(session_id=name, seed=0, grid=clock.TICKS, attached=attached)

  yield make
  runner.close()


async def _snapshot(error=None):
  await asyncio.sleep(0)
  if error is not None:
    raise error
  return _SNAPSHOT


def _put(rests, line, *, address="", error=None):
  return rests.put(
    line.session_id, line=line, snapshot=_snapshot(error), address=address
  )


@pytest.mark.parametrize("kind", ["a note", "a device"])
@served.run
async def test_what_cannot_be_kept_is_an_error_of_ours(line, kind, tmp_path):
  rests = Resting(tmp_path, seconds=60.0)
  if kind == "a note":  # the disk takes the session and not its note
    (tmp_path / "sess_1" / "rest.json" / "in its place").mkdir(parents=True)
  error = RuntimeError("gone") if kind == "a device" else None
  _put(rests, line("sess_1"), error=error)
  await rests.settle()
  rested = rests.take("sess_1")
  with pytest.raises(errors.UserError, match="cannot be written"):
    await rests.written(rested)


@served.run
async def test_the_oldest_give_way(line, tmp_path):
  rests = Resting(tmp_path, seconds=60.0, most=4, most_of_address=2)
  gone = []
  for name, address in zip("abcdef", "xxxyyz", strict=True):
    gone += _put(rests, line(f"sess_{name}"), address=address)
  assert [each.session_id for each in gone] == ["sess_a", "sess_b"]
  await rests.settle()
  await asyncio.sleep(0.2)
  left = sorted(path.name for path in tmp_path.iterdir())
  assert left == ["sess_c", "sess_d", "sess_e", "sess_f"]


@served.run
async def test_one_that_is_forgotten_while_it_is_written(line, tmp_path):
  rests = Resting(tmp_path, seconds=0.0)
  _put(rests, line("sess_1"))
  await asyncio.sleep(0.01)
  (rested,) = rests.expire()
  await rested.written
  await asyncio.sleep(0.1)
  assert not [*tmp_path.iterdir()]


def test_what_a_server_did_not_finish_is_removed(tmp_path):
  old = time.time() - 1000
  for name, file, age in (
    ("sess_old", "session.npz", old),
    ("sess_new", "session.npz", time.time()),
    ("sess_partial", ".session.npz-77", old),
    ("sess_of_others", "letters.txt", old),
    ("letters", "session.npz", old),
  ):
    (tmp_path / name).mkdir()
    (tmp_path / name / file).write_bytes(b"x")
    os.utime(tmp_path / name, (age, age))
  Resting(tmp_path, seconds=60.0)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "letters",
    "sess_new",
    "sess_of_others",
  ]
