"""Evaluation of a model: live conversations and forced predictions."""

import base64
import dataclasses
import functools
import json

import numpy as np
import pytest

from tests.helpers import scripts, small_session
from tml_jax import errors
from tml_jax.evals import (
  agents,
  archive,
  content,
  run,
  show,
  suites,
  turn_based,
)
from tml_jax.evals import kept as kept_lib
from tml_jax.evals import sums as sums_lib
from tml_jax.evals.metrics import panel, statistics
from tml_jax.live import reacting, tick
from tml_jax.live.reacting import Users
from tml_jax.logs import observe
from tml_jax.streams import annotation, clock, frame, framing, packing
from tml_jax.streams.timeline import Role, Span, Timeline, Track, Word

_TOKENIZER = small_session.Letters()
_CONFIG = small_session.config(temperature=0.0)


def _timeline(seed: int) -> Timeline:
  """The user hums, the agent hums back."""
  random = np.random.default_rng(seed)
  windows = int(random.integers(8, 14))

  def track(role, first, last, words):
    sound = np.zeros(windows * clock.TICKS.samples, np.float32)
    part = slice(first * clock.TICKS.samples, last * clock.TICKS.samples)
    sound[part] = 0.1 * random.normal(size=part.stop - part.start)
    span = Span(first * clock.TICKS.seconds, last * clock.TICKS.seconds)
    return Track(role, sound, words, (span,), str(role))

  due = 5
  return Timeline(
    id=f"test/{seed}",
    duration=windows * clock.TICKS.seconds,
    tracks=(
      track(Role.USER, 1, 4, ()),
      track(Role.AGENT, due, due + 2, (Word(1.0, 1.4, "hum"),)),
    ),
    metadata={
      "family": "hum",
      annotation.KEY: [
        annotation.to_json(
          annotation.Annotation(
            annotation.Kind.TURN, start=0.2, end=0.8, due=1.0, text="hum"
          )
        )
      ],
    },
  )


class _Hums(suites.Suite):
  """Timelines `seeds`, those of `plain` without annotations."""

  def __init__(self, seeds, *, plain=()):
    self.seeds, self.plain, self.kept = seeds, plain, []

  def items(self):
    return [
      suites.Item("hum", seed=s, load=functools.partial(self._load, s))
      for s in self.seeds
    ]

  def _load(self, seed):
    timeline = _timeline(seed)
    if seed in self.plain:
      timeline.metadata.pop(annotation.KEY)
    return timeline

  def keep(self, timeline, *, frames, log, family):
    self.kept.append((timeline.id, len(frames)))


_RUNNING = dict(model=small_session.model(_CONFIG), tokenizer=_TOKENIZER)


def _converse(suite):
  held = {}
  seconds = run.converse(
    _CONFIG,
    variables=small_session.variables(_CONFIG),
    items=suite.items(),
    done=lambda done: held.__setitem__(done.index, done),
    **_RUNNING,
  )
  assert len(seconds) >= max(len(h.seconds) for h in held.values())
  return [
    [(f.say, f.text_out, f.speak) for f in held[i].frames]
    for i in range(len(held))
  ]


def _evaluate(suite, **kept):
  return run.evaluate(
    suite,
    config=_CONFIG,
    variables=small_session.variables(_CONFIG),
    **_RUNNING,
    **kept,
  )


def test_live_conversations_keep_their_order_and_their_numbers():
  results = _converse(_Hums(range(18)))  # 16 at a time
  assert [len(r) for r in results] == [
    clock.TICKS.num_windows(_timeline(seed).duration) for seed in range(18)
  ]
  # Conversations 5 and 17 with no one else in the batch.
  alone = _converse(_Hums([17, 5]))
  assert alone == [results[17], results[5]]


