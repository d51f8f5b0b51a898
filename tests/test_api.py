"""Every block of docs/api.md, in order, on a run of two steps."""

import re

import jax
import numpy as np
import pytest

from tests.helpers import commands, plugin_files, small

GUIDE = commands.ROOT / "docs" / "api.md"
PLUGINS = ("twice", "read_aloud", "at_once")


@pytest.mark.slow
def test_the_guide_runs(tmp_path, data_dir, monkeypatch, registries):
  run = tmp_path / "run"
  result = commands.run(
    "-m",
    "tml_jax.train",
    *small.flags(),
    "--config.train.steps=2",
    f"--data_dir={data_dir}",
    f"--workdir={run}",
    timeout=900,
  )
  assert result.returncode == 0, result.stderr
  for name in PLUGINS:
    plugin_files.write(name, tmp_path)
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
  names = {"RUN": str(run), "DATA": str(data_dir)}
  for block in blocks:
    exec(compile(block, str(GUIDE), "exec"), names)
  # What the blocks leave says that they did what their headings promise.
  logits = names["logits_BNV"]
  assert logits.shape[-1] == names["config"].model.vocab_size
  assert np.isfinite(np.asarray(logits)).all()
  assert names["sound"].shape == (names["samples"],)
  assert int(names["state"].step) == 3
  assert names["timeline"].id.endswith(")") and "twice" in names["timeline"].id
  assert len(blocks) == 6
  assert len(jax.devices()) == 8  # the guide takes the first
