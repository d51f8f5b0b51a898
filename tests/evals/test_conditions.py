"""Users unlike those of training: what a row says, and that all can be won."""

import json

import numpy as np
import pytest

from tests.helpers import commands, small_data, sound
from tml_jax import errors, prepare
from tml_jax.data import scenarios, unheard
from tml_jax.data.splits import Split
from tml_jax.evals import (
  agents,
  archive,
  conditions,
  kept,
  suites,
  without_model,
)
from tml_jax.evals.metrics import panel, statistics
from tml_jax.streams import clock
from tml_jax.streams.timeline import Role

NAMES = [condition.name for condition in conditions.CONDITIONS]
# Two that need no program; the list of languages is that of the package.
VOICES = ("procedural:brisk", "procedural:dark")
FEW = ("reply", "turns", "barge_in")


@pytest.fixture(scope="module", name="prepared")
def _prepared(tmp_path_factory):
  """Data of two voices, with two that nobody trains on; and the report."""
  path = tmp_path_factory.mktemp("unheard")
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(unheard.BY_LANGUAGE, "en", VOICES)
    report = prepare.prepare(
      small_data.config(),
      data_dir=str(path),
      sounds_root="/",
      processes=2,
      with_unheard=True,
    )
    yield path, report


@pytest.fixture(scope="module", name="suite_of")
def _suite_of(prepared):
  def suite(name, *, families=FEW, count=2, folder=""):
    config, opened = small_data.config(), None
    if name:
      (condition,) = [c for c in conditions.CONDITIONS if c.name == name]
      opened = conditions.opened(
        condition,
        config=config,
        data_dir=str(prepared[0]),
        noise_folder=folder,
      )
    return suites.Interactivity(
      config,
      data_dir=str(prepared[0]),
      split=Split.HELDOUT,
      count=count,
      families=families,
      condition=opened,
    )

  return suite


def test_the_tokenizer_knows_nothing_of_unheard_voices(prepared):
  _, report = prepared
  folders = [v.replace(":", "-") for v in small_data.VOICES]
  assert report["tokenizer_of"] == folders
  assert {*report["corpora"]} == {
    *folders,
    *(v.replace(":", "-") for v in VOICES),
  }


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_agent_wins_every_condition(name, suite_of):
  """So every time of every annotation is where it must be."""
  suite = suite_of(name, families=tuple(scenarios.FAMILIES), count=1)
  series = [
    panel.measure(agents.recorded(item.load())) for item in suite.items()
  ]
  found = statistics.summarise(series, resamples=0)
  assert found["summary_score"].value == 100
  assert found["done"].value == found["right"].value == 1
  assert found["unasked_seconds"].value == 0
  assert found["done"].events > len(scenarios.FAMILIES)


@pytest.mark.parametrize("name", NAMES)
def test_users_are_the_same_in_every_condition(name, suite_of):
  voices = set()
  for before, after in zip(
    suite_of("").items(), suite_of(name).items(), strict=True
  ):
    assert (before.family, before.seed) == (after.family, after.seed)
    plain, changed, again = before.load(), after.load(), after.load()
    assert changed.id == plain.id
    assert changed.metadata["asked"] == plain.metadata["asked"]
    heard = [item.track(Role.USER) for item in (plain, changed, again)]
    np.testing.assert_array_equal(heard[1].audio, heard[2].audio)
    assert not np.array_equal(heard[0].audio, heard[1].audio)
    ours, theirs = (
      [w.text for w in item.track(Role.AGENT).words]
      for item in (plain, changed)
    )
    if before.family != "barge_in":  # which cuts the agent off elsewhere
      assert ours == theirs
    voices.add(heard[1].voice)
  assert voices <= {*(VOICES if name == "voices" else small_data.VOICES)}


def _ratio(plain, noisy):
  """Decibels from what was added to the user's speech, where it is speech."""
  before, after = (item.track(Role.USER) for item in (plain, noisy))
  added = after.audio - before.audio
  rate = clock.SAMPLE_RATE
  active = np.concatenate(
    [
      np.arange(round(s.start * rate), round(s.end * rate))
      for s in before.spans
    ]
  )
  power = np.mean(before.audio[active] ** 2) / np.mean(added[active] ** 2)
  return 10 * np.log10(power)


@pytest.mark.parametrize("name, wanted", [("noise_10", 10), ("noise_0", 0)])
def test_noise_is_as_loud_as_it_says(name, wanted, suite_of, tmp_path):
  random = np.random.default_rng(0)
  sound.write_wav(
    tmp_path / "rain.wav", random.normal(0, 0.1, (1, sound.RATE * 3))
  )
  for folder in ("", str(tmp_path)):
    noisy = suite_of(name, families=("reply",), count=6, folder=folder)
    for before, after in zip(
      suite_of("", families=("reply",), count=6).items(),
      noisy.items(),
      strict=True,
    ):
      plain, changed = before.load(), after.load()
      # Cut off at full scale, as a converter does.
      assert _ratio(plain, changed) == pytest.approx(wanted, abs=0.3)
      assert changed.metadata["annotations"] == plain.metadata["annotations"]


