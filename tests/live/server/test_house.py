"""Who comes in and goes out, also at the same time, and where parts fail."""

import asyncio
import base64
import contextlib
import threading
import time

import pytest

from tests.helpers import served
from tml_jax.data import media
from tml_jax.live.server import events, formats, recording, resting
from tml_jax.live.server import house as house_lib
from tml_jax.live.server.house import NoRoom
from tml_jax.live.server.operations import Limits
from tml_jax.tools import background


class _Pool:
  """The real pool, parts of which are slow or fail."""

  def __init__(self, pool):
    self._pool = pool
    self.slow = 0.0  # seconds that reading a session takes
    self.is_gone = False

  def __getattr__(self, name):
    return getattr(self._pool, name)

  def read(self, place):
    time.sleep(self.slow)
    return self._pool.read(place)

  def tick(self, inputs, **more):
    if self.is_gone:
      raise RuntimeError("a device is gone")
    return self._pool.tick(inputs, **more)


class _Client:
  """What the house knows of a connection, and what it was told."""

  def __init__(self, *, address="1.2.3.4", when_closed=None):
    self.address = address
    self.told = []
    self.closed = None
    self._when_closed = when_closed

  def greet(self, talk, *, is_resumed):
    self.talk = talk
    self.told.append("resumed" if is_resumed else "created")

  def put(self, passed):
    self.told.append(passed.answer.frame.window)

  async def close(self, code, reason):
    self.closed = code
    if self._when_closed is not None:
      await self._when_closed()


@contextlib.asynccontextmanager
async def _open(pool, rest_dir, *, limits=None, recorder=None, most=10):
  """A house on this loop; it is empty at the end."""
  runner = background.Runner({})
  house = house_lib.open_house(
    pool,
    tokenizer=served.TOKENIZER,
    runner=runner,
    resting=resting.Resting(
      rest_dir, seconds=60.0, most=most, most_of_address=most
    ),
    recorder=recorder,
    limits=limits or Limits(),
    rules=house_lib.Rules(slots=2, busy=100.0, patience=5.0),
  )
  try:
    yield house
  finally:
    await house.drain()
    await asyncio.to_thread(house.setting.beat.close)
    runner.close()
    for session in pool.sessions:
      pool.leave(session)


async def _talk(house, *, resumes="", windows=1, **client):
  """A client and its session, some windows on."""
  made = _Client(**client)
  talk = await house.admit(made, resumes=resumes, seed=1)
  if windows:
    await talk.go_on()
    count = windows + talk.line.seconds / 0.2
    await _until(lambda: talk.line.seconds / 0.2 >= count - 0.1)
  return made, talk


async def _until(holds, *, seconds=30.0):
  end = time.monotonic() + seconds
  while not holds():
    assert time.monotonic() < end
    await asyncio.sleep(0.02)


@served.run
async def test_all_rest_before_anybody_is_closed(pool, tmp_path):
  """Also where a socket ends while another one is closed."""
  seen = []

  async def slow():
    seen.append(len(house.resting))
    for client, talk in pairs:  # as connections do that have ended
      await house.rest(talk, client=client)
    await asyncio.sleep(1.0)

  async with _open(pool, tmp_path) as house:
    pairs = [await _talk(house, when_closed=slow) for _ in range(2)]
    start = time.monotonic()
    await house.drain()
    assert time.monotonic() - start < 1.9, "they are closed at the same time"
    assert seen == [2, 2]
    assert [client.closed for client, _ in pairs] == [1001, 1001]
    assert len([*tmp_path.glob("*/rest.json")]) == 2


