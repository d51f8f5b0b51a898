"""Tables that benchmarks/tpu.py writes from reports of `tml_jax.aot`."""

import pytest

from benchmarks import tpu
from tests.helpers import commands

REPORT = {
  "config": "medium",
  "program": "step",
  "topology": "v5p:8x8x8",
  "num_slices": 2,
  "chips": 1024,
  "tokens_per_step": 8_000_000,
  "hbm_gib_per_chip": 61.04,
  "hbm_limit_gib": 95.74,
  "mfu_bound": 0.6,
  "mfu_bound_exposed": 0.5,
  "roofline_s": 4.0,
}


def test_tokens_a_day_are_those_of_the_bound():
  _, _, row = tpu.run_table({"a": REPORT, "b": {"status": 3, "message": []}})
  cells = [cell.strip() for cell in row.split("|")[1:-1]]
  # 8 M tokens in 4 s: 2 M a second, 172.8 G in 86,400 s; 5/6 of it exposed.
  assert cells == [
    "`medium`",
    "v5p:8x8x8 x 2",
    "1,024",
    "8.0 M",
    "61.0 of 95.74",
    "0.60",
    "0.50",
    "172.8 G",
    "144.0 G",
  ]


def test_the_table_is_put_between_its_markers_once():
  path = commands.ROOT / "docs" / "run_on_tpu.md"
  text = path.read_text(encoding="utf-8")
  once = tpu.with_run_table(text, reports={"a": REPORT})
  assert "| `medium` | v5p:8x8x8 x 2 |" in once and once != text
  assert tpu.with_run_table(once, reports={"a": REPORT}) == once
  assert once.startswith(text[: text.index("<!-- begin")])
  assert once.endswith(text[text.index("<!-- end") :])


def test_a_document_without_markers_is_refused():
  with pytest.raises(ValueError, match="there must be one line"):
    tpu.with_run_table("no markers\n", reports={"a": REPORT})
