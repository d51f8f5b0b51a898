"""The page's pure modules, run in Chromium, against Python's libraries."""

import base64
import io
import json
import wave
import zipfile

import numpy as np
import pytest

from tests.helpers import browser, echoing_server, sound


@pytest.fixture(scope="module")
def page(tmp_path_factory):
  path = tmp_path_factory.mktemp("silence") / "silence.wav"
  sound.write_wav(path, np.zeros((1, 16_000)))
  rules = echoing_server.Rules()
  with (
    echoing_server.Server(rules) as server,
    browser.driver() as driver,
    browser.launch(driver, microphone=path) as chromium,
    browser.open_page(chromium, server.url) as (page, _),
  ):
    yield page


def _run(page, module: str, body: str, given=None):
  """The value of `body`, a function of (module, given), as JSON."""
  return page.evaluate(
    f"async (given) => {{ const it = await import('/static/{module}.js');"
    f" return await (({body})(it, given)); }}",
    given,
  )


def test_sound_is_the_base64_that_python_reads(page):
  samples = np.random.default_rng(0).integers(-32768, 32768, 20_001)
  text = base64.b64encode(samples.astype("<i2").tobytes()).decode()
  decoded = _run(page, "codec", "(it, t) => [...it.decodePcm16(t)]", text)
  assert decoded == samples.tolist()
  again = "(it, t) => it.encodePcm16(it.decodePcm16(t))"
  assert _run(page, "codec", again, text) == text
  with pytest.raises(Exception, match="not correctly encoded"):
    _run(page, "codec", "(it, t) => it.decodePcm16(t)", "=none=")


def test_loud_sound_is_clipped_and_floats_come_back(page):
  floats = [0.0, 1.0, -1.0, 1.5, -7.0, 0.25]
  pcm = _run(
    page, "codec", "(it, f) => [...it.toPcm16(new Float32Array(f))]", floats
  )
  assert pcm == [0, 32767, -32767, 32767, -32767, 8192]
  level = "(it, f) => it.decibels(new Float32Array(f))"
  assert _run(page, "codec", level, [0.1] * 8) == pytest.approx(-20, abs=0.01)
  assert _run(page, "codec", level, [0.0] * 8) == -100


_RESAMPLE = """(it, {samples, from, to, sizes}) => {
  const resampler = new it.Resampler(from, to);
  const input = new Float32Array(samples);
  const output = [];
  for (let at = 0, i = 0; at < input.length; i++) {
    const size = sizes[i % sizes.length];
    output.push(...resampler.push(input.slice(at, at + size)));
    at += size;
  }
  return output;
}"""
_RATES = [
  (48_000, 16_000),
  (44_100, 24_000),
  (16_000, 48_000),
  (24_000, 44_100),
]


