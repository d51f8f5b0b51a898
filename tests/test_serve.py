"""`serve` as a command: bad flags, and a run that is killed and resumed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import topologies
from tests.helpers import commands, served, small
from tml_jax import errors, sample, serve
from tml_jax.config import text as config_text


@pytest.fixture(name="workdir")
def _workdir(tmp_path):
  """A run that has a checkpoint, as far as can be seen from outside."""
  path = tmp_path / "run"
  (path / "checkpoints" / "1").mkdir(parents=True)
  config = small.run({})
  (path / config_text.FILE_NAME).write_text(config_text.to_text(config))
  return path


@pytest.mark.parametrize(
  "given, words",
  [
    ({"workdir": ""}, "--workdir is missing"),
    ({"workdir": "/nowhere"}, "no such directory"),
    ({"data_dir": ""}, "--data_dir is missing"),
    ({"data_dir": "/nowhere"}, "no tokenizer at"),
    ({"vocoder": "/nowhere"}, "--vocoder=/nowhere: there is no such"),
    ({"vocoder": "griffin_lim"}, "makes its sound after the session"),
    ({"host": "0.0.0.0"}, "lets others in: give a --token"),
    ({"token": "two words"}, "letters and digits"),
    ({"token": "a/b="}, "letters and digits"),
    ({"token": "a,b"}, "letters and digits"),
    ({"tls_cert": "a.pem"}, "go together"),
    ({"tls_cert": "/no.pem", "tls_key": "/no.key"}, "give PEM files"),
    ({"tools": ["calculate"]}, "--tools=calculate: no such tool"),
    ({"rest_dir": "/proc/no"}, "--rest_dir=/proc/no cannot be written"),
    ({"record": "/proc/no"}, "--record=/proc/no cannot be written"),
  ],
)
def test_bad_flags(given, words, workdir, tmp_path, monkeypatch):
  monkeypatch.delenv("TML_JAX_SERVE_TOKEN", raising=False)
  values = {
    "workdir": str(workdir),
    "data_dir": str(tmp_path),
    "rest_dir": str(tmp_path / "rest"),
  }
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(**(values | given)):
    with pytest.raises(errors.UserError, match=re.escape(words)):
      serve.main(small.run({}))


def test_a_run_with_its_tokenizer_needs_no_data(workdir, tmp_path):
  (workdir / "tokenizer.model").write_bytes(b"")
  flags.FLAGS.mark_as_parsed()
  values = {"workdir": str(workdir), "rest_dir": "/proc/no"}
  with flagsaver.flagsaver(**values):
    with pytest.raises(errors.UserError, match="--rest_dir=/proc/no cannot"):
      serve.main(small.run({}))
    with flagsaver.flagsaver(input=str(tmp_path / "no.wav")):
      with pytest.raises(errors.UserError, match="tokenizer.model"):
        sample.main(small.run({}))


def _start(tmp_path, *arguments, slots=1, devices=1):
  """The command, and its port once it listens."""
  flag = f"--xla_force_host_platform_device_count={devices}"
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flag}
  process = subprocess.Popen(
    [
      sys.executable,
      *("-m", "tml_jax.serve", f"--workdir={tmp_path / 'run'}"),
      *("--port=0", f"--slots={slots}", "--busy=100"),
      *(f"--rest_dir={tmp_path / 'rest'}", *arguments),
    ],
    cwd=commands.ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  lines = []
  for line in process.stdout:
    lines.append(line)
    if line.startswith('{"event": "listening"'):
      return process, json.loads(line)["port"]
  raise AssertionError("".join(lines))


class _Address:
  def __init__(self, port):
    self.socket = f"ws://127.0.0.1:{port}/v1/realtime"


def _train(tmp_path, data_dir):
  trained = commands.run(
    *("-m", "tml_jax.train", *small.flags(), "--config.train.steps=2"),
    *(f"--data_dir={data_dir}", f"--workdir={tmp_path / 'run'}"),
    timeout=900,
  )
  assert trained.returncode == 0, trained.stderr


@pytest.mark.slow
def test_a_mesh_serves_the_tokens_of_one_device(data_dir, tmp_path):
  _train(tmp_path, data_dir)

  async def talk(port):
    async with served.client(_Address(port), query="?seed=3") as client:
      content = [{"type": "input_text", "text": "count to ten"}]
      item = {"type": "message", "role": "user", "content": content}
      await client.send(type="conversation.item.create", item=item)
      ticks = await client.windows(30)
      kinds = ("window", "decision", "is_speaking", "user")
      return [[tick[kind] for kind in kinds] for tick in ticks], [
        event["delta"]
        for event in client.events
        if event["type"] == "response.output_audio_transcript.delta"
      ]

  rules = "--config.mesh.rules=" + ",".join(topologies.RULES)
  mesh = ("--config.mesh.data=2", "--config.mesh.expert=4", rules)
  found = {}
  for devices, flags_of in ((1, ()), (8, mesh)):
    process, port = _start(tmp_path, *flags_of, slots=8, devices=devices)
    found[devices] = asyncio.run(talk(port))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
  assert found[1] == found[8]
  assert any(decision for _, decision, *_ in found[1][0])


@pytest.mark.slow
def test_a_run_is_served_ended_and_goes_on(data_dir, tmp_path):
  _train(tmp_path, data_dir)

  async def talk(port, *, resume=""):
    query = f"?resume={resume}" if resume else ""
    async with served.client(_Address(port), query=query) as client:
      about = client.events[1]
      await client.send(type="response.create")
      ticks = await client.windows(5)
      return about, ticks[-1]["window"]

  process, port = _start(tmp_path)
  about, last = asyncio.run(talk(port))
  assert about["run"]["step"] == 2 and about["run"]["is_tiny"]
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=120)
  assert process.returncode == 0, out
  assert '"event": "ended"' in out

  process, port = _start(tmp_path)
  again, later = asyncio.run(talk(port, resume=about["resume_token"]))
  assert again["resumed"] and again["session_id"] == about["session_id"]
  assert later >= last + 5

  async def talk_until_it_is_killed():
    async with served.client(_Address(port)) as client:
      await client.send(type="response.create")
      await client.windows(2)
      process.kill()
      with pytest.raises(ConnectionError):
        await client.next("none")
      return client.events[1]["resume_token"]

  # The first session rests on disk again; the one that was in is lost.
  lost = asyncio.run(talk_until_it_is_killed())
  process.wait()
  process, port = _start(tmp_path)
  assert not asyncio.run(talk(port, resume=lost))[0]["resumed"]
  third, last = asyncio.run(talk(port, resume=about["resume_token"]))
  assert third["resumed"] and last >= later + 5
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=120)
