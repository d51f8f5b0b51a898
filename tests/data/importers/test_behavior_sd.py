"""Dialogues whose listeners say something in between."""

import json

import pytest

from tests.helpers import streamed, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role


def write(folder, *, name="a", **changes):
  (ls, le), (rs, re) = two_sides.LEFT, two_sides.RIGHT
  two_sides.write(folder / f"{name}.flac", rate=22_050)
  content = {
    "narrative": "Ann asks Ben.",
    "speakers": [{}, {}],
    "utterances": [
      {
        "speaker_idx": 0,
        "start_time": ls,
        "end_time": le,
        "tts_text": "how are you",
        "uttr_type": None,
        "words": [{"word": "how", "start": 0.0, "dur": 0.2}],
        "backchannels": [
          {"tts_text": "mhm", "start_time": 0.8, "end_time": 1.0}
        ],
      },
      {
        "speaker_idx": 1,
        "start_time": rs,
        "end_time": re,
        "tts_text": "fine",
        "uttr_type": "interruption",
      },
    ],
  }
  (folder / f"{name}.json").write_text(json.dumps(content | changes))


def test_backchannels_are_of_who_listens(tmp_path):
  write(tmp_path / "train" / "0")
  items, bad = streamed.read(
    "behavior_sd", tmp_path, user="each", language="en", licence="CC-BY-4.0"
  )
  assert not bad and [i.id for i in items] == ["train/0/a#0", "train/0/a#1"]
  first, second = items
  timeline_lib.validate(first)
  assert two_sides.side_of(first.track(Role.USER)) == "left"
  agent = first.track(Role.AGENT)
  assert [w.text for w in agent.words] == ["mhm", "fine"]
  assert [(s.start, s.end) for s in agent.spans] == [(0.8, 1.0), (1.6, 2.6)]
  two_sides.check_spans(first.track(Role.USER), within=1e-6)
  assert second.track(Role.USER).words == agent.words
  assert first.metadata == {
    "kind": "conversation",
    "part_of": "train/0/a",
    "language": "en",
    "licence": "CC-BY-4.0",
    "narrative": "Ann asks Ben.",
    "left out": {"words spread over a stretch that has times": 3},
  }


def test_what_cannot_be_used(tmp_path):
  write(tmp_path, name="ok")
  write(tmp_path, name="none", utterances=None)
  write(tmp_path, name="who", utterances=[{"speaker_idx": 2}])
  write(tmp_path, name="lone")
  (tmp_path / "lone.json").unlink()
  items, bad = streamed.read("behavior_sd", tmp_path, user="0")
  assert [i.id for i in items] == ["ok"]
  assert [str(r) for r, _ in bad] == [
    *[Reason.BROKEN_METADATA] * 2,
    Reason.NO_TRANSCRIPT,
  ]
  with pytest.raises(errors.UserError, match="one of 0, 1, each"):
    streamed.read("behavior_sd", tmp_path)
