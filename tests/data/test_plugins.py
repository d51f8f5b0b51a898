"""Code from outside of the repository: the files of the documents, as given."""

import asyncio
import dataclasses
import json
import re
import sys

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from tests.helpers import (
  commands,
  drawn,
  plugin_files,
  small,
  small_data,
  small_run,
  sound,
  streamed,
)
from tml_jax import errors, plugins, prepare, tools
from tml_jax import workdir as workdir_lib
from tml_jax.data import corpus, loader, mixture, scenarios, source
from tml_jax.data.splits import Split
from tml_jax.evals import archive, report
from tml_jax.evals.metrics import panel, statistics
from tml_jax.logs import columns
from tml_jax.streams import annotation
from tml_jax.streams.annotation import Kind
from tml_jax.streams.timeline import Role
from tml_jax.tools import background
from tml_jax.tools import flags as tool_flags

pytestmark = pytest.mark.usefixtures("registries")


@pytest.mark.slow
def test_a_family_is_packed_by_workers_as_by_this_process(data_dir, tmp_path):
  config = small_data.config(mixture=("twice:1.0",))
  with pytest.raises(
    errors.UserError, match="names 'twice'.*--plugins=FILE.py"
  ):
    mixture.check(config, data_dir=data_dir)
  plugins.load([plugin_files.write("twice", tmp_path)])
  batches = []
  for workers in (0, 2):
    config = small_data.config(mixture=("twice:1.0",), workers=workers)
    made = loader.Loader(config, data_dir=data_dir, split=Split.TRAIN)
    batches.append(next(made))
    made.close()
  here, there = batches
  assert (here.speech.weights.sum(axis=1) > 0).all()
  jax.tree.map(np.testing.assert_array_equal, here, there)


def write_folder_call(folder, *, assistant="near", text="hello there"):
  """`far` speaks for a second, then `near`; segments are not in order."""
  folder.mkdir(parents=True)
  silence = np.zeros(sound.RATE)
  for name, pieces in (
    ("near", (silence, sound.tone(1.0))),
    ("far", (sound.tone(1.0), silence)),
  ):
    sound.write_wav(folder / f"{name}.opus", np.concatenate(pieces)[None])
  (folder / "segments.tsv").write_text(
    "side\tbegin_ms\tend_ms\ttext\n"
    f"near\t1000\t2000\t{text}\nfar\t0\t1000\thi\n"
  )
  (folder / "meta.yaml").write_text(f"assistant: {assistant}\nlanguage: de\n")


@pytest.mark.slow
def test_an_importer_is_prepared_by_worker_processes(tmp_path):
  plugins.load([plugin_files.write("support_line", tmp_path)])
  src = tmp_path / "calls"
  for i in range(6):
    write_folder_call(
      src / f"call_{i:04}", assistant="far" if i == 1 else "near"
    )
  (src / "call_0002" / "far.opus").write_bytes(b"no sound")
  (src / "call_0003" / "segments.tsv").unlink()
  (src / "call_0004" / "meta.yaml").write_text("assistant: left\n")
  (src / "call_0005" / "meta.yaml").write_text("assistant: {")

  def prepare_again():
    return streamed.prepare(
      "support_line", src, tmp_path / "data" / "calls", processes=2
    )

  report = prepare_again()
  assert report["recordings"] == 2
  skipped = {
    reason: entry["examples"][0] for reason, entry in report["skipped"].items()
  }
  assert [*map(str, sorted(skipped))] == [
    "broken metadata",
    "cannot be read",
    "its file is missing",
    "its source failed",
  ]
  assert skipped["broken metadata"].startswith("call_0004/meta.yaml: ValueErr")
  assert skipped["cannot be read"].startswith("call_0002/far.opus: ")
  assert skipped["its file is missing"] == "call_0003/segments.tsv"
  assert skipped["its source failed"].startswith("call_0005: ParserError")
  written = corpus.RecordSource(tmp_path / "data" / "calls")
  first, second = sorted((written[0], written[1]), key=lambda item: item.id)
  assert (first.id, second.id) == ("call_0000", "call_0001")
  assert first.metadata["language"] == "de"
  roles = [{x.voice: x.role for x in item.tracks} for item in (first, second)]
  assert roles == [
    {"call_0000 near": Role.AGENT, "call_0000 far": Role.USER},
    {"call_0001 near": Role.USER, "call_0001 far": Role.AGENT},
  ]
  (near,) = [each for each in first.tracks if each.role is Role.AGENT]
  assert [word.text for word in near.words] == ["hello", "there"]
  assert (near.words[0].start, near.words[-1].end) == (1.0, 2.0)
  assert [(each.start, each.end) for each in near.spans] == [(1.0, 2.0)]
  write_folder_call(src / "call_0006")
  assert prepare_again()["recordings"] == 3


