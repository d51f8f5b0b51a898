"""Numbers of pages: tables, turns, positions, targets."""

import dataclasses

import numpy as np
import pytest

from tests.helpers import pages, recorded
from tml_jax.data import corpus
from tml_jax.page import budget, charts, facts, floor, overview, windows
from tml_jax.page.floor import Transfer
from tml_jax.page.positions import Part
from tml_jax.streams import frame as frame_lib
from tml_jax.streams import framing, packing, tokenizer
from tml_jax.streams.frame import Kind
from tml_jax.streams.timeline import Role, Span, Timeline, Track


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  root = tmp_path_factory.mktemp("counts")
  calls = [
    recorded.call(f"c{i}", seconds=4.0 + i, talk=0.9 if i == 3 else 0.5)
    for i in range(8)
  ]
  recorded.write(
    root,
    **{
      "a-calls": [*calls, pages.talk("<b>", video=3, events=("yes",))],
      "a-texts": [recorded.article(f"t{i}", words=60 * i) for i in (1, 9, 2)],
    },
  )
  return root


@pytest.fixture(scope="module")
def config():
  return pages.config("a-calls:1", "a-texts:1", group_size=40)


def _pieces(root, config):
  return tokenizer.load(tokenizer.path(root), config=config.streams)


def test_facts_are_sums_of_the_rows(root):
  source = corpus.RecordSource(root / "a-calls")
  found = facts.of(source, path=root / "a-calls")
  names = ("seconds", "user_tokens", "agent_tokens", "overlap_tokens")
  rows = source.columns(*names, "letters", "voices", "language", "frames")
  assert found.name == "a-calls"
  assert found.hours == pytest.approx(sum(rows["seconds"]) / 3600)
  for part, name in (
    (found.user, "user_tokens"),
    (found.agent, "agent_tokens"),
    (found.overlap, "overlap_tokens"),
  ):
    np.testing.assert_allclose(part, np.array(rows[name]) * 0.05)
  spoken = found.user + found.agent - found.overlap
  np.testing.assert_allclose(
    found.silence, np.maximum(0, found.seconds - spoken)
  )
  assert found.overlap.sum() > 1 and found.frames == sum(rows["frames"]) == 3
  # Both tracks of a call have one voice, which counts once.
  assert rows["voices"][0] == ["c0", "c0"]
  assert found.voices["c0"].recordings == 1
  assert found.voices["c7"].hours == pytest.approx(11 / 3600)
  assert found.languages["unknown"].recordings == 8
  assert found.languages["<b>"].letters == rows["letters"][-1]
  assert list(found.languages) == ["unknown", "<b>"]


def test_documents_have_letters_alone(root):
  source = corpus.RecordSource(root / "a-texts")
  found = facts.of(source, path=root / "a-texts")
  assert found.hours == 0 and not found.voices
  assert found.kinds["document"].letters == sum(
    source.columns("letters")["letters"]
  )


def _timeline(user, agent):
  tracks = [
    Track(role, np.zeros(160_000, np.float32), (), spans, "v")
    for role, spans in (
      (Role.USER, tuple(Span(*span) for span in user)),
      (Role.AGENT, tuple(Span(*span) for span in agent)),
    )
  ]
  return Timeline("t", 10.0, tuple(tracks))


def test_gaps_and_overlaps_are_those_of_the_definition():
  user = [(0.0, 1.0), (1.1, 2.0), (4.5, 4.7), (5.5, 7.0)]
  agent = [(2.3, 3.0), (4.0, 6.0), (9.0, 9.5)]
  # The pause of 0.1 s is within an utterance; the agent pauses 1 s and goes
  # on, which is no change; "mhm" from 4.5 on ends within the agent's speech.
  want = [Transfer(0.3, True), Transfer(-0.5, False), Transfer(2.0, True)]
  found = floor.transfers(_timeline(user, agent))
  assert [each.to_agent for each in found] == [True, False, True]
  np.testing.assert_allclose(
    [each.offset for each in found], [each.offset for each in want]
  )
  assert floor.transfers(_timeline(user, [])) == []


def test_a_value_on_an_edge_is_counted_above_it():
  counts = charts.count(
    np.array([-3.0, -0.2, 0.0, 0.5, 99.0]), edges=(-np.inf, -0.2, 0, 0.5, 1)
  )
  assert counts.tolist() == [1, 1, 1, 2]


def test_a_histogram_shows_all_that_there_is():
  values = np.array([0.5, 4.0, 4.5, 7.0])
  text = charts.histogram(
    values, edges=(0, 1, 3, 5, 10, 20), unit="s", caption="c"
  )
  lines = [row[:2] for row in pages.rows(text)]
  assert lines == [
    ["0 to 1 s", "1 (25 %)"],
    ["1 to 3 s", "0 (0 %)"],
    ["3 to 5 s", "2 (50 %)"],
    ["5 to 10 s", "1 (25 %)"],
  ]


