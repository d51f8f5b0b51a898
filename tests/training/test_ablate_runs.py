"""`python -m tml_jax.ablate` with real runs, very small ones."""

import json
import os

import pytest

from tests.helpers import commands
from tml_jax.evals import ablation
from tml_jax.evals.metrics import panel


@pytest.mark.slow
def test_three_rows_end_to_end(tmp_path, data_dir):
  """Trained, evaluated, tabulated; cut, and gone on with."""
  flags = (
    "-m",
    "tml_jax.ablate",
    "--rows=base,load_balance_loss,flow_1",
    "--seeds=1",
    f"--data_dir={data_dir}",
    f"--out={tmp_path}",
    "--evaluate_flag=--count=2",
    "--config.data.voices=procedural:low,procedural:high",
    "--config.data.logical_shards=2",
    "--config.data.group_size=2",
    "--config.model.num_layers=1",
    "--config.model.d_model=32",
    "--config.model.expert_d_ff=32",
    "--config.model.flow.width=32",
    "--config.model.flow.depth=1",
    "--config.train.global_batch_size=2",
    "--config.train.log_every=1",
  )
  result = commands.run(*flags, "--steps=2", timeout=600)
  assert result.returncode == 0, result.stderr[-3000:]
  files = [
    tmp_path / row / "seed_0" / "evaluation.json"
    for row in ("base", "load_balance_loss", "flow_1")
  ]
  first = [ablation.read(path) for path in files]
  assert [r.step for r in first] == [2, 2, 2]
  assert first[2].config == first[0].config
  base, _, one_step = (result.families[panel.ALL] for result in first)
  assert one_step["mel_db"] != base["mel_db"]
  assert one_step["text_loss"] == base["text_loss"]
  assert not (tmp_path / "flow_1" / "seed_0" / "checkpoints").exists()
  times = [os.stat(path).st_mtime_ns for path in files]

  # All is there: nothing runs.
  result = commands.run(*flags, "--steps=2", timeout=60)
  assert result.returncode == 0, result.stderr[-3000:]
  assert [os.stat(path).st_mtime_ns for path in files] == times
  # One result is lost, and all runs are to go on to a third step.
  files[1].unlink()
  result = commands.run(*flags, "--steps=3", timeout=600)
  assert result.returncode == 0, result.stderr[-3000:]
  assert [ablation.read(path).step for path in files] == [3, 3, 3]
  steps = [
    json.loads(line)["step"]
    for line in (tmp_path / "base/seed_0/metrics.jsonl").read_text().split("\n")
    if line
  ]
  assert steps == [1, 2, 3]  # continued, not started again
