"""Results joined over seeds, the tables, curves and pictures of them."""

import csv
import io
import json
import math
import statistics

import numpy as np
import pytest

from tml_jax import errors
from tml_jax.evals import ablation, ablation_picture, curve

ROWS = {
  "base": ablation.Row(question="base", changes={}),
  "a": ablation.Row(question="first?", changes={"model.d_model": 8}),
  "b": ablation.Row(question="second?", changes={"model.d_model": 9}),
  "a2": ablation.Row(question="first?", changes={}, run="base"),
}


def write(path, *, responded, mel_db):
  """As `evaluate` writes it; shares are 0..1 there and per cent in tables."""
  path.parent.mkdir(parents=True, exist_ok=True)
  numbers = dict(config="tiny_x", step=10, git="abc")
  value = dict(value=responded, interval=[0.0, 1.0], events=12)
  agents = {"model": {"responded": value}, "silent": {}}
  numbers["metrics"] = {"reply": agents, "all": agents}
  content = {"mel_db": mel_db, "mel_mean_db": 9.0}
  numbers["content"] = {"reply": content, "all": content}
  path.write_text(json.dumps(numbers))
  return path


@pytest.fixture
def files(tmp_path):
  values = {
    "base": [(0.5, 2.0), (0.75, None), (0.625, 3.0)],
    "a": [(0.25, 1.0), (0.5, 1.5)],
    "b": [(1.0, None)],
  }
  return {
    row: {
      seed: write(tmp_path / row / str(seed), responded=rate, mel_db=db)
      for seed, (rate, db) in enumerate(by_seed)
    }
    | {7: tmp_path / row / "not run yet"}
    for row, by_seed in (values | {"a2": []}).items()
  }


def test_means_and_deviations(files):
  table = ablation.collect(files, family="all", metrics=["responded", "mel_db"])
  assert table.seeds == {"base": (0, 1, 2), "a": (0, 1), "b": (0,), "a2": ()}
  rate = table.cells["base"]["responded"]
  assert rate.mean == 62.5
  assert rate.deviation == statistics.stdev([50.0, 75.0, 62.5])
  assert str(rate) == "62.5 ± 12.5"
  assert str(table.cells["base"]["mel_db"]) == "2.5 ± 0.707 (2 of 3)"
  assert str(table.cells["b"]["mel_db"]) == "-"
  assert math.isnan(table.cells["b"]["responded"].deviation)
  assert "a2" not in table.cells and len(table.results) == 6


def test_the_tables(files):
  table = ablation.collect(files, family="all", metrics=["responded", "mel_db"])
  text = ablation.markdown(table, rows=ROWS, about=["Where from."])
  assert text.splitlines() == [
    "Where from.",
    "",
    "| row | question | seeds | turns answered, % ↑ |"
    " mel error, sampled, dB RMS ↓ |",
    "| --- | --- | --- | --- | --- |",
    "| `base` | base | 3 | 62.5 ± 12.5 | 2.5 ± 0.707 (2 of 3) |",
    "| `a` | first? | 2 | 37.5 ± 17.7 | 1.25 ± 0.354 |",
    "| `a2` | first? | 0 |  |  |",  # next to its question
    "| `b` | second? | 1 | 100 | - |",
    "| events of a seed |  |  | 12 |  |",
  ]
  lines = list(
    csv.DictReader(io.StringIO(ablation.comma_separated(table, rows=ROWS)))
  )
  assert len(lines) == 12
  assert lines[4] == {
    "row": "base",
    "question": "base",
    "metric": "mel_db",
    "unit": "dB RMS",
    "mean": "2.5",
    "std": repr(statistics.stdev([2.0, 3.0])),
    "seed": "1",
    "value": "",
    "low": "",
    "high": "",
    "events": "",
  }
  assert (lines[0]["low"], lines[0]["high"]) == ("0.0", "100.0")
  assert lines[0]["events"] == "12"


@pytest.mark.parametrize(
  "text, problem",
  [
    ("{", "no result of `evaluate --json`"),
    ("[]", "no result of `evaluate --json`"),
    ('{"metrics": {}}', "'step'"),
    ('{"step": 1, "git": "", "config": "", "metrics": {"x": 1}}', "no result"),
    ('{"step": 1, "metrics": {"x": {"model": {}}}}', "'content'"),
  ],
)
def test_a_broken_file_is_refused(tmp_path, text, problem):
  path = tmp_path / "evaluation.json"
  path.write_text(text)
  with pytest.raises(errors.UserError, match=problem) as error:
    ablation.read(path)
  assert str(path) in str(error.value)