@pytest.mark.slow
def test_a_source_is_prepared_by_worker_processes(tmp_path):
  plugins.load([plugin_files.write("read_aloud", tmp_path)])
  wavs = tmp_path / "anna" / "wavs"
  wavs.mkdir(parents=True)
  for i in range(3):
    tone = sound.tone(0.5, frequency=200 + 50 * i, rate=22_050)
    sound.write_wav(wavs / f"{i}.wav", tone[None], rate=22_050)
  table = "".join(f"{i}|Number {i}.|number {i}\n" for i in range(4))
  (tmp_path / "anna" / "metadata.csv").write_text(
    f"{table}no text\n", encoding="utf-8-sig"
  )

  def prepare_again():
    report = prepare.prepare(
      small_data.config(voices=("read_aloud:anna",)),
      data_dir=str(tmp_path / "data"),
      sounds_root=str(tmp_path),
      processes=2,
    )
    return report["corpora"]["read_aloud-anna"]

  entry = prepare_again()
  assert entry["recordings"] == 3
  assert entry["skipped"]["cannot be read"]["count"] == 1
  assert [*entry["skipped"]] == ["cannot be read", "its source failed"]
  assert (entry["done"], prepare_again()["done"]) == ("new", "kept")
  written = corpus.RecordSource(tmp_path / "data" / "read_aloud-anna")
  assert written[1].metadata["text"] == "Number 1."
  with pytest.raises(errors.UserError, match="no .*metadata.csv; give"):
    source.SOURCES["read_aloud"]("ben", settings=source.Settings(root=tmp_path))


def test_own_voices_speak_in_scenarios(tmp_path):
  """Without any of the words that a user asks for a delay with."""
  plugins.load([plugin_files.write("read_aloud", tmp_path)])
  for place, name in enumerate(("anna", "ben")):
    wavs = tmp_path / name / "wavs"
    wavs.mkdir(parents=True)
    for i in range(4):
      tone = sound.tone(0.9, frequency=200 + 50 * i + 20 * place)
      sound.write_wav(wavs / f"{i}.wav", tone[None])
    table = "".join(f"{i}|Number {i}.\n" for i in range(4))
    (tmp_path / name / "metadata.csv").write_text(table)
  config = small_data.config(voices=("read_aloud:anna", "read_aloud:ben"))
  data_dir = str(tmp_path / "data")
  prepare.prepare(
    config, data_dir=data_dir, sounds_root=str(tmp_path), processes=1
  )
  items = mixture.build(config, data_dir=data_dir, split=Split.TRAIN)
  asked = [a for i in range(6) for a in annotation.of(items[i])]
  assert {a.kind for a in asked} == {Kind.TURN}
  assert {a.text for a in asked} <= {f"Number {i}." for i in range(4)}
  cue = small_data.config(
    voices=("read_aloud:anna", "read_aloud:ben"), mixture=("cue:1.0",)
  )
  with pytest.raises(errors.UserError, match="anna cannot take part.*'cue'"):
    mixture.build(cue, data_dir=data_dir, split=Split.TRAIN)


def test_a_tool_and_its_flag(tmp_path):
  plugins.load([plugin_files.write("dice", tmp_path)])
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(tools=["dice"], dice_sides=1000):
    tool_flags.runner().close()
    with flagsaver.flagsaver(tools=["clock"]):
      with pytest.raises(errors.UserError, match="dice_sides=1000 is for the"):
        tool_flags.runner()

    async def roll(arguments=""):
      call = background.Call(1, 0.0, "dice", arguments)
      return [int(x) async for x in tools.TOOLS["dice"]().run(call)]

    rolled = [asyncio.run(roll())[0] for _ in range(20)]
    with pytest.raises(background.Failure):
      asyncio.run(roll("7"))
  assert all(1 <= x <= 1000 for x in rolled) and max(rolled) > 6
  with flagsaver.flagsaver(tools=["dise"]):
    with pytest.raises(errors.UserError, match="there are .*dice"):
      tool_flags.runner()


