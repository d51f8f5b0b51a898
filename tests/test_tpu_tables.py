"""Tables that benchmarks/tpu.py writes from reports of `tml_jax.aot`."""

import pytest

from benchmarks import compile_cost, tpu, tpu_tried
from tests.helpers import commands
from tml_jax.compiled import hlo

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


def test_a_compilers_work_is_told_by_the_part_of_the_model():
  path = "trunk/blocks/while/body/layers_0_4/attention/attention._project/neg"
  program = hlo.parse(f"""HloModule jit_step, is_scheduled=true

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %fusion.1 = f32[8]{{0}} negate(%x), metadata={{op_name="jit(step)/{path}"}}
  %fusion.2 = f32[8]{{0}} negate(%x), metadata={{op_name="vmap()/{path}"}}
  ROOT %copy.7 = f32[8]{{0}} copy(%fusion.2)
}}
""")
  log = "\n".join(
    f"I1201 04:00:00.0 17 b.cc:1] [{name}] LLO optimizing {n} instructions"
    for name, n in (
      ("fusion.1", "2,000"),
      ("fusion.2", "30"),
      ("fusion.1", "500"),  # again, in another form
      ("copy.7", "4,000"),
      ("<no-hlo-instruction>", "7"),
    )
  )
  assert compile_cost.parts(log, program=program) == [
    ("made by the compiler", 1, 4000),
    ("attention/project", 3, 2530),
    ("main program", 1, 7),
  ]


def test_what_was_tried_is_told_with_its_failures(tmp_path):
  report = REPORT | {
    "ici_gb_per_chip": 1342.0,
    "roofline": {"ici_s": 2.44, "instructions_s": 3.65},
    "roofline_s": 3.65,
    "collectives": [
      {"axes": ["fsdp"], "seconds": 2.0},
      {"axes": ["expert"], "seconds": 0.44},
    ],
    "mfu_bound_reachable_exposed": 0.48,
  }
  refusal = {"status": 3, "message": ["a device needs 1 GiB too much"]}
  reports = {"tpu7x-fp8": report, "tpu7x-expert8-2560": refusal}
  lines = tpu_tried.sections(reports, directory=tmp_path)
  rows = (line.split(" | ") for line in lines if "81,920 |" in line)
  row, refused = (line for line in rows if len(line) == 9)
  assert row[1] == "81,920" and row[3:5] == ["1,342", "2.44"]
  assert refused[1:3] == ["81,920", "a device needs 1 GiB too much"]
  # Half the tokens: 1.83 s of instructions, 2 + 0.22 of ICI.
  half = tpu_tried.bound_at(40960, report, compiled=81920)
  assert half == pytest.approx(0.6 * 0.5 * 3.65 / 2.22)
  assert tpu_tried.bound_at(81920, report, compiled=81920) == 0.6
  assert (tmp_path / tpu_tried.PICTURE).read_bytes()[:4] == b"\x89PNG"
