"""The page in a browser: sound, keys, dark and light, wide and narrow."""

import contextlib

import pytest

from tests.helpers import browser, pages, recorded
from tml_jax.page import write
from tml_jax.streams import tokenizer

pytestmark = pytest.mark.slow  # a browser takes 5 s, and 20 where it is busy

_LONG = "() => [...document.querySelectorAll('audio')].map(a => a.duration)"
_WIDE = "() => document.documentElement.scrollWidth"
_PAPER = "() => getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  root = tmp_path_factory.mktemp("browser")
  words = ("yes", pages.HOSTILE)
  recorded.write(
    root,
    calls=[pages.talk(pages.HOSTILE, words=words, video=3, events=words)],
  )
  config = pages.config("calls:1")
  return write.data_page(
    [str(root / "calls")],
    config=config,
    tokenizer_file=tokenizer.path(root),
    wanted=(),
    seconds=60.0,
    out=root,
  )


@contextlib.contextmanager
def opened(file, *, width, scheme):
  """The page in a window, where it asks for nothing and says nothing."""
  size = {"width": width, "height": 800}
  with (
    browser.driver() as driver,
    browser.launch(driver) as chromium,
    browser.open_page(
      chromium, file.as_uri(), viewport=size, color_scheme=scheme
    ) as (page, seen),
  ):
    yield page
    assert seen.console == []
    asked = [url for url in seen.requests if not url.startswith("data:")]
    assert asked == [file.as_uri()]


@pytest.mark.parametrize(
  ("width", "scheme", "paper"),
  [(1280, "light", "rgb(255, 255, 255)"), (360, "dark", "rgb(22, 22, 22)")],
)
def test_it_plays_and_asks_for_nothing(file, width, scheme, paper):
  with opened(file, width=width, scheme=scheme) as page:
    page.wait_for_function(f"({_LONG})().every(d => d > 0)")
    assert page.evaluate(_LONG) == pytest.approx([6.0] * 3, abs=0.02)
    assert page.evaluate(_PAPER) == paper
    assert page.evaluate(_WIDE) <= width  # no scrolling to the side
    images = "[...document.images].every(i => i.complete && i.naturalWidth)"
    assert page.evaluate(images)


def test_keys_and_sound_move_over_the_windows(file):
  with opened(file, width=1280, scheme="light") as page:
    says = page.locator(".window")
    assert "A click or the arrow keys" in says.inner_text()
    for _ in range(60):  # by the keyboard alone
      page.keyboard.press("Tab")
      if page.evaluate("document.activeElement.className") == "lanes":
        break
    for _ in range(12):
      page.keyboard.press("ArrowRight")
    assert says.inner_text().startswith("window 11, 2.20 s\nperceives <turn>")
    assert "the sound of the next window" in says.inner_text()
    page.keyboard.press("End")
    assert says.inner_text().startswith("window 29,")
    page.keyboard.press("Home")
    assert says.inner_text().startswith("window 0,")
    page.evaluate(
      "() => { const a = document.querySelector('audio'); a.muted = true;"
      " a.currentTime = 3.05; a.play(); }"
    )
    page.wait_for_function(
      "() => /window (1[5-9]|2\\d),/.test("
      "document.querySelector('.window').textContent)"
    )