def test_a_metric_stands_beside_the_others(tmp_path):
  turn = drawn.asks(Kind.TURN, 0, 2)
  logs = [drawn.log(x, turn) for x in ("uu.aa...", "uu....aa", "uu......")]
  before = statistics.summarise([panel.measure(log) for log in logs])
  plugins.load([plugin_files.write("at_once", tmp_path)])
  found = statistics.summarise(
    [panel.measure(log) for log in logs], metrics=panel.metrics()
  )
  value = found.pop("answered_at_once")
  assert (value.value, value.events) == (0.5, 2)
  assert repr(found) == repr(before)  # NaN is not itself
  assert panel.definitions() == {
    "turns answered within 0.6 s": (
      "Of TURNs that were answered, those within 0.6 s of the user's end. Ours."
    )
  }


def test_an_archive_names_its_plugins(tmp_path, monkeypatch):
  """Without them its series would be refused, or deleted."""
  path = plugin_files.write("at_once", tmp_path)
  plugins.load([path])
  log = drawn.log("uu.aa...", drawn.asks(Kind.TURN, 0, 2))
  made = drawn.report(
    [
      report.Scored(
        "turns",
        log=log,
        series={panel.MODEL: panel.measure(log)},
        columns={panel.MODEL: columns.of(log)},
      )
    ]
  )
  file = tmp_path / "results" / "agents.xz"
  head = archive.head(small.config({}), numbers={"git": "abc"})
  archive.write(file, head=head, parts={"plain": archive.Part(made)})
  assert list(archive.read(file).head.plugins) == ["at_once.py"]
  numbers = archive.read(file).numbers()
  assert "answered_at_once" in numbers["metrics"]["turns"][panel.MODEL]
  before = file.read_bytes()

  command = ("-m", "tml_jax.evals.results", f"--root={tmp_path}")
  result = commands.run(*command, f"--numbers={file}", f"--plugins={path}")
  assert result.returncode == 0, result.stderr
  assert json.loads(result.stdout) == numbers
  monkeypatch.setattr(plugins, "_loaded", {})
  with pytest.raises(errors.UserError, match="add --plugins=FOLDER/at_once.py"):
    archive.measure_again(file)
  assert file.read_bytes() == before


METRIC = """
from tml_jax.evals.metrics import panel
@panel.register(
  panel.Metric({name!r}, "title", "s", {series!r}, panel.Better.LOWER)
)
def events(heard):
  {doc}
  return {value}
"""


@pytest.mark.parametrize(
  "change, message",
  [
    ({"doc": "pass"}, "events has no docstring"),
    ({"name": "responded"}, "another metric is named 'responded'"),
    ({"series": "latency"}, "'latency' is a series of the panel"),
    ({"value": "[0.5]"}, r"must return \[\(value, weight\), ...\], not \[0.5"),
  ],
)
def test_a_metric_that_cannot_be(change, message, tmp_path):
  fields = dict(name="a", series="b", doc="'''What.'''", value="[]")
  path = tmp_path / "metric.py"
  path.write_text(METRIC.format(**fields | change))
  with pytest.raises(errors.UserError, match=f"metric.py.*{message}"):
    plugins.load([str(path)])
    panel.measure(drawn.log("uu.aa"))


@pytest.mark.parametrize(
  "code, message",
  [
    ("x = 1\n", "registers nothing: give a family its `name`"),
    ("from tml_jax.data.scenarios import cue\n", "registers nothing"),
    ("import nowhere\n", r"ModuleNotFoundError: .*'nowhere' \(.*a.py:1\)"),
    ("x = 1\ny = = 2\n", r"SyntaxError: .*a.py:2\); mend"),
    (
      "from tml_jax.data.scenarios import instructed\n"
      "class Mine(instructed.Instructed):\n  name = 'cue'\n",
      "a.py: another scenario family is named 'cue'",
    ),
    (
      "from tml_jax.data.scenarios import instructed\n"
      "class Mine(instructed.Instructed):\n  name = 'all'\n",
      "a.py: 'all' means every family",
    ),
    (
      "from tml_jax import tools\n@tools.register('timer')\nclass A: pass\n",
      "a.py: another tool is named 'timer'",
    ),
  ],
)
def test_a_file_that_cannot_be_used(code, message, tmp_path):
  path = tmp_path / "a.py"
  path.write_text(code)
  with pytest.raises(errors.UserError, match=message):
    plugins.load([str(path)])


