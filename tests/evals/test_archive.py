"""Archives of evaluations: what follows from them, and what they refuse."""

import dataclasses
import json
import lzma

import numpy as np
import pytest

from tests.helpers import drawn
from tests.helpers.drawn import asks
from tml_jax import errors
from tml_jax.evals import archive
from tml_jax.evals.metrics import panel
from tml_jax.evals.report import Report, Scored
from tml_jax.logs import columns, ticks
from tml_jax.streams.annotation import Kind

_OF = {"seed": 3, "asks": "12"}
_PROVENANCE = {"step": 7, "users": "reacting"}
_LOG = dataclasses.replace(
  drawn.log(
    "uu.aa..uubbu..aa.",
    asks(Kind.TURN, 0, 2, text="yes"),
    asks(Kind.TIMED, 5, 6, due=13, group="a"),
    says={3: "yes ", 4: 'it\n is "so" '},
    calls={5: "clock {}", 6: "calculator 1+1"},
    results={9: (1, "noon")},
    recorded="...aa......",
  ),
  provenance=_PROVENANCE | _OF,
)


def _with_sight(log):
  """The same log; something is seen, shown and typed, at some cost."""
  seen = [0, 0, 4, 4, 5, 0, *[4] * (len(log.ticks) - 6)]
  return dataclasses.replace(
    log,
    ticks=tuple(
      dataclasses.replace(
        tick,
        video_patches=patches,
        shown=(("text", "a"), ("draw", "é")) if patches == 5 else (),
        typed="hm" if patches == 5 else "",
        seconds=0.1,
      )
      for tick, patches in zip(log.ticks, seen, strict=True)
    ),
  )


def test_a_log_comes_back_from_its_columns():
  log = _with_sight(_LOG)
  text = json.dumps(columns.of(log))
  plain = [dataclasses.replace(tick, seconds=None) for tick in log.ticks]
  assert columns.log_of(json.loads(text)) == dataclasses.replace(
    log, ticks=tuple(plain)
  )
  assert len(text) < len(ticks.to_text(log)) / 5
  empty = dataclasses.replace(_LOG, ticks=())
  assert columns.log_of(columns.of(empty)) == empty


@pytest.mark.parametrize(
  "change, problem",
  [
    ({"agent": [1, 3, 3, 4]}, "agent: tick 3 is there twice"),
    ({"agent": [1, 3, 5]}, "agent: its last run has no end"),
    ({"agent": [1, 99]}, "agent: tick 99 is there twice, .* beyond the 17"),
    ({"user": [-1, 3]}, "user: tick -1"),
    ({"user": [True, 3]}, "True is not of type int"),
    ({"agent_text": [[2, "a"], [2, "b"]]}, "agent_text: tick 2 is there twice"),
    ({"agent_text": [[17, "a"]]}, "agent_text: tick 17"),
    ({"agent_text": [[1, 2]]}, "2 is not of type str"),
    ({"calls": [[5, 2, "b"], [4, 1, "a"]]}, "calls: tick 4"),
    ({"video": [[0, 4, 1], [3, 5, 1]]}, "video: tick 3"),
    ({"ticks": -1}, "-1 ticks"),
    ({"ticks": "17"}, "'17' is not of type int"),
    ({"duration": -2.0}, "-2.0 is no time in seconds"),
  ],
)
def test_columns_that_cannot_be(change, problem):
  with pytest.raises((ValueError, TypeError), match=problem):
    columns.log_of(columns.of(_LOG) | change)


def _write(path, *logs, parts=("plain",)):
  report = Report(
    scored=[
      Scored(
        "test",
        log=log,
        series={panel.MODEL: panel.measure(log)},
        columns={panel.MODEL: columns.of(log)},
        of=_OF,
      )
      for log in logs
    ],
    sums={},
    skipped={"calls": 2},
    reused=0,
    tick_seconds=np.zeros(0),
    metrics=panel.metrics(),
    agents=(),
    provenance=_PROVENANCE,
  )
  part = archive.Part(report)
  head = archive.Head(
    {"git": "abc"}, command="evaluate", config="a = 1\n", seeds={"train": 0}
  )
  archive.write(path, head=head, parts=dict.fromkeys(parts, part))
  return head, part


def _second():
  return dataclasses.replace(_with_sight(_LOG), id="second")


def test_what_was_written_is_read(tmp_path):
  path = tmp_path / "folder" / "all.xz"
  head, part = _write(path, _LOG, _second(), parts=("plain", "noise_0"))
  found = archive.read(path)
  assert found.head == head and list(found.parts) == ["plain", "noise_0"]
  assert found.parts["noise_0"].report.skipped == {"calls": 2}
  for ours, theirs in zip(found.plain.scored, part.report.scored, strict=True):
    assert dict(ours.series) == theirs.series
    assert (ours.of, ours.score) == (theirs.of, theirs.score)
  assert found.numbers()["git"] == "abc"
  _write(path, _LOG, parts=("onset_bias=1",))
  with pytest.raises(errors.UserError, match="has onset_bias=1, and no plain"):
    archive.read(path).numbers()


def _edit(path, line, change):
  """Changes the JSON object of a line, counted from 1; None removes it."""
  lines = lzma.decompress(path.read_bytes()).decode().splitlines()
  record = change(json.loads(lines[line - 1]))
  lines[line - 1 : line] = [] if record is None else [json.dumps(record)]
  path.write_bytes(lzma.compress("\n".join(lines).encode()))


