"""A directory behind the HTTP interfaces of Google Cloud Storage and Amazon S3.

For: reading from buckets without one. It answers what the public documentation
of the two says about reading an object (JSON API `objects.get?alt=media`, S3
`GetObject`): ranges, missing objects, no permission. It checks no signatures.
"""

import contextlib
import http.server
import pathlib
import threading
import urllib.parse
from collections.abc import Iterator

FORBIDDEN = "forbidden"  # a bucket of this name may not be read


class Server(http.server.ThreadingHTTPServer):
  """Attributes:
  root: its folders are the buckets.
  sent: (object, whether a range was asked for, bytes) of each answer.
  """

  daemon_threads = True

  def __init__(self, root: pathlib.Path):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.root = root
    self.sent: list[tuple[str, bool, int]] = []

  @property
  def environment(self) -> dict[str, str]:
    """For a process that shall take it for both."""
    url = f"http://127.0.0.1:{self.server_port}"
    return {
      "TENSORSTORE_GCS_HTTP_URL": url,
      "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
      "AWS_ENDPOINT_URL": url,
      "AWS_REGION": "us-east-1",
      "AWS_ACCESS_KEY_ID": "key",
      "AWS_SECRET_ACCESS_KEY": "secret",
    }


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def do_GET(self):
    url = urllib.parse.urlsplit(self.path)
    parts = url.path.split("/")
    if parts[1:4] == ["storage", "v1", "b"]:  # /storage/v1/b/BUCKET/o/OBJECT
      google, bucket, name = True, parts[4], urllib.parse.unquote(parts[6])
    else:  # /BUCKET/OBJECT
      google, bucket = False, parts[1]
      name = urllib.parse.unquote("/".join(parts[2:]))
    path = self.server.root / bucket / name
    if not self.headers.get("Authorization") or bucket == FORBIDDEN:
      self._refuse(403, google=google, code="AccessDenied")
    elif not path.is_file():
      self._refuse(404, google=google, code="NoSuchKey")
    else:
      self._send(path, name=name, google=google)

  def _send(self, path, *, name, google):
    data, asked = path.read_bytes(), self.headers.get("Range")
    total, headers = len(data), {"ETag": '"1"', "x-goog-generation": "1"}
    if asked:
      first, last = asked.removeprefix("bytes=").split("-")
      first, last = int(first), min(int(last or total), total - 1)
      if first >= total:
        self._refuse(416, google=google, code="InvalidRange")
        return
      data = data[first : last + 1]
      headers["Content-Range"] = f"bytes {first}-{last}/{total}"
    self.server.sent.append((name, bool(asked), len(data)))
    self._answer(206 if asked else 200, data=data, headers=headers)

  def _refuse(self, status, *, google, code):
    text = (
      f'{{"error": {{"code": {status}, "message": "{code}"}}}}'
      if google
      else f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
    )
    self._answer(status, data=text.encode(), headers={})

  def _answer(self, status, *, data, headers):
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serve(root: pathlib.Path) -> Iterator[Server]:
  with Server(root) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