@pytest.mark.slow
def test_a_model_of_long_turns_meets_the_same_users():
  config = small_session.config(temperature=0.0)
  streams = dataclasses.replace(config.streams, turn_ms=400)
  config = dataclasses.replace(config, streams=streams)
  recorded = []

  class Hums(_Hums):
    def items(self):
      return [
        dataclasses.replace(
          item,
          recorded=lambda item=item: recorded.append(item.seed) or item.load(),
        )
        for item in super().items()
      ]

  suite = Hums(range(3))
  report = run.evaluate(
    suite,
    config=config,
    model=small_session.model(config),
    variables=small_session.variables(config),
    tokenizer=_TOKENIZER,
  )
  assert recorded == [0, 1, 2]  # what is predicted
  frames = dict(suite.kept)
  for scored in report.scored:
    ticks = clock.TICKS.num_windows(scored.log.duration)
    assert len(scored.log.ticks) == ticks
    assert frames[scored.log.id] == (ticks + 1) // 2
    assert np.flatnonzero(scored.log.user).tolist() == [1, 2, 3]
    agent = scored.log.agent[: ticks // 2 * 2].reshape(-1, 2)
    assert (agent[:, 0] == agent[:, 1]).all()


def _check_archive(report, *, path):
  """Without model or data, every number follows from a file."""
  part, source = archive.Part(report, left_out={"a": "no"}), {"step": 1}
  head = archive.Head(source, command="evaluate", config="", seeds={"train": 0})
  archive.write(path, head=head, parts={"plain": part})
  numbers = archive.numbers(source, part=part, rows={})
  assert numbers["content"]["hum"]["mel_db"] > 0
  text = json.dumps(numbers, allow_nan=False)
  assert json.dumps(archive.read(path).numbers(), allow_nan=False) == text
  assert path.stat().st_size < 10_000


def test_an_evaluation_that_was_cut_goes_on(tmp_path):
  kept = kept_lib.Kept(tmp_path, provenance={"step": 1})
  suite = _Hums(range(3))
  first = _evaluate(suite, kept=kept)
  assert first.reused == 0 and first.skipped == {}
  assert len(suite.kept) == len(first.scored) == 3
  logs = sorted(tmp_path.glob("ticks/hum/*.jsonl"))
  assert [path.name for path in logs] == [f"test-{i}.jsonl" for i in range(3)]
  logs[1].unlink()
  suite = _Hums(range(3))
  second = _evaluate(suite, kept=kept)
  assert second.reused == 2
  assert [identifier for identifier, _ in suite.kept] == ["test/1"]
  assert repr(second.columns) == repr(first.columns)  # NaNs are equal
  assert repr(second.content) == repr(first.content)
  _check_archive(first, path=tmp_path / "first.xz")
  (sums,) = tmp_path.glob("content/hum/*.json")
  assert sums.name == "test-0.json"
  # Of another model none is used; a broken one is an error.
  third = _evaluate(_Hums([0]), kept=kept_lib.Kept(tmp_path, {"step": 2}))
  assert third.reused == 0
  logs[1].write_text("{}")
  with pytest.raises(errors.UserError, match=r"test-1.jsonl, line 1: schema"):
    _evaluate(_Hums(range(3)), kept=kept)
  logs[1].unlink()
  sums.write_text("[]")
  with pytest.raises(errors.UserError, match="test-0.json cannot be read"):
    _evaluate(_Hums(range(3)), kept=kept)


def test_items_without_annotations_are_skipped_and_counted():
  report = _evaluate(_Hums(range(3), plain=[1]))
  assert report.skipped == {"hum": 1} and len(report.scored) == 2
  scalars = report.scalars()
  assert {"responded", "false_fires", "text_accuracy"} <= scalars.keys()
  with pytest.raises(errors.UserError, match="no item of hum says what is due"):
    _evaluate(_Hums([1], plain=[1]))


class _Reacting(_Hums):
  """The same users, who wait for the agent and ask again."""

  users = Users.REACTING
  agents = agents.among(Users.REACTING)


@pytest.mark.parametrize("harness", ["duplex", "turns"])
def test_users_react_to_a_model_as_to_any_agent(tmp_path, harness):
  """What its log says it did brings about what its log says of the user."""
  kept = kept_lib.Kept(tmp_path, provenance={"step": 1})
  connect = turn_based.as_trained
  if harness == "turns":
    connect = turn_based.connect
  seeds = range(3)
  first = _evaluate(_Reacting(seeds), kept=kept, agent=connect)
  for scored, seed in zip(first.scored, seeds, strict=True):
    log, script = scored.log, _timeline(seed)
    user = scripts.play(script, log.agent.tolist())
    assert len(user.steps) == len(log.ticks)
    assert annotation.of(user.told) == log.annotations
    told = observe.from_ticks(list(log.ticks), timeline=user.told)
    assert told.user.tolist() == log.user.tolist()
    assert told.recorded == log.recorded
    # Asked twice where nothing came.
    came = log.agent[4 : 5 + reacting.PATIENCE].any()
    assert len(log.annotations) == (1 if came else 2)
    assert scored.series["recorded"]["done"] == [(1.0, 1)]
    assert len(scored.series["silent"]["done"]) == 2
  again = _evaluate(_Reacting(seeds), kept=kept, agent=connect)
  assert again.reused == 3
  assert repr(again.columns) == repr(first.columns)


class _Calls(_Hums):
  """Recorded conversations beside scenarios."""

  def asks(self, timeline):
    return suites.asks(timeline)

  @property
  def corpora(self):
    return ("hum",)


def test_recorded_conversations_have_losses_and_a_floor_of_their_own():
  report = _evaluate(_Calls(range(3), plain=range(3)))
  assert report.skipped == {} and len(report.scored) == 3
  columns = report.columns["hum"]
  assert columns["recorded"]["took_floor"].value == 1
  assert columns["recorded"]["took_floor"].events == 3
  assert columns["silent"]["took_floor"].value == 0
  assert columns[panel.MODEL]["talk_share"].events == 3
  assert columns[panel.MODEL]["false_fires"].events == 0
  scalars = report.scalars()
  for name in ("text_loss", "onset_loss", "stop_loss", "silence_loss"):
    assert scalars[f"hum/{name}"] == scalars[name] > 0, name
  assert np.isnan(scalars["hum/message_loss"])  # nobody displays anything
  assert scalars["hum/took_floor"] == scalars["took_floor"]
  table = show.table(report, "hum")
  assert "begins to speak, loss (forced)" in table
  assert "takes the floor where the recorded agent does" in table


def test_forced_numbers_by_hand():
  recordings = [
    framing.frames(
      _timeline(seed), config=_CONFIG.streams, tokenizer=_TOKENIZER
    )
    for seed in range(3)
  ]
  arguments = dict(
    model=small_session.model(_CONFIG),
    variables=small_session.variables(_CONFIG),
  )
  sums = content.forced(_CONFIG, recordings=recordings, **arguments)
  numbers = sums.scalars()
  (sequence,) = packing.pack(recordings, config=_CONFIG.streams)
  hidden = small_session.hidden(_CONFIG, sequence)
  right, nats, onsets = [], [], []
  decided = sequence.targets
  used = decided.positions < _CONFIG.streams.seq_len
  for position, target, kind in zip(
    decided.positions[used],
    decided.tokens[used],
    decided.kinds[used],
    strict=True,
  ):
    if kind == 0:  # say-text
      logits = small_session.logits(_CONFIG, hidden[position])
      right.append(int(np.argmax(logits)) == target)
      nats.append(np.log(np.exp(logits).sum()) - logits[target])
    if kind == frame.Kind.ONSET:
      logits = small_session.logits(_CONFIG, hidden[position])
      onsets.append(np.log(np.exp(logits).sum()) - logits[target])
  assert len(right) == 3 * len("hum")
  assert numbers["text_accuracy"] == pytest.approx(np.mean(right))
  assert numbers["text_loss"] == pytest.approx(np.mean(nats), rel=1e-4)
  assert len(onsets) == 3
  assert numbers["onset_loss"] == pytest.approx(np.mean(onsets), rel=1e-4)
  targets = np.stack(
    [f.target_mel for frames in recordings for f in frames if f.speak]
  )
  assert len(targets) == 3 * 2
  spread = 20 * np.sqrt(targets.var(axis=(0, 1)).mean())
  assert numbers["mel_mean_db"] == pytest.approx(spread, rel=1e-4)
  assert numbers["mel_db"] > 0 and numbers["mel_expected_db"] > 0
  parts = [
    content.forced(_CONFIG, recordings=part, **arguments)
    for part in (recordings[:2], recordings[2:])
  ]
  together = (parts[0] + parts[1]).scalars()
  for name in ("text_accuracy", "text_loss", "mel_mean_db"):
    assert together[name] == pytest.approx(numbers[name], rel=1e-5)
  assert all(np.isnan(v) for v in sums_lib.nothing().scalars().values())


def test_dummies():
  found = {
    name: statistics.scalars(
      statistics.summarise(
        [panel.measure(agent(_timeline(seed))) for seed in range(4)]
      )
    )
    for name, agent in agents.AGENTS.items()
  }
  assert list(found)[:4] == [
    *("recorded", "recorded_late", "silent", "always_talking")
  ]
  recorded = found["recorded"]
  assert recorded["responded"] == recorded["said_right"] == 1
  assert recorded["latency_p50"] == pytest.approx(0.2)
  assert recorded["false_fires"] == recorded["overlap"] == 0
  assert recorded["floor_transfer_js"] == recorded["late_p50"] == 0
  assert found["silent"]["responded"] == found["silent"]["false_fires"] == 0
  assert found["always_talking"]["responded"] == 0
  assert found["always_talking"]["overlap"] == 1


def test_table_and_page():
  report = _evaluate(_Hums(range(3), plain=[2]))
  head, _, *rows = show.table(report, "hum").splitlines()
  assert head.split() == ["hum", "model", "n", *agents.AGENTS]
  (answered,) = [row for row in rows if row.startswith("turns answered")]
  # Two turns of the model and of each dummy: too few, and so marked.
  cells = dict(zip(agents.AGENTS, answered.split()[-10:-1], strict=True))
  assert cells["recorded"] == "100.0*"
  assert cells["silent"] == cells["always_talking"] == "0.0*"
  assert not any("cue" in row for row in rows)
  # No latency without yields and selectivity beside it.
  (yields,) = [row for row in rows if row.startswith("yields")]
  assert yields.split()[-12:] == ["-", "0", *["-"] * 9, "%"]
  # What was measured is shown, the headline above the line.
  shown = show.rows(report, "hum")
  measured = {
    name
    for values in report.columns["hum"].values()
    for name, value in values.items()
    if value.events
  }
  assert measured <= {metric.name for metric in shown}
  assert {m.name for m in shown.headline} == set(panel.HEADLINE)
  assert rows[len(shown.headline)].strip("-") == ""
  page = show.html(report, title="a <test>")
  assert "a &lt;test&gt;" in page and "1 without annotations" in page
  assert page.count("data:image/png;base64,") == 4
  start = page.index("base64,") + len("base64,")
  png = base64.b64decode(page[start : page.index("'", start)])
  assert png[:4] == b"\x89PNG"
  assert "://" not in page  # needs no other file


def test_sessions_do_not_compile_again_for_the_next_batch():
  _converse(_Hums(range(2)))
  before = tick.compiled[_CONFIG.numerics]._cache_size()
  _converse(_Hums(range(2)))
  assert tick.compiled[_CONFIG.numerics]._cache_size() == before > 0
