"""The reference model on TPU slices, compiled here: memory, FLOPs, bounds.

`python -m benchmarks.tpu --dir=DIR [--only=NAME,...]` runs `python -m
tml_jax.aot` for each row of ROWS, one after another, keeps the reports in DIR
and writes benchmarks/tpu.md and the table in docs/run_on_tpu.md from all
reports there. Needs `pip install .[aot]` and no TPU; nothing is timed but the
compiler. Start reading at ROWS.
"""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys

if not __package__:  # run as a file
  sys.path[0] = str(pathlib.Path(__file__).parents[1])

from absl import app, flags

from benchmarks import maxtext_tables, tpu_tried
from tml_jax.config import ExpertWeights

_DIR = flags.DEFINE_string("dir", "", "Reports, one FILE.json a row.")
_ONLY = flags.DEFINE_list("only", [], "Rows to run; empty runs all.")
_COMPILE = flags.DEFINE_bool(
  "compile", True, "Compile, or only write the tables."
)

_ROOT = pathlib.Path(__file__).parent.parent
_SMALL = "--config=experiments/interaction.py:tml_interaction_small"


@dataclasses.dataclass(frozen=True)
class Row:
  """One compiled program."""

  name: str
  flags: tuple[str, ...]

  @property
  def command(self) -> str:
    return " ".join(("python -m tml_jax.aot", *self.flags))


_FP8 = "--config.train.low_precision=trunk/.*=fp8"
_INT8 = "--config.train.low_precision=trunk/.*=int8"
_COMPARED = ("v5p-block", "v5p-save_outputs")
ROWS = (
  Row("v5p", (_SMALL, "--topology=v5p:8x8x8")),
  Row("v6e", (_SMALL, "--topology=v6e:16x16")),
  Row("v6e-int8", (_SMALL, "--topology=v6e:16x16", _INT8)),
  Row("tpu7x", (_SMALL, "--topology=tpu7x:4x8x8")),
  Row("v5p-2slices", (_SMALL, "--topology=v5p:8x8x8", "--num_slices=2")),
  # In 8 bits, as many tokens a chip; larger and smaller slices need the axes.
  Row("tpu7x-fp8", (_SMALL, "--topology=tpu7x:4x8x8", _FP8)),
  *(
    Row(
      f"tpu7x-{size}-fp8",
      (
        _SMALL,
        f"--topology=tpu7x:{size}",
        f"--config.mesh.fsdp={chips}",
        "--config.mesh.expert=2",
        f"--config.train.global_batch_size={10 * chips}",
        "--config.train.remat_policy=save_outputs",
        _FP8,
      ),
    )
    for size, chips in (("4x4x8", 128), ("8x8x8", 512))
  ),
  # Long sequences, cut over chips.
  Row("v5p-32k", (f"{_SMALL}_32k", "--topology=v5p:8x8x8")),
  Row("v5p-128k", (f"{_SMALL}_128k", "--topology=v5p:8x8x8")),
  # What MaxText's figures are compared with.
  *(
    Row(
      f"v5p-{policy}",
      (_SMALL, "--topology=v5p:8x8x8", f"--config.train.remat_policy={policy}"),
    )
    for policy in ("block", "save_outputs")
  ),
)

# Live sessions: the same weights, experts over all devices.
_TICKS = tuple(
  Row(
    f"tick-{topology.replace(':', '-')}-{sessions}-{weights}",
    (
      _SMALL,
      f"--topology={topology}",
      "--program=tick",
      f"--sessions={sessions}",
      "--config.mesh.fsdp=1",
      f"--config.mesh.expert={devices}",
      f"--config.sample.expert_weights={weights}",
    ),
  )
  for topology, devices, sessions, eight_bits in (
    ("v5p:2x2x2", 8, 16, ExpertWeights.INT8),
    ("v5p:2x2x4", 16, 16, ExpertWeights.INT8),
    ("v5p:2x2x4", 16, 64, ExpertWeights.INT8),
    ("v6e:8x8", 64, 64, ExpertWeights.INT8),
    ("tpu7x:2x2x1", 8, 16, ExpertWeights.FP8),
  )
  for weights in (ExpertWeights.MODEL, eight_bits)
)

_SWEEP = tuple(
  Row(name, (_SMALL, *flags)) for name, flags in tpu_tried.FLAGS.items()
)
_ALL = (*ROWS, *_SWEEP, *_TICKS)


