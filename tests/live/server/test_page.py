"""The page in headless Chromium, with a fake microphone and camera.

Its server answers by rule (`tests.helpers.echoing_server`); that of the model
is in `test_page_with_model`.
"""

import contextlib
import io
import json
import urllib.parse
import wave
import zipfile

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.helpers import accessible, browser, echoing_server, sound

LIVE = "document.querySelector('#controls').checkVisibility()"
SAID = " ".join(echoing_server.WORDS[:3])
MS = 60  # from the event to silence: what the page promises


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
  """0.7 s of sound, then 1 s of silence, again and again.

  The agent speaks for 2 s: every other sound comes while it does.
  """
  path = tmp_path_factory.mktemp("microphone") / "bursts.wav"
  noise = np.random.default_rng(0).normal(0, 0.05, 11_200)
  burst = sound.tone(0.7) + noise.astype(np.float32)
  samples = np.concatenate([np.zeros(8000), burst, np.zeros(8000)])
  sound.write_wav(path, samples[None])
  return path


@pytest.fixture(scope="module")
def driver():
  with browser.driver() as driver:
    yield driver


@pytest.fixture(scope="module")
def chromium(driver, microphone):
  with browser.launch(driver, microphone=microphone) as chromium:
    yield chromium


@pytest.fixture
def opened(chromium):
  """Opens the page of a server with given rules; all is closed at the end."""
  with contextlib.ExitStack() as stack:

    def open_page(rules=None, **options):
      rules = rules or echoing_server.Rules()
      server = stack.enter_context(echoing_server.Server(rules))
      opened = browser.open_page(chromium, server.url, **options)
      page, seen = stack.enter_context(opened)
      return server, page, seen

    yield open_page


def _begin(page):
  page.click("#begin:enabled")
  browser.wait_for(page, LIVE)


def _wait_for_window(page, window):
  browser.wait_for(page, f"measured().windows >= {window}")


def _kinds(session):
  return [event["type"] for event in session.received]


def _last(session, kind):
  return [event for event in session.received if event["type"] == kind][-1]


def _download(page):
  """The files of the archive that a click saves."""
  with page.expect_download() as saved:
    page.click("#save")
  return zipfile.ZipFile(saved.value.path())


def test_one_click_begins_a_conversation_and_all_of_it_is_shown(opened):
  server, page, seen = opened()
  expect(page.locator("#tiny")).to_contain_text(
    "The run behind this page is tiny"
  )
  _begin(page)
  page.click("#camera")
  page.fill("#typed", "hello <i>there</i>")
  page.press("#typed", "Enter")
  browser.wait_for(
    page, "document.querySelectorAll('#words .model:not(.growing)').length >= 1"
  )
  _wait_for_window(page, 25)
  (session,) = server.sessions

  words = page.inner_text("#words")
  assert "You typed hello <i>there</i>" in words
  assert f"The model says {SAID}" in words
  assert f"The model shows {echoing_server.SHOWN}" in words, (
    "text is text, never markup"
  )
  assert "It calls calculator 3+4" in words
  assert "Result 7" in words
  drawn = page.get_attribute("#drawing path", "d")
  assert drawn == " ".join(echoing_server.STROKES)

  assert np.abs(session.samples).max() > 3000, "the microphone was heard"
  sizes = {Image.open(io.BytesIO(image)).size for image in session.images}
  assert sizes == {(80, 40)} and len(session.images) >= 5
  content = _last(session, "conversation.item.create")["item"]["content"]
  assert content == [{"type": "input_text", "text": "hello <i>there</i>"}]
  assert _last(session, "tml.record")["allowed"] is False
  assert _last(session, "tml.playback")["played_ms"] > 0

  host = urllib.parse.urlsplit(server.url).netloc
  assert {urllib.parse.urlsplit(url).netloc for url in seen.requests} == {host}
  assert seen.console == []
  assert "of" in page.inner_text("#figure-missed")
  assert page.inner_text("#figure-round-trip").endswith(" ms")


