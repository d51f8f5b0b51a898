"""`python -m tml_jax.aot`: what it refuses, reports and says does not fit."""

import importlib.util
import json
import re

import pytest

from tests.helpers import commands, small_run

CONFIG = "--config=experiments/interaction.py:tiny"
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install '.[aot]'",
)
# One layer and narrow: compiles in seconds.
SMALL = (
  CONFIG,
  *(flag for flag in small_run.FLAGS if "model." in flag),
  "--config.train.global_batch_size=8",
)
KEYS = """topology chips tokens_per_step params_total params_active
hbm_gib_per_chip hbm_limit_gib flops_per_chip model_flops_per_chip flop_ratio
ici_gb_per_chip roofline_s mfu_bound mfu_bound_reachable
mfu_bound_reachable_exposed compile_s host_rss_gib""".split()


def _aot(*flags: str, timeout: float = 120.0):
  return commands.run("-m", "tml_jax.aot", *flags, timeout=timeout)


def _refused(result, message: str) -> None:
  assert result.returncode == 2, result.stderr
  assert message in result.stderr
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: ")


@pytest.mark.parametrize(
  "flags, message",
  [
    ([CONFIG], "--topology is missing"),
    ([CONFIG, "--topology=v7x:2x2"], "no rules for 'v7x'"),
    ([CONFIG, "--topology=cpu:8"], "FAMILY one of v5p, v6e, tpu7x"),
    (
      [CONFIG + "@v5p:2x2x1", "--topology=v5p:2x2x2"],
      "name two places",
    ),
    (
      [CONFIG, "--topology=v5p:2x2x1", "--json=/nowhere/a.json"],
      "--json=/nowhere/a.json cannot be written (No such file",
    ),
  ],
  ids=["no topology", "unknown family", "not a TPU", "two places", "json"],
)
def test_bad_flags_exit_2_in_one_line(flags, message):
  _refused(_aot(*flags), message)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
  "flags, message",
  [
    (["--topology=v5p:3x2x2"], "not divisible"),
    (["--topology=v5p:2x2x1"], "need 1 devices and there are 4"),
    (
      ["--topology=v5p:4x4x4", "--config.mesh.fsdp=8", "--config.mesh.data=8"],
      "do not lie on the torus of the 64 devices",
    ),
    (
      [
        "--topology=v5p:2x2x1",
        "--config.mesh.seq=4",
        "--config.streams.seq_len=770",
      ],
      "streams.seq_len = 770: cannot be cut into 4 equal pieces",
    ),
    (
      ["--topology=v5p:2x2x1", "--config.mesh.fsdp=4"],
      "microbatch",
    ),
  ],
)
def test_bad_meshes_exit_2_before_tracing(flags, message):
  if message == "microbatch":
    flags = [*flags, "--config.train.global_batch_size=6"]
    flags += ["--config.data.logical_shards=2"]
    message = "of size 6 cannot be split over 4 devices"
  _refused(_aot(CONFIG, *flags), message)


@needs_libtpu
@pytest.mark.slow
def test_a_state_that_cannot_fit_exits_2_before_tracing():
  result = _aot(
    "--config=experiments/interaction.py:tml_interaction_small",
    "--topology=v5p:2x2x1",
    "--config.mesh.expert=1",
    "--config.mesh.fsdp=4",
  )
  _refused(result, "GiB of a device before any activation")


@needs_libtpu
@pytest.mark.slow
def test_an_unknown_compiler_option_exits_2():
  result = _aot(
    *SMALL,
    "--topology=v5p:2x2x1",
    "--config.mesh.fsdp=4",
    "--config.mesh.compiler_options=xla_tpu_bogus=true",
  )
  assert result.returncode == 2, result.stderr
  assert "No such compile option: 'xla_tpu_bogus'" in result.stderr


