"""Cuts and SHAR that Lhotse itself has written."""

import gzip
import json
import shutil
import tarfile

import lhotse
import numpy as np
import pytest
from lhotse.audio import Recording
from lhotse.supervision import AlignmentItem

from tests.helpers import streamed, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.document import PART_OF
from tml_jax.streams.timeline import Role

GIVEN = {"language": "en", "licence": "CC0"}


def supervisions(recording, *, channels=(0, 0), names=("user", "Assistant")):
  """As NeMo has them: segments, the first with words that are aligned."""
  (us, ue), (as_, ae) = two_sides.LEFT, two_sides.RIGHT
  return [
    lhotse.SupervisionSegment(
      id=f"{recording.id}-0",
      recording_id=recording.id,
      start=us,
      duration=ue - us,
      channel=channels[0],
      text="how are you",
      speaker=names[0],
      language="en",
      alignment={
        "word": [
          AlignmentItem("how", us, 0.2, 0.9),
          AlignmentItem("are", us + 0.2, 0.2, 0.9),
          AlignmentItem("you", us + 0.4, 0.6, 0.9),
        ]
      },
    ),
    lhotse.SupervisionSegment(
      id=f"{recording.id}-1",
      recording_id=recording.id,
      start=as_,
      duration=ae - as_,
      channel=channels[1],
      text="<|0|>fine <|4|> thanks",
      speaker=names[1],
      language="en",
    ),
  ]


def duplex(folder, name):
  """A cut of the user's file, with the agent's as its target."""
  for side, channel in (("user", slice(0, 1)), ("agent", slice(1, 2))):
    two_sides.write(
      folder / "wav" / f"{name}.{side}.wav",
      rate=16_000 if side == "user" else 22_050,
      channels=channel,
    )
  user, agent = (
    Recording.from_file(
      folder / "wav" / f"{name}.{side}.wav", recording_id=f"{name}-{side}"
    )
    for side in ("user", "agent")
  )
  cut = lhotse.MonoCut(
    id=name,
    start=0.0,
    duration=user.duration,
    channel=0,
    recording=user,
    supervisions=supervisions(user),
  )
  cut.target_audio = agent
  cut.system_prompt = "be brief"
  return cut


def check(item, name):
  timeline_lib.validate(item)
  assert item.id == name and item.duration == 3.0
  assert {str(t.role): two_sides.side_of(t) for t in item.tracks} == {
    "user": "left",
    "agent": "right",
  }
  user, agent = item.track(Role.USER), item.track(Role.AGENT)
  assert [w.text for w in user.words] == ["how", "are", "you"]
  assert user.words[1].start == pytest.approx(0.4)
  assert [w.text for w in agent.words] == ["fine", "thanks"]
  assert agent.words[0].start == two_sides.RIGHT[0]
  for track in item.tracks:
    two_sides.check_spans(track, within=1e-6)
  assert item.metadata["kind"] == "conversation"
  assert item.metadata["language"] == "en"
  assert item.metadata["licence"] == "CC0"


def test_cuts_as_nemo_has_them(tmp_path):
  cuts = lhotse.CutSet.from_cuts([duplex(tmp_path, "a"), duplex(tmp_path, "b")])
  cuts.to_file(tmp_path / "cuts.jsonl.gz")
  items, bad = streamed.read("lhotse_cuts", tmp_path, **GIVEN)
  assert not bad
  for item, name in zip(items, "ab", strict=True):
    check(item, name)
    assert item.metadata["system_prompt"] == "be brief"
    assert item.metadata["left out"] == {
      "words spread over a stretch that has times": 2
    }
  # Paths that are relative, from a root.
  text = gzip.decompress((tmp_path / "cuts.jsonl.gz").read_bytes()).decode()
  (tmp_path / "far").mkdir()
  relative = tmp_path / "far" / "cuts.jsonl"
  relative.write_text(text.replace(f"{tmp_path}/", ""))
  items, bad = streamed.read("lhotse_cuts", relative, root=tmp_path, **GIVEN)
  assert not bad and len(items) == 2
  _, bad = streamed.read("lhotse_cuts", relative)
  assert [reason for reason, _ in bad] == [Reason.MISSING] * 2


