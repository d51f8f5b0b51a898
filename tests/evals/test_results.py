"""Pages of results: every cell follows from archives, and from nothing else."""

import dataclasses
import json
import lzma
import re
import shutil

import pytest

from tests.helpers import commands, drawn
from tests.helpers.drawn import asks
from tml_jax import errors
from tml_jax.evals import archive, compared, results, results_tables
from tml_jax.evals.metrics import panel, statistics
from tml_jax.evals.report import Scored
from tml_jax.logs import columns
from tml_jax.streams.annotation import Kind

_DUE = (
  *(asks(Kind.TURN, 0, 2), asks(Kind.BACKCHANNEL, 6, 7)),
  asks(Kind.CUE, 15, 16, due=16),
)
_ANSWERS = {
  "well": "uu.aaabaaaaaa.uaaa....",
  "late": "uu....u..aaa...u......",
  "silent": "uu....u........u......",
  "stops": "uu.aaab........u......",
  "unasked": "uu.aaabaaaaa..uaa...aa",
}
_COUNT = 30


def _report(*kinds, users="reacting"):
  """User i meets an agent that does what the i-th of `kinds` says."""
  scored = []
  for i in range(_COUNT):
    of = {"seed": i, "asks": "0"}
    log = drawn.log(_ANSWERS[kinds[i % len(kinds)]], *_DUE)
    log = dataclasses.replace(log, id=f"user/{i}", provenance=of)
    scored.append(
      Scored(
        "turns",
        log=log,
        series={panel.MODEL: panel.measure(log)},
        columns={panel.MODEL: columns.of(log)},
        of=of,
      )
    )
  return drawn.report(scored)


def _with_agent(report):
  """The same beside an agent without a model, which does as well."""
  scored = [
    dataclasses.replace(
      item,
      series={name: item.series[panel.MODEL] for name in (panel.MODEL, "echo")},
      columns={
        name: item.columns[panel.MODEL] for name in (panel.MODEL, "echo")
      },
    )
    for item in report.scored
  ]
  return dataclasses.replace(report, scored=scored, agents=("echo",))


def _write(path, changed=compared.BIAS, step=5, split="heldout", **parts):
  numbers = {
    **{"config": "small", "step": step, "agent": path.parent.name, "git": "g"},
    **{"suite": "interactivity", "split": split, "users": "reacting"},
  }
  archive.write(
    path,
    head=archive.Head(numbers, command="", config="", seeds={"train": 0}),
    parts={
      name: archive.Part(report, changes={changed: i})
      for i, (name, report) in enumerate(parts.items())
    },
  )


@pytest.fixture(name="root")
def _root(tmp_path):
  """A checkout with two pages and three seeds of two arms."""
  for page in (results.FRONT, f"{results.FOLDER}/{results.PAGE}"):
    path = tmp_path / page
    path.parent.mkdir(exist_ok=True)
    path.write_text(
      f"# By hand\n\n{results.BEGIN}\nold\n{results.END}\n\nend\n"
    )
  for seed in range(3):
    for row, kinds in (
      ("base", ("well", "well", "well", "unasked")[: seed + 2]),
      # Three seeds show only what they nearly agree in.
      ("turns", ("stops",) * 29 + (("late",) if seed == 2 else ())),
    ):
      folder = tmp_path / results.FOLDER / row
      report = _report(*kinds)
      _write(folder / f"seed_{seed}.xz", plain=report, noise_0=_report("late"))
      _write(
        folder / f"sweep_{seed}.xz",
        **{"onset_bias=0": _report("silent"), "onset_bias=1": report},
      )
  return tmp_path


def _cells(line):
  return [cell.strip() for cell in line.strip("|").split("|")]