def test_commands_refuse_a_plugin_in_one_line(tmp_path):
  result = commands.run(
    *("-m", "tml_jax.inspect", "--config=experiments/interaction.py:tiny"),
    *("--flat", f"--plugins={tmp_path}/nowhere.py"),
  )
  assert result.returncode == 2
  assert re.fullmatch(
    r"error: --plugins=.*nowhere.py: there is no such file; .*\n", result.stderr
  )


def test_a_package_is_loaded_by_its_entry_point(tmp_path, monkeypatch):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "__init__.py").write_text("")
  plugin_files.write("twice", tmp_path / "mine")
  about = tmp_path / "mine-2.1.dist-info"
  about.mkdir()
  (about / "METADATA").write_text("Name: mine\nVersion: 2.1\n")
  (about / "entry_points.txt").write_text(
    "[tml_jax.plugins]\nours = mine.twice\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  plugins.load([])
  plugins.load([])  # each once
  assert scenarios.FAMILIES["twice"].__module__ == "mine.twice"
  assert plugins.record() == [
    {"name": "ours", "source": "mine", "version": "2.1"}
  ]
  assert plugins.as_flags() == []
  for name in ("mine", "mine.twice"):
    monkeypatch.delitem(sys.modules, name)


def test_a_run_goes_on_with_its_plugins(tmp_path, monkeypatch):
  config = small_run.config()
  path = plugin_files.write("twice", tmp_path)
  plugins.load([path])
  run = workdir_lib.create(str(tmp_path / "run"), config)
  (run / "checkpoints" / "1").mkdir(parents=True)
  workdir_lib.create(str(run), config)
  starts = [
    json.loads(line)["plugins"]
    for line in (run / workdir_lib.STARTS).read_text().splitlines()
  ]
  assert [[p["name"] for p in start] for start in starts] == [["twice.py"]] * 2
  assert plugins.as_flags() == [f"--plugins={path}"]
  monkeypatch.setattr(plugins, "_loaded", {})
  with pytest.raises(errors.UserError, match=f"add --plugins={path}, or give"):
    workdir_lib.create(str(run), config)


@pytest.mark.slow
def test_all_is_every_family(config, data_dir, tmp_path):
  def mixed(*entries):
    return dataclasses.replace(
      config, data=dataclasses.replace(config.data, mixture=entries)
    )

  names = list(scenarios.FAMILIES)
  both = mixed("all:0.5", "procedural-low:2")
  assert mixture.weights(both) == dict.fromkeys(names, 0.5) | {
    "procedural-low": 2.0
  }
  for entries in (("all:1.0", "reply:2.0"), ("reply:2.0", "all:1.0")):
    with pytest.raises(errors.UserError, match="names 'reply' twice, as all"):
      mixture.weights(mixed(*entries))

  def ids(*entries):
    items = mixture.build(mixed(*entries), data_dir=data_dir, split=Split.TRAIN)
    return [items[i].id for i in range(len(names))]

  # The order of families decides which is first and not what they give.
  alphabetical = [f"{name}:1.0" for name in names]
  assert ids("all:1.0") == ids(*alphabetical)
  forward, backward = ids("all:1.0"), ids(*reversed(alphabetical))
  assert forward != backward
  for name in names:
    given, same = (
      [each for each in found if each.startswith(f"{name}/")]
      for found in (forward, backward)
    )
    count = min(len(given), len(same))
    assert given[:count] == same[:count]
  assert len({each.split("/")[0] for each in forward}) > len(names) // 2
  # A family more is other data, which a loader's state must not be put on.
  made = loader.Loader(mixed("all:1.0"), data_dir=data_dir, split=Split.TRAIN)
  state = made.get_state()
  made.close()
  assert state["identity"]["mixture"] == alphabetical
  plugins.load([plugin_files.write("twice", tmp_path)])
  more = loader.Loader(mixed("all:1.0"), data_dir=data_dir, split=Split.TRAIN)
  with pytest.raises(errors.UserError, match="position in the data means"):
    more.set_state(state)
  more.close()


def test_every_family_has_a_row_in_the_document():
  text = (commands.ROOT / "docs" / "families.md").read_text()
  rows = re.findall(r"^\| \[(\w+)\]\(\.\./tml_jax/data/scenarios/", text, re.M)
  assert sorted(rows) == list(scenarios.FAMILIES)


def test_a_new_file_of_a_package_needs_no_line_elsewhere(tmp_path, monkeypatch):
  code = "from things import THINGS\nTHINGS.add('{0}', thing=1, module='{0}')\n"
  package = tmp_path / "things"
  package.mkdir()
  (package / "__init__.py").write_text(
    "from tml_jax import registry\n"
    "THINGS = registry.Registry('thing', packages=(__name__,))\n"
  )
  (package / "helper.py").write_text("x = 1\n")
  for name in ("things_b", "things_a"):
    (package / f"{name}.py").write_text(code.format(name))
  monkeypatch.syspath_prepend(tmp_path)
  import things

  assert [*things.THINGS] == ["things_a", "things_b"]
  assert "things_c" not in things.THINGS and len(things.THINGS) == 2
  with pytest.raises(
    errors.UserError, match="no thing is named 'thing_a'; did"
  ):
    things.THINGS["thing_a"]
  for name in ("things", "things.helper", "things.things_a", "things.things_b"):
    monkeypatch.delitem(sys.modules, name)


def test_ablations_pass_plugins_on(tmp_path):
  path = plugin_files.write("at_once", tmp_path)
  result = commands.run(
    *(
      "-m",
      "tml_jax.ablate",
      "--rows=dense",
      "--seeds=1",
      "--data_dir=nowhere",
    ),
    *(f"--plugins={path}", "--metrics=answered_at_once", "--print_commands"),
    f"--out={tmp_path}",
  )
  assert result.returncode == 0, result.stderr
  trains, evaluates = result.stdout.split(" && ")
  assert "tml_jax.train" in trains and f"--plugins={path}" in trains
  assert "tml_jax.evaluate" in evaluates and f"--plugins={path}" in evaluates


@pytest.mark.slow
def test_a_family_and_a_metric_from_training_to_the_page(data_dir, tmp_path):
  """By the commands that anyone would type, with workers."""
  names = [plugin_files.write(name, tmp_path) for name in ("twice", "at_once")]
  places = (f"--plugins={','.join(names)}", f"--data_dir={data_dir}")
  fields = (*small_run.FLAGS, "--config.data.mixture=twice:1.0")
  run = tmp_path / "run"
  train = (
    *("-m", "tml_jax.train", *fields, f"--workdir={run}"),
    *("--config.data.workers=1", "--config.train.steps=2"),
  )
  result = commands.run(*train, *places, timeout=1200)
  assert result.returncode == 0, result.stderr
  result = commands.run(*train, f"--data_dir={data_dir}")
  assert result.returncode == 2
  assert "is a run with the plugin twice.py, which is not loaded" in (
    result.stderr
  )
  result = commands.run(
    *("-m", "tml_jax.evaluate", f"--workdir={run}", "--count=2", *places),
    timeout=1200,
  )
  assert result.returncode == 0, result.stderr
  assert "turns answered within 0.6 s" in result.stdout
  numbers = json.loads((run / "evaluation.json").read_text())
  recorded = numbers["metrics"]["twice"]["recorded"]["answered_at_once"]
  assert recorded["value"] == 1.0 and recorded["events"] >= 4
  (definition,) = numbers["definitions"].values()
  assert definition in (run / "evaluation.html").read_text().replace(
    "&#x27;", "'"
  )
  result = commands.run(
    *("-m", "tml_jax.inspect", *fields, "--gallery", f"--out={tmp_path}"),
    *places,
  )
  assert result.returncode == 0, result.stderr
  assert (tmp_path / "twice.png").exists()
  page = (tmp_path / "gallery.html").read_text()
  assert "the agent says it two times" in page