@needs_libtpu
@pytest.mark.slow
def test_the_report_of_a_step_that_fits(tmp_path):
  path = tmp_path / "report.json"
  result = _aot(
    *SMALL,
    "--topology=v5p:2x2x2",
    "--config.mesh.fsdp=4",
    "--config.mesh.data=2",
    f"--json={path}",
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  report = json.loads(path.read_text())
  assert set(KEYS) <= report.keys()
  assert (report["topology"], report["chips"]) == ("v5p:2x2x2", 8)
  assert report["tokens_per_step"] == 8 * 768
  assert 0 < report["hbm_gib_per_chip"] < report["hbm_limit_gib"] == 95.74
  parts = report["hbm_by_category_gib"]
  assert sum(parts.values()) == pytest.approx(report["hbm_gib_per_chip"])
  assert {tuple(c["axes"]) for c in report["collectives"]} >= {("fsdp",)}
  assert report["ici_gb_per_chip"] > 0 and report["dcn_gb_per_chip"] == 0
  assert 0 < report["mfu_bound"] <= 1
  modules = report["by_module"]
  assert sum(m["flops"] for m in modules) == pytest.approx(
    report["flops_per_chip"]
  )
  assert sum(m["seconds"] for m in modules) == pytest.approx(
    report["roofline"]["instructions_s"]
  )
  assert sum(m["exchanged_gb"] for m in modules) == pytest.approx(
    report["ici_gb_per_chip"]
  )
  passes = {m["pass"] for m in modules if "attention" in m["scope"]}
  assert {"forward", "backward"} <= passes
  assert report["mfu_bound_exposed"] <= report["mfu_bound"]
  reachable = report["mfu_bound_reachable"]
  assert 0 < report["mfu_bound_reachable_exposed"] <= reachable
  assert reachable <= 0.82 and reachable < report["mfu_bound"]
  assert report["host_gb_per_chip"] == 0
  for line in ("live peak", "MFU bound", "all-gather"):
    assert line in result.stdout


@needs_libtpu
@pytest.mark.slow
def test_moments_in_the_host_are_read_and_written_once(tmp_path):
  reports = []
  for offload in ("false", "true"):
    path = tmp_path / f"{offload}.json"
    result = _aot(
      *SMALL,
      "--topology=v5p:2x2x1",
      "--config.mesh.fsdp=4",
      f"--config.train.optim.offload_moments={offload}",
      f"--json={path}",
      timeout=600,
    )
    assert result.returncode == 0, result.stderr
    reports.append(json.loads(path.read_text()))
  here, there = reports
  moments = here["hbm_by_category_gib"]["opt_state"] * 2**30
  assert there["hbm_by_category_gib"]["opt_state"] < moments / 2**30 / 1000
  assert here["host_gb_per_chip"] == 0
  assert there["host_gb_per_chip"] == pytest.approx(2 * moments / 1e9, rel=0.01)


@needs_libtpu
@pytest.mark.slow
def test_slices_exchange_over_the_network(tmp_path):
  path = tmp_path / "report.json"
  result = _aot(
    *SMALL,
    "--topology=v5p:2x2x1",
    "--num_slices=2",
    "--config.mesh.data=2",
    "--config.mesh.fsdp=4",
    f"--json={path}",
    timeout=600,
  )
  assert result.returncode == 0, result.stderr
  report = json.loads(path.read_text())
  assert (report["num_slices"], report["chips"]) == (2, 8)
  assert report["dcn_gb_per_chip"] > 0
  crossing = [c for c in report["collectives"] if c["dcn_gb"]]
  assert all("data" in c["axes"] for c in crossing)


@needs_libtpu
@pytest.mark.slow
def test_a_step_that_does_not_fit_exits_3():
  result = _aot(
    *SMALL,
    "--config.train.global_batch_size=65536",
    "--topology=v6e:2x2",
    "--config.mesh.fsdp=4",
    timeout=600,
  )
  assert result.returncode == 3, result.stderr
  assert "does not fit: a device of v6e:2x2 needs" in result.stderr
  assert "31.25" in result.stderr and "GiB too much" in result.stderr
  assert "largest tensors at the peak" in result.stderr
  assert re.search(r"GiB (f32|bf16)\[[\d,]+\] +x\d+ +jit", result.stderr)
