"""What every worker process does first.

For: `prepare`, which decodes in several processes, and the loader, which packs
in several. Not for: starting them.
"""

import multiprocessing
import os
import signal
import threading

from tml_jax import plugins


def begin(files: tuple[str, ...]) -> None:
  """Follows the parent and loads its plugins, before any work is unpickled."""
  _follow_parent()
  plugins.load(files)


def _follow_parent() -> None:
  """Ends this process when the one that started it is gone.

  A worker waits for work at a pipe whose other end it holds too: when its
  parent is killed with signal 9, it would wait there for ever. Ctrl-C reaches
  all processes at once; the parent alone decides what it means.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  parent = multiprocessing.parent_process()
  assert parent is not None, "this process is nobody's worker"

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