def test_channels_of_one_recording_and_stretches_of_it(tmp_path):
  two_sides.write(tmp_path / "a.wav")
  recording = Recording.from_file(tmp_path / "a.wav", recording_id="a")
  cut = lhotse.MultiCut(
    id="whole",
    start=0.0,
    duration=3.0,
    channel=[0, 1],
    recording=recording,
    supervisions=supervisions(recording, channels=(0, 1), names=("A", "B")),
  )
  late = cut.truncate(offset=1.0, duration=2.0, preserve_id=False)
  lhotse.CutSet.from_cuts([cut, late]).to_file(tmp_path / "cuts.jsonl")
  items, bad = streamed.read(
    "lhotse_cuts", tmp_path / "cuts.jsonl", user="a", agent="b", **GIVEN
  )
  assert not bad
  whole = next(item for item in items if item.id == "whole")
  cut_off = next(item for item in items if item.id != "whole")
  check(whole, "whole")
  assert cut_off.duration == 2.0
  assert cut_off.metadata[PART_OF] == whole.metadata[PART_OF] == "a"
  assert cut_off.track(Role.AGENT).spans[0].start == pytest.approx(0.6)
  assert (
    cut_off.track(Role.AGENT).audio == whole.track(Role.AGENT).audio[16_000:]
  ).all()
  # The other way round.
  items, _ = streamed.read(
    "lhotse_cuts", tmp_path / "cuts.jsonl", user="B", agent="A"
  )
  assert two_sides.side_of(items[0].track(Role.AGENT)) == "left"
  # Speakers that nobody named are no sides.
  items, bad = streamed.read("lhotse_cuts", tmp_path / "cuts.jsonl")
  assert not items
  assert [reason for reason, _ in bad] == [Reason.WRONG_CHANNELS] * 2


def test_a_file_for_each_channel(tmp_path):
  for i in range(2):
    two_sides.write(tmp_path / f"{i}.wav", channels=slice(i, i + 1))
  recording = Recording(
    id="a",
    sources=[
      lhotse.AudioSource("file", [i], str(tmp_path / f"{i}.wav"))
      for i in (1, 0)
    ],
    sampling_rate=16_000,
    num_samples=48_000,
    duration=3.0,
    channel_ids=[0, 1],
  )
  cut = lhotse.MultiCut(
    *("both", 0.0, 3.0, [0, 1]),
    supervisions=supervisions(recording, channels=(0, 1)),
    recording=recording,
  )
  lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl")
  (item,), bad = streamed.read("lhotse_cuts", tmp_path, **GIVEN)
  assert not bad
  check(item, "both")


def shar(folder, *, names="abcde", form="flac"):
  cuts = lhotse.CutSet.from_cuts([duplex(folder / "raw", n) for n in names])
  (folder / "shar").mkdir()
  cuts.to_shar(
    folder / "shar",
    fields={"recording": form, "target_audio": form},
    shard_size=2,
  )
  shutil.rmtree(folder / "raw")
  return folder / "shar"


def test_shar(tmp_path):
  folder = shar(tmp_path)
  items, bad = streamed.read("lhotse_shar", folder, **GIVEN)
  assert not bad
  for item, name in zip(items, "abcde", strict=True):
    check(item, name)
  report = streamed.prepare("lhotse_shar", folder, tmp_path / "c" / "shar")
  assert report["recordings"] == 5


