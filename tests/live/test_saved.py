"""Archives of sessions that somebody has tampered with."""

import io
import json
import time
import tracemalloc
import zipfile

import jax
import numpy as np
import pytest

from tests.helpers import small_session
from tml_jax import errors
from tml_jax.live import saved
from tml_jax.live.session import Session
from tml_jax.streams import frame as frame_lib
from tml_jax.streams.frame import Control

_CONFIG = small_session.config()
_LIKE = [
  jax.ShapeDtypeStruct((2, 3), np.float32),
  jax.ShapeDtypeStruct((), np.int32),
]
_ARRAYS = [np.arange(6, dtype=np.float32).reshape(2, 3), np.int32(4)]


@pytest.fixture(name="directory")
def _directory(tmp_path):
  live = Session(_CONFIG, seed=5)
  live.type(Control.USER_TEXT, [1, 2, 3])
  saved.write(
    tmp_path,
    snapshot=saved.Snapshot(
      arrays=_ARRAYS, state=live.state(), fingerprint="this one"
    ),
  )
  return tmp_path


def _read(directory, *, fingerprint="this one"):
  found = saved.read(directory, like=_LIKE, fingerprint=fingerprint)
  return found.arrays, found.state


def _members(directory):
  with zipfile.ZipFile(directory / saved.FILE) as file:
    return {name: file.read(name) for name in file.namelist()}


def _write(directory, members, *, method=zipfile.ZIP_STORED):
  with zipfile.ZipFile(directory / saved.FILE, "w", method) as file:
    for name, data in members:
      file.writestr(name, data)


def _npy(array) -> bytes:
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def test_what_was_saved_comes_back(directory):
  arrays, state = _read(directory)
  for found, wanted in zip(arrays, _ARRAYS, strict=True):
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype
  again = Session.of_state(_CONFIG, state=state)
  assert again.state() == state and again.has_text


def test_an_archive_that_unpacks_to_much_is_refused_unread(directory):
  """20 MB of zeros in 20 kB, in a member of its own and in each it has."""
  members, zeros = _members(directory), bytes(20 << 20)
  bomb = _npy(np.frombuffer(zeros, np.uint8))
  del zeros
  for name in (*members, "array_2.npy"):
    changed = members | {name: bomb}
    _write(directory, changed.items(), method=zipfile.ZIP_DEFLATED)
    assert (directory / saved.FILE).stat().st_size < 1 << 16
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(errors.UserError, match="is broken"):
      _read(directory)
    seconds = time.process_time() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20 and seconds < 1, name


def test_the_fingerprint_comes_before_the_arrays(directory):
  members = _members(directory) | {"array_0.npy": b"no array"}
  _write(directory, members.items())
  with pytest.raises(errors.UserError, match="a session of another model"):
    _read(directory, fingerprint="another")
  with pytest.raises(errors.UserError, match="is broken"):
    _read(directory)


def _header(members, **changes):
  header = json.loads(str(np.load(io.BytesIO(members["header.npy"]))))
  return {"header.npy": _npy(np.array(json.dumps(header | changes)))}


@pytest.mark.parametrize(
  "change",
  [
    lambda m: {"header.npy": _npy(np.array("["))},
    lambda m: {"header.npy": _npy(np.array("[" * 100_000))},
    lambda m: {"header.npy": _npy(np.array("[]"))},
    lambda m: {"header.npy": _npy(np.array("{}"))},
    lambda m: {"header.npy": _npy(np.array([1.0]))},
    lambda m: {"header.npy": _npy(np.array(["{}", "{}"]))},
    lambda m: {"header.npy": b""},
    lambda m: {"header.npy": m["header.npy"][:-4]},
    lambda m: {"array_0.npy": m["array_0.npy"][:-1]},
    lambda m: {"array_0.npy": m["array_0.npy"] + b"x"},
    lambda m: {"array_0.npy": _npy(np.zeros(24, np.int8))},
    lambda m: {"array_0.npy": _npy(np.zeros((4, 6), np.uint8))},
    lambda m: {"array_0.npy": _npy(np.array([{}], object))},
    lambda m: {"array_2.npy": m["array_1.npy"]},
    lambda m: {"../../escape": b"x"},
    lambda m: _header(m, state=3),
    lambda m: _header(m, state=None),
  ],
)
def test_structural_damage_is_one_error(change, directory):
  members = _members(directory)
  _write(directory, (members | change(members)).items())
  with pytest.raises(errors.UserError, match="is broken"):
    _read(directory)
  assert [path.name for path in directory.iterdir()] == [saved.FILE]