def test_other_noises_are_other_users(suite_of, tmp_path):
  """Logs with the noises of another folder are not gone on with."""
  random = np.random.default_rng(0)
  files = random.normal(0, 0.1, (2, 1, sound.RATE))

  def of(**noises):
    folder = tmp_path / "_".join(noises)
    folder.mkdir(exist_ok=True)
    for name, samples in noises.items():
      sound.write_wav(folder / f"{name}.wav", samples)
    found = [
      kept.of_item(item, script=item.load())
      for name in ("noise_10", "noise_0")
      for item in suite_of(
        name, families=("reply",), folder=str(folder)
      ).items()
    ]
    return [each["input"] for each in found]

  first = of(rain=files[0])
  assert len(set(first)) == 2  # of two conditions
  assert of(rain=files[0]) == first
  assert set(of(wind=files[0])).isdisjoint(first)
  assert set(of(rain=files[1])).isdisjoint(first)
  assert set(of(rain=files[0], wind=files[1])).isdisjoint(first)
  plain = suite_of("noise_10", families=("reply",)).items()[0]
  assert plain.digest == "noise_10"


def test_a_row_says_what_became_of_the_score(suite_of):
  reports = {
    name: without_model.evaluate(suite_of(name), name="recorded_late")
    for name in ("", "pauses_1.6")
  }
  row = conditions.row(reports["pauses_1.6"], plain=reports[""])
  assert list(row) == [panel.MODEL, *agents.AGENTS]
  best, late = row["recorded"], row[panel.MODEL]
  assert best["summary_score"] == 100 and best["less"]["value"] == 0
  assert (best["done"], best["right"], best["holds"]) == (1, 1, 1)
  assert best["quiet"] == 0 and best["n"] == late["n"] > len(FEW)
  for side in ("done", "right", "holds", "quiet"):
    assert late[side] == pytest.approx(row["recorded_late"][side])
  assert late["summary_score"] < 50
  columns = reports["pauses_1.6"].columns[panel.ALL][panel.MODEL]
  assert late["summary_score"] == pytest.approx(columns["summary_score"].value)
  assert late["quiet"] == pytest.approx(columns["unasked_seconds"].value)
  head, line = conditions.text({"pauses_1.6": row}).splitlines()
  assert len(head.split("  ")) > 5 and line.startswith("pauses_1.6")


def test_conditions_are_chosen_by_kind():
  chosen = conditions.chosen(["noise", "pauses"])
  assert [c.name for c in chosen] == NAMES[1:3] + NAMES[5:]
  assert [c.name for c in conditions.chosen(["all"])] == NAMES
  assert conditions.chosen([]) == ()
  with pytest.raises(errors.UserError, match="=voice: .*'voices'"):
    conditions.chosen(["voice"])


def test_recorded_calls_cannot_be_made_again(suite_of):
  with pytest.raises(errors.UserError, match="=pauses asks for scenario fam"):
    suites.Interactivity(
      small_data.config(mixture=("calls:1.0",)),
      data_dir="nowhere",
      split=Split.HELDOUT,
      count=1,
      condition=conditions.Opened(
        conditions.CONDITIONS[1], None, lambda timeline: timeline
      ),
    )


@pytest.mark.slow
def test_the_command_writes_a_row_for_each(data_dir, tmp_path):
  out = tmp_path / "echo.json"
  command = [
    *("-m", "tml_jax.evaluate", "--agent=echo", f"--data_dir={data_dir}"),
    f"--config.data.voices={','.join(small_data.VOICES)}",
    *("--families=reply", "--count=2", f"--json={out}"),
  ]
  noises = tmp_path / "noises"
  noises.mkdir()
  samples = np.random.default_rng(0).normal(0, 0.1, (1, sound.RATE))
  sound.write_wav(noises / "rain.wav", samples)
  done = commands.run(
    *(*command, "--conditions=pauses,rates,noise", f"--noise_folder={noises}")
  )
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads(out.read_text())
  plain, *names = found["conditions"]
  assert (plain, names) == (conditions.PLAIN, NAMES[1:])
  assert len(found["noise_folder"]) == 16
  for name, row in found["conditions"].items():
    assert {"summary_score", "done", "right", "holds", "quiet", "n"} <= (
      row["model"].keys()
    )
    assert row["recorded"]["summary_score"] == 100
    assert f"\n{name}" in done.stdout
    logs = list(
      (tmp_path / "echo/conditions" / name / "ticks").rglob("*.jsonl")
    )
    assert len(logs) == (0 if name == plain else 2)
  assert "Users unlike" in out.with_suffix(".html").read_text()
  # All of it follows from the archive, to the last bit.
  packed = archive.read(out.with_suffix(".xz"))
  assert packed.numbers() == found
  assert "-m tml_jax.evaluate" in packed.head.command
  assert "--agent=echo" in packed.head.command
  assert packed.head.config.count("\n") > 50
  # Nobody has prepared voices here.
  done = commands.run(*command, "--conditions=voices")
  assert done.returncode == errors.Status.BAD_INPUT, done.stderr[-2000:]
  assert "lacks the voices flite:awb" in done.stderr