def _moved(record):
  """The agent begins a tick later, in the log alone."""
  record["logs"]["model"]["agent"][0] += 1
  return record


def _of_others(record):
  record["logs"]["model"]["provenance"]["users"] = "scripted"
  return record


def _without_due(record):
  for each in record["logs"]["model"]["annotations"]:
    each.pop("due", None)
  return record


def _doubled_tick(record):
  record["logs"]["model"]["agent"][2:2] = [5, 6]
  return record


@pytest.mark.parametrize(
  "line, change, problem",
  [
    (
      1,
      lambda r: r | {"version": 2},
      "line 1: schema .* version 2; this reads",
    ),
    (1, lambda r: r | {"command": 3}, "line 1: the head: TypeError"),
    (1, lambda r: r | {"parts": 2}, "line 1: 1 parts follow, not 2"),
    (1, lambda r: [r], "line 1: no JSON object"),
    (2, lambda r: r | {"part": None}, "line 2: part None"),
    (2, lambda r: r | {"agents": ["echo"]}, "line 3: .*KeyError.'echo'"),
    (2, lambda r: r | {"conversations": 3}, "2 conversations, where 3"),
    (2, lambda r: r | {"conversations": 1}, "line 4: part None"),
    (3, lambda r: None, "1 conversations, where 2 are announced"),
    (3, lambda r: r | {"logs": {}}, "line 3: no conversation: KeyError"),
    (3, _of_others, "line 3: the log of drawn is of other users"),
    (3, _doubled_tick, "line 3: .*agent: tick 5 is there twice"),
    (4, lambda r: _moved(r), "line 4: second, model: series .*by its log"),
    (
      3,
      _without_due,
      "line 3: model: drawn: .* has no time at which it is due",
    ),
  ],
)
def test_a_file_that_cannot_be(line, change, problem, tmp_path):
  path = tmp_path / "all.xz"
  _write(path, _LOG, _second())
  archive.read(path).numbers()
  _edit(path, line, change)
  with pytest.raises(errors.UserError, match=f"all.xz, .*{problem}"):
    archive.read(path).numbers()


def test_files_of_others(tmp_path):
  path = tmp_path / "all.xz"
  with pytest.raises(errors.UserError, match="no archive of an evaluation"):
    archive.read(path)
  _write(path, _LOG)
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(errors.UserError, match="no archive of an evaluation"):
    archive.read(path)
  path.write_bytes(lzma.compress(b"{"))
  with pytest.raises(errors.UserError, match="line 1: no JSON"):
    archive.read(path)
  _write(path, _LOG, _LOG)
  with pytest.raises(errors.UserError, match="line 4: drawn is there twice"):
    archive.read(path)


@pytest.mark.parametrize("field", ["id", "family"])
def test_agents_of_a_line_have_met_one_user(field, tmp_path):
  """Also where no log says of which model and users it is."""
  path = tmp_path / "all.xz"
  log = dataclasses.replace(_LOG, provenance={})
  series = panel.measure(log)
  _write(path, _LOG)
  (part,) = archive.read(path).parts.values()
  scored = archive.Scored(
    "test",
    log=log,
    series={panel.MODEL: series, "echo": series},
    columns={panel.MODEL: columns.of(log), "echo": columns.of(log)},
    of=_OF,
  )
  report = dataclasses.replace(
    part.report, scored=[scored], agents=("echo",), provenance={}
  )
  head = archive.Head({}, command="", config="", seeds={})
  archive.write(path, head=head, parts={"plain": archive.Part(report)})
  archive.read(path).numbers()

  def of_another(record):
    record["logs"]["echo"][field] = "other"
    return record

  _edit(path, 3, of_another)
  with pytest.raises(errors.UserError, match="line 3: .*echo has met"):
    archive.read(path)


def test_the_head_beside_a_json_file(tmp_path):
  path = tmp_path / "all.json"
  head, _ = _write(path.with_suffix(".xz"), _LOG)
  path.write_text(json.dumps({"git": "abc", "metrics": {}}))
  assert archive.beside(path) == head
  for numbers in ({"git": "def"}, {}, []):
    path.write_text(json.dumps(numbers))
    assert archive.beside(path) is None
  path.write_text('{"git": "ab')
  assert archive.beside(path) is None
  path.write_text('{"git": "abc"}')
  path.with_suffix(".xz").unlink()
  assert archive.beside(path) is None


def test_logs_are_measured_again(tmp_path):
  """After a change of a metric what stands in a file is of the old one."""
  path = tmp_path / "all.xz"
  _write(path, _LOG, _second(), parts=("plain", "noise_0"))
  before = path.read_bytes()
  archive.measure_again(path)
  assert path.read_bytes() == before  # nothing has changed
  numbers = archive.read(path).numbers()

  def older(record):
    record["series"]["model"]["done"] = [[0.0, 1.0]]
    return record

  _edit(path, 3, older)
  with pytest.raises(errors.UserError, match="'done' .* --measure_again"):
    archive.read(path).numbers()
  archive.measure_again(path)
  assert path.read_bytes() == before
  assert archive.read(path).numbers() == numbers
