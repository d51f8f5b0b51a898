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
