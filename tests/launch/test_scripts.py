"""launch/*.sh with commands of the cloud that record what they are told."""

import fnmatch
import os
import re
import shlex
import subprocess
import time

import pytest
import yaml

from tests.helpers import cloud as cloud_lib
from tests.helpers import commands
from tml_jax import errors

LAUNCH = commands.ROOT / "launch"
DOCKERFILE = (LAUNCH / "gke" / "Dockerfile").read_text()
SCRIPTS = ("on_slice", "install_on_slice", "queued_resource", "gke/submit")
PLACE = ("--name=pod", "--zone=us-east5-a")
V6E = (*PLACE, "--topology=v6e:4x4")
ASKED = (*V6E, "--poll_seconds=0", "--max_failures=3")
SUBMIT = (
  "--name=run",
  "--topology=v5p:8x8x8",
  "--image=us-docker.pkg.dev/project/repository/tml:1",
  "--bucket=my-bucket",
)


@pytest.fixture
def cloud(tmp_path) -> cloud_lib.Cloud:
  return cloud_lib.Cloud(tmp_path)


@pytest.mark.parametrize("script", (*SCRIPTS, "until_done"))
def test_help_names_every_flag(script):
  path = LAUNCH / f"{script}.sh"
  result = subprocess.run(
    ["bash", path, "--help"], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr
  text = path.read_text()
  parsed = text.split("\nparse ", 1)[1].split('"$@"')[0]
  for name in parsed.replace('"', " ").replace("\\\n", "").split():
    assert f"--{name}" in result.stdout


@pytest.mark.parametrize(
  "script, flags, message",
  [
    ("on_slice", [], "--name is missing"),
    ("on_slice", ["--name=Pod"], "--name=Pod: name the TPU, of lower-case"),
    ("on_slice", ["--name=pod"], "--zone is missing"),
    ("on_slice", ["--name=pod", "--zone=us"], "--zone=us: a zone"),
    ("on_slice", [*PLACE], "no command: write it behind --"),
    ("on_slice", [*PLACE, "ls"], "unexpected argument 'ls'"),
    ("on_slice", [*PLACE, "--num_slice=2"], "unknown flag --num_slice"),
    ("on_slice", [*PLACE, "--num_slices"], "--num_slices needs a value"),
    ("on_slice", [*PLACE, "--num_slices=0"], "--num_slices=0: a number"),
    ("on_slice", [*PLACE, "--num_slices=9" + "0" * 19], "a number of slices"),
    ("queued_resource", [*V6E, "--max_restarts=08"], "without zeros before"),
    ("queued_resource", [*V6E, "--max_failures=0"], "a number, at least 1"),
    ("queued_resource", [*V6E, "--poll_seconds=1e3"], "--poll_seconds=1e3"),
    (
      "queued_resource",
      [*PLACE, "--topology=v5p:3037000500x3037000500x2"],
      "v5p:AxBxC or v6e:AxB",
    ),
    (
      "on_slice",
      [*PLACE, "--detach", "--log_dir=x", "--", "ls"],
      "--detach leaves no output",
    ),
    ("queued_resource", [*PLACE], "--topology is missing"),
    (
      "queued_resource",
      [*PLACE, "--topology=tpu7x:4x8x8"],
      "tpu7x through GKE",
    ),
    ("queued_resource", [*PLACE, "--topology=v6e:4x4x4"], "v6e has two dims"),
    ("queued_resource", [*PLACE, "--topology=v5p:8x8"], "v5p has three dims"),
    (
      "queued_resource",
      [*PLACE, "--topology=v6e:4x4", "--capacity=cheap"],
      "one of on_demand, spot, reserved",
    ),
    ("until_done", [], "no command: write it behind --"),
    ("until_done", ["--max_restarts=x", "--", "ls"], "--max_restarts=x"),
    ("gke/submit", ["--name=run"], "--topology is missing"),
    (
      "gke/submit",
      [*SUBMIT[:-1], "--bucket=gs://my-bucket"],
      "without gs://",
    ),
    (
      "gke/submit",
      [*SUBMIT, "--topology=v6e:1x1", "--", "ls"],
      "has 1 chips and a host 4",
    ),
  ],
)
def test_bad_flags_exit_2_before_anything(cloud, script, flags, message):
  result = cloud.run(script, *flags)
  assert result.returncode == 2
  assert message in result.stderr
  assert result.stderr.startswith("error: ")
  assert cloud.calls() == []


def test_a_command_runs_on_every_host_of_every_slice(cloud):
  result = cloud.run(
    "on_slice", *PLACE, "--num_slices=2", "--", "printf", "<%s>", "a b", "c'd"
  )
  assert (result.returncode, result.stdout) == (0, "<a b><c'd>" * 2)
  calls = sorted(cloud.calls())
  assert [call[:5] for call in calls] == [
    ["compute", "tpus", "tpu-vm", "ssh", f"pod-{i}"] for i in range(2)
  ]
  for call in calls:
    assert {"--worker=all", "--zone=us-east5-a"} <= set(call)
    assert call[-1].startswith("--command=cd ~/tml_jax && source .venv/bin/")


def test_one_failing_slice_fails_the_command(cloud):
  result = cloud.run("on_slice", *PLACE, "--", "false")
  assert result.returncode == 1
  assert "error: pod: the command failed on it (exit 1)" in result.stderr


def test_a_detached_command_leaves_its_output(cloud):
  result = cloud.run("on_slice", *PLACE, "--detach", "--", "echo", "it's on")
  assert result.returncode == 0, result.stderr
  log = cloud.home("pod") / "tml_jax.log"
  for _ in range(100):
    if log.exists() and log.read_text():
      break
    subprocess.run(["sleep", "0.05"], check=True)
  assert log.read_text() == "it's on\n"


def test_installing_checks_out_this_commit_on_the_hosts(cloud):
  result = cloud.run("install_on_slice", *PLACE)
  assert result.returncode == 0, result.stderr
  head = subprocess.run(
    ["git", "rev-parse", "HEAD"],
    cwd=cloud.checkout,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert result.stdout == head
  assert (cloud.home("pod") / "tml_jax" / "launch" / "cli.sh").is_file()
  assert "pip install -q -e .[tpu]" in result.stderr


def test_work_on_a_host_is_not_overwritten(cloud):
  assert cloud.run("install_on_slice", *PLACE).returncode == 0
  there = cloud.home("pod") / "tml_jax" / "launch" / "cli.sh"
  text = there.read_text()
  there.write_text("hours of work")
  result = cloud.run("install_on_slice", *PLACE)
  assert result.returncode == 2 and "has changes" in result.stderr
  assert there.read_text() == "hours of work"
  # What an installation that was cut off has left is no work.
  (cloud.home("pod") / "tml_jax" / ".git" / "installing").touch()
  assert cloud.run("install_on_slice", *PLACE).returncode == 0
  assert there.read_text() == text
  # Nor is a file overwritten that no commit has.
  other = cloud.home("pod-0") / "tml_jax" / "launch" / "cli.sh"
  other.parent.mkdir()
  other.write_text("hours of work")
  result = cloud.run("install_on_slice", *PLACE, "--num_slices=2")
  assert result.returncode != 0 and other.read_text() == "hours of work"


def test_what_is_not_committed_is_not_installed(cloud):
  (cloud.checkout / "launch" / "cli.sh").open("a").write("# changed\n")
  result = cloud.run("install_on_slice", *PLACE)
  assert result.returncode == 2
  assert "files differ from the last commit" in result.stderr
  assert cloud.calls() == []


def _verbs(calls: list[list[str]]) -> list[str]:
  return [call[3] for call in calls]


def test_a_queued_resource_from_nothing_to_nothing(cloud):
  result = cloud.run(
    "queued_resource",
    *PLACE,
    "--topology=v5p:8x8x8",
    "--num_slices=2",
    "--capacity=spot",
    "--poll_seconds=0",
    "--",
    "echo",
    "ran",
    describe="WAITING_FOR_RESOURCES PROVISIONING ACTIVE",
  )
  assert result.returncode == 0, result.stderr
  calls = cloud.calls()
  assert _verbs(calls) == (
    ["create"]
    + ["describe"] * 3
    + ["scp"] * 2
    + ["ssh"] * 4
    + ["describe", "delete"]
  )
  assert {
    "--accelerator-type=v5p-1024",
    "--runtime-version=v2-alpha-tpuv5",
    "--node-count=2",
    "--node-prefix=pod",
    "--spot",
  } <= set(calls[0])
  assert {"pod", "--force"} <= set(calls[-1])
  assert result.stdout.count("ran\n") == 2
  assert "pod is PROVISIONING" in result.stderr


def test_a_failing_command_still_deletes_and_keeps_its_status(cloud):
  result = cloud.run("queued_resource", *ASKED, *("--", "bash", "-c", "exit 2"))
  assert result.returncode == 2
  calls = cloud.calls()
  assert {"--accelerator-type=v6e-16", "--node-id=pod"} <= set(calls[0])
  assert _verbs(calls)[-1] == "delete" and _verbs(calls).count("create") == 1


def _made(cloud) -> list[str]:
  return [v for v in _verbs(cloud.calls()) if v in ("create", "delete")]


def test_a_preempted_slice_is_asked_for_again(cloud):
  result = cloud.run(
    "queued_resource",
    *ASKED,
    "--max_restarts=1",
    *("--", "false"),
    describe="ACTIVE SUSPENDING SUSPENDING ACTIVE SUSPENDED",
  )
  assert result.returncode == 1
  assert "was preempted 2 times" in result.stderr
  assert _made(cloud) == ["create", "delete"] * 2


def test_one_that_is_suspended_before_it_was_there_is_asked_for_again(cloud):
  result = cloud.run(
    "queued_resource",
    *ASKED,
    *("--", "echo", "ran"),
    describe="WAITING_FOR_RESOURCES SUSPENDING SUSPENDED ACTIVE",
  )
  assert (result.returncode, result.stdout.count("ran\n")) == (0, 1)
  assert _made(cloud) == ["create", "delete"] * 2


@pytest.mark.parametrize("state", ["FAILED", "DELETING"])
def test_a_resource_that_fails_is_deleted(cloud, state):
  result = cloud.run("queued_resource", *ASKED, "--", "true", describe=state)
  assert result.returncode == 1
  assert f"the queued resource pod is {state}" in result.stderr
  assert _verbs(cloud.calls()) == ["create", "describe", "describe", "delete"]


@pytest.mark.parametrize("answers", [{}, {"describe": "ERROR ACTIVE"}])
def test_what_another_run_created_is_not_deleted(cloud, answers):
  result = cloud.run(
    "queued_resource", *ASKED, "--", "true", create="1", **answers
  )
  assert result.returncode == 1
  assert "pod is there (ACTIVE) and is not of this run" in result.stderr
  assert _made(cloud) == ["create"]


def test_what_has_become_another_runs_is_not_deleted(cloud):
  steal = 'echo "somebody else" >"$RECORD/owner"; exit 1'
  result = cloud.run("queued_resource", *ASKED, "--", "bash", "-c", steal)
  assert result.returncode == 1
  assert _made(cloud) == ["create"]


@pytest.mark.parametrize(
  "create, describe, status, made",
  [
    ("1", "NOT_FOUND", 1, ["create"]),  # nothing was made
    ("half", "PROVISIONING ACTIVE", 0, ["create", "delete"]),
    ("term", "PROVISIONING", 143, ["create", "delete"]),
    ("term", "NOT_FOUND", 143, ["create"]),
  ],
)
def test_a_create_that_breaks(cloud, create, describe, status, made):
  result = cloud.run(
    *("queued_resource", *ASKED, "--", "true"), create=create, describe=describe
  )
  assert result.returncode == status, result.stderr
  assert _made(cloud) == made


def test_after_a_preemption_a_create_is_tried_again(cloud):
  result = cloud.run(
    *("queued_resource", *ASKED, "--", "true"),
    create="0 1 1 0",
    describe="SUSPENDED SUSPENDED NOT_FOUND NOT_FOUND ACTIVE",
  )
  assert result.returncode == 0, result.stderr
  assert _made(cloud) == ["create", "delete"] + ["create"] * 3 + ["delete"]


@pytest.mark.parametrize(
  "describe",
  ["WAITING_FOR_RESOURCES ERROR ERROR ACTIVE", "ERROR WAITING ERROR ACTIVE"],
)
def test_a_look_that_fails_keeps_the_place_in_the_queue(cloud, describe):
  result = cloud.run("queued_resource", *ASKED, "--", "true", describe=describe)
  assert result.returncode == 0, result.stderr
  assert _made(cloud) == ["create", "delete"]


def test_looks_are_tried_so_often_and_what_is_left_is_said(cloud):
  result = cloud.run("queued_resource", *ASKED, "--", "true", describe="ERROR")
  assert result.returncode == 1
  assert "no answer 3 times in a row" in result.stderr
  assert "NOT DELETED, it may go on costing: gcloud" in result.stderr
  assert _verbs(cloud.calls()) == ["create"] + ["describe"] * 6


@pytest.mark.parametrize(
  "answers", [{"scp": "1 1 0"}, {"ssh": "255 0"}, {"ssh": "0 255 255 0"}]
)
def test_a_refused_connection_is_tried_again(cloud, answers):
  """Of the installation, and of the command."""
  result = cloud.run(
    "queued_resource", *ASKED, *("--", "echo", "ran"), **answers
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.count("ran\n") == 1
  assert _made(cloud) == ["create", "delete"]


@pytest.mark.parametrize("answers", [{"scp": "1"}, {"ssh": "0 255"}])
def test_connections_are_tried_so_often(cloud, answers):
  result = cloud.run("queued_resource", *ASKED, "--", "true", **answers)
  assert result.returncode == 1
  assert "3 times: gcloud says why above" in result.stderr
  (verb,) = answers
  tries = _verbs(cloud.calls()).count(verb)
  assert tries == 3 + (verb == "ssh")  # one installation went well
  assert _made(cloud) == ["create", "delete"]


def test_a_slice_that_goes_while_it_is_installed_is_asked_for_again(cloud):
  result = cloud.run(
    *("queued_resource", *ASKED, "--", "true"),
    scp="1 0",
    describe="ACTIVE SUSPENDED SUSPENDED ACTIVE",
  )
  assert result.returncode == 0, result.stderr
  assert _made(cloud) == ["create", "delete"] * 2


def test_a_delete_is_tried_again_and_its_failure_is_said(cloud):
  flags = ("queued_resource", *ASKED, "--", "true")
  assert cloud.run(*flags, delete="1 1 0").returncode == 0
  result = cloud.run(*flags, delete="1")
  assert result.returncode == 1
  assert "NOT DELETED" in result.stderr
  assert _verbs(cloud.calls())[-6:] == ["describe", "delete"] * 3


def test_what_is_kept_is_kept(cloud):
  result = cloud.run("queued_resource", *ASKED, "--keep", "--", "true")
  assert result.returncode == 0 and "kept, it goes on costing" in result.stderr
  assert _made(cloud) == ["create"]


def test_a_dry_run_prints_and_calls_nothing(cloud):
  result = cloud.run(
    "queued_resource",
    *PLACE,
    "--topology=v5p:2x2x2",
    "--dry_run",
    *("--", "python", "-m", "launch.preflight"),
  )
  assert result.returncode == 0, result.stderr
  assert cloud.calls() == []
  words = [line.split()[:5] for line in result.stdout.splitlines()]
  printed = [line[4] for line in words if line[0] == "gcloud"]
  assert [line[3] for line in words if line[0] == "gcloud"] == (
    ["queued-resources"] * 2 + ["tpu-vm"] * 3 + ["queued-resources"] * 2
  )
  assert printed == ["create", "describe", "scp", "ssh", "ssh"] + [
    "describe",
    "delete",
  ]


def _manifest(cloud, *flags: str) -> dict:
  result = cloud.run("gke/submit", *SUBMIT, *flags)
  assert result.returncode == 0, result.stderr
  assert "${" not in result.stdout
  return yaml.safe_load(result.stdout)


def test_the_manifest_of_two_slices(cloud):
  command = ["python", "-m", "tml_jax.train", '--x=a "b" \\ $HOME']
  manifest = _manifest(cloud, "--num_slices=2", "--dry_run", "--", *command)
  assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
  assert manifest["kind"] == "JobSet"
  spec = manifest["spec"]
  (job,) = spec["replicatedJobs"]
  pods = job["template"]["spec"]
  assert (job["replicas"], pods["parallelism"]) == (2, 128)
  assert pods["completions"] == 128 and pods["backoffLimit"] == 0
  assert spec["failurePolicy"]["maxRestarts"] == 50
  # Whatever is worth another start is started again by the JobSet.
  (rule,) = pods["podFailurePolicy"]["rules"]
  values = rule["onExitCodes"]["values"]
  assert rule["action"] == "FailJob" and {*errors.FINAL} < {*values}
  assert not {errors.Status.FAILED, errors.Status.STOPPED, 137} & {*values}
  pod = pods["template"]["spec"]
  assert pod["nodeSelector"] == {
    "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
    "cloud.google.com/gke-tpu-topology": "8x8x8",
  }
  (container,) = pod["containers"]
  assert container["resources"]["limits"] == {"google.com/tpu": 4}
  # The image's user, who may write into the bucket and cannot become root.
  user = pod["securityContext"]["runAsUser"]
  assert re.findall(r"^USER (.*)$", DOCKERFILE, flags=re.M) == [str(user)]
  assert user != 0 and pod["securityContext"]["runAsNonRoot"] is True
  assert container["securityContext"]["allowPrivilegeEscalation"] is False
  (volume,) = pod["volumes"]
  options = volume["csi"]["volumeAttributes"]["mountOptions"].split(",")
  assert {f"uid={user}", f"gid={user}"} <= set(options)
  # Kubernetes puts a restart policy of Never before a policy of pod failures.
  assert pod["restartPolicy"] == "Never"
  (rule,) = pods["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"]["containerName"] == container["name"]
  # The shell in the container sees the words that were given.
  shell, option, text = container["command"]
  assert (shell, option) == ("bash", "-c")
  words = subprocess.run(
    ["bash", "-c", text.replace("exec python", "printf '%s\\n'", 1)],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.splitlines()
  assert words == command[1:]


@pytest.mark.parametrize(
  "topology, accelerator, hosts",
  [("v6e:16x16", "tpu-v6e-slice", 64), ("tpu7x:4x8x8", "tpu7x", 64)],
)
def test_manifests_of_other_chips(cloud, topology, accelerator, hosts):
  manifest = _manifest(
    cloud, f"--topology={topology}", "--dry_run", "--", "true"
  )
  (job,) = manifest["spec"]["replicatedJobs"]
  pods = job["template"]["spec"]
  selector = pods["template"]["spec"]["nodeSelector"]
  assert selector["cloud.google.com/gke-tpu-accelerator"] == accelerator
  assert (
    selector["cloud.google.com/gke-tpu-topology"]
    == (topology.partition(":")[2])
  )
  assert pods["parallelism"] == hosts


def _is_sent(name, ignored):
  """Whether a build is sent this file; the last pattern that fits decides."""
  sent = True
  for line in ignored:
    pattern = line.removeprefix("!")
    if any(fnmatch.fnmatch(name, p) for p in (pattern, pattern + "/*")):
      sent = line.startswith("!")
  return sent


@pytest.mark.parametrize("path", sorted(LAUNCH.glob("*/Dockerfile")))
def test_what_an_image_copies_is_sent_to_its_build(path):
  own = path.with_name("Dockerfile.dockerignore")
  file = own if own.exists() else commands.ROOT / ".dockerignore"
  lines = file.read_text().splitlines()
  ignored = [line for line in lines if line and line[0] != "#"]
  copies = re.findall(
    r"^COPY (?!--from)(.*) \S+$", path.read_text(), flags=re.M
  )
  sources = [source for copy in copies for source in copy.split()]
  assert sources
  for source in sources:
    source = source.removeprefix("./")
    assert (commands.ROOT / source).exists()
    assert _is_sent(source, ignored), source
  for secret in (".env", "DATA/voice.wav", "runs/config.txt"):
    assert not _is_sent(secret, ignored)


def test_the_image_is_of_a_pinned_one_and_of_a_commit_alone(tmp_path):
  places = re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.M)
  pinned = r"python:3\.\d+\.\d+-\S+@sha256:[0-9a-f]{64}"
  assert re.fullmatch(pinned, places[0]) and set(places[1:]) == {"base"}
  ignored = (commands.ROOT / ".dockerignore").read_text().splitlines()
  assert [line for line in ignored if line[0] != "#"] == ["*", "!.git"]
  # The clone that the image is made of, of a checkout with secrets in it.
  checkout = tmp_path / "checkout"
  checkout.mkdir()
  url = "https://user:token@host/repository.git"

  def git(*words):
    name = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", *name, *words], cwd=checkout, check=True)

  git("init", "-q")
  git("remote", "add", "origin", url)
  for content in ("an older secret", "code"):
    (checkout / "file").write_text(content)
    git("add", "file")
    git("commit", "-q", "-m", "all")
  (checkout / ".env").write_text("a key")
  (clone,) = re.findall(r"RUN (git clone(?:.*\\\n)*.*)", DOCKERFILE)
  clone = clone.replace("file:///checkout", f"file://{checkout}")
  image = tmp_path / "image"
  clone = clone.replace("/tml_jax", str(image))
  subprocess.run(["bash", "-c", clone], check=True)
  assert {path.name for path in image.iterdir()} == {".git", "file"}
  assert "token" not in (image / ".git" / "config").read_text()
  log = ["git", "log", "--format=%s"]
  result = subprocess.run(log, cwd=image, capture_output=True, check=True)
  assert result.stdout == b"all\n"


def test_submitting_hands_the_manifest_to_kubectl(cloud, tmp_path):
  kubectl = tmp_path / "bin" / "kubectl"
  kubectl.write_text('#!/bin/sh\necho "$@" >$RECORD/words\ncat >$RECORD/in\n')
  kubectl.chmod(0o755)
  result = cloud.run("gke/submit", *SUBMIT, "--", "true")
  assert result.returncode == 0, result.stderr
  assert (cloud.record / "words").read_text() == "create -f -\n"
  assert yaml.safe_load((cloud.record / "in").read_text())["kind"] == "JobSet"


def _documented() -> list[list[str]]:
  """Words of every command of docs/run_on_tpu.md that starts a script."""
  text = (commands.ROOT / "docs" / "run_on_tpu.md").read_text()
  text = text.replace("\\\n", " ")
  for name, value in {"ZONE": "us-east5-a", "IMAGE": "image"}.items():
    text = re.sub(rf"\b{name}\b", value, text)
  lines = re.findall(r"^bash launch/(\S+\.sh .*)$", text, flags=re.MULTILINE)
  return [
    shlex.split(line.replace("BUCKET", "bucket"), comments=True)
    for line in lines
  ]


@pytest.mark.parametrize("words", _documented(), ids=lambda words: words[0])
def test_documented_commands_are_accepted(cloud, words):
  script, *flags = words
  result = cloud.run(script.removesuffix(".sh"), "--dry_run", *flags)
  assert result.returncode == 0, result.stderr
  assert "gcloud compute tpus" in result.stdout or "JobSet" in result.stdout
  assert cloud.calls() == []


def test_commands_are_documented():
  assert {words[0].removesuffix(".sh") for words in _documented()} == set(
    SCRIPTS
  )


def test_shell_and_package_agree_on_statuses(cloud):
  listed = (LAUNCH / "cli.sh").read_text().split("final_statuses=(")[1]
  found = set(map(int, listed.split(")")[0].split()))
  # And what a shell says of a command that is not there.
  assert found == {*errors.FINAL, 126, 127}


def test_of_several_slices_the_status_that_ends_a_run_counts(cloud):
  script = '[[ "$HOME" == *pod-0 ]] && exit 4; sleep 0.3; exit 1'
  result = cloud.run(
    "on_slice", *PLACE, "--num_slices=2", "--", "bash", "-c", script
  )
  assert result.returncode == 4, result.stderr


def _until_done(*flags: str, script: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    ["bash", LAUNCH / "until_done.sh", "--pause_seconds=0", *flags]
    + ["--", "bash", "-c", script],
    capture_output=True,
    text=True,
    check=False,
    timeout=60,
  )


@pytest.mark.parametrize("status", [2, 3, 4, 127, 130])
def test_what_does_not_get_better_is_not_run_again(status):
  result = _until_done(script=f"echo ran; exit {status}")
  assert (result.returncode, result.stdout) == (status, "ran\n")


@pytest.mark.parametrize("status", [1, 134, 137, 143])
def test_what_may_get_better_is_run_again(tmp_path, status):
  runs = tmp_path / "runs"
  script = f"echo x >>{runs}; [ $(wc -l <{runs}) = 3 ] || exit {status}"
  assert _until_done(script=script).returncode == 0
  assert runs.read_text() == "x\n" * 3
  result = _until_done("--max_restarts=1", script=f"echo y; exit {status}")
  assert (result.returncode, result.stdout) == (status, "y\n" * 2)
  assert "was run again 1 times" in result.stderr


_AT = """
count=0
at() {
  [[ "$BASH_COMMAND" == %s* ]] && ((++count == %d)) || return 0
  trap - DEBUG
  kill -TERM $$
}
trap at DEBUG
"""


@pytest.mark.parametrize(
  "before, time_of_it, script",
  [
    ("printf", 1, "exit 1"),  # it has ended, the pause is to begin
    ("'child=$!'", 2, "exit 1"),  # the number of the pause is not known
    ("'child=$!'", 1, "exec sleep 60"),  # that of the command is not known
  ],
)
def test_sigterm_between_two_commands_of_the_script(
  tmp_path, before, time_of_it, script
):
  """It comes when bash is about to do `before`."""
  debug = tmp_path / "debug.sh"
  debug.write_text(_AT % (before, time_of_it))
  start = time.monotonic()
  result = subprocess.run(
    ["bash", LAUNCH / "until_done.sh", "--pause_seconds=60"]
    + ["--", "sh", "-c", f"echo ran; {script}"],
    env=os.environ | {"BASH_ENV": str(debug)},
    capture_output=True,
    text=True,
    check=False,
    timeout=150,
  )
  assert result.returncode == errors.Status.STOPPED, result.stderr
  assert result.stdout.count("ran") < 2
  assert time.monotonic() - start < 30


def test_sigterm_reaches_the_command_and_nothing_is_run_again(tmp_path):
  ready = tmp_path / "ready"
  script = f"trap 'echo saved; exit 143' TERM; touch {ready}; sleep 30 & wait"
  process = subprocess.Popen(
    ["bash", LAUNCH / "until_done.sh", "--", "bash", "-c", script],
    stdout=subprocess.PIPE,
    text=True,
  )
  while not ready.exists():
    assert process.poll() is None
    time.sleep(0.02)
  process.terminate()
  assert process.wait(timeout=20) == 143
  assert process.stdout.readline() == "saved\n"