def test_shar_that_is_not_whole(tmp_path):
  folder = shar(tmp_path, form="wav")
  # A cut is gone, and one is there that has no sound.
  path = folder / "cuts.000000.jsonl.gz"
  first, second = gzip.decompress(path.read_bytes()).decode().splitlines()
  extra = json.dumps(json.loads(first) | {"id": "extra"})
  path.write_bytes(gzip.compress(f"{extra}\n{second}\n".encode()))
  data = (folder / "recording.000001.tar").read_bytes()
  (folder / "recording.000001.tar").write_bytes(data[:150_000])
  (folder / "target_audio.000002.tar").write_bytes(b"nothing" * 100)
  items, bad = streamed.read("lhotse_shar", folder, **GIVEN)
  assert [item.id for item in items] == ["b", "c"]
  assert [str(reason) for reason, _ in bad] == [
    Reason.MISSING,
    Reason.TRUNCATED,
    Reason.TRUNCATED,
  ]
  (folder / "recording.000001.tar").unlink()
  _, bad = streamed.read("lhotse_shar", folder)
  assert [str(reason) for reason, _ in bad].count(Reason.MISSING) == 3
  # As Lhotse marks what is not there.
  with tarfile.open(folder / "recording.000001.tar", "w") as tar:
    for name in ("c.nodata", "c.nometa", "d.nodata", "d.nometa"):
      tar.addfile(tarfile.TarInfo(name))
  _, bad = streamed.read("lhotse_shar", folder)
  assert [str(reason) for reason, _ in bad].count(Reason.MISSING) == 3


@pytest.mark.parametrize(
  ("change", "reason"),
  [
    ({"type": "MixedCut"}, Reason.BROKEN_METADATA),
    ({"duration": 30.0}, Reason.TRUNCATED),
    ({"duration": "long"}, Reason.BROKEN_METADATA),
    ({"duration": float("nan")}, Reason.BROKEN_METADATA),
    ({"start": -1}, Reason.BROKEN_METADATA),
    ({"start": 5}, Reason.TRUNCATED),
    ({"recording": None}, Reason.BROKEN_METADATA),
    ({"custom": {}}, Reason.WRONG_CHANNELS),
    ({"custom": 7}, Reason.BROKEN_METADATA),
    ({"supervisions": [{}]}, None),
    ({"supervisions": [7]}, Reason.BROKEN_METADATA),
    ({"supervisions": None}, None),
    ({"channel": 5}, None),
    ({"id": None}, None),
    (
      {"recording": {"path": "../../../etc/passwd"}},
      Reason.MISSING,
    ),
    (
      {
        "recording": {
          "sources": [{"type": "command", "source": "x", "channels": [0]}]
        }
      },
      Reason.MISSING,
    ),
    (
      {"recording": {"id": "a", "transforms": [{"name": "Speed"}]}},
      Reason.BROKEN_METADATA,
    ),
  ],
)
def test_cuts_that_are_none(tmp_path, change, reason):
  lhotse.CutSet.from_cuts([duplex(tmp_path, "a")]).to_file(
    tmp_path / "cuts.jsonl"
  )
  cut = json.loads((tmp_path / "cuts.jsonl").read_text())
  (tmp_path / "cuts.jsonl").write_text(json.dumps(cut | change))
  items, bad = streamed.read("lhotse_cuts", tmp_path)
  assert [r for r, _ in bad] == ([] if reason is None else [reason]), bad
  assert len(items) == (reason is None)


def test_options_are_checked(tmp_path):
  (tmp_path / "a.jsonl").write_text("{}")
  with pytest.raises(errors.UserError, match="names that are of one side"):
    streamed.read("lhotse_cuts", tmp_path, user="agent")
  with pytest.raises(errors.UserError, match="it is no SHAR"):
    streamed.read("lhotse_shar", tmp_path)


def test_the_sound_is_the_one_that_lhotse_reads(tmp_path):
  folder = shar(tmp_path, names="ab")
  items, _ = streamed.read("lhotse_shar", folder)
  cuts = lhotse.CutSet.from_shar(in_dir=folder)
  for item, cut in zip(items, cuts, strict=True):
    np.testing.assert_array_equal(
      item.track(Role.USER).audio, cut.load_audio()[0]
    )
