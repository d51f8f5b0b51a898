"""Two participants with their words, speech and cameras."""

import json

import pytest

from tests.helpers import clips as clips_lib
from tests.helpers import streamed, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role

NAME = "V00_S0809_I00000582"
GIVEN = {"language": "en", "licence": "CC-BY-NC-4.0", "size": "48x64"}


def annotations(start, end):
  return {
    "id": "x",
    "metadata:transcript": [
      {
        "start": start,
        "end": end,
        "transcript": "well hello there",
        "words": [
          {"word": "well", "start": start, "end": start + 0.2, "score": 0.9},
          {"word": "hello"},
          {"word": "there", "start": start + 0.5, "end": end, "score": 0.1},
        ],
      }
    ],
    "metadata:vad": [{"start": start, "end": end}],
  }


def write(folder, *, name=NAME, clips=True):
  for number, (person, span) in enumerate(
    (("P0947", two_sides.LEFT), ("P1002A", two_sides.RIGHT))
  ):
    stem = folder / f"{name}_{person}"
    two_sides.write(
      stem.with_suffix(".wav"),
      rate=48_000,
      channels=slice(number, number + 1),
    )
    stem.with_suffix(".json").write_text(json.dumps(annotations(*span)))
    stem.with_suffix(".npz").write_bytes(b"not read")
    if clips:
      clips_lib.write(stem.with_suffix(".mp4"))


def test_each_is_the_user_once(tmp_path):
  write(tmp_path / "improvised" / "dev" / "0000" / "0005")
  items, bad = streamed.read("seamless", tmp_path, user="each", **GIVEN)
  assert not bad
  assert [item.id for item in items] == [f"{NAME}#first", f"{NAME}#second"]
  for item, side in zip(items, ("left", "right"), strict=True):
    timeline_lib.validate(item)
    user = item.track(Role.USER)
    assert two_sides.side_of(user) == side
    assert user.voice == {"left": "P0947", "right": "P1002A"}[side]
    two_sides.check_spans(user, within=1e-6)
    assert [w.text for w in user.words] == ["well", "there"]
    assert len(item.video) == 3 and item.video[0].image.shape == (48, 64, 3)
    assert item.metadata == {
      "kind": "conversation",
      "language": "en",
      "licence": "CC-BY-NC-4.0",
      "left out": {"words without times": 2},
      "part_of": NAME,
    }
  (item,), _ = streamed.read(
    "seamless", tmp_path, user="second", video="no", **GIVEN
  )
  assert item.video == () and two_sides.side_of(item.track("user")) == "right"


def test_what_is_missing_or_wrong(tmp_path):
  write(tmp_path / "a", name="V00_S0001_I00000001", clips=False)
  (tmp_path / "a" / "V00_S0001_I00000001_P0947.json").unlink()
  write(tmp_path / "b", name="V00_S0001_I00000002", clips=False)
  (tmp_path / "b" / "V00_S0001_I00000002_P0947.wav").unlink()
  write(tmp_path / "c", name="V00_S0001_I00000003", clips=False)
  other = [{"text": "hi", "is_speech": True}]
  (tmp_path / "c" / "V00_S0001_I00000003_P0947.json").write_text(
    json.dumps({"metadata:transcript": other, "metadata:vad": other})
  )
  write(tmp_path / "d", name="V00_S0001_I00000004", clips=False)
  (tmp_path / "d" / "V00_S0001_I00000004_P0947.json").write_text(
    json.dumps({"metadata:vad": 7})
  )
  items, bad = streamed.read("seamless", tmp_path, user="first", **GIVEN)
  assert [item.id[-1] for item in items] == ["1", "3"]
  first, third = (item.metadata["left out"] for item in items)
  assert first["recordings without words"] == 1
  assert first["recordings whose video cannot be read"] == 1
  # The keys of a fixture of the project itself are no words and no speech.
  assert third["words without text"] == 1
  assert third["stretches of speech with broken times"] == 1
  assert sorted(str(r) for r, _ in bad) == [
    Reason.BROKEN_METADATA,
    Reason.MISSING,
  ]
  with pytest.raises(errors.UserError, match="one of first, second, each"):
    streamed.read("seamless", tmp_path)
  (tmp_path / "x.json").write_text("{}")
  with pytest.raises(errors.UserError, match="is named as V00_"):
    streamed.read("seamless", tmp_path / "x.json", user="each")
