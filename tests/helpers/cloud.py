"""A checkout of launch/ and a gcloud that records, for tests of the scripts."""

import pathlib
import shutil
import subprocess

from tests.helpers import commands

# Stands for gcloud: writes its words down, one a line, in one piece, and does
# what the next word of the file of its verb says, the last one for good:
#   describe  a state, NOT_FOUND, or ERROR for no answer
#   create    0, 1, half (it fails and the resource is there), or term (so too,
#             and the script is told to end)
#   delete    its status
#   scp, ssh  its status and nothing more; 0 does it, in a home of that host
_GCLOUD = r"""#!/usr/bin/env bash
(flock 9; printf '%s\n' "$@" '' >&9) 9>>"$RECORD/calls"
next="$(
  exec 9>>"$RECORD/lock"
  flock 9
  head -n 1 "$RECORD/$4"
  sed -i '1{$!d}' "$RECORD/$4"
)"
case "$4 $next" in
  "describe NOT_FOUND") echo "ERROR: NOT_FOUND: not there" >&2; exit 1 ;;
  "describe ERROR") echo "ERROR: 503" >&2; exit 1 ;;
  describe*) printf '%s\t%s\n' "$next" "$(cat "$RECORD/owner")" ;;
  create*)
    if [[ "$next" != 1 ]]; then
      printf '%s\n' "$@" | sed -n 's/^--labels=tml_jax_run=//p' >"$RECORD/owner"
    fi
    [[ "$next" != term ]] || kill -TERM "$PPID"
    [[ "$next" == 0 ]]
    ;;
  delete*) exit "$next" ;;
  "scp 0") cp "$5" "$HOME/${6%%:*}" ;;
  "ssh 0")
    export HOME="$HOME/$5"
    for word in "$@"; do command="${word#--command=}"; done
    bash -c "$command"
    ;;
  *) exit "$next" ;;
esac
"""


class Cloud:
  """A checkout of launch/ alone, and a gcloud that records."""

  def __init__(self, root: pathlib.Path):
    self.record, self._homes = root / "record", root / "homes"
    self.checkout = root / "checkout"
    for folder in (self.record, root / "bin"):
      folder.mkdir(parents=True)
    shutil.copytree(commands.ROOT / "launch", self.checkout / "launch")
    self._path = root / "bin"
    self._write(self._path / "gcloud", _GCLOUD)
    for host in ("pod", "pod-0", "pod-1"):
      # On the hosts python is there, and pip says what it was told.
      programs = self.home(host) / "tml_jax" / ".venv" / "bin"
      for program in ("python", "pip"):
        self._write(programs / program, f'echo "{program} $*" >&2')
      (programs / "activate").touch()
    for words in (
      ["init", "-q"],
      ["add", "."],
      ["commit", "-q", "-m", "all"],
    ):
      subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *words],
        cwd=self.checkout,
        check=True,
      )

  def home(self, host: str) -> pathlib.Path:
    return self._homes / host

  def _write(self, path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)

  def run(self, script: str, *flags: str, **answers: str):
    """Runs launch/SCRIPT.sh.

    Args:
      script: its name.
      *flags: its arguments.
      **answers: of gcloud to a verb, in order and with spaces between them;
        by default that all is well.
    """
    fine = dict(describe="ACTIVE", create="0", delete="0", scp="0", ssh="0")
    for verb, words in (fine | answers).items():
      (self.record / verb).write_text(words.replace(" ", "\n") + "\n")
    (self.record / "owner").write_text("somebody else\n")
    return subprocess.run(
      ["bash", f"launch/{script}.sh", *flags],
      cwd=self.checkout,
      env={
        "PATH": f"{self._path}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(self._homes),
        "RECORD": str(self.record),
      },
      capture_output=True,
      text=True,
      timeout=60,
      check=False,
    )

  def calls(self) -> list[list[str]]:
    file = self.record / "calls"
    if not file.exists():
      return []
    return [call.splitlines() for call in file.read_text().split("\n\n")[:-1]]
