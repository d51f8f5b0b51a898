"""Servers that speak S3 or GCS, in a process of their own, on a line to cut.

For: runs in buckets. `serve` gives a `Store`; `Store.environment` makes a
process use it, `Store.used` this one. moto and gcp-storage-emulator answer as
Amazon and Google document their interfaces and keep objects in memory. What
goes to them passes a relay, so that a connection can be lost and found again
while the objects stay. Not for: reading alone (`buckets`).
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import fsspec
import pytest
from etils.epath import backend
from orbax.checkpoint._src.path import gcs_utils

BUCKET = "bucket"
SCHEMES = ("s3", "gs")
_SERVERS = {
  "s3": "from moto.server import main; main(['-H', '127.0.0.1', '-p', '{}'])",
  "gs": "import sys; sys.argv = ['', 'start', '--host=127.0.0.1', '--port={}',"
  " '--in-memory']; from gcp_storage_emulator.__main__ import main; main()",
}
_KEYS = {
  "AWS_ACCESS_KEY_ID": "key",
  "AWS_SECRET_ACCESS_KEY": "secret",
  "AWS_EC2_METADATA_DISABLED": "true",
  "AWS_REGION": "us-east-1",
  "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
  "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
}
_DENIED = (
  b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\n"
  b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_WORDS = {
  "s3": b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message>"
  b"</Error>",
  "gs": b'{"error": {"code": 403, "message": "Permission denied."}}',
}


class Store:
  """Attributes:
  asked: first lines of requests, in order.
  """

  def __init__(self, scheme: str, *, server_port: int):
    self._server_port, self._scheme = server_port, scheme
    self.url = f"{scheme}://{BUCKET}"
    self._listener = socket.create_server(("127.0.0.1", 0))
    self.port = self._listener.getsockname()[1]
    self.asked: list[str] = []
    self._is_cut = threading.Event()
    self._cut_at: re.Pattern[str] | None = None
    self._denied: re.Pattern[str] | None = None
    self._open: set[socket.socket] = set()
    threading.Thread(target=self._accept, daemon=True).start()

  @property
  def environment(self) -> dict[str, str]:
    url = f"http://127.0.0.1:{self.port}"
    if self._scheme == "s3":
      return _KEYS | {"AWS_ENDPOINT_URL": url}
    return _KEYS | dict.fromkeys(
      ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"), url
    )

  @contextlib.contextmanager
  def used(self) -> Iterator[None]:
    """This process uses the server; clients of others are forgotten."""
    with pytest.MonkeyPatch.context() as patch:
      for name, value in self.environment.items():
        patch.setenv(name, value)
      _forget()
      yield
    _forget()

  def cut_at(self, pattern: str) -> None:
    """Loses the connection at the first request whose first line matches."""
    self._cut_at = re.compile(pattern)

  def deny(self, pattern: str) -> None:
    """Answers requests whose first line matches as to one without rights."""
    self._denied = re.compile(pattern)

  @property
  def is_cut(self) -> bool:
    return self._is_cut.is_set()

  def mend(self) -> None:
    """The connection is there again."""
    self._cut_at = self._denied = None
    self._is_cut.clear()

  def close(self) -> None:
    self._listener.close()
    self._cut()

  def _cut(self) -> None:
    self._is_cut.set()
    for one in list(self._open):
      with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)

  def _accept(self) -> None:
    while True:
      try:
        client, _ = self._listener.accept()
      except OSError:
        return
      if self._is_cut.is_set():
        client.close()
        continue
      threading.Thread(target=self._relay, args=(client,), daemon=True).start()

  def _relay(self, client: socket.socket) -> None:
    """Hands on request after request; looks at the first line of each."""
    with client, contextlib.suppress(OSError):
      server = socket.create_connection(("127.0.0.1", self._server_port))
      with server:
        self._open |= {client, server}
        back = threading.Thread(target=_copy, args=(server, client))
        back.start()
        try:
          self._hand_on(client, server=server)
        finally:  # closing alone does not wake who reads in another thread
          for one in (client, server):
            self._open.discard(one)
            with contextlib.suppress(OSError):
              one.shutdown(socket.SHUT_RDWR)
          back.join()

  def _hand_on(self, client: socket.socket, *, server: socket.socket) -> None:
    while data := client.recv(1 << 16):
      line = re.match(rb"(GET|PUT|POST|HEAD|DELETE) [^\r]+", data)
      if line is not None:
        text = line[0].decode()
        self.asked.append(text)
        if self._cut_at is not None and self._cut_at.match(text):
          self._cut()
          return
        if self._denied is not None and self._denied.match(text):
          words = _WORDS[self._scheme]
          client.sendall(_DENIED % (len(words), words))
          return
      server.sendall(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
  with contextlib.suppress(OSError):
    while data := source.recv(1 << 16):
      target.sendall(data)
    target.shutdown(socket.SHUT_RDWR)


def _forget() -> None:
  """Clients that fsspec and Epath keep."""
  backend.fsspec_backend._get_filesystem.cache_clear()
  gcs_utils.get_bucket.cache_clear()
  for scheme in SCHEMES:
    fsspec.get_filesystem_class(scheme).clear_instance_cache()


@contextlib.contextmanager
def serve(scheme: str) -> Iterator[Store]:
  """The server with an empty bucket in it."""
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  process = subprocess.Popen(
    [sys.executable, "-c", _SERVERS[scheme].format(port)],
    env=os.environ | _KEYS,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  url = f"http://127.0.0.1:{port}"
  if scheme == "s3":
    request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
  else:
    request = urllib.request.Request(
      f"{url}/storage/v1/b?project=p",
      data=json.dumps({"name": BUCKET}).encode(),
      headers={"Content-Type": "application/json"},
    )
  try:
    for _ in range(600):
      try:
        urllib.request.urlopen(request).close()
        break
      except (urllib.error.URLError, ConnectionError):
        assert process.poll() is None, "the server has ended"
        time.sleep(0.1)
    else:
      raise AssertionError("the server did not start within a minute")
    store = Store(scheme, server_port=port)
    yield store
    store.close()
  finally:
    process.kill()
    process.wait()