def test_pages_say_what_the_archives_say(root):
  found = results.gather(root)
  written = results.write(found, root=root)
  assert [path.name for path in written] == [
    *("README.md", "README.md", "traded.png")
  ]
  results.check(found, root=root)
  text = (root / results.FOLDER / results.PAGE).read_text()
  assert text.startswith("# By hand\n") and text.endswith("\nend\n")
  for heading in ("Against", "Users unlike", "What is traded"):
    assert f"## {heading}" in text
  assert "Ablations" not in text and "old" not in text.split()
  # A cell is the mean of three seeds, each of which can be counted by hand.
  (line,) = re.findall(r"^\| unmoved by backchannels, .*$", text, re.MULTILINE)
  _, ours, theirs, less, p, events = _cells(line)
  low, _ = statistics.clopper_pearson(_COUNT, _COUNT)
  assert ours == f"100.0 ({100 * low:.1f} to 100.0)"
  # Who is late is silent there: one of the 30 users of one seed.
  assert theirs.startswith("1.1 (0.0 to ") and less.startswith("98.9 (")
  assert p == "< 0.001" and events == "30 and 30"
  # What hurts comes first, and what the rival cannot have stands apart.
  against = text.split("## Users unlike")[0]
  order = [
    against.index(title)
    for title in ("| unasked speech, seconds", "| unmoved by", "By definition")
  ]
  assert order == sorted(order)
  assert "| cues hit" in against.split("By definition")[1]
  front = (root / results.FRONT).read_text()
  assert line in front and "met the same 30 heldout users" in front
  assert "behind in" in front and "(3 seeds, 5 steps)" in front
  assert r"| \|onset - recorded" not in front


def test_a_cell_that_does_not_follow_is_named(root):
  found = results.gather(root)
  results.write(found, root=root)
  for name in (results.FRONT, f"{results.FOLDER}/{results.PAGE}"):
    path = root / name
    text = path.read_text()
    lines = text.split("\n")
    number = 1 + [line[:24] for line in lines].index("| unmoved by backchannel")
    lines[number - 1] = lines[number - 1].replace("100.0 (", "99.0 (", 1)
    path.write_text("\n".join(lines))
    wrong = r"unmoved by backchannels, % ↑, cell 1: '99.0 \(.*say '100.0 \("
    with pytest.raises(
      errors.UserError, match=rf"{name}, line {number}: {wrong}"
    ):
      results.check(found, root=root)
    path.write_text(text)
  results.check(found, root=root)
  (root / results.FOLDER / "traded.png").unlink()
  with pytest.raises(errors.UserError, match="traded.png is missing"):
    results.check(found, root=root)


def test_a_log_decides_what_the_page_says(root):
  results.write(results.gather(root), root=root)
  path = root / results.FOLDER / "base" / "seed_1.xz"
  _write(path, plain=_report("late"), noise_0=_report("late"))
  with pytest.raises(errors.UserError, match="does not follow from the arch"):
    results.check(results.gather(root), root=root)


def test_other_rows_are_ablations_and_bold_only_with_enough_seeds(root):
  folder = root / results.FOLDER
  shutil.copytree(folder / "turns", folder / "window_400")
  (folder / "single").mkdir()
  shutil.copy(folder / "turns" / "seed_0.xz", folder / "single")
  results.write(results.gather(root), root=root)
  text = (folder / results.PAGE).read_text()
  table = text.split("## Ablations")[1]
  three, one = (
    re.search(rf"^\| `{row}` \| \d \|.*$", table, re.MULTILINE)[0]
    for row in ("window_400", "single")
  )
  assert "| `window_400` | 3 |" in three and "| **-98.9 (" in three
  assert "| `single` | 1 |" in one and "| -100.0 (" in one
  assert "**" not in one
  assert "`window_400` | 0" in text  # its sweep, too


