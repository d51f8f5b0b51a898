"""What an evaluation leaves, also where it is ended in between."""

import json

import pytest

from tests.helpers import drawn, small
from tests.helpers.drawn import asks
from tml_jax.evals import archive, conditions, written
from tml_jax.evals.metrics import panel
from tml_jax.evals.report import Scored
from tml_jax.logs import columns
from tml_jax.streams.annotation import Kind

_LOG = drawn.log("uu.aa..uu...aa..", asks(Kind.TURN, 0, 2, text="yes"))
_SCORED = Scored(
  "turns",
  log=_LOG,
  series={panel.MODEL: panel.measure(_LOG)},
  columns={panel.MODEL: columns.of(_LOG)},
)
_REPORT = drawn.report([_SCORED])


def _write(output, *, step):
  written.write(
    {conditions.PLAIN: archive.Part(_REPORT)},
    config=small.config({}),
    source={"config": "small", "step": step, "agent": "duplex"},
    output=output,
    packs=True,
    seconds=1.0,
    title="a title",
    sound={},
  )


def test_numbers_come_last(tmp_path, capsys):
  """Where the archive cannot be written there are none, also no old ones."""
  output = tmp_path / "evaluation.json"
  _write(output, step=1)
  numbers = json.loads(output.read_text())
  assert archive.beside(output).numbers["step"] == numbers["step"] == 1
  assert archive.read(output.with_suffix(".xz")).numbers() == numbers
  assert f"wrote {output}" in capsys.readouterr().out
  packed = output.with_suffix(".xz")
  packed.unlink()
  (packed / "in the way").mkdir(parents=True)
  with pytest.raises(OSError, match="directory"):
    _write(output, step=2)
  assert not output.exists()
