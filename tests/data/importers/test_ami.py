"""Meetings with headsets, and NXT's annotations of them."""

import pytest

from tests.helpers import streamed, two_sides
from tml_jax import errors
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role

NITE = 'xmlns:nite="http://nite.sourceforge.net/"'
MEETINGS = f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<nite:root {NITE}>
 <meeting observation="ES2002a">
  <speaker nxt_agent="A" global_name="MEE006" channel="1"/>
  <speaker nxt_agent="B" global_name="FEE005" channel="0"/>
  <speaker nxt_agent="C" global_name="MEE007" channel="2"/>
 </meeting>
</nite:root>
"""
WORDS = f"""<?xml version="1.0" encoding="ISO-8859-1" standalone="yes"?>
<nite:root nite:id="x" {NITE}>
 <w nite:id="0" starttime="0.2" endtime="0.6">Okay</w>
 <w nite:id="1" starttime="0.6" endtime="0.6" punc="true">.</w>
 <vocalsound nite:id="2" starttime="0.6" endtime="0.7" type="laugh"/>
 <w nite:id="3" starttime="0.7" endtime="1.2" trunc="true">caf\u00e9</w>
 <w nite:id="4">lost</w>
</nite:root>
"""
SEGMENTS = f"""<nite:root {NITE}>
 <segment nite:id="0" channel="1" transcriber_start="0.2" transcriber_end="1.2">
  <nite:child href="ES2002a.A.words.xml#id(x)"/>
 </segment>
</nite:root>
"""


def write(folder, *, words=WORDS):
  audio = folder / "wav_db" / "ES2002a" / "audio"
  for number, channel in enumerate((1, 0, 1)):  # B, A, C
    two_sides.write(
      audio / f"ES2002a.Headset-{number}.wav",
      channels=slice(channel, channel + 1),
    )
  two_sides.write(audio / "ES2002a.Mix-Headset.wav", channels=slice(0, 1))
  texts = folder / "annotations"
  for name, text in (
    ("corpusResources/meetings.xml", MEETINGS),
    ("words/ES2002a.A.words.xml", words),
    ("segments/ES2002a.A.segments.xml", SEGMENTS),
  ):
    path = texts / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("latin-1"))


def test_a_meeting(tmp_path):
  write(tmp_path)
  (item,), bad = streamed.read(
    "ami", tmp_path, user="A", agent="B", language="en", licence="CC-BY-4.0"
  )
  assert not bad and item.id == "ES2002a"
  timeline_lib.validate(item)
  user, agent, rest = item.tracks
  assert (user.role, agent.role) == (Role.USER, Role.AGENT)
  assert rest.role == Role.ENVIRONMENT and rest.words == rest.spans == ()
  assert [two_sides.side_of(t) for t in item.tracks] == [
    "left",
    "right",
    "right",
  ]
  assert [w.text for w in user.words] == ["Okay.", "café"]
  two_sides.check_spans(user, within=1e-6)
  two_sides.check_spans(agent)
  assert item.metadata == {
    "kind": "conversation",
    "language": "en",
    "licence": "CC-BY-4.0",
    "left out": {"words without times": 1, "recordings without words": 1},
  }


@pytest.mark.parametrize(
  "text", ["", "<w", "<w starttime='0' endtime='x'>a</w>"]
)
def test_words_that_are_none(tmp_path, text):
  write(tmp_path, words=text)
  items, bad = streamed.read("ami", tmp_path, user="A", agent="B")
  assert not items and [r for r, _ in bad] == [Reason.BROKEN_METADATA]


def test_what_is_refused(tmp_path):
  write(tmp_path)
  _, bad = streamed.read("ami", tmp_path, user="A", agent="D")
  assert bad == [(Reason.MISSING, "ES2002a: no headset of D")]
  for options, message in (
    ({}, "write one of A, B, C"),
    ({"user": "A", "agent": "A"}, "another letter"),
    (
      {
        "user": "A",
        "agent": "B",
        "annotations": tmp_path / "annotations" / "words",
      },
      "has no meetings.xml",
    ),
  ):
    with pytest.raises(errors.UserError, match=message):
      streamed.read("ami", tmp_path, **options)
  path = tmp_path / "annotations" / "corpusResources" / "meetings.xml"
  path.write_text(MEETINGS.replace('channel="2"', 'channel="two"'))
  with pytest.raises(errors.UserError, match="meetings.xml is broken"):
    streamed.read("ami", tmp_path, user="A", agent="B")
