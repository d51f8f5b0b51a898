"""A damaged checkpoint is not trained on: both tiers, every file of a step."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.helpers import commands
from tests.helpers import damage as damage_lib
from tml_jax import errors, workdir
from tml_jax.training import checkpoint, checksums
from tml_jax.training.tiers import Tier

# Orbax changes it after the checksums; nothing of a state is in it.
NOT_SUMMED = {"_CHECKPOINT_METADATA", "commit_success.txt"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A run with steps 1 and 3 in the workdir, 2 and 4 on the host."""
  root = tmp_path_factory.mktemp("saved") / "run"
  places = (Tier.WORKDIR, Tier.LOCAL) * 2
  damage_lib.save(root, steps=dict(enumerate(places, start=1)))
  return root


@pytest.fixture
def run(saved, tmp_path):
  """A copy to damage, without the steps on the host."""
  return shutil.copytree(saved, tmp_path / "run")


def steps_of(run):
  return workdir.checkpoint_steps(run)


def local_step(root, step: int):
  (found,) = root.with_name("run_local").glob(f"*/0_of_1/{step}")
  return found


def test_all_damage_of_all_files_is_seen(saved):
  workdir_step = saved / workdir.CHECKPOINTS / "3"
  for directory in (workdir_step, local_step(saved, 4)):
    assert checksums.damage(directory) == ""
    seen = set()
    for path, kind in damage_lib.all_of(directory):
      name = path.relative_to(directory).as_posix()
      found = checksums.damage(directory)
      if name in NOT_SUMMED or (kind == "flip" and name == workdir.CHECKSUMS):
        continue  # a flipped blank in it changes nothing
      assert str(path) in found, (name, kind, found)
      seen.add(name)
    assert checksums.damage(directory) == ""
    assert workdir.CHECKSUMS in seen
  assert {"index.json", "state.bin"} < seen


def test_several_processes_compare_shares_that_are_everything(saved):
  directory = saved / workdir.CHECKPOINTS / "3"
  for path in damage_lib.files_of(directory):
    name = path.relative_to(directory).as_posix()
    if name in NOT_SUMMED | {workdir.CHECKSUMS}:
      continue
    before = path.read_bytes()
    damage_lib.damage(path, kind="flip")
    found = [checksums.damage(directory, index=i, count=3) for i in range(3)]
    assert sum(map(bool, found)) == 1, (name, found)
    path.write_bytes(before)


def test_a_run_goes_on_from_the_newest_that_is_whole(run, caplog):
  bad = run / workdir.CHECKPOINTS / "3"
  (data, *_) = sorted((bad / "state").glob("ocdbt.process_0/d/*"))
  damage_lib.damage(data, kind="flip")
  assert damage_lib.resumed_step(run) == 1
  assert "DAMAGED and not used" in caplog.text and str(data) in caplog.text
  # It is kept, out of the way of the next save of this step.
  assert steps_of(run) == [1] and (run / workdir.DAMAGED / "3").is_dir()
  assert damage_lib.resumed_step(run) == 1


def test_a_step_without_anything_in_it_is_passed_over(run):
  (run / workdir.CHECKPOINTS / "7").mkdir()
  (run / workdir.CHECKPOINTS / "8").write_text("")
  assert damage_lib.resumed_step(run) == 3


def test_without_a_whole_one_nothing_begins_anew(run):
  for step in (1, 3):
    (run / workdir.CHECKPOINTS / str(step) / workdir.LOADER_STATE).unlink()
  for _ in range(2):  # and so it stays
    with pytest.raises(errors.DeadEndError, match="no whole checkpoint") as e:
      damage_lib.resumed_step(run)
    assert "3/loader/metadata is missing" in str(e.value)
  assert steps_of(run) == [1, 3]


def test_the_tier_on_the_host_falls_back_alike(saved, tmp_path, caplog):
  run = shutil.copytree(saved, tmp_path / "run")
  shutil.copytree(saved.with_name("run_local"), tmp_path / "run_local")
  assert damage_lib.resumed_step(run) == 4
  damage_lib.damage(local_step(run, 4) / "state.bin", kind="flip", at=0.3)
  assert damage_lib.resumed_step(run) == 3  # in the workdir
  assert "state.bin has other bytes" in caplog.text
  shutil.rmtree(run / workdir.CHECKPOINTS / "3")
  damage_lib.damage(local_step(run, 2) / "index.json", kind="cut")
  assert damage_lib.resumed_step(run) == 1
  assert "index.json has" in caplog.text


def test_what_is_said_of_the_last_save_is_where_it_lies(tmp_path):
  found = damage_lib.opened(tmp_path / "run", local_every=50)
  assert found.resume(damage_lib.abstract()) is None and found.last == ""
  for step, tier in ((1, Tier.WORKDIR), (2, Tier.LOCAL)):
    state, loader = damage_lib.state_of(step), {"identity": {}, "shards": {}}
    found.save(step, tier=tier, state=state, loader_state=loader)
    found.wait()
    assert os.path.exists(f"{found.last}/{workdir.CHECKSUMS}")
    assert os.path.basename(found.last) == str(step)
  found.close()
  again = damage_lib.opened(tmp_path / "run", local_every=50)
  assert again.resume(damage_lib.abstract()).step == 2
  assert again.last == found.last
  again.close()


def test_a_share_of_another_index_goes_with_the_next_start(saved, tmp_path):
  run = shutil.copytree(saved, tmp_path / "run")
  local = shutil.copytree(saved.with_name("run_local"), tmp_path / "run_local")
  (mine,) = local.glob("*/0_of_1")
  old = mine.rename(mine.with_name("3_of_8"))
  assert damage_lib.resumed_step(run) == 3
  assert mine.exists() and not old.exists()