@pytest.mark.slow
def test_the_download_has_both_sides_on_one_clock(opened):
  server, page, seen = opened()
  _begin(page)
  page.click("#camera")
  _wait_for_window(page, 30)
  with _download(page) as archive:
    names = archive.namelist()
    about = json.loads(archive.read("session.json"))
    ticks = archive.read("ticks.jsonl").splitlines()
    text = archive.read("transcript.txt").decode()
    with wave.open(io.BytesIO(archive.read("conversation.wav"))) as file:
      rate = file.getframerate()
      samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
  user, agent = samples.reshape(-1, 2).T / 32768
  assert rate == echoing_server.RATE
  assert len(user) / rate == pytest.approx(6, abs=2)
  # The agent's channel is its tone and nothing else.
  spectrum = np.abs(np.fft.rfft(agent))
  peak = np.argmax(spectrum) * rate / len(agent)
  assert peak == pytest.approx(echoing_server.FREQUENCY, abs=2)
  # It answers in the window after a sound began, never before.
  first = np.argmax(np.abs(user) > 0.05) / rate
  answer = np.argmax(np.abs(agent) > 0.05) / rate
  assert 0.0 < answer - first < 1.0
  assert [json.loads(line)["window"] for line in ticks][:3] == [0, 1, 2]
  assert f"model    {SAID}" in text and echoing_server.SHOWN in text
  assert any(name.endswith("_camera.jpg") for name in names)
  assert "drawing.svg" in names
  assert "resume_token" not in about and about["session_id"] == "s0"
  assert seen.console == []


