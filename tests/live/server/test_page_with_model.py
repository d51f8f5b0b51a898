"""The page, the server and a model's ticks together, in headless Chromium."""

import io
import urllib.parse
import wave
import zipfile

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.helpers import answering, browser, served, small_session, speech
from tests.helpers import sound as sound_lib
from tml_jax.config import Numerics
from tml_jax.tools import calculator
from tml_jax.vocoder import stream

pytestmark = pytest.mark.slow  # compiles a tick

MS = 60  # from the event to silence: what the page promises


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
  """A recorded word, then silence, again and again: 1.7 s in all."""
  path = tmp_path_factory.mktemp("microphone") / "words.wav"
  word = next(c for c in speech.clips() if len(c) > 9600)[:11_200]
  word = 0.5 * word / np.abs(word).max()
  samples = np.concatenate([np.zeros(8000), word, np.zeros(8000)])
  sound_lib.write_wav(path, samples[None])
  return path


@pytest.fixture(scope="module")
def chromium(microphone):
  with (
    browser.driver() as driver,
    browser.launch(driver, microphone=microphone) as chromium,
  ):
    yield chromium


@pytest.fixture(scope="module")
def pool():
  made = answering.AnsweringPool(
    served.program(2, Numerics.DEFAULT),
    variables=small_session.variables(served.config()),
    voice=stream.Voice(network=None, variables={}),
  )
  made.warm_up({*small_session.session.Senses})
  return made


@pytest.fixture
def opened(chromium, pool, tmp_path):
  """The server and its page."""
  tools = {"calculator": calculator.Calculator()}
  with (
    served.serving(tmp_path, made_pool=pool, tools=tools) as server,
    browser.open_page(chromium, server.url) as (page, seen),
  ):
    yield server, page, seen


def _begin(page):
  page.click("#begin:enabled")
  browser.wait_for(
    page, "document.querySelector('#controls').checkVisibility()"
  )


def test_speech_goes_in_and_everything_comes_out(opened):
  server, page, seen = opened
  _begin(page)
  page.click("#camera")
  browser.wait_for(
    page, "document.querySelector('#words').textContent.includes('Result')"
  )
  page.fill("#typed", "hello <|there|>")
  page.press("#typed", "Enter")
  browser.wait_for(page, "measured().windows > 30")
  words = page.inner_text("#words")
  assert "The model says word0 word1 word2" in words
  assert "The model shows <b>shown" in words
  assert "It calls calculator 3+4" in words
  assert "Result 7" in words
  assert "You typed hello <|there|>" in words
  drawn = page.get_attribute("#drawing path", "d")
  assert drawn.startswith("M0 0") and drawn.count("L") >= 4
  with page.expect_download() as saved:
    page.click("#save")
  with zipfile.ZipFile(saved.value.path()) as archive:
    assert any(name.endswith("_camera.jpg") for name in archive.namelist())
    with wave.open(io.BytesIO(archive.read("conversation.wav"))) as file:
      rate = file.getframerate()
      samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
  user, agent = samples.reshape(-1, 2).T / 32768
  assert np.abs(user).max() > 0.1
  peak = np.argmax(np.abs(np.fft.rfft(agent))) * rate / len(agent)
  assert peak == pytest.approx(answering.FREQUENCY, abs=2)
  assert page.inner_text("#figure-round-trip").endswith(" ms")
  host = urllib.parse.urlsplit(server.url).netloc
  assert {urllib.parse.urlsplit(url).netloc for url in seen.requests} == {host}
  assert seen.console == []


def test_barge_in_silences_the_loudspeaker(opened):
  _, page, seen = opened
  _begin(page)
  browser.wait_for(page, "measured().flushes.length >= 1")
  flushes = page.evaluate("measured().flushes.map((f) => f.heard_ms)")
  print("ms from the event to silence:", [round(ms) for ms in flushes])
  # How long it takes at worst says how busy the machine is.
  assert min(flushes) < MS
  assert "gave way" in page.inner_text("#words")
  assert seen.console == []


def test_a_refresh_resumes_the_session(opened):
  _, page, seen = opened
  _begin(page)
  browser.wait_for(page, "measured().windows > 10")
  first = page.evaluate("measured().session_id")
  last = page.evaluate(
    "+document.querySelector('#strip').getAttribute('aria-valuemax')"
  )
  page.reload()
  expect(page.locator("#begin")).to_have_text("Go on with the conversation")
  _begin(page)
  browser.wait_for(page, "measured().windows > 3")
  assert page.evaluate("measured().resumed") is True
  assert page.evaluate("measured().session_id") == first
  now = page.evaluate(
    "+document.querySelector('#strip').getAttribute('aria-valuemin')"
  )
  assert now > last, "the session's windows go on where they were"
  assert seen.console == []


def test_a_second_page_is_told_that_all_places_are_taken(opened, chromium):
  server, page, _ = opened
  _begin(page)
  with browser.open_page(chromium, server.url) as (other, _):
    _begin(other)
    with browser.open_page(chromium, server.url) as (third, _):
      expect(third.locator("#problem")).to_contain_text(
        "All 2 places are taken. Try again in about"
      )
