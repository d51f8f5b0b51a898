"""A server that speaks S3, in a process of its own, behind a line to cut.

For: runs in buckets. `serve` gives a `Store`; `Store.environment` makes a
process use it. moto answers as Amazon documents its interface and keeps the
objects in memory. What goes to it passes a relay, so that a connection can be
lost and found again while the objects stay. Not for: reading alone (`buckets`).
"""

import contextlib
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

BUCKET = "bucket"
CLOSED = "closed"  # a bucket that is there and may not be written
_SERVER = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '{}'])"
_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
_DENIED = (
  b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\n"
  b"Connection: close\r\nContent-Length: %d\r\n\r\n%s"
)
_WORDS = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class Store:
  """Attributes:
  asked: first lines of requests, in order.
  """

  def __init__(self, server_port: int):
    self._server_port = server_port
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
    return _KEYS | {
      "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
      "AWS_REGION": "us-east-1",
      "AWS_DEFAULT_REGION": "us-east-1",
      "AWS_EC2_METADATA_DISABLED": "true",
    }

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

  def objects(self) -> dict[str, bytes]:
    """What is in the bucket, past the relay."""
    import boto3

    client = boto3.client(
      "s3",
      endpoint_url=f"http://127.0.0.1:{self._server_port}",
      region_name="us-east-1",
      aws_access_key_id="key",
      aws_secret_access_key="secret",
    )
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
      for entry in page.get("Contents", ()):
        got = client.get_object(Bucket=BUCKET, Key=entry["Key"])
        found[entry["Key"]] = got["Body"].read()
    client.close()
    return found

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
        while data := client.recv(1 << 16):
          line = re.match(rb"(GET|PUT|POST|HEAD|DELETE) [^\r]+", data)
          if line is not None:
            text = line[0].decode()
            self.asked.append(text)
            if self._cut_at is not None and self._cut_at.match(text):
              self._cut()
              return
            if self._denied is not None and self._denied.match(text):
              client.sendall(_DENIED % (len(_WORDS), _WORDS))
              return
          server.sendall(data)
        self._open -= {client, server}


def _copy(source: socket.socket, target: socket.socket) -> None:
  with contextlib.suppress(OSError):
    while data := source.recv(1 << 16):
      target.sendall(data)
    target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serve() -> Iterator[Store]:
  """The server with an empty bucket in it."""
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  process = subprocess.Popen(
    [sys.executable, "-c", _SERVER.format(port)],
    env=os.environ | _KEYS,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    request = urllib.request.Request(
      f"http://127.0.0.1:{port}/{BUCKET}", method="PUT"
    )
    for _ in range(600):
      try:
        urllib.request.urlopen(request).close()
        break
      except (urllib.error.URLError, ConnectionError):
        assert process.poll() is None
        time.sleep(0.1)
    store = Store(port)
    yield store
    store.close()
  finally:
    process.kill()
    process.wait()