@pytest.mark.parametrize("rates", _RATES)
def test_a_tone_keeps_its_place_at_another_rate(page, rates):
  source, target = rates
  tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(source // 4) / source)
  given = {"samples": tone.tolist(), "from": source, "to": target}
  made = np.array(_run(page, "resampler", _RESAMPLE, {**given, "sizes": [128]}))
  wanted = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(len(made)) / target)
  assert len(made) == pytest.approx(target / 4, abs=0.005 * target)
  inside = slice(target // 50, None)  # after the beginning's edge
  noise = np.mean((made - wanted)[inside] ** 2) / np.mean(wanted[inside] ** 2)
  assert 10 * np.log10(noise) < -70
  blocks = {**given, "sizes": [1, 128, 7, 1000]}
  assert _run(page, "resampler", _RESAMPLE, blocks) == made.tolist()


def test_what_the_lower_rate_cannot_hold_is_taken_out(page):
  tone = np.sin(2 * np.pi * 9000 * np.arange(12_000) / 48_000)
  given = {"samples": tone.tolist(), "from": 48_000, "to": 16_000}
  made = np.array(_run(page, "resampler", _RESAMPLE, {**given, "sizes": [128]}))
  assert np.abs(made[400:]).max() < 1e-3


def test_silence_and_equal_rates_pass_as_they_are(page):
  given = {"samples": [0.0] * 4000, "from": 48_000, "to": 16_000}
  assert not any(_run(page, "resampler", _RESAMPLE, {**given, "sizes": [128]}))
  given = {"samples": [0.5, -0.25] * 8, "from": 16_000, "to": 16_000}
  same = _run(page, "resampler", _RESAMPLE, {**given, "sizes": [5]})
  assert same == given["samples"]


# Plays `script`: {at ms: [operation, ...]} in steps of 4 ms at 1 kHz; chunk n
# is all n + 1.
_PLAY = """(it, {script, ms}) => {
  const buffer = new it.JitterBuffer(1000);
  const out = new Float32Array(4);
  const heard = [];
  let next = 1;
  for (let now = 0; now < ms; now += 4) {
    for (const what of script[now] ?? []) {
      if (what === "push") {
        buffer.push("item", new Float32Array(200).fill(next++));
      } else buffer[what]();
    }
    buffer.read(out);
    heard.push(...out);
  }
  return {heard, report: buffer.report(), target: buffer.target};
}"""


def _play(page, script, *, ms):
  given = {"script": {str(k): v for k, v in script.items()}, "ms": ms}
  played = _run(page, "jitter_buffer", _PLAY, given)
  return np.array(played["heard"]), played["report"]


def test_windows_on_time_sound_without_a_gap_40_ms_later(page):
  script = {200 * i: ["push"] for i in range(5)}
  heard, report = _play(page, {**script, 900: ["end"]}, ms=1200)
  wanted = np.repeat([1.0, 2, 3, 4, 5], 200)
  np.testing.assert_array_equal(heard[40:1040], wanted)
  assert not heard[:40].any() and not heard[1040:].any()
  assert (report["gaps"], report["played_ms"]) == (0, 1000)


def test_a_window_36_ms_late_is_not_heard_and_one_60_ms_late_is(page):
  heard, report = _play(page, {0: ["push"], 236: ["push", "end"]}, ms=600)
  np.testing.assert_array_equal(heard[40:440], np.repeat([1.0, 2], 200))
  assert (report["gaps"], report["target_ms"]) == (0, 40)
  late = {0: ["push"], 260: ["push"], 460: ["push"], 500: ["end"]}
  heard, report = _play(page, late, ms=1200)
  assert (report["gaps"], report["target_ms"]) == (1, 80)
  assert not heard[240:340].any()  # waits for 80 ms from now on
  np.testing.assert_array_equal(heard[340:740], np.repeat([2.0, 3], 200))


def test_a_short_stretch_does_not_wait(page):
  heard, report = _play(page, {100: ["push", "end"]}, ms=400)
  np.testing.assert_array_equal(heard[100:300], np.ones(200))
  assert report["gaps"] == 0


def test_a_flush_leaves_4_ms_of_fading_and_then_nothing(page):
  script = {0: ["push"], 100: ["push", "flush"], 400: ["push", "end"]}
  heard, report = _play(page, script, ms=700)
  assert (heard[40:100] == 1).all()
  np.testing.assert_allclose(heard[100:104], [0.75, 0.5, 0.25, 0])
  assert not heard[104:400].any()
  assert (heard[400:600] == 3).all(), "what comes later is heard"
  assert (report["flushes"], report["gaps"]) == (1, 0)


def test_after_a_standstill_the_oldest_sound_is_dropped(page):
  heard, report = _play(page, {0: ["push"] * 6, 40: ["end"]}, ms=1500)
  assert report["dropped_ms"] == 1200 - 640
  assert heard[40] == 3 and (heard[680:] == 0).all()


def test_a_wav_file_is_what_python_reads(page):
  made = _run(
    page,
    "wav",
    """(it) => [...it.wav(
      [Int16Array.of(1, -2, 32767), Int16Array.of(4, 5, -32768)], 16000)]""",
  )
  with wave.open(io.BytesIO(bytes(made))) as file:
    assert (file.getnchannels(), file.getsampwidth()) == (2, 2)
    assert (file.getframerate(), file.getnframes()) == (16_000, 3)
    samples = np.frombuffer(file.readframes(3), "<i2").reshape(3, 2)
  assert samples.T.tolist() == [[1, -2, 32767], [4, 5, -32768]]


def test_an_archive_is_what_python_reads(page):
  body = """async (it, files) => {
    const parts = it.zip(
      files.map(([name, bytes]) => ({name, bytes: new Uint8Array(bytes)})),
      new Date(2026, 10, 30, 12, 34, 56));
    return [...new Uint8Array(await new Blob(parts).arrayBuffer())];
  }"""
  files = {"a.txt": b"one", "video/ж.jpg": bytes(range(256)), "empty": b""}
  given = [[name, list(data)] for name, data in files.items()]
  with zipfile.ZipFile(io.BytesIO(bytes(_run(page, "zip", body, given)))) as z:
    assert z.testzip() is None
    assert {name: z.read(name) for name in z.namelist()} == files
    assert z.getinfo("a.txt").date_time == (2026, 11, 30, 12, 34, 56)


def test_a_window_is_told_in_words(page):
  tick = dict(window=7, time=1.4, user="sound", input_level_db=-20)
  tick |= dict(decision="show", is_speaking=True, tick_ms=41.6, waited_ms=3.2)
  body = """(it, ticks) => {
    const state = new it.StripState();
    const cells = ticks.map((tick) => state.add(tick));
    return [it.describe(cells[0]), it.describe(cells[1]),
      it.summarise(state.last(10), 200)];
  }"""
  other = dict(window=8, time=1.6, user="odd", deadline_missed=True, late_ms=30)
  first, second, both = _run(page, "strip_state", body, [tick, other])
  assert first == (
    "Window 7 at 1.4 s: you make sound; the model speaks; it decided: show;"
    " this took 42 ms; waited 3 ms for others."
  )
  assert "nothing of you arrives" in second
  assert "missed its deadline by 30 ms" in second
  assert both == (
    "The last 0.4 s: you made sound for 0.2 s, the model spoke for 0.2 s,"
    " both at once for 0.2 s; 1 deadlines missed."
  )


def test_a_server_that_is_too_slow_is_told_after_50_windows(page):
  body = """(it, [count, missed]) => it.slowness(
    Array.from({length: count}, (_, i) => ({missed: i < missed})))"""
  assert _run(page, "strip_state", body, [49, 49]) == ""
  assert _run(page, "strip_state", body, [50, 9]) == ""
  says = _run(page, "strip_state", body, [50, 10])
  assert says.startswith("The server is too slow: 10 of the last 50 decisions")
  assert _run(page, "strip_state", body, [100, 50]) == "", "it is over"


_OVER = [
  ("refused", 1006, 0, {"status": 0}, "The server does not answer."),
  ("refused", 1006, 0, {"status": 401}, "This server asks for a token"),
  ("refused", 1013, 0, {"slots": 3, "seconds_to_wait": 7.2}, "All 3 places"),
  ("refused", 1006, 0, {"is_draining": True}, "The server is going down."),
  ("refused", 1006, 0, {"slots_free": 2}, "The server lets nobody else in"),
  ("refused", 1008, "odd", {}, "The server refused the conversation (odd)."),
  ("ended", 1000, "", {}, "The conversation has ended."),
  ("ended", 1006, "", {}, "The line was down for longer than the session"),
  ("ended", 1008, "slow", {}, "The server ended the conversation (slow)."),
]


@pytest.mark.parametrize("case", _OVER, ids=lambda case: f"{case[0]}-{case[1]}")
def test_an_end_says_why(page, case):
  name, code, reason, session, wanted = case
  given = {"code": code, "reason": reason or "", "session": session}
  body = "(it, [name, given]) => it.over(name, given)"
  assert _run(page, "messages", body, [name, given]).startswith(wanted)


def test_jitter_is_that_of_rtp(page):
  body = """(it, times) => {
    const figures = new it.Figures();
    times.forEach((now, window) =>
      figures.tick({window, tick_ms: 5, deadline_missed: window === 1},
        {now, windowMs: 200}));
    return figures.summary();
  }"""
  figures = _run(page, "figures", body, [0, 232, 400])
  first = 32 / 16
  assert figures["jitter_ms"] == pytest.approx(first + (32 - first) / 16)
  assert (figures["windows"], figures["deadlines_missed"]) == (3, 1)


def test_both_sides_of_the_download_lie_where_they_sounded(page):
  body = """(it) => {
    const log = new it.SessionLog(1000);
    log.sound("user", 0.002, Int16Array.of(1, 2));
    log.sound("agent", 0.003, Int16Array.of(7, 8));
    log.sound("user", 1e9, Int16Array.of(9));
    log.tick(0.2, {window: 0});
    log.line(0.1, "typed", "two\\nlines");
    log.image(0.05, "camera", Uint8Array.of(255));
    return log.files({model: "m"}).map(({name, bytes}) => [name, [...bytes]]);
  }"""
  files = {n: bytes(b) for n, b in _run(page, "session_log", body)}
  with wave.open(io.BytesIO(files["conversation.wav"])) as file:
    samples = np.frombuffer(file.readframes(99), "<i2").reshape(-1, 2)
  assert samples.tolist() == [[0, 0], [0, 0], [1, 0], [2, 7], [0, 8]]
  assert json.loads(files["session.json"])["left_out"] == 1
  assert json.loads(files["ticks.jsonl"]) == {"page_seconds": 0.2, "window": 0}
  assert files["transcript.txt"] == b"    0.1  typed    two lines\n"
  assert files["video/00000.050_camera.jpg"] == b"\xff"


def test_tokens_go_as_subprotocols(page):
  body = """(it) => it.address(new URL("https://a.test/x?y"),
    {resume: "r_1", token: "secret"})"""
  assert _run(page, "events", body) == {
    "url": "wss://a.test/v1/realtime?client=page",
    "protocols": [
      "realtime",
      "tml-resume.r_1",
      "openai-insecure-api-key.secret",
    ],
  }
  is_token = "(it, all) => all.map((each) => it.isToken(each))"
  given = ["aZ0._~-", "", "a/b", "a=", "a,b", "a b", "ä"]
  assert _run(page, "events", is_token, given) == [True] + [False] * 6


_CONNECT = """async (it, token) => {
  const states = [];
  const connection = new it.Connection({
    event() {}, state: (name, about) => states.push([name, about]),
  });
  connection.open({ token });
  while (states.length < 2) await new Promise((done) => setTimeout(done, 20));
  return states;
}"""


def test_a_token_that_no_browser_can_send_is_refused_and_not_thrown(page):
  _, (name, about) = _run(page, "connection", _CONNECT, "a/b=")
  assert (name, about["session"]) == ("refused", {"status": 401})


_WORDS = """(it) => {
  const log = document.createElement("div");
  const list = document.createElement("ol");
  log.append(list);
  const words = new it.WordsView(log, list);
  words.areWordsRead = true;
  words.grow("i", "model", "half a sent", { seconds: 0.1 });
  const cut = words.finishAll("cut off");
  words.reset();
  return [cut, words.open.size, words.areWordsRead];
}"""


def test_lines_that_grow_end_with_the_line(page):
  cut, left, is_read = _run(page, "words_view", _WORDS)
  assert cut == [{"kind": "model", "text": "half a sent"}]
  assert left == 0
  assert is_read, "what the person chose outlives a conversation"


_DELTAS = """(it) => {
  const played = [];
  const views = { strip: { reset() {}, repaint() {} } };
  const session = new it.Session(views, { ready() {}, send() {} });
  session.audio = { play: (item) => played.push(item), end() {}, now: 0 };
  session.views.words = { finishAll: () => [] };
  const type = "response.output_audio.delta";
  const delta = (item) =>
    session.handle({ type, item_id: item, delta: "AAA=" }, 0, 1);
  delta("before");
  session.handle({ type: "session.updated" }, 0, 1);
  delta("agreed");
  session.interrupt();
  delta("resumed");
  return played;
}"""


def test_sound_is_played_once_its_format_is_agreed(page):
  assert _run(page, "session", _DELTAS) == ["agreed"]


_WATCH = """async (it) => {
  const connection = new it.Connection({ event() {}, state() {} });
  let watched = 0;
  connection.watch = () => (watched += 1);
  const pong = JSON.stringify({ type: "tml.pong", sent: 1 });
  for (let i = 0; i < 9; i++) connection.receive(pong);
  const before = watched;
  connection.receive(JSON.stringify({ type: "tml.tick" }));
  return [before, watched];
}"""


def test_only_windows_keep_the_line_alive(page):
  assert _run(page, "connection", _WATCH) == [0, 1]


def test_lines_are_items_of_a_list_within_the_log(page):
  """The role of a log would take that of the list, and so of its items."""
  role = "(id) => document.getElementById(id).getAttribute('role')"
  assert page.evaluate(role, "words") == "log"
  assert page.evaluate(role, "lines") is None
  assert page.evaluate("document.querySelector('#lines').tagName") == "OL"