def test_what_a_turn_detector_cannot_have_stands_last_and_is_marked(files):
  table = ablation.collect(
    files, family="all", metrics=["cue_hit", "responded"]
  )
  lines = ablation.markdown(table, rows=ROWS, about=[]).splitlines()
  assert lines[1] == (
    "| row | question | seeds | turns answered, % ↑ | cues hit †, % ↑ |"
  )
  assert lines[3] == "| `base` | base | 3 | 62.5 ± 12.5 | - |"
  assert lines[-1].startswith("† by definition")


def test_an_unknown_family_is_refused(files):
  with pytest.raises(errors.UserError, match="--family=cue: .* has reply, all"):
    ablation.collect(files, family="cue", metrics=["responded"])


def lines_of_a_run(directory):
  directory.mkdir()
  lines = [dict(step=s, tokens=100.0 + s % 2, loss=1.0) for s in range(1, 9)]
  lines += [{"step": s, "eval/responded": s / 10} for s in (4, 8)]
  lines.append({"step": 4, "eval/responded": 0.3})  # it ran again
  text = "\n".join(map(json.dumps, lines)) + '\n{"step": 9, "tok'
  (directory / "metrics.jsonl").write_text(text)


def test_overview_names_all_that_makes_a_row():
  rows = ROWS | {
    "c": ablation.Row(
      question="second?",
      changes={"model.d_model": 8, "model.d_ff": 9},
      run="b",
      evaluate=("--endpoint=0.3",),
    )
  }
  text = ablation.overview(rows, as_flag=lambda path, value: f"{path}={value}")
  assert text.splitlines()[-1] == (
    "| `c` | second? | `model.d_model=8 model.d_ff=9 --endpoint=0.3`,"
    " evaluates the run of `b` |"
  )


def test_curves_of_a_run(tmp_path):
  lines_of_a_run(tmp_path / "run")
  found = curve.read(tmp_path / "run", metrics=["responded", "mel_db"])
  np.testing.assert_array_equal(found.tokens, [402.0, 804.0])
  np.testing.assert_allclose(found.values["responded"], [30, 80])
  assert np.isnan(found.values["mel_db"]).all()
  assert curve.last_step(tmp_path / "run") == 4  # of the last whole line
  assert curve.last_step(tmp_path) == 0
  assert not len(curve.read(tmp_path, metrics=["responded"]).tokens)


def test_a_metrics_line_that_was_cut_and_written_on(tmp_path):
  lines_of_a_run(tmp_path / "run")
  with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
    file.write('{"step": 10, "tokens": 1.0}\n[1]\n{"step": "x"}\n')
  assert curve.last_step(tmp_path / "run") == 4
  found = curve.read(tmp_path / "run", metrics=["responded"])
  np.testing.assert_allclose(found.values["responded"], [30, 80])


def test_axes_begin_where_nothing_is_exaggerated(files):
  table = ablation.collect(files, family="all", metrics=["responded", "mel_db"])
  assert ablation_picture._limits(table, "responded") == (0.0, 102.0)
  assert ablation_picture._limits(table, "mel_db") == (0.0, None)
  below = ablation.Cell((ablation.Measured(-2.0, -3.0, 1.0, 4),))
  table.cells["a"]["mel_db"] = below
  assert ablation_picture._limits(table, "mel_db") == (-3.0, None)


def test_pictures(tmp_path, files):
  table = ablation.collect(files, family="all", metrics=["responded", "mel_db"])
  lines_of_a_run(tmp_path / "run")
  found = curve.read(tmp_path / "run", metrics=["responded", "mel_db"])
  scales = {
    "base": ablation_picture.Scale(3_000_000, [found, found]),
    "a": ablation_picture.Scale(300_000, []),
  }
  for name, draw in (
    ("rows.png", lambda path: ablation_picture.rows(table, path=path)),
    (
      "scaling.png",
      lambda path: ablation_picture.scaling(table, scales=scales, path=path),
    ),
  ):
    draw(tmp_path / name)
    assert (tmp_path / name).read_bytes()[1:4] == b"PNG"
  nothing = ablation.collect({}, family="all", metrics=["responded"])
  ablation_picture.rows(nothing, path=tmp_path / "empty.png")