@pytest.mark.parametrize("name", ["a-calls", "a-texts"])
def test_a_budget_without_sound_is_that_with_it(root, config, name):
  source = corpus.RecordSource(root / name)
  pieces = _pieces(root, config)
  found = budget.measure(source, config=config, tokenizer=pieces)
  items = []
  for i in range(len(source)):
    if name == "a-texts":
      tokens = pieces.encode(source[i].text)
      items.append(packing.Text.of(tokens, config=config.streams))
    else:
      items.append(
        framing.frames(source[i], config=config.streams, tokenizer=pieces)
      )
  sequences = packing.pack(items, config=config.streams)
  want = budget.of(sequences, config=config, recordings=len(source))
  for field in dataclasses.fields(budget.Budget):
    np.testing.assert_array_equal(
      getattr(found, field.name), getattr(want, field.name), field.name
    )
  length = config.streams.seq_len * found.sequences
  assert found.parts.sum() == length
  assert found.parts[Part.PADDING] == length - found.used[0]
  assert found.targets.sum() == found.used[-1]
  weights = frame_lib.loss_weights(config.streams)
  np.testing.assert_allclose(found.weights, found.targets * weights, rtol=1e-6)
  if name == "a-texts":
    assert found.parts[Part.DOCUMENT] == found.used[0]
  else:
    assert found.parts[Part.VIDEO] == found.used[2] == 3
    sound = found.parts[Part.OWN_AUDIO] + found.parts[Part.USER_AUDIO]
    assert sound == found.used[1]
    decisions = [Kind.SILENCE, Kind.ONSET, Kind.GOING_ON, Kind.STOP]
    assert found.parts[Part.DECISION] == found.targets[decisions].sum()
    assert found.parts[Part.SAY] == found.targets[Kind.SAY] > 0


def test_the_overview_has_these_numbers(root, config):
  source = corpus.RecordSource(root / "a-calls")
  found = facts.of(source, path=root / "a-calls")
  notes = {pages.HOSTILE: {"count": 1234, "examples": [pages.HOSTILE]}}
  found = dataclasses.replace(found, report={"skipped": notes})
  packed = budget.measure(
    source, config=config, tokenizer=_pieces(root, config)
  )
  transfers = budget.transfers(source)
  body = overview.section(
    found, transfers=transfers, budget=packed, config=config
  ).body
  shown = pages.facts(body)
  assert shown["recordings"] == ["9"]
  assert shown["hours"] == [f"{found.hours:.2f}"]
  silent = 100 * found.silence.sum() / found.seconds.sum()
  assert shown["nobody speaks, % of time"] == [f"{silent:.2f}"]
  rows = {row[0]: row[1:] for row in pages.rows(body)}
  assert rows[pages.HOSTILE] == ["1,234", pages.HOSTILE]
  used, limit = packed.used[0], packed.limits[0]
  assert rows["positions (streams.seq_len)"] == [
    *(f"{used:,}", f"{limit:,}"),
    *(f"{100 * used / limit:.2f}", f"{100 * (1 - used / limit):.2f}"),
  ]
  assert "c7" in rows and rows["c7"][0] == "1"
  assert f"{len(transfers[0]):,} changes in 9 recordings" in body


def test_targets_stand_where_they_are_decided(root, config):
  source = corpus.RecordSource(root / "a-calls")
  seen = windows.of(
    source[8], config=config, tokenizer=_pieces(root, config), seconds=60.0
  )
  assert len(seen.frames) == len(seen.targets) == 30
  kinds = [targets[-1].kind for targets in seen.targets]
  # The agent sounds from 2.5 to 2.8 s, in the windows 12 and 13.
  assert [kinds[11], kinds[12], kinds[13]] == [
    Kind.ONSET,
    Kind.GOING_ON,
    Kind.STOP,
  ]
  assert {*kinds[:11], *kinds[14:]} == {Kind.SILENCE}
  assert np.flatnonzero(seen.speech).tolist() == [11, 12]
  weights = frame_lib.loss_weights(config.streams)
  for targets in seen.targets:
    for target in targets:
      is_onset = target is targets[0] and Kind.ONSET in [
        t.kind for t in targets
      ]
      kind = Kind.ONSET if is_onset else target.kind
      assert target.weight == pytest.approx(weights[kind])
  assert len(seen.microphone) == len(seen.agent) == 30 * 3200
  assert np.abs(seen.agent[: 12 * 3200]).max() == 0


def test_the_beginning_of_a_recording_is_that_of_the_whole(root, config):
  source = corpus.RecordSource(root / "a-calls")
  pieces = _pieces(root, config)
  part = windows.of(source[7], config=config, tokenizer=pieces, seconds=3.0)
  whole = windows.of(source[7], config=config, tokenizer=pieces, seconds=60.0)
  assert len(part.frames) == 15
  for a, b in zip(part.frames, whole.frames, strict=False):
    np.testing.assert_array_equal(a.user_dmel, b.user_dmel)
    assert (a.say, a.speak) == (b.say, b.speak)
  assert part.targets == whole.targets[:15]