def test_a_sweep_of_several_seeds_is_joined(root):
  points = compared.traded(results.gather(root))
  assert {name: len(found) for name, found in points.items()} == {
    **{"base": 2, "turns": 2}
  }
  first, second = points["base"]
  assert (first.label, second.label) == ("0", "1")
  assert first.asked.value == 0.0 < second.asked.value
  assert second.asked.events == _COUNT
  # A point that one seed lacks is left out.
  path = root / results.FOLDER / "base" / "sweep_2.xz"
  _write(path, **{"onset_bias=1": _report("well")})
  points = compared.traded(results.gather(root))
  assert [len(found) for found in points.values()] == [1, 2]


@pytest.mark.parametrize(
  "change, problem",
  [
    (
      lambda f: _write(f / "turns/seed_1.xz", plain=_report("well")),
      "seed_1.xz has no part 'noise_0', which others have",
    ),
    (
      lambda f: _write(
        f / "turns/seed_1.xz",
        plain=dataclasses.replace(
          _report("well"), scored=_report("well").scored[1:]
        ),
      ),
      "seed_1.xz, plain, user/0: another user than",
    ),
    (
      lambda f: (f / "turns/seed_1.xz").rename(f / "turns/one.xz"),
      "one.xz: results are results/ROW/seed_S.xz",
    ),
    (
      lambda f: (f / "turns/seed_1.xz").write_bytes(b"x"),
      "seed_1.xz is no archive of an evaluation",
    ),
    (
      lambda f: _write(
        f / "base/sweep_1.xz", changed="turns.endpoint_s", one=_report("well")
      ),
      "sweep_1.xz is a sweep of turns.endpoint_s; what is traded is swept by",
    ),
    (
      lambda f: (f / results.PAGE).write_text("no block"),
      "README.md: there must be one line <!-- begin",
    ),
  ],
)
def test_a_folder_that_cannot_be(change, problem, root):
  change(root / results.FOLDER)
  with pytest.raises(errors.UserError, match=problem):
    results.write(results.gather(root), root=root)


def test_archives_are_taken_from_a_folder_of_ablations(root, tmp_path):
  source = tmp_path / "out"
  both = _with_agent(_report("well"))
  for seed in range(2):
    folder = source / f"base/seed_{seed}"
    _write(folder / "evaluation.xz", plain=both, noise_0=both)
    _write(folder / "sweep.xz", one=_report("well"))
  taken = results.take(source, root=root)
  folder = root / results.FOLDER
  assert sorted(taken) == sorted(
    folder / "base" / f"{kind}_{seed}.xz"
    for kind in ("seed", "sweep")
    for seed in range(2)
  )
  whole = archive.read(source / "base/seed_0/evaluation.xz").numbers()
  found = archive.read(folder / "base/seed_0.xz").numbers()
  # Agents without a model are left out where they say the same in every arm.
  for row in whole["conditions"].values():
    del row["echo"]
  assert found["conditions"]["plain"].pop("echo")
  assert found == whole
  agent = tmp_path / "echo.xz"
  _write(agent, step=None, plain=both, noise_0=both)
  assert results.take(agent, root=root) == [folder / results.AGENTS]
  assert (folder / results.AGENTS).read_bytes() == agent.read_bytes()
  # A run is no agent without a model.
  run = source / "base/seed_0/evaluation.xz"
  with pytest.raises(errors.UserError, match="is of a run, at step 5, and"):
    results.take(run, root=root)
  assert (folder / results.AGENTS).read_bytes() == agent.read_bytes()
  with pytest.raises(errors.UserError, match="has no ROW/seed_S/evaluation"):
    results.take(tmp_path / "nothing", root=root)


def _contents(folder):
  return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_broken_archive_replaces_none(root, tmp_path):
  """Also where only its last log does not bear out what it says."""
  source = tmp_path / "out"
  for seed in range(2):
    path = source / f"base/seed_{seed}/evaluation.xz"
    _write(path, plain=_report("late"), noise_0=_report("late"))
  lines = lzma.decompress(path.read_bytes()).decode().splitlines()
  record = json.loads(lines[-1])
  record["logs"]["model"]["agent"][0] += 1
  lines[-1] = json.dumps(record)
  path.write_bytes(lzma.compress("\n".join(lines).encode()))
  before = _contents(root / results.FOLDER)
  with pytest.raises(errors.UserError, match="seed_1/evaluation.xz, line"):
    results.take(source, root=root)
  assert _contents(root / results.FOLDER) == before


