"""Tick logs as trajectories of tau2-bench."""

import json

import pytest

from tests.helpers import commands
from tml_jax import errors
from tml_jax.data import calls, tick_logs
from tml_jax.evals import tau2
from tml_jax.logs import ticks
from tml_jax.streams.annotation import Annotation, Kind
from tml_jax.streams.timeline import EventKind


def _log(**fields) -> ticks.Log:
  """2 s: the user asks, calls aside, hums; the agent calls and answers."""
  user = [True, True, False, True, False, True, False, False, False, False]
  agent = [False, False, False, False, True, True, True, True, True, False]
  found = [
    ticks.Tick(agent=a, user=u) for a, u in zip(agent, user, strict=True)
  ]
  found[0] = ticks.Tick(agent=False, user=True, user_text="two and two")
  found[2] = ticks.Tick(
    agent=False, user=False, calls=(ticks.Call(1, "calculator 2+2"),)
  )
  found[3] = ticks.Tick(
    agent=False,
    user=True,
    user_text="coming",
    results=(ticks.Call(1, "4"),),
  )
  found[4] = ticks.Tick(agent=True, user=False, agent_text="four", seconds=0.01)
  return ticks.Log(
    **{
      "id": "tool_call/say it/0",
      "family": "tool_call",
      "duration": 2.0,
      "annotations": (
        Annotation(Kind.TURN, start=0.0, end=0.4, due=0.8),
        Annotation(Kind.SIDE_TALK, start=0.4, end=0.8),
        Annotation(Kind.BACKCHANNEL, start=1.0, end=1.2),
      ),
      "recorded": ((0.8, 1.8),),
      "ticks": tuple(found),
      "provenance": {"agent": "duplex"},
    }
    | fields
  )


def test_what_is_beside_a_turn_is_told_apart():
  made = tau2.simulation(_log())
  users = [tick["user_chunk"] for tick in made["ticks"]]
  speech = [k for k, user in enumerate(users) if user["contains_speech"]]
  assert speech == [0, 1, 5]  # side talk is none
  assert [k for k, user in enumerate(users) if "speech_effects" in user] == [
    2,
    3,
  ]
  assert users[3]["speech_effects"]["speech_insert"] == {
    "text": "coming",
    "type": "non_directed_phrase",
  }
  acted = [u.get("turn_taking_action") for u in users]
  assert acted == [None] * 5 + [{"action": "backchannel"}] + [None] * 4
  agents = [tick["agent_chunk"] for tick in made["ticks"]]
  spoken = [k for k, each in enumerate(agents) if each["contains_speech"]]
  assert spoken == [4, 5, 6, 7, 8]


def test_the_importer_of_such_logs_reads_the_same():
  found = tick_logs.read(tau2.simulation(_log())["ticks"], notes=calls.Notes())
  assert found.seconds == pytest.approx(2.0)
  assert [(e.kind, e.time) for e in found.events] == [
    (EventKind.CALL, pytest.approx(0.6, abs=0.21)),
    (EventKind.RESULT, pytest.approx(0.8, abs=0.21)),
  ]
  assert found.events[0].text.startswith("calculator")
  assert found.events[1].text == "1: 4"
  assert [word.text for word in found.said["agent"]] == ["four"]


def test_a_folder_a_family(tmp_path):
  for k in range(3):
    log = _log(id=f"tool_call/say it/{k}")
    ticks.write(log, tmp_path / "ticks" / "tool_call" / f"{k}.jsonl")
  out = tmp_path / "out"
  assert tau2.export(tmp_path / "ticks", out) == {"tool_call": 3}
  head = json.loads((out / "tool_call" / "results.json").read_text())
  assert head["info"]["environment_info"]["domain_name"] == "tool_call"
  assert head["info"]["agent_info"] == {"implementation": "duplex"}
  files = sorted((out / "tool_call" / "simulations").iterdir())
  made = [json.loads(each.read_text()) for each in files]
  assert [each["task_id"] for each in made] == [
    f"tool_call/say it/{k}" for k in range(3)
  ]
  assert [each.stem for each in files] == [each["id"] for each in made]
  with pytest.raises(errors.UserError, match="is there already"):
    tau2.export(tmp_path / "ticks", out)


def test_what_is_no_folder_of_logs(tmp_path):
  with pytest.raises(errors.UserError, match=r"has no FAMILY/ID\.jsonl"):
    tau2.export(tmp_path, tmp_path / "out")
  path = tmp_path / "reply" / "0.jsonl"
  ticks.write(_log(), path)
  path.write_text(path.read_text().replace('"tick_id": 3', '"tick_id": 4'))
  with pytest.raises(errors.UserError, match="line 5"):
    tau2.export(tmp_path, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_the_command_names_what_is_missing():
  found = commands.run("-m", "tml_jax.evals.tau2", "--out=x")
  assert found.returncode and "--ticks is missing" in found.stderr
