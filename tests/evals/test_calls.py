"""The score of recorded calls: no agent that hears nothing comes near."""

import shutil

import numpy as np
import pytest

from benchmarks import synthesised_calls
from tests.helpers import small_data
from tml_jax import prepare
from tml_jax.data import vad
from tml_jax.data.splits import Split
from tml_jax.evals import agents, suites
from tml_jax.evals.metrics import panel, statistics
from tml_jax.logs import observe
from tml_jax.streams import clock, microphone

COUNT = 6
ROWS = tuple(m for m in panel.METRICS if m.name in (*panel.CALLS, "took_floor"))


def whenever_quiet(wait, keep):
  """Speaks after `wait` quiet ticks; stops after `keep` loud ones."""

  def agent(timeline):
    detector = vad.EnergyVad()
    sound = microphone.hear(timeline, grid=clock.TICKS)
    loud = [bool(detector.push(window).any()) for window in sound]
    sounds, quiet, over, speaks = np.zeros(len(loud), bool), 0, 0, False
    for k, is_loud in enumerate(loud[:-1]):
      quiet, over = (0, over + 1) if is_loud else (quiet + 1, 0)
      speaks = over < keep if speaks else quiet >= wait
      sounds[k + 1] = speaks
    return observe.from_activity(timeline, agent=sounds)

  return agent


DEAF = dict(agents.AGENTS)
DEAF |= {
  f"clock {on} on, {off} off": agents.blink(on, off)
  for on in (1, 2, 5, 10, 25)
  for off in (1, 2, 3, 5, 10, 25)
}
DEAF |= {
  f"whenever quiet {wait} {keep}": whenever_quiet(wait, keep)
  for wait in (1, 2, 3, 5)
  for keep in (1, 2, 5)
}


@pytest.fixture(scope="module", name="found")
def _found(tmp_path_factory):
  """Values by agent on calls that programs have spoken."""
  for program in ("espeak-ng", "flite"):
    if shutil.which(program) is None:
      pytest.skip(f"needs Debian's {program}")
  root = tmp_path_factory.mktemp("calls")
  synthesised_calls.write(root / "calls", count=COUNT, seconds=(20.0, 40.0))
  prepare.prepare_source(
    "moshi_finetune",
    src=str(root / "calls/data.jsonl"),
    dst=str(root / "data/calls"),
    options={"language": "en", "licence": "CC0-1.0"},
    size=(120, 160),
    runner=prepare.Runner.LOCAL,
    beam_options=[],
    processes=2,
    verify=False,
    rebuild=False,
  )
  suite = suites.Interactivity(
    small_data.config(mixture=("calls:1.0",), heldout_share=0.95),
    data_dir=str(root / "data"),
    split=Split.HELDOUT,
    count=COUNT,
  )
  timelines = [item.load() for item in suite.items()]
  assert len(timelines) >= COUNT - 2
  return {
    name: statistics.summarise(
      [panel.measure(agent(t)) for t in timelines], metrics=ROWS, resamples=0
    )
    for name, agent in DEAF.items()
  }


def test_none_comes_within_half_of_the_recorded_agent(found):
  scores = {name: rows["call_score"].value for name, rows in found.items()}
  assert scores.pop("recorded") == 100
  assert max(scores.values()) < 50, scores
  quiet = {name: v for name, v in scores.items() if "quiet" in name}
  assert max(v for n, v in scores.items() if n not in quiet) < 25, scores


def test_the_rows_it_replaces_are_theirs(found):
  """Why there is a score: these agents take the floor as the recorded does."""
  takes = {name: rows["took_floor"].value for name, rows in found.items()}
  assert takes["blink_1_3"] > 0.9 and takes["echo"] > 0.9
