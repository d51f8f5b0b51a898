"""Reports of MaxText's programs, without MaxText."""

import json
import lzma
import sys

import pytest

from benchmarks import (
  maxtext_ours,
  maxtext_process,
  maxtext_report,
  maxtext_rows,
  maxtext_tables,
)
from tests.helpers import commands
from tml_jax import errors
from tml_jax.compiled import hlo
from tml_jax.parallel import chips

ROW = maxtext_rows.Row(
  name="maxtext-tiny",
  topology="v5p:2x2x1",
  compile_topology="v5p-8",
  tokens=2048,
  devices=1,
  note="FSDP 4",
  flags=(),
)
MODEL = {
  "emb_dim": 64,
  "num_decoder_layers": 3,
  "num_query_heads": 4,
  "num_kv_heads": 2,
  "head_dim": 16,
  "vocab_size": 100,
  "num_experts": 8,
  "num_experts_per_tok": 2,
  "moe_mlp_dim": 32,
  "max_target_length": 1024,
  "per_device_batch_size": 2,
  "gradient_accumulation_steps": 1,
}
ABOUT = {
  "model": MODEL,
  "mesh_shape": [1, 4],
  "mesh_names": ["data", "fsdp"],
  "coords": [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]],
  "memory": {
    "argument_size_in_bytes": 2**30,
    "temp_size_in_bytes": 2**30,
    "peak_memory_in_bytes": 2**31,
  },
  "versions": {"maxtext": "0.0", "jax": "0.0", "flax": "0.0"},
  "lower_s": 1.0,
  "compile_s": 2.0,
  "host_rss_gib": 3.0,
}
# A product of 2 * 128 * 512 * 256 FLOPs, its operand gathered from four
# devices; attention in the words of splash, which states nothing.
PROGRAM = """ENTRY %main (x: bf16[128,512], w: bf16[128,256]) -> bf16[128,256] {
  %x = bf16[128,512]{1,0} parameter(0)
  %w = bf16[128,256]{1,0} parameter(1)
  %all = bf16[512,256]{1,0} all-gather(%w), replica_groups={{0,1,2,3}}, \
dimensions={0}
  %y = bf16[128,256]{1,0} dot(%x, %all), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
  %splash_mha_fwd_segmented_residuals.2 = bf16[128,256]{1,0} custom-call(%y), \
custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="jit(f)/splash_mha_fwd_segmented_residuals/pallas_call"}
  ROOT %r = bf16[128,256]{1,0} copy(%splash_mha_fwd_segmented_residuals.2)
}
"""
PRODUCT = 2 * 128 * 512 * 256
SCORES = 2 * 2 * 16 * 4 * 2 * 1024**2 / 2  # two products, heads, sequences


def _report(directory) -> dict:
  described, program = maxtext_process.program_files(
    ROW.name, directory=directory
  )
  described.write_text(json.dumps(ABOUT))
  with lzma.open(program, "wt") as file:
    file.write(PROGRAM)
  return maxtext_report.read(ROW, directory=directory)


def test_a_program_is_read_as_ours_are(tmp_path):
  report = _report(tmp_path)
  assert report["mesh"] == {"data": 1, "fsdp": 4}
  assert report["tokens_per_step"] == 4 * 2048
  assert report["hbm_gib_per_chip"] == 2.0
  assert report["ici_gb_per_chip"] == pytest.approx(512 * 256 * 2 * 0.75 / 1e9)
  assert [c["axes"] for c in report["collectives"]] == [["fsdp"]]
  assert report["compile_s"] == 2.0


def test_attention_that_states_nothing_is_added_and_said(tmp_path):
  report = _report(tmp_path)
  assert report["flops_per_chip"] == PRODUCT + SCORES
  assert report["as_read"]["flops_per_chip"] == PRODUCT
  bound = "mfu_bound_exposed"
  assert report[bound] < report["as_read"][bound]
  assert report["kernels_without_flops"] == {
    "splash_mha_fwd_segmented_residuals/pallas_call": 1
  }
  assert report["attention_counted_here"] == {
    "splash_mha_fwd_segmented_residuals": SCORES
  }


def test_flops_needed_are_those_of_its_own_model():
  layer = 2 * 64 * (2 * 64 + 2 * 32)  # queries and what they see; keys, values
  layer += 2 * 2 * 64 * 512  # half of the sequence
  layer += 2 * 3 * 64 * 32 * 2 + 2 * 64 * 8  # two experts, the router
  want = 3 * 5 * (3 * layer + 2 * 64 * 100)
  assert maxtext_report.model_flops(MODEL, tokens=5) == want


