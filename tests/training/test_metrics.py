"""What is written down of a step."""

import json
import math

from tml_jax import workdir
from tml_jax.training import metrics


def test_what_was_not_measured_is_left_out(tmp_path):
  writer = metrics.Writer(str(tmp_path))
  writer.write(3, {"loss": 1.5, "eval/latency_median": math.nan})
  writer.write(4, {"loss": 1.25})
  writer.close()
  lines = (tmp_path / workdir.METRICS).read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {"step": 3, "loss": 1.5},
    {"step": 4, "loss": 1.25},
  ]


def test_a_line_after_one_that_was_cut(tmp_path):
  path = tmp_path / workdir.METRICS
  path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "eval/mel_d')
  writer = metrics.Writer(str(tmp_path))
  writer.write(3, {"eval/mel_db": 1.0})
  writer.close()
  assert json.loads(path.read_text().splitlines()[-1])["step"] == 3
  found = [metrics.is_evaluated(str(tmp_path), step=s) for s in (1, 2, 3)]
  assert found == [False, False, True]