@served.run
async def test_a_session_that_comes_in_while_the_server_goes_is_kept(
  pool, tmp_path
):
  slow = _Pool(pool)
  async with _open(slow, tmp_path) as house:
    client, talk = await _talk(house, windows=2)
    await house.rest(talk, client=client)
    await house.resting.settle()
    slow.slow = 0.5
    coming = asyncio.ensure_future(
      house.admit(_Client(), resumes=talk.token, seed=None)
    )
    await asyncio.sleep(0.1)
    await house.drain()
    with pytest.raises(NoRoom, match="going down"):
      await coming
  assert len([*tmp_path.glob("*/rest.json")]) == 1
  async with _open(pool, tmp_path) as house:
    client, again = await _talk(house, resumes=talk.token, windows=0)
    assert client.told == ["resumed"]
    assert again.line.seconds == pytest.approx(talk.line.seconds)


@served.run
async def test_two_that_ask_for_one_session_while_it_is_read(pool, tmp_path):
  slow = _Pool(pool)
  async with _open(slow, tmp_path) as house:
    client, talk = await _talk(house)
    await house.rest(talk, client=client)
    slow.slow = 0.5
    clients = [_Client(), _Client()]
    one, two = await asyncio.gather(
      *(house.admit(each, resumes=talk.token, seed=None) for each in clients)
    )
    assert one is two and one.line is talk.line
    assert clients[1].told[0] == "resumed"
    await _until(lambda: clients[0].closed == 1000)
    assert clients[1].closed is None and len(house.talks) == 1


@served.run
async def test_whoever_takes_over_is_greeted_before_its_first_window(
  pool, tmp_path
):
  """Though the connection before does not take its close code."""
  async with _open(pool, tmp_path) as house:
    stuck = asyncio.Event()
    await _talk(house, windows=2, when_closed=stuck.wait)
    token = next(iter(house.talks))
    second = _Client()
    await asyncio.wait_for(
      house.admit(second, resumes=token, seed=None), timeout=5.0
    )
    await _until(lambda: len(second.told) >= 3)
    assert second.told[0] == "resumed" and second.told[1] > 0
    stuck.set()


@served.run
async def test_formats_and_pause_are_as_they_were(pool, tmp_path):
  """In this server and the next one."""
  async with _open(pool, tmp_path) as house:
    client, talk = await _talk(house)
    update = events.Update(
      heard=formats.PCMU, played=formats.PCM_16, instructions="be brief"
    )
    await talk.obey(update)
    await talk.obey(events.Pause(True))
    at = talk.line.seconds
    for _ in range(1000):  # as much as anybody likes is not kept
      await talk.obey(events.Sound(bytes(1600)))
    assert not len(talk.line._ear._buffer) and not talk.line._ear._late
    await house.rest(talk, client=client)
    client, talk = await _talk(house, resumes=talk.token, windows=0)
    waiting = talk.line._unread
    await talk.go_on()
    assert talk.played == formats.PCM_16
    assert talk._decoder.form == formats.PCMU
    await talk.obey(update)
    assert talk.line._unread == waiting, "instructions are not typed again"
    assert talk.line.seconds == at and talk.rests_since is not None
    await house.rest(talk, client=client)
    await house.resting.settle()
  async with _open(pool, tmp_path) as house:
    client, talk = await _talk(house, resumes=talk.token, windows=0)
    await talk.go_on()
    assert talk.played == formats.PCM_16
    assert talk.settings()["instructions"] == "be brief"
    assert talk.line.seconds == at and talk.rests_since is not None
    await talk.obey(events.Pause(False))
    await _until(lambda: talk.line.seconds > at)


@served.run
async def test_a_pool_that_fails_for_good_lets_everybody_go(pool, tmp_path):
  gone = _Pool(pool)
  async with _open(gone, tmp_path) as house:
    client, talk = await _talk(house)
    gone.is_gone = True
    await _until(lambda: house.setting.beat.is_broken)
    for _ in range(2):
      await asyncio.wait_for(house.look(), 5.0)
    assert not house.talks
    await _until(lambda: client.closed == 1011)
    with pytest.raises(NoRoom, match="has failed"):
      house.check(resumes="")
    await asyncio.wait_for(house.drain(), 10.0)