def test_products_of_one_column_are_told_apart():
  text = """ENTRY %e (a: bf16[256,512], b: bf16[512,1]) -> bf16[256,1] {
  %a = bf16[256,512]{1,0} parameter(0)
  %b = bf16[512,1]{1,0} parameter(1)
  ROOT %c = bf16[256,1]{1,0} dot(%a, %b), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
}
"""
  chip = chips.CHIPS["v5p"]
  extra = maxtext_report.filled_narrow_s(hlo.parse(text), chip=chip)
  want = 2 * 256 * 512 * 127 / (chips.REACHED.matmul * chip.peak_flops)
  assert extra == pytest.approx(want)
  assert not maxtext_report.filled_narrow_s(hlo.parse(PROGRAM), chip=chip)


def test_other_tokens_than_the_row_says_are_an_error(tmp_path):
  _report(tmp_path)
  described, _ = maxtext_process.program_files(ROW.name, directory=tmp_path)
  about = ABOUT | {"model": MODEL | {"per_device_batch_size": 1}}
  described.write_text(json.dumps(about))
  with pytest.raises(ValueError, match="maxtext-tiny: 4096 tokens on 4 chips"):
    maxtext_report.read(ROW, directory=tmp_path)


def test_a_refusal_is_a_row(tmp_path):
  described, _ = maxtext_process.program_files(ROW.name, directory=tmp_path)
  said = (
    "JaxRuntimeError: RESOURCE_EXHAUSTED: Ran out of memory in memory space"
    " hbm. Program (32.14G) exceeds available HBM (31.25G) by 911M."
  )
  described.write_text(json.dumps({"refusal": said, "compile_s": 7.0}))
  report = maxtext_report.read(ROW, directory=tmp_path)
  assert report["status"] == 3 and report["message"] == [said]
  (line,) = maxtext_tables.rows_of([report])[2:]
  assert "| refused: 32.1 of 31.25 a device |" in line
  head = maxtext_tables.rows_of([])[0]
  assert line.count("|") == head.count("|")


def test_rows_take_the_tokens_that_they_name():
  for row in maxtext_rows.ROWS:
    (batch,) = (a for a in row.arguments if a.startswith("per_device_batch"))
    sequences = int(batch.partition("=")[2])
    assert sequences * 8192 * row.devices == row.tokens
  assert len({row.name for row in maxtext_rows.ROWS}) == len(maxtext_rows.ROWS)


def test_who_is_behind_is_said(tmp_path):
  theirs = _report(tmp_path)
  mine = {
    "config": "tml_interaction_small",
    "program": "step",
    "topology": ROW.topology,
    "num_slices": 1,
    "tokens_per_step": 4 * 2048,
    "chips": 4,
    "mesh": {"fsdp": 4},
    "hbm_gib_per_chip": 4.0,
    "hbm_limit_gib": 95.74,
    "flop_ratio": theirs["flop_ratio"] / 2,
    "ici_gb_per_chip": theirs["ici_gb_per_chip"],
    "collectives": [],
    "roofline_s": 1.0,
    "mfu_bound": 0.5,
    "mfu_bound_exposed": 0.5,
    "compile_s": 2.0,
    "host_rss_gib": 4.0,
  }
  text = "\n".join(maxtext_tables.section({"ours": mine}, {ROW.name: theirs}))
  behind, ahead, equal = text.split("We are ")[1].split("; ")[:3]
  assert "HBM a token, KiB 2,048 (MaxText 1,024)" in behind
  assert "GiB of the host 4.0 (MaxText 3.0)" in behind
  assert ahead.startswith("ahead: FLOPs over those needed")
  assert "seconds to compile 2 (MaxText 2)" in equal
  assert "jax 0.0, maxtext 0.0" in text
  half_empty = theirs | {"buffer": 2.0}
  text = "\n".join(
    maxtext_tables.section({"ours": mine}, {ROW.name: half_empty})
  )
  assert "HBM a token" in text and "FLOPs over those needed" not in text
  assert "a buffer 2 times as large as what fills it" in text
  other = mine | {"tokens_per_step": 4 * 4096}
  text = "\n".join(maxtext_tables.section({"ours": other}, {ROW.name: theirs}))
  assert "We are" not in text and "no report of ours" in text