def run(row: Row, *, directory: pathlib.Path) -> None:
  """Compiles a row; its report or its refusal lands in `directory`."""
  report = directory / f"{row.name}.json"
  report.unlink(missing_ok=True)
  result = subprocess.run(
    [sys.executable, "-m", "tml_jax.aot", *row.flags, f"--json={report}"],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  print(result.stdout or result.stderr, flush=True)
  if not report.exists():
    lines = [x for x in result.stderr.splitlines() if x and "] " not in x]
    refusal = {"status": result.returncode, "message": lines[:12]}
    report.write_text(json.dumps(refusal, indent=2) + "\n")


def read(directory: pathlib.Path) -> dict[str, dict]:
  """The reports in `directory` by the name of their row."""
  reports = {}
  for row in _ALL:
    path = directory / f"{row.name}.json"
    if path.exists():
      reports[row.name] = json.loads(path.read_text())
  return reports


def tables(reports: dict[str, dict], *, of_maxtext: list[str]) -> str:
  """benchmarks/tpu.md; `of_maxtext` is its last section."""
  return "\n".join(
    [
      *_HEAD,
      "",
      *_main_table(reports),
      "",
      *tpu_tried.sections(reports, directory=_ROOT / "benchmarks"),
      "",
      *_host(reports),
      *_parts(reports),
      *_published(reports),
      *_live(reports),
      *of_maxtext,
    ]
  )


_HEAD = """# The reference model on TPU slices

Nothing here ran on a TPU. libtpu compiled the train step for slices that are
not there, on a machine without one; `python -m benchmarks.tpu --dir=DIR` does
it again and writes this file. Reports are kept in DIR: rows of tpu7x in
bfloat16 and fp8 are of 8f0cfa1 and d81954e, v5p and tpu7x-8x8x8-fp8 of 193dcba,
v6e of eb929bc, which compile the same step; v6e-int8 and 98 thousand tokens a
chip are of dc3e103, which had two loops more and a bound 0.4 % lower on v5p;
the other ones are of 527d230 and of commits before it. Seconds of the compiler
are those of two cores, idle for v5p, in the other rows with reachable columns
busy with other work as well. From HBM of the v6e rows the 3.77 GiB of moments
in the host were taken off afterwards: `aot` counted them until eb929bc.

- HBM is the live peak that the compiler holds against the limit, not the sum
  of its categories.
- FLOP ratio: matrix products in the program, loops times their length, over
  those that the model needs (`tml_jax/training/flops.py`: forward, twice that
  backward, recomputation not counted). Kernels count what they state, which
  is for a full buffer.
- ICI, DCN: bytes that a chip receives in a step, inside and between slices.
- MFU bound: the model's FLOPs at peak over a least time in which every
  instruction runs at the peak of the matrix units or of HBM; first with all
  collectives hidden, then with synchronous ones exposed. No latency, no
  overhead: a bound and no prediction. MFU is of the bfloat16 peak, also where
  products are in 8 bits, which the chip multiplies at twice that rate.
- Reachable: the same two with what was measured of chips
  (`tml_jax/parallel/chips.py` has the sources): 0.82 of peak for matrix
  products that fill the matrix units, which smaller ones do not, and 7.5 us
  for each; 0.87 of HBM; collectives over the rings that the compiler chose
  and 1 us a hop; PCIe for what lies in the host. Still nothing waits for
  anything else. A dash: compiled before there was this column.""".splitlines()


def _main_table(reports: dict[str, dict]) -> list[str]:
  lines = [
    "| row | slice | chips | mesh | tokens a step | HBM, GiB | FLOP ratio |"
    " ICI, GB | DCN, GB | bound, s | MFU bound | exposed | reachable |"
    " exposed | compile, s | host, GiB |",
    "|---|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
  ]
  refused = []
  for row in ROWS:
    r = reports.get(row.name)
    if r is None:
      continue
    if "status" in r:
      refused += ["", f"`{row.command}` exits {r['status']}:", "", "```"]
      refused += [*r["message"], "```"]
      continue
    slices = f" x {r['num_slices']}" if r["num_slices"] > 1 else ""
    mesh = " ".join(f"{a} {n}" for a, n in r["mesh"].items() if n > 1)
    cells = (
      row.name,
      f"{r['topology']}{slices}",
      f"{r['chips']:,}",
      mesh,
      f"{r['tokens_per_step'] / 1e6:.1f} M / {r['accumulation_steps']}",
      f"{r['hbm_gib_per_chip']:.1f} of {r['hbm_limit_gib']:.2f}",
      f"{r['flop_ratio']:.2f}",
      f"{r['ici_gb_per_chip']:.0f}",
      f"{r['dcn_gb_per_chip']:.1f}",
      f"{r['roofline_s']:.2f}",
      f"{r['mfu_bound']:.2f}",
      f"{r['mfu_bound_exposed']:.2f}",
      _share(r, "mfu_bound_reachable"),
      _share(r, "mfu_bound_reachable_exposed"),
      f"{r['compile_s']:.0f}",
      f"{r['host_rss_gib']:.1f}",
    )
    lines.append("| " + " | ".join(cells) + " |")
  commands = ["", "Commands, in the order of the rows:", "", "```"]
  commands += [row.command for row in ROWS if row.name in reports]
  return [*lines, *commands, "```", *refused]


def _share(r: dict, key: str) -> str:
  return f"{r[key]:.2f}" if key in r else "-"


# Model, slice, MFU in percent of bfloat16 peak: what others measured, from the
# READMEs of AI-Hypercomputer/tpu-recipes (training/v5p, trillium, ironwood) and
# of AI-Hypercomputer/maxtext, autumn 2026. Data are synthetic there, and the
# recipes of mixtures in bfloat16 route at random, so balanced.
_PUBLISHED = {
  "v5p": (
    ("DeepSeek-V3 671B", "512 chips", 33.2),
    ("Llama 4 Maverick", "v5p-256", 34.9),
    ("Llama 4 Scout", "v5p-256", 49.1),
    ("Mixtral 8x7B", "", 52.6),
  ),
  "v6e": (
    ("Mixtral 8x22B, dropping", "256 chips", 36.2),
    ("Llama 3.1 70B, dense", "256 chips", 50.3),
  ),
  "tpu7x": (
    ("DeepSeek-V3 671B", "256 chips", 26.6),
    ("Qwen3-235B-A22B", "256 chips", 27.3),
    ("Gemma 4 26B", "", 25.7),
    ("Llama 3.1 405B, dense", "", 54.7),
  ),
}


def _published(reports: dict[str, dict]) -> list[str]:
  """Our bounds beside what clocks said of others."""
  lines = [
    "## How far bounds are from clocks",
    "",
    "What others measured, in percent of bfloat16 peak, beside our bounds for",
    "the same chip. Models and batches differ; whoever reads a bound as a",
    "prediction sees here by how much that is wrong. Sources: READMEs of",
    "AI-Hypercomputer/tpu-recipes and AI-Hypercomputer/maxtext, autumn 2026,",
    "synthetic data, experts balanced by random routing.",
    "",
    "| chip | ours: bound, exposed | reachable, exposed | measured by others |",
    "|---|--:|--:|---|",
  ]
  for family, rows in _PUBLISHED.items():
    r = reports.get(family, {"status": 1})
    ours = "status" not in r
    measured = ", ".join(
      f"{model}{f' on {where}' if where else ''} {mfu}"
      for model, where, mfu in rows
    )
    cells = [
      f"{100 * r[key]:.0f}" if ours and key in r else "-"
      for key in ("mfu_bound_exposed", "mfu_bound_reachable_exposed")
    ]
    lines.append(f"| {family} | {cells[0]} | {cells[1]} | {measured} |")
  return [*lines, ""]


def _live(reports: dict[str, dict]) -> list[str]:
  """Ticks of live sessions against the 200 ms that one may take."""
  lines = [
    "## Live sessions",
    "",
    "`--program=tick`: one window of so many sessions, their caches as full as",
    "they get (`sample.horizon` positions of global layers), weights in",
    "bfloat16, routed experts as `sample.expert_weights` says. One output",
    "token is counted in the bounds, each further one costs about what is",
    "written behind them, five in a window are many. Bytes are all of HBM of a",
    "chip, as if kernels read every expert each time; they read the chosen",
    "ones (moe_tpu.md). 8 bits are those that the chip multiplies: of the",
    "others libtpu 0.0.42 writes float32 out first, six times the bytes.",
    "",
    "| slice | chips | mesh | sessions | experts | HBM, GiB | cache, GiB |"
    " read and written, GB | bound, ms | exposed, ms | of it a token, ms |"
    " 5 tokens, ms | compile, s |",
    "|---|--:|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|",
  ]
  commands = []
  for row in _TICKS:
    r = reports.get(row.name)
    if r is None:
      continue
    commands.append(row.command)
    if "status" in r:
      commands += [f"# exits {r['status']}: {r['message'][0]}"]
      continue
    exposed, token = r["roofline"]["exposed_total_s"], _token_seconds(r)
    cells = (
      r["topology"],
      f"{r['chips']:,}",
      " ".join(f"{a} {n}" for a, n in r["mesh"].items() if n > 1),
      f"{r['sessions']}",
      _experts(row),
      f"{r['hbm_gib_per_chip']:.1f} of {r['hbm_limit_gib']:.2f}",
      f"{r['hbm_by_category_gib']['cache']:.2f}",
      f"{r['hbm_gb_moved_per_chip']:.1f}",
      f"{1000 * r['roofline_s']:.1f}",
      f"{1000 * exposed:.1f}",
      f"{1000 * token:.1f}",
      f"{1000 * (exposed + 4 * token):.0f}",
      f"{r['compile_s']:.0f}",
    )
    lines.append("| " + " | ".join(cells) + " |")
  return [*lines, "", "```", *commands, "```", ""] if commands else []


def _experts(row: Row) -> str:
  """What they are held in."""
  weights = row.flags[-1].rpartition("=")[2]
  return "bfloat16" if weights == ExpertWeights.MODEL else weights


def _token_seconds(r: dict) -> float:
  """Of the loop that draws and reads output tokens, one turn of it."""
  return sum(
    part["seconds"]
    for part in r["by_module"]
    if part["scope"].split("/")[0] == "token"
  )


def _host(reports: dict[str, dict]) -> list[str]:
  """Steps that keep something in the memory of hosts."""
  kept = {
    name: r for name, r in reports.items() if r.get("host_gb_per_chip", 0)
  }
  if not kept:
    return []
  lines = [
    "## In the memory of hosts",
    "",
    "GB that a chip sends and receives in a step, the seconds that PCIe needs",
    "for them at least, beside those of the step with synchronous collectives",
    "exposed. The second does not hold the first: add it, where moments wait.",
    "",
    "| row | HBM, GiB | of it optimizer | over PCIe, GB | PCIe, s | step, s |",
    "|---|--:|--:|--:|--:|--:|",
  ]
  for name, r in kept.items():
    cells = (
      name,
      f"{r['hbm_gib_per_chip']:.2f} of {r['hbm_limit_gib']:.2f}",
      f"{r['hbm_by_category_gib'].get('opt_state', 0):.2f}",
      f"{r['host_gb_per_chip']:.1f}",
      f"{r['roofline']['host_s']:.2f}",
      f"{r['roofline']['exposed_total_s']:.2f}",
    )
    lines.append("| " + " | ".join(cells) + " |")
  return [*lines, "", *_HOST_TRIED, ""]


# `medium` on v5p:2x2x2, whose reports are not kept.
_HOST_TRIED = """`train.optim.offload_moments` gains little for `medium` on
v5p:2x2x2: 50.2 GiB before, 48.5 to 54.0 with 5.5 GiB of moments in the host, as
most is needed in the update. 11.8 GB travel, 0.74 s of 7.3.""".splitlines()


def _parts(reports: dict[str, dict]) -> list[str]:
  """Where memory and time go, a section for each row."""
  lines = []
  for name, r in reports.items():
    if "status" in r or r["program"] == "tick" or name in tpu_tried.FLAGS:
      continue
    memory = ", ".join(
      f"{part.replace('_', ' ')} {size:.2f}"
      for part, size in r["hbm_by_category_gib"].items()
    )
    times = [
      ", ".join(
        f"{part.removesuffix('_s').replace('_', ' ')} {seconds:.2f}"
        for part, seconds in r[key].items()
      )
      for key in ("roofline", "roofline_reachable")
      if key in r
    ]
    lines += [
      f"## {name}",
      "",
      f"HBM, GiB: {memory}.",
      f"Seconds: {times[0]}.",
      *(f"Reachable: {line}." for line in times[1:]),
      "",
      "| collective | axes | mode | times | ICI, GB | DCN, GB | seconds |",
      "|---|---|---|--:|--:|--:|--:|",
    ]
    for c in r["collectives"][:8]:
      mode = "asynchronous" if c["asynchronous"] else "synchronous"
      lines.append(
        f"| {c['kind']} | {' + '.join(c['axes'])} | {mode} | {c['count']:,} |"
        f" {c['ici_gb']:.1f} | {c['dcn_gb']:.2f} | {c['seconds']:.3f} |"
      )
    for kernel, count in r["kernels_without_flops"].items():
      lines.append(f"\nNot in the FLOPs: {count:,} calls of {kernel}.")
    loops = collections.Counter(
      "/".join(loop.split("/")[-3:]) for loop in r["loops_of_unknown_length"]
    )
    for loop, count in loops.items():
      lines.append(
        f"\nCounted once, their length depends on the data: {count} loops"
        f" `.../{loop}`."
      )
    lines.append("")
  return lines


# Lines of docs/run_on_tpu.md; what is between them is written here.
_BEGIN = "<!-- begin: written by benchmarks/tpu.py -->"
_END = "<!-- end: written by benchmarks/tpu.py -->"


def run_table(reports: dict[str, dict]) -> list[str]:
  """What a slice can do at most, for whoever chooses one.

  Tokens a day are those of the roofline's time for a step, with collectives
  hidden and with synchronous ones exposed: bounds, as nothing was timed.
  """
  lines = [
    "| model | slice | chips | global batch, tokens | HBM a chip, GiB |"
    " MFU bound | exposed | tokens a day, bound | exposed |",
    "|---|---|--:|--:|--:|--:|--:|--:|--:|",
  ]
  for name, r in reports.items():
    # Refused, or nothing to train with.
    if "status" in r or r["program"] == "tick":
      continue
    if name in _COMPARED or name in tpu_tried.FLAGS:
      continue
    slices = f" x {r['num_slices']}" if r["num_slices"] > 1 else ""
    tokens_a_day = r["tokens_per_step"] / r["roofline_s"] * 24 * 3600
    exposed = r["mfu_bound_exposed"] / r["mfu_bound"]
    eight_bits = name.rpartition("-")[2]
    in_8_bits = f", {eight_bits}" if eight_bits in ("fp8", "int8") else ""
    cells = (
      f"`{r['config']}`{in_8_bits}",
      f"{r['topology']}{slices}",
      f"{r['chips']:,}",
      f"{r['tokens_per_step'] / 1e6:.1f} M",
      f"{r['hbm_gib_per_chip']:.1f} of {r['hbm_limit_gib']:.2f}",
      f"{r['mfu_bound']:.2f}",
      f"{r['mfu_bound_exposed']:.2f}",
      f"{tokens_a_day / 1e9:.1f} G",
      f"{tokens_a_day * exposed / 1e9:.1f} G",
    )
    lines.append("| " + " | ".join(cells) + " |")
  return lines


def with_run_table(text: str, *, reports: dict[str, dict]) -> str:
  """docs/run_on_tpu.md with its table from `reports`.

  Raises:
    ValueError: not exactly one pair of marker lines.
  """
  if text.count(f"{_BEGIN}\n") != 1 or text.count(f"{_END}\n") != 1:
    raise ValueError(f"there must be one line {_BEGIN!r} and one {_END!r}")
  before, rest = text.split(f"{_BEGIN}\n")
  after = rest.split(f"{_END}\n")[1]
  table = "\n".join(run_table(reports))
  return f"{before}{_BEGIN}\n\n{table}\n\n{_END}\n{after}"


def main(argv: list[str]) -> None:
  del argv
  if not _DIR.value:
    sys.exit("--dir is missing: name a directory for the reports")
  directory = pathlib.Path(_DIR.value)
  directory.mkdir(parents=True, exist_ok=True)
  names = [row.name for row in _ALL]
  for name in _ONLY.value:
    if name not in names:
      sys.exit(f"--only={name}: write one of {', '.join(names)}")
  for row in _ALL:
    if _COMPILE.value and (not _ONLY.value or row.name in _ONLY.value):
      run(row, directory=directory)
  reports = read(directory)
  path = _ROOT / "benchmarks" / "tpu.md"
  if theirs := maxtext_tables.read(directory):
    of_maxtext = maxtext_tables.section(reports, theirs)
  else:  # compiled by another command, perhaps into another directory
    of_maxtext = maxtext_tables.kept(path.read_text(encoding="utf-8"))
  text = tables(reports, of_maxtext=of_maxtext) + "\n"
  path.write_text(text, encoding="utf-8")
  docs = _ROOT / "docs" / "run_on_tpu.md"
  text = with_run_table(docs.read_text(encoding="utf-8"), reports=reports)
  docs.write_text(text, encoding="utf-8")


if __name__ == "__main__":
  app.run(main)