def test_weights_of_a_damaged_step_are_one_error(run):
  bad = run / workdir.CHECKPOINTS / "3"
  damage_lib.damage(bad / "state" / "manifest.ocdbt", kind="cut")
  with pytest.raises(errors.DeadEndError) as error:
    checkpoint.Weights(str(run))
  assert f"{bad} is damaged" in str(error.value)
  assert "the newest of the others counts (1)" in str(error.value)
  weights = checkpoint.Weights(f"{run}/{workdir.CHECKPOINTS}/1")
  weights.close()


def test_a_step_from_before_there_were_checksums_can_be_sealed(run):
  directory = run / workdir.CHECKPOINTS / "3"
  (directory / workdir.CHECKSUMS).unlink()
  checksums.write(directory)
  assert checksums.damage(directory) == ""
  assert damage_lib.resumed_step(run) == 3


def test_a_workdir_may_have_the_name_of_a_step(saved, tmp_path):
  place = tmp_path / workdir.CHECKPOINTS / "5"
  shutil.copytree(saved, place)
  weights = checkpoint.Weights(str(place))
  assert weights.step == 3
  weights.close()


def test_a_name_that_leads_out_of_the_step_is_damage(run):
  directory = run / workdir.CHECKPOINTS / "3"
  for name in ("../../config.txt", "/etc/hostname", ""):
    text = f'{{"{name}": [1, 2]}}'
    (directory / workdir.CHECKSUMS).write_text(text)
    assert "cut or damaged" in checksums.damage(directory)


@pytest.mark.slow
def test_whatever_is_damaged_a_run_goes_on_with_right_bits(saved, tmp_path):
  """Each kind of damage to each file, and 300 flips."""
  rng = np.random.default_rng(0)
  steps = saved / workdir.CHECKPOINTS
  names = [p.relative_to(steps) for p in damage_lib.files_of(steps / "3")]
  sizes = np.array([(steps / name).stat().st_size for name in names], float)
  plan = [(name, kind, 0.5) for name in names for kind in damage_lib.KINDS]
  for _ in range(300):
    name = names[rng.choice(len(names), p=sizes / sizes.sum())]
    plan.append((name, "flip", rng.random()))
  run, accepted = tmp_path / "run", 0
  for name, kind, at in plan:
    shutil.copytree(saved, run)
    damage_lib.damage(run / workdir.CHECKPOINTS / name, kind=kind, at=at)
    step = damage_lib.resumed_step(run)  # compares every bit
    accepted += step == 3
    if name.name not in NOT_SUMMED | {workdir.CHECKSUMS}:
      assert step == 1, (name, kind)
    try:
      weights = checkpoint.Weights(str(run))
      assert weights.step == step
      weights.close()
    except errors.UserError:
      pass
    shutil.rmtree(run)
  print(f"{len(plan)} damages; {accepted} left the step as it was")


def test_what_is_written_is_synced(run, monkeypatch):
  synced = []
  real = os.fsync
  monkeypatch.setattr(
    os,
    "fsync",
    lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd),
  )
  directory = run / workdir.CHECKPOINTS / "3"
  checksums.write(directory)
  names = {os.path.relpath(path, directory) for path in synced}
  assert {".", "state", "loader/metadata", "state/_METADATA"} < names
  assert workdir.CHECKSUMS + ".partial" in names


# Forks a process that saves on and on for each line it reads: what is imported
# is imported once.
_SAVER = """
import os, pathlib, sys
from tests.helpers import damage
from tml_jax.training.tiers import Tier

def save_on(root):
  found = damage.opened(root, local_every=50)
  resumed = found.resume(damage.abstract())
  step = resumed.step if resumed else 0
  while True:
    step += 1
    loader = {"identity": {}, "shards": {"0": {"offset": step}}}
    tier = (Tier.LOCAL, Tier.WORKDIR)[step % 3 == 0]
    state = damage.state_of(step)
    found.save(step, tier=tier, state=state, loader_state=loader)
    found.wait()
    print("saved", step, flush=True)

for line in sys.stdin:
  pid = os.fork()
  if not pid:
    try:
      save_on(pathlib.Path(line.strip()))
    finally:
      os._exit(1)
  print("pid", pid, flush=True)
  os.waitpid(pid, 0)
  print("gone", flush=True)
"""


@pytest.mark.slow
def test_after_a_hundred_kills_nothing_that_was_saved_is_lost(tmp_path):
  root, rng = tmp_path / "run", random.Random(0)
  process = subprocess.Popen(
    [sys.executable, "-c", _SAVER],
    cwd=commands.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    bufsize=1,
  )

  def said(word: str) -> int:
    """The number behind the next line's word, which must be `word`."""
    first, *rest = process.stdout.readline().split()
    assert first == word
    return int(rest[0]) if rest else 0

  newest = 0
  for kill in range(100):
    process.stdin.write(f"{root}\n")
    pid = said("pid")
    saved = said("saved")
    # Anywhere in the saves that follow.
    time.sleep(rng.uniform(0, 1))
    os.kill(pid, signal.SIGKILL)
    for line in iter(process.stdout.readline, ""):
      word, *rest = line.split()
      if word == "gone":
        break
      saved = int(rest[0])
    assert saved > newest, kill
    newest = damage_lib.resumed_step(root)  # compares every bit
    assert newest >= saved, kill
  process.stdin.close()
  assert process.wait(30) == 0
  print(f"100 kills, {newest} saves")
