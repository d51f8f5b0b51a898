"""Exit statuses, and the exceptions that mean "your input, not our code".

For: `Status`, what every command ends with; `UserError`, anything a user can
cause and can mend (flags, files, data, a full disk). Not for: broken
invariants, which stay ValueError with a traceback. Entry points print a
`UserError` as one line and exit with its status. `escaped` is for names and
texts of others on a terminal.
"""

import enum
import errno
import json
import socket

_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # of letters


class Status(enum.IntEnum):
  """Exit statuses; docs/reliability.md has the table.

  Whatever starts a command again (launch/until_done.sh, the JobSet) does so
  for every status that is neither DONE nor in `FINAL`.
  """

  DONE = 0
  FAILED = 1  # a crash, or a fault that may be gone by the next start
  BAD_INPUT = 2
  DOES_NOT_FIT = 3  # `aot`: the program needs more memory than there is
  DEAD_END = 4  # the next start would end in the same way
  INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells have it
  STOPPED = 143  # SIGTERM: 128 + SIGTERM; `train` has saved


# Another start is of no use, or nobody asked for one.
FINAL = (
  Status.BAD_INPUT,
  Status.DOES_NOT_FIT,
  Status.DEAD_END,
  Status.INTERRUPTED,
)


class UserError(Exception):
  """Bad input. The message names the value that is wrong and the fix.

  As text it is one line that a terminal only shows.
  """

  status = Status.BAD_INPUT

  def __str__(self) -> str:
    return escaped(super().__str__())


class TransientError(UserError):
  """What may be gone by the next start: a full disk, a port in use."""

  status = Status.FAILED


class DeadEndError(UserError):
  """Every start would end here until somebody does what the message says."""

  status = Status.DEAD_END


_TRANSIENT = frozenset(
  (
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EAGAIN, errno.EINTR),
    *(errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOMEM),
    *(errno.EMFILE, errno.ENFILE, errno.EADDRINUSE, errno.ECONNREFUSED),
  )
)
_TRANSIENT_KINDS = (TimeoutError, ConnectionError, socket.gaierror)


def is_transient(error: BaseException) -> bool:
  """Whether it is a fault of a disk or network that may pass by itself."""
  if isinstance(error, _TRANSIENT_KINDS):  # some have no number
    return True
  return isinstance(error, OSError) and error.errno in _TRANSIENT


def of_system(error: OSError, text: str) -> UserError:
  """`text` as the error that says whether another start may help."""
  return (TransientError if is_transient(error) else UserError)(text)


def is_shown(letter: str) -> bool:
  """Whether a terminal shows it on the same line, and does nothing else."""
  return letter.isprintable() or letter in _JOINERS


def escaped(text: str) -> str:
  """`text` with what is not shown as JSON writes it, for instance \\u001b.

  JSON stays the same JSON, if it is in one line.
  """
  if text.isprintable():
    return text
  return "".join(c if is_shown(c) else json.dumps(c)[1:-1] for c in text)