def test_an_evaluation_that_was_cut_is_not_taken(root, tmp_path):
  """Its JSON file is there; its archive is not, or is of another."""
  source = tmp_path / "out"
  for seed in range(2):
    path = source / f"base/seed_{seed}/evaluation.xz"
    _write(path, plain=_report("late"))
    numbers = archive.read(path).numbers()
    path.with_suffix(".json").write_text(json.dumps(numbers))
  assert len(results.take(source, root=root)) == 2
  before = _contents(root / results.FOLDER)
  newer = json.dumps(numbers | {"git": "newer"})
  path.with_suffix(".json").write_text(newer)
  with pytest.raises(errors.UserError, match="are not of one evaluation"):
    results.take(source, root=root)
  path.unlink()
  with pytest.raises(errors.UserError, match="are not of one evaluation"):
    results.take(source, root=root)
  assert _contents(root / results.FOLDER) == before


def test_plain_users_are_of_the_split_of_the_arms(root):
  for path in (root / results.FOLDER).glob("*/seed_?.xz"):
    _write(path, split="dev", plain=_report("well"), noise_0=_report("late"))
  results.write(results.gather(root), root=root)
  text = (root / results.FOLDER / results.PAGE).read_text()
  assert "`plain` are the dev users of the table" in text


def test_without_arms_the_pages_have_the_agents(root):
  folder = root / results.FOLDER
  for row in ("base", "turns"):
    shutil.rmtree(folder / row)
  results.write(results.gather(root), root=root)
  assert "Nothing has been measured yet." in (root / "README.md").read_text()


@pytest.mark.slow
def test_committed_pages_follow_from_committed_archives():
  """Every cell of results/README.md and of the README's table."""
  found = results.gather(commands.ROOT)
  assert len(list(found)) > 0
  results.check(found, root=commands.ROOT)


def test_the_front_page_says_nothing_that_results_do_not():
  """Which follow from archives by the slow test above."""
  front = (commands.ROOT / results.FRONT).read_text(encoding="utf-8")
  page = (commands.ROOT / results.FOLDER / "README.md").read_text("utf-8")
  begin, end = (f"<!-- {w}: written by tml_jax.evals" for w in ("begin", "end"))
  block = front.partition(begin)[2].partition(end)[0]
  rows = [line for line in block.splitlines() if line.startswith("| ")]
  assert len(rows) > 5 and not set(rows) - set(page.splitlines())


def test_committed_archives_are_small():
  paths = (commands.ROOT / results.FOLDER).rglob(f"*{archive.SUFFIX}")
  assert sum(path.stat().st_size for path in paths) < 8_000_000


@pytest.mark.slow
def test_the_command_names_what_is_wrong(root):
  run = ("-m", "tml_jax.evals.results", f"--root={root}")
  done = commands.run(*run)
  assert done.returncode == 0 and "wrote" in done.stdout, done.stderr[-2000:]
  done = commands.run(*run, "--check_cells")
  assert "all tables follow from 12 archives" in done.stdout
  (root / results.FRONT).write_text("no block")
  done = commands.run(*run)
  assert done.returncode == errors.Status.BAD_INPUT
  (line,) = done.stderr.splitlines()
  assert "README.md: there must be one line" in line
  path = root / results.FOLDER / "base" / "seed_0.xz"
  done = commands.run(*run, f"--numbers={path}")
  assert done.returncode == 0 and '"conditions"' in done.stdout
  assert results_tables.TITLES.keys() == {compared.BASE, compared.RIVAL}
