"""Calls in SPHERE, with their texts as the LDC lays them out."""

import collections

import pytest
import soundfile

from tests.helpers import streamed, two_sides
from tml_jax import errors
from tml_jax.data.corpus import table
from tml_jax.data.source import Reason
from tml_jax.streams import timeline as timeline_lib
from tml_jax.streams.timeline import Role

TEXT = """# fe_03_00001.sph
# Transcribed at the LDC

0.20 1.20 A: how (( are )) you [laughter]

1.60 2.60 B: fine

2.70 2.80 B: (( ))
"""
TABLE = (
  "CALL_ID,DATE,TOPICID,SIG_GRADE,CNV_GRADE,APIN,ASX.DL,APHNUM,APHSET,APHTYP,"
  "BPIN\n00001,20021212,ENG01,1,1,2602,f.a,1,2,3,1790\n"
)
SPHERE = {"rate": 8_000, "format": "NIST", "subtype": "ULAW"}


def fisher(folder, *, number="00001", end="sph", text=TEXT):
  two_sides.write(
    folder / "LDC2004S13" / "d1" / "audio" / "000" / f"fe_03_{number}.{end}",
    **SPHERE,
  )
  path = folder / "LDC2004T19" / "data" / "trans" / "000"
  path.mkdir(parents=True, exist_ok=True)
  (path / f"fe_03_{number}.txt").write_text(text)


def test_fisher(tmp_path):
  fisher(tmp_path)
  fisher(tmp_path, number="11487", end="wav", text=TEXT.replace("\n", "\r\n"))
  (tmp_path / "doc").mkdir()
  (tmp_path / "doc" / "fe_03_p1_calldata.tbl").write_text(TABLE)
  sound = next(tmp_path.rglob("*.sph"))
  assert sound.read_bytes().startswith(b"NIST_1A")
  assert soundfile.info(sound).subtype == "ULAW"
  items, bad = streamed.read(
    "fisher", tmp_path, user="A", language="en", licence="LDC"
  )
  assert not bad and [i.id for i in items] == ["fe_03_00001", "fe_03_11487"]
  for item in items:
    timeline_lib.validate(item)
    user, agent = item.track(Role.USER), item.track(Role.AGENT)
    assert two_sides.side_of(user) == "left"
    assert [w.text for w in user.words] == ["how", "are", "you"]
    assert [w.text for w in agent.words] == ["fine"]
    two_sides.check_spans(user, within=1e-6)
    assert [s.start for s in agent.spans] == [1.6, 2.7]
  assert [t.voice for t in items[0].tracks] == ["2602", "1790"]
  assert items[1].tracks[0].voice == "fe_03_11487 A"
  items, _ = streamed.read("fisher", tmp_path, user="each")
  assert len(items) == 4
  # Both ways of a call are of one split: they are the same sound.
  hashes = collections.defaultdict(set)
  for item in items:
    row = table.row_of(item, shard=0, first=0, records=1, budget=0)
    hashes[item.id.partition("#")[0]].add(row.split_hash)
  assert [len(found) for found in hashes.values()] == [1, 1]


def test_fisher_that_is_broken(tmp_path):
  fisher(tmp_path, number="00001", text="0.2 1.2 C: who\n")
  fisher(tmp_path, number="00002", text="0.2\n")
  fisher(tmp_path, number="00003", text="200 1200 A: milli seconds\n")
  fisher(tmp_path, number="00004")
  next(tmp_path.rglob("*4.txt")).unlink()
  fisher(tmp_path, number="00005")
  path = next(tmp_path.rglob("*5.sph"))
  path.write_bytes(path.read_bytes()[:9_000])
  fisher(tmp_path, number="00006")
  next(tmp_path.rglob("*6.txt")).write_bytes(b"0.2 1.2 A: caf\xe9\n")
  fisher(tmp_path, number="00007")
  path = next(tmp_path.rglob("*7.sph"))
  path.write_bytes(
    path.read_bytes().replace(b"-s4 ulaw", b"-s26 ulaw,embedded-shorten-v2.00")
  )
  items, bad = streamed.read("fisher", tmp_path, user="B")
  assert not items
  assert sorted(str(r) for r, _ in bad) == sorted(
    [Reason.BROKEN_METADATA] * 3
    + [Reason.NO_TRANSCRIPT, Reason.TRUNCATED, Reason.NOT_UTF8]
    + [Reason.UNREADABLE]
  ), bad


def switchboard(folder, *, with_words):
  two_sides.write(folder / "swb1" / "sw02001.sph", **SPHERE)
  texts = folder / "swb_ms98_transcriptions" / "20" / "2001"
  texts.mkdir(parents=True)
  for side, (start, end), words in (
    ("A", two_sides.LEFT, "hi um [laughter-yeah] <b_aside> right_1"),
    ("B", two_sides.RIGHT, "[noise] sure"),
  ):
    (texts / f"sw2001{side}-ms98-a-trans.text").write_text(
      f"sw2001{side}-ms98-a-0001 0.000000 {start} [silence]\n"
      f"sw2001{side}-ms98-a-0002 {start} {end} {words}\n"
    )
    if with_words:
      (texts / f"sw2001{side}-ms98-a-word.text").write_text(
        f"sw2001{side}-ms98-a-0001 0.000000 {start} [silence]\n"
        f"sw2001{side}-ms98-a-0002 {start} {start + 0.4} one\n"
      )


@pytest.mark.parametrize("with_words", [False, True])
def test_switchboard(tmp_path, with_words):
  switchboard(tmp_path, with_words=with_words)
  (item,), bad = streamed.read("switchboard", tmp_path, user="B")
  assert not bad and item.id == "sw02001"
  timeline_lib.validate(item)
  user, agent = item.track(Role.USER), item.track(Role.AGENT)
  assert two_sides.side_of(user) == "right"
  for track in item.tracks:
    two_sides.check_spans(track, within=1e-6)
  if with_words:
    assert [(w.text, w.start) for w in agent.words] == [("one", 0.2)]
  else:
    assert [w.text for w in agent.words] == ["hi", "um", "yeah", "right"]
    assert [w.text for w in user.words] == ["sure"]


def test_switchboard_that_is_broken(tmp_path):
  switchboard(tmp_path, with_words=False)
  next(tmp_path.rglob("*B-ms98-a-trans.text")).unlink()
  items, bad = streamed.read("switchboard", tmp_path, user="A")
  assert not items and bad == [(Reason.NO_TRANSCRIPT, "sw02001 B")]
  with pytest.raises(errors.UserError, match="one of A, B, each"):
    streamed.read("switchboard", tmp_path)
  with pytest.raises(errors.UserError, match="no sound of fisher"):
    streamed.read("fisher", tmp_path, user="A")