def test_members_that_are_gone_or_twice_there(directory):
  members = _members(directory)
  for name in members:
    _write(directory, [item for item in members.items() if item[0] != name])
    with pytest.raises(errors.UserError, match="is broken"):
      _read(directory)
  with pytest.warns(UserWarning, match="Duplicate name"):
    _write(
      directory, [*members.items(), ("array_1.npy", members["array_0.npy"])]
    )
  with pytest.raises(errors.UserError, match="is broken"):
    _read(directory)


def test_random_damage_is_found_or_harmless(directory):
  """Bytes of the zip's own structures that nobody reads may change."""
  path = directory / saved.FILE
  good, random = path.read_bytes(), np.random.default_rng(0)
  refused = 0
  for _ in range(100):
    data = bytearray(good)
    for place in random.integers(len(data), size=random.integers(1, 4)):
      data[place] ^= 1 << random.integers(8)
    path.write_bytes(data[: random.integers(len(data) + 1)] or data)
    try:
      arrays, state = _read(directory)
    except errors.UserError:
      refused += 1
      continue
    np.testing.assert_array_equal(arrays[0], _ARRAYS[0])
    Session.of_state(_CONFIG, state=state)
  assert refused > 80


_ROWS = _CONFIG.streams.text_vocab_size
_SPEAK = frame_lib.token_id(Control.SPEAK, config=_CONFIG.streams)


@pytest.mark.parametrize(
  "change, words",
  [
    ({"window": 2**40}, "window: 1099511627776 is no number from 0 to 10737"),
    ({"window": -1}, "window: -1 is no number"),
    ({"window": True}, "window: True is no number"),
    ({"window": 1.0}, "window: 1.0 is no number"),
    ({"window": None}, "window: None is no number"),
    ({"seed": 2**31}, "seed: 2147483648 is no number"),
    ({"seed": "0"}, "seed: '0' is no number"),
    ({"clipped": -5}, "clipped: -5 is no number"),
    ({"microphone": [0.0]}, "microphone: of shape"),
    ({"microphone": {}}, "microphone: no numbers of one shape"),
    ({"microphone": [[0.0], []]}, "microphone: no numbers of one shape"),
    ({"microphone": [2.0] * 800}, "microphone: numbers beyond -1 to 1"),
    ({"microphone": [float("nan")] * 800}, "microphone: numbers beyond"),
    ({"microphone": [10**400] * 800}, "microphone: no numbers of one shape"),
    ({"own_mel": [[0.0]]}, "own_mel: of shape"),
    ({"own_mel": [[9.0] * 80] * 16}, "own_mel: numbers beyond"),
    ({"own_mel": [[float("inf")] * 80] * 16}, "own_mel: numbers beyond"),
    ({"typed": [[int(Control.USER_TEXT), [[_SPEAK]]]]}, "made of text tokens"),
    ({"typed": [[int(Control.USER_TEXT), [[_ROWS]]]]}, "made of text tokens"),
    ({"typed": [[int(Control.USER_TEXT), [[-1]]]]}, "made of text tokens"),
    ({"typed": [[int(Control.SPEAK), [[1]]]]}, "made of text tokens"),
    ({"typed": [[99, [[1]]]]}, "typed: ValueError"),
    ({"typed": [[int(Control.USER_TEXT), [[1.5]]]]}, "typed: TypeError"),
    ({"typed": [[int(Control.USER_TEXT), 7]]}, "typed: TypeError"),
    ({"typed": 7}, "typed: TypeError"),
  ],
)
def test_a_state_has_the_checks_of_live_input(change, words):
  state = Session(_CONFIG, seed=5).state()
  with pytest.raises(errors.UserError, match=words):
    Session.of_state(_CONFIG, state=state | change)
  for name in state:
    with pytest.raises(errors.UserError, match=name):
      Session.of_state(
        _CONFIG, state={k: v for k, v in state.items() if k != name}
      )
