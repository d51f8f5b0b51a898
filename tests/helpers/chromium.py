"""Pages of one file in headless Chromium.

For: `tests/page`. Not for: reading HTML (`pages`). Start at `opened`.
"""

import contextlib
import dataclasses
import pathlib

import pytest

PATH = "/usr/bin/chromium"


@dataclasses.dataclass
class Seen:
  """What a page did while it was open.

  Attributes:
    said: on the console, and errors of scripts.
    asked: addresses but that of the page and those that hold their content.
  """

  said: list[str] = dataclasses.field(default_factory=list)
  asked: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def opened(file: pathlib.Path, *, width: int, scheme: str):
  """The page in a window of that width, and `Seen` of it."""
  playwright = pytest.importorskip("playwright.sync_api")
  if not pathlib.Path(PATH).is_file():
    pytest.skip(f"no Chromium at {PATH}: apt-get install chromium")
  seen, address = Seen(), file.as_uri()
  with playwright.sync_playwright() as started:
    browser = started.chromium.launch(
      executable_path=PATH, args=["--no-sandbox"]
    )
    context = browser.new_context(
      viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    page = context.new_page()
    page.on("console", lambda message: seen.said.append(message.text))
    page.on("pageerror", lambda error: seen.said.append(str(error)))
    page.on(
      "request",
      lambda request: (
        None
        if request.url == address or request.url.startswith("data:")
        else seen.asked.append(request.url)
      ),
    )
    page.goto(address)
    yield page, seen
    browser.close()
