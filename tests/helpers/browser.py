"""Headless Chromium, with a fake microphone and camera where pages need them.

For: `tests/live/server` and `tests/page`. Not for: what a page shows. Start at
`open_page`.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator

import pytest

CHROMIUM = "/usr/bin/chromium"
_ALLOW = "--use-fake-ui-for-media-stream"
DENY = "--deny-permission-prompts"
_SECONDS = 60.0  # that anything may take, on a busy machine


@dataclasses.dataclass
class Seen:
  """What a page did that nobody asked for.

  Attributes:
    console: its errors and warnings, violations of its policy included.
    requests: addresses it asked for.
  """

  console: list[str] = dataclasses.field(default_factory=list)
  requests: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def driver() -> Iterator:
  """Playwright, once in a process; skips where there is no browser."""
  sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install -e .[test]"
  )
  if not pathlib.Path(CHROMIUM).exists():
    pytest.skip(f"needs Debian's chromium ({CHROMIUM})")
  with sync_api.sync_playwright() as playwright:
    yield playwright


@contextlib.contextmanager
def launch(
  playwright, *, microphone: pathlib.Path | None = None, flag: str = _ALLOW
) -> Iterator:
  """A browser whose microphone plays a WAV file, again and again.

  Args:
    playwright: of `driver`.
    microphone: the file; None for a browser without devices.
    flag: what happens when a page asks for devices: allowed, or `DENY`.
  """
  devices = (
    flag,
    "--use-fake-device-for-media-stream",
    f"--use-file-for-fake-audio-capture={microphone}",
    "--auto-select-desktop-capture-source=Entire screen",
    # A name that is no localhost: its pages are no secure context.
    "--host-resolver-rules=MAP talk.test 127.0.0.1",
  )
  browser = playwright.chromium.launch(
    executable_path=CHROMIUM, args=[] if microphone is None else devices
  )
  yield browser
  browser.close()


@contextlib.contextmanager
def open_page(browser, url: str, **options) -> Iterator[tuple]:
  """A page of its own context, and what it did.

  Args:
    browser: of `launch`.
    url: where to.
    options: of Playwright's `new_context`.
  """
  context = browser.new_context(**options)
  page, seen = context.new_page(), Seen()
  page.set_default_timeout(15_000)
  page.on(
    "console",
    lambda m: m.type in ("error", "warning") and seen.console.append(m.text),
  )
  page.on("pageerror", lambda error: seen.console.append(str(error)))
  page.on("request", lambda request: seen.requests.append(request.url))
  page.on("websocket", lambda socket: seen.requests.append(socket.url))
  page.goto(url)
  yield page, seen
  context.close()


def wait_for(page, expression: str) -> None:
  """Waits until JavaScript is true.

  Playwright's own `wait_for_function` needs a page that allows eval.
  """
  end = time.monotonic() + _SECONDS
  while not page.evaluate(expression):
    state = page.evaluate("globalThis.measured?.()")
    assert time.monotonic() < end, f"never true: {expression}; {state}"
    page.wait_for_timeout(50)