def test_our_rows_are_read_from_the_table_or_from_newer_reports(tmp_path):
  text = """# Title

| row | slice | chips | mesh | tokens a step | HBM, GiB | FLOP ratio | ICI, GB \
| DCN, GB | bound, s | MFU bound | exposed | compile, s | host, GiB |
|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
| v5p | v5p:8x8x8 | 512 | fsdp 64 expert 8 | 8.4 M / 1 | 87.0 of 95.74 | 1.22 \
| 1,441 | 0.0 | 3.62 | 0.66 | 0.57 | 350 | 8.4 |
| two | v5p:8x8x8 x 2 | 1,024 | data 2 | 8.4 M / 1 | 56.8 of 95.74 | 1.26 \
| 346 | 1.2 | 1.88 | 0.63 | 0.49 | 828 | 12.1 |

```
python -m tml_jax.aot --config=experiments/interaction.py:some_config \
--topology=v5p:8x8x8
python -m tml_jax.aot --config=experiments/interaction.py:some_config \
--topology=v5p:8x8x8 --num_slices=2
```
"""
  (report,) = maxtext_ours.known(tmp_path, text=text).values()
  assert report["config"] == "some_config"
  assert report["mesh"] == {"fsdp": 64, "expert": 8}
  assert (report["hbm_gib_per_chip"], report["hbm_limit_gib"]) == (87.0, 95.74)
  assert report["ici_gb_per_chip"] == 1441
  assert report["mfu_bound_exposed"] == 0.57
  assert "mfu_bound_reachable" not in report
  newer = {"config": "c", "program": "step", "topology": "v5p:8x8x8"}
  (tmp_path / "v5p.json").write_text(json.dumps(newer))
  (tmp_path / "a-fp8.json").write_text(json.dumps(newer))
  (tmp_path / "maxtext-x.json").write_text(json.dumps({"program": "step"}))
  reports = maxtext_ours.known(tmp_path, text=text)
  assert list(reports) == ["v5p", "a-fp8"] and reports["v5p"] == newer


def test_rows_of_the_table_match_by_what_it_shows(tmp_path):
  theirs = _report(tmp_path) | {
    "tokens_per_chip": 16384,
    "topology": "v5p:8x8x8",
  }
  path = commands.ROOT / "benchmarks" / "tpu.md"
  ours = maxtext_ours.known(tmp_path, text=path.read_text(encoding="utf-8"))
  text = "\n".join(maxtext_tables.section(ours, {ROW.name: theirs}))
  assert f"- `v5p` against `{ROW.name}`. We are " in text
  assert "| v5p-32k |" not in text and "| v5p-2slices |" not in text


def test_only_its_section_is_replaced():
  path = commands.ROOT / "benchmarks" / "tpu.md"
  text = path.read_text(encoding="utf-8")
  once = maxtext_tables.replaced(text, section=[maxtext_tables.HEADING, "x"])
  assert once.endswith(f"\n{maxtext_tables.HEADING}\nx\n")
  assert text.startswith(once.split(maxtext_tables.HEADING)[0])
  with pytest.raises(ValueError, match="there must be one line"):
    maxtext_tables.replaced("nothing\n", section=["x"])


@pytest.mark.parametrize("value", ["", "/nowhere/bin/python", "/"])
def test_a_python_that_is_none_is_one_error(value):
  with pytest.raises(errors.UserError) as error:
    maxtext_process.check_python(value)
  assert f"--python={value}" in str(error.value)
  assert "pip install maxtext" in str(error.value)


def test_a_python_without_maxtext_is_named():
  with pytest.raises(errors.UserError, match="has no package maxtext"):
    maxtext_process.check_python(sys.executable)


def test_the_command_says_so_in_one_line(tmp_path):
  result = commands.run(
    *("-m", "benchmarks.maxtext", "--python=/nowhere", f"--dir={tmp_path}")
  )
  assert result.returncode == errors.Status.BAD_INPUT
  (line,) = result.stderr.splitlines()
  assert line.startswith("--python=/nowhere: no program is there")


def test_a_row_that_there_is_not_is_named():
  with pytest.raises(errors.UserError, match="--only=x: write one of maxtext-"):
    maxtext_rows.chosen(["x"])


def test_a_program_that_was_not_compiled_is_named(tmp_path):
  with pytest.raises(errors.UserError, match="run without --nocompile first"):
    maxtext_report.read(ROW, directory=tmp_path)