@served.run
async def test_a_session_in_which_nothing_happened_does_not_rest(
  pool, tmp_path
):
  async with _open(pool, tmp_path) as house:
    client, talk = await _talk(house, windows=0)
    await house.rest(talk, client=client)
    assert not len(house.resting) and not pool.sessions
    client, talk = await _talk(house, windows=0)
    talk.line.type([1, 2, 3])
    await house.rest(talk, client=client)
    assert len(house.resting) == 1


@served.run
async def test_too_many_that_rest_make_the_oldest_be_forgotten(pool, tmp_path):
  async with _open(pool, tmp_path, most=2) as house:
    tokens = []
    for _ in range(3):
      client, talk = await _talk(house, windows=0)
      talk.line.type([1])
      tokens.append(talk.token)
      await house.rest(talk, client=client)
    assert len(house.resting) == 2
    await house.resting.settle()
    await _until(lambda: len([*tmp_path.iterdir()]) == 2)
    client, talk = await _talk(house, resumes=tokens[0], windows=0)
    assert client.told == ["created"]


@served.run
async def test_hours_are_those_of_the_session(pool, tmp_path):
  """Not those since its client has come back."""
  async with _open(pool, tmp_path) as house:
    client, talk = await _talk(house, windows=3)
    await house.rest(talk, client=client)
    client, talk = await _talk(house, resumes=talk.token, windows=0)
    house.limits = Limits(seconds=0.5)
    await house.look()
    assert not house.talks and not len(house.resting)
    await _until(lambda: client.closed == 1000)


@served.run
async def test_a_long_pause_has_a_code_of_its_own(pool, tmp_path):
  async with _open(pool, tmp_path, limits=Limits(idle_seconds=0.3)) as house:
    client, talk = await _talk(house)
    await talk.pause()
    await asyncio.sleep(0.4)
    await house.look()
    assert len(house.resting) == 1
    await _until(lambda: client.closed == house_lib.RESTS)


@served.run
async def test_a_session_that_cannot_go_on_is_finished(pool, tmp_path):
  """Its recording ends, and whoever asked for it gets another one."""
  about = recording.About("small", 0, "f")
  recorder = recording.Recorder(
    tmp_path / "record",
    about=about,
    tokenizer=served.TOKENIZER,
    config=served.config().streams,
  )
  async with _open(pool, tmp_path / "rest", recorder=recorder) as house:
    client, talk = await _talk(house)
    recorder.begin(talk.line)
    await house.rest(talk, client=client)
    await house.resting.settle()
    (file,) = (tmp_path / "rest").glob("*/session.npz")
    file.write_bytes(b"broken")
    client, other = await _talk(house, resumes=talk.token, windows=0)
    assert client.told == ["created"]
    assert other.line is not talk.line
    assert talk.line.keep is None and not recorder._open


@served.run
async def test_weights_are_read_before_anybody_comes(pool, tmp_path):
  vars(pool).pop("fingerprint", None)
  async with _open(pool, tmp_path):
    assert "fingerprint" in vars(pool)


@served.run
async def test_a_picture_keeps_no_sound_waiting(pool, tmp_path, monkeypatch):
  looked = threading.Event()
  decode = media.picture_of_bytes

  def slow(*args, **more):
    looked.wait(20)
    return decode(*args, **more)

  monkeypatch.setattr(media, "picture_of_bytes", slow)
  async with _open(pool, tmp_path) as house:
    client, talk = await _talk(house)
    told = []
    talk.refuse = told.append
    picture = events.Picture(base64.b64decode(served.picture("red")))
    await asyncio.wait_for(talk.obey(picture), 1.0)
    await asyncio.wait_for(talk.obey(events.Picture(b"none")), 1.0)
    await asyncio.wait_for(talk.obey(events.Sound(bytes(480))), 1.0)
    looked.set()
    await asyncio.wait_for(talk._looking, 20)
    assert not told, "the second was skipped"
    await talk.obey(events.Picture(b"none"))
    await asyncio.wait_for(talk._looking, 20)
    assert [refused.code for refused in told] == ["invalid_image"]