@pytest.mark.slow
def test_playout_is_silent_soon_after_the_model_gives_way(opened):
  server, page, _ = opened()
  _begin(page)
  browser.wait_for(page, "measured().flushes.length >= 3")
  _wait_for_window(page, 5)
  (session,) = server.sessions
  flushes = page.evaluate("measured().flushes.map((f) => f.heard_ms)")
  print("ms from the event to silence:", [round(ms) for ms in flushes])
  # How long it takes at worst says how busy the machine is.
  assert min(flushes) < MS
  asked = page.evaluate("measured().flushes.map((f) => f.asked)")
  whole = [
    at - 1000 * decided + ms
    for at, decided, ms in zip(asked, session.gave_way, flushes, strict=False)
  ]
  print("ms from the decision to silence:", [round(ms) for ms in whole])
  assert min(whole) < MS
  cut = _last(session, "conversation.item.truncate")
  assert 0 < cut["audio_end_ms"] < 2000
  assert "gave way" in page.inner_text("#words")
  with _download(page) as archive:
    file = wave.open(io.BytesIO(archive.read("conversation.wav")))
  samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
  agent = samples.reshape(-1, 2)[:, 1] / 32768
  # What was cut is not 2 s long.
  loud = np.abs(agent).reshape(-1)[: len(agent) // 320 * 320]
  blocks = loud.reshape(-1, 320).max(axis=1) > 0.05
  edges = np.flatnonzero(np.diff(np.r_[0, blocks.astype(int), 0]))
  lengths = (edges[1::2] - edges[::2]) * 0.02
  assert lengths.min() < 1.9


def test_a_refresh_goes_on_after_one_click(opened):
  server, page, seen = opened()
  _begin(page)
  browser.wait_for(
    page, "document.querySelector('#words').textContent.includes('Result 7')"
  )
  page.reload()
  expect(page.locator("#begin")).to_have_text("Go on with the conversation")
  expect(page.locator("#words")).to_contain_text("Result 7")  # still there
  windows = server.sessions[0].windows
  _begin(page)
  _wait_for_window(page, 10)
  assert page.evaluate("measured().resumed") is True
  (session,) = server.sessions
  assert session.windows > windows
  assert "Result 7" in page.inner_text("#words")
  assert seen.console == []


@pytest.mark.slow
def test_a_broken_line_comes_back_by_itself(opened):
  server, page, _ = opened()
  _begin(page)
  _wait_for_window(page, 5)
  page.evaluate("breakLine()")
  browser.wait_for(page, "measured().reconnects === 1")
  heard = len(server.sessions[0].samples)
  _wait_for_window(page, 15)
  (session,) = server.sessions
  assert len(session.samples) > heard, "sound goes on"
  assert _kinds(session).count("session.update") == 2


@pytest.mark.slow
def test_mute_and_pause_reach_the_server(opened):
  server, page, _ = opened()
  _begin(page)
  _wait_for_window(page, 5)
  (session,) = server.sessions
  page.click("#mute")
  expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
  page.wait_for_timeout(400)
  heard = len(session.samples)
  page.wait_for_timeout(800)
  assert len(session.samples) == heard, "nothing leaves a muted page"
  assert _last(session, "tml.mute")["muted"] is True
  page.click("#mute")
  page.click("#pause")
  page.wait_for_timeout(400)
  windows = session.windows
  page.wait_for_timeout(800)
  assert session.windows == windows
  page.click("#pause")
  _wait_for_window(page, windows + 5)
  assert len(session.samples) > heard


@pytest.mark.slow
def test_stop_ends_for_good_and_keeps_what_was_said(opened):
  server, page, seen = opened()
  _begin(page)
  _wait_for_window(page, 8)
  page.click("#stop")
  expect(page.locator("#problem")).to_have_text("You ended the conversation.")
  assert _kinds(server.sessions[0])[-1] == "tml.close"
  expect(page.locator("#download")).to_be_visible()
  page.reload()
  expect(page.locator("#begin")).to_have_text("Start talking")
  assert page.evaluate("sessionStorage.getItem('words')") == ""
  assert page.evaluate("sessionStorage.getItem('resume')") == ""
  assert seen.console == []


@pytest.mark.slow
def test_consent_is_asked_for_and_can_be_taken_back(opened):
  server, page, _ = opened()
  assert page.is_checked("#consent") is False
  page.check("#consent")
  _begin(page)
  (session,) = server.sessions
  browser.wait_for(page, "measured().windows >= 1")
  assert _last(session, "tml.record")["allowed"] is True
  kinds = _kinds(session)
  assert kinds.index("tml.record") < kinds.index("response.create")
  expect(page.locator("#status")).to_contain_text("the server records")
  page.click("#settings summary")
  page.uncheck("#recording")
  page.wait_for_timeout(300)
  assert _last(session, "tml.record")["allowed"] is False
  expect(page.locator("#status")).not_to_contain_text("records")
  page.check("#recording")
  page.reload()
  _begin(page)
  browser.wait_for(page, "measured().windows >= 1")
  assert _last(session, "tml.record")["allowed"] is True, "a refresh keeps it"


def test_where_nothing_is_recorded_nobody_is_asked(opened):
  rules = echoing_server.Rules(is_recording_offered=False, has_video=False)
  server, page, _ = opened(rules)
  _begin(page)
  assert not page.is_visible("#consent")
  assert page.is_disabled("#camera") and page.is_disabled("#screen")
  assert "does not see" in page.text_content("#video-says")
  assert "tml.record" not in _kinds(server.sessions[0])


def test_a_full_server_says_how_long_to_wait(opened):
  _, page, _ = opened(echoing_server.Rules(slots=0))
  wanted = "Every place is taken. Try again in about 30 s."
  expect(page.locator("#problem")).to_have_text(wanted)
  page.click("#begin")
  page.wait_for_selector("#begin:has-text('Try again')")
  expect(page.locator("#problem")).to_have_text(wanted)


def test_a_token_is_asked_for_and_used(opened):
  server, page, _ = opened(echoing_server.Rules(token="s3cret"))
  assert page.is_disabled("#begin")
  for token in ("wrong", "s3cret"):
    page.fill("#token", token)
    page.click("#token-form button")
  _begin(page)
  _wait_for_window(page, 2)
  assert "s3cret" not in page.url
  assert len(server.sessions) == 1


def test_a_token_in_the_fragment_leaves_the_address(opened):
  server, page, _ = opened(echoing_server.Rules(token="s3cret"))
  page.goto("about:blank")
  page.goto(f"{server.url}#token=s3cret")
  _begin(page)
  assert page.url == server.url


def test_a_refused_microphone_leaves_typing(driver, microphone):
  rules = echoing_server.Rules()
  with (
    echoing_server.Server(rules) as server,
    browser.launch(
      driver, microphone=microphone, flag=browser.DENY
    ) as chromium,
    browser.open_page(chromium, server.url) as (page, _),
  ):
    _begin(page)
    expect(page.locator("#trouble")).to_contain_text("microphone was refused")
    expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
    page.fill("#typed", "hello")
    page.press("#typed", "Enter")
    _wait_for_window(page, 4)
    (session,) = server.sessions
    assert _last(session, "tml.mute")["muted"] is True
    assert "conversation.item.create" in _kinds(session)
    assert not len(session.samples)


def test_an_insecure_page_says_so_and_can_type(chromium):
  with echoing_server.Server(echoing_server.Rules()) as server:
    url = server.url.replace("127.0.0.1", "talk.test")
    with browser.open_page(chromium, url) as (page, seen):
      expect(page.locator("#problem")).to_contain_text("--tls_cert")
      _begin(page)
      page.fill("#typed", "hello")
      page.press("#typed", "Enter")
      _wait_for_window(page, 4)
      assert "conversation.item.create" in _kinds(server.sessions[0])
      assert seen.console == []


@pytest.mark.slow
def test_devices_can_be_chosen(opened):
  server, page, _ = opened()
  _begin(page)
  page.click("#settings summary")
  count = "document.querySelector('#microphone').options.length"
  browser.wait_for(page, f"{count} >= 2")
  page.select_option("#microphone", index=1)
  heard = len(server.sessions[0].samples)
  _wait_for_window(page, 10)
  assert len(server.sessions[0].samples) > heard
  assert not page.is_visible("#trouble")


def test_all_can_be_done_by_keyboard(opened):
  server, page, _ = opened()
  accessible.tab_to(page, "begin")
  page.keyboard.press("Enter")
  browser.wait_for(page, LIVE)
  _wait_for_window(page, 10)
  for name in ("mute", "pause", "camera", "screen", "save", "stop"):
    accessible.tab_to(page, name)
    assert accessible.outline(page) >= 2, f"the focus on {name} is not seen"
  accessible.tab_to(page, "strip")
  page.keyboard.press("ArrowLeft")
  page.keyboard.press("ArrowLeft")
  says = page.inner_text("#cell-says")
  assert says.startswith("Window ")
  assert page.get_attribute("#strip", "aria-valuetext") == says
  accessible.tab_to(page, "mute")
  page.keyboard.press("Space")
  page.wait_for_timeout(300)
  assert _last(server.sessions[0], "tml.mute")["muted"] is True


@pytest.mark.slow
def test_every_control_has_a_name(opened):
  _, page, _ = opened(echoing_server.Rules(token="t"))
  assert accessible.unnamed(page) == []
  page.fill("#token", "t")
  page.click("#token-form button")
  _begin(page)
  page.click("#camera")
  page.click("#settings summary")
  _wait_for_window(page, 10)
  assert accessible.unnamed(page) == []
  page.click("#stop")
  assert accessible.unnamed(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(opened, scheme):
  _, page, _ = opened(color_scheme=scheme)
  assert accessible.faint_text(page) == []
  _begin(page)
  page.click("#settings summary")
  browser.wait_for(
    page, "document.querySelector('#words').textContent.includes('Result 7')"
  )
  assert accessible.faint_text(page) == []
  assert accessible.checked(page) > 40, "the check reads the text"
  page.click("#stop")
  assert accessible.faint_text(page) == []


def test_it_fits_a_phone_and_moves_little(opened):
  _, page, _ = opened(
    viewport={"width": 360, "height": 740}, reduced_motion="reduce"
  )
  wide = "document.documentElement.scrollWidth"
  assert page.evaluate(wide) == 360
  _begin(page)
  page.click("#camera")
  _wait_for_window(page, 8)
  assert page.evaluate(wide) == 360
  moving = """[...document.querySelectorAll("*")].filter((each) =>
    parseFloat(getComputedStyle(each).transitionDuration) > 0).length"""
  assert page.evaluate(moving) == 0
  for name in ("mute", "pause", "camera", "screen", "save", "stop"):
    box = page.locator(f"#{name}").bounding_box()
    assert box["height"] >= 44 and box["x"] + box["width"] <= 360


@pytest.mark.slow
def test_a_shared_screen_is_sent_and_stops(opened):
  server, page, seen = opened()
  _begin(page)
  page.click("#screen")
  browser.wait_for(page, "measured().windows >= 8")
  (session,) = server.sessions
  assert page.get_attribute("#screen", "aria-pressed") == "true"
  assert len(session.images) >= 2
  page.click("#screen")
  page.wait_for_timeout(400)
  count = len(session.images)
  page.wait_for_timeout(600)
  assert len(session.images) == count
  assert not page.is_visible("#video-panel")
  assert seen.console == []


@pytest.mark.slow
def test_a_server_that_went_away_is_said_and_may_come_back(opened):
  rules = echoing_server.Rules(rests_seconds=3.0)
  server, page, _ = opened(rules)
  _begin(page)
  browser.wait_for(page, "measured().windows >= 5")
  server.stop()
  browser.wait_for(
    page, "document.querySelector('#status').textContent.includes('broke')"
  )
  expect(page.locator("#problem")).to_contain_text(
    "longer than the session rests"
  )
  expect(page.locator("#download")).to_be_visible()  # what was said is not lost


def test_a_page_without_storage_still_talks(opened, chromium):
  server, _, _ = opened()
  context = chromium.new_context()
  context.add_init_script(
    "Object.defineProperty(window, 'sessionStorage',"
    " {get() { throw new DOMException('no', 'SecurityError'); }});"
  )
  page = context.new_page()
  page.goto(server.url)
  _begin(page)
  browser.wait_for(page, "measured().windows >= 3")
  context.close()
