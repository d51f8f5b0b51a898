"""The built-in tools, each against something outside of it."""

import asyncio
import datetime
import fractions
import http.server
import json
import re
import threading
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from tml_jax import errors
from tml_jax.logs.transcript import Line
from tml_jax.tools import background, calculator, chat, clock, search, timer
from tml_jax.tools.background import Call, Failure


def ask(tool, arguments, *, name="tool", **more) -> str:
  """The whole result of one call."""

  async def collect():
    call = Call(number=1, time=83.0, name=name, arguments=arguments, **more)
    return "".join([text async for text in tool.run(call)])

  return asyncio.run(collect())


# Calculator.


@pytest.mark.parametrize(
  "text, value",
  [
    ("3+4", "7"),
    ("2 ^ 10", "1024"),
    ("7 × 6 ÷ 4", "10.5"),
    ("-(2+3) % 4", "3"),
    ("10 // 3", "3"),
    ("sqrt(2)", "1.41421356237"),
    ("0.1 + 0.2", "0.3"),
    ("2 * pi", "6.28318530718"),
    ("2 ** 100", "1267650600228229401496703205376"),
    ("  1  ", "1"),
  ],
)
def test_calculator(text, value):
  assert ask(calculator.Calculator(), text) == value


@pytest.mark.parametrize(
  "text, reason",
  [
    ("", "no arithmetic"),
    ("hello", "no arithmetic"),
    ("1/0", "division by zero"),
    ("__import__('os').system('true')", "no arithmetic"),
    ("(lambda: 1)()", "no arithmetic"),
    ("[].__class__", "no arithmetic"),
    ("'a' * 9", "no arithmetic"),
    ("True + 1", "no arithmetic"),
    ("9**9**9**9", "too large"),
    ("1e308 * 10", "too large"),
    ("exp(1000)", "too large"),
    ("(-8) ** 0.5", "not a real number"),
    ("sqrt(-1)", "no arithmetic"),
    ("1j", "no arithmetic"),
    ("x" * 300, "more than 200"),
    ("(" * 150 + ")" * 20, "no arithmetic"),
    ("1\x00", "no arithmetic"),
    ("round(1.5, 1)", "no arithmetic"),
  ],
)
def test_calculator_refuses(text, reason):
  start = time.monotonic()
  with pytest.raises(Failure, match=reason):
    calculator.evaluate(text)
  assert time.monotonic() - start < 1


_EXPRESSION = st.recursive(
  st.integers(0, 99).map(str),
  lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(
    lambda t: f"({t[0]}{t[1]}{t[2]})"
  ),
  max_leaves=8,
)


@hypothesis.given(_EXPRESSION)
def test_calculator_agrees_with_exact_fractions(text):
  hypothesis.assume(len(text) <= 200)
  exact = re.sub(r"\d+", r"F(\g<0>)", text)
  try:
    wanted = eval(exact, {"F": fractions.Fraction})
  except ZeroDivisionError:
    with pytest.raises(Failure):
      calculator.evaluate(text)
    return
  try:
    got = calculator.evaluate(text)
  except Failure:  # a difference that floats lose, divided by
    hypothesis.reject()
  assert got == pytest.approx(float(wanted), rel=1e-6, abs=1e-6)


@hypothesis.given(st.text(max_size=80))
def test_no_text_breaks_the_calculator(text):
  try:
    assert isinstance(calculator.evaluate(text), int | float)
  except Failure:
    pass


# Clock and timer.


def test_clock():
  text = ask(clock.Clock(), "")
  day, at, _ = text.split(",")[0].split()
  now = datetime.datetime.now()
  told = datetime.datetime.fromisoformat(
    f"{at} {text.split(',')[0].split()[2]}"
  )
  assert abs((now - told).total_seconds()) < 5 and day == f"{told:%A}"
  assert text.endswith("1 min 23 s into the conversation")


def test_timer():
  start = time.monotonic()
  assert ask(timer.Timer(), "0.2 s") == "0.2 s are over"
  assert 0.2 <= time.monotonic() - start < 2
  for wrong in ("", "soon", "-1", "0", "nan", "1e9", "inf"):
    with pytest.raises(Failure, match="timer SECONDS"):
      ask(timer.Timer(), wrong)


# Search.


@pytest.fixture(name="corpus")
def _corpus(tmp_path):
  (tmp_path / "tea.txt").write_text(
    "Green tea is steeped at 80 degrees.\n\nBlack tea wants boiling water."
  )
  (tmp_path / "more").mkdir()
  (tmp_path / "more" / "rivers.md").write_text("The Tiber flows through Rome.")
  (tmp_path / "broken.txt").write_bytes(b"\xff\xfe\x00tea")
  (tmp_path / "picture.png").write_bytes(b"tea")
  return tmp_path


def test_search(corpus):
  tool = search.Search(str(corpus))
  assert tool.count == 3
  first, second = ask(tool, "what does boiling tea want?").splitlines()
  assert first == "tea.txt: Black tea wants boiling water."
  assert second.startswith("tea.txt: Green tea")
  assert ask(tool, "ROME").startswith("more/rivers.md: The Tiber")
  assert ask(tool, "zebra") == "nothing about zebra"
  with pytest.raises(Failure):
    ask(tool, " ?! ")


@hypothesis.settings(
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
  max_examples=30,
)
@hypothesis.given(st.text(max_size=40))
@hypothesis.example('tea" OR file:x NEAR(tea) NOT * ^tea -- \x00')
def test_no_query_breaks_the_search(corpus, query):
  tool = search.Search(str(corpus))
  try:
    assert ask(tool, query)
  except Failure:
    pass


def test_search_without_text(tmp_path):
  for path, words in ((tmp_path, "has no text"), ("/nowhere", "no such dir")):
    with pytest.raises(errors.UserError, match=words):
      search.Search(str(path))


def test_search_follows_no_link_out_of_the_corpus(corpus, tmp_path_factory):
  outside = tmp_path_factory.mktemp("outside")
  (outside / "key.txt").write_text("the password of the tea house")
  (corpus / "key.txt").symlink_to(outside / "key.txt")
  (corpus / "folder").symlink_to(outside)
  (corpus / "environment.txt").symlink_to("/proc/self/environ")
  (corpus / "circle.txt").symlink_to("circle.txt")
  (corpus / "inside.txt").symlink_to("more/rivers.md")
  tool = search.Search(str(corpus))
  assert tool.count == 4  # of tea two, of rivers two
  assert ask(tool, "password PATH HOME") == "nothing about password PATH HOME"
  link = outside / "corpus"  # the corpus itself may be one
  link.symlink_to(corpus)
  assert search.Search(str(link)).count == 4


def test_passages():
  text = "One. " * 200 + "\n\n" + "Two.\nThree."
  found = list(search.passages(text))
  assert all(len(passage) <= 400 for passage in found)
  assert " ".join(found) == " ".join(text.split())
  assert found[-1] == "Two. Three."


# The background model, behind a real server.

KEY = "sk-0123456789abcdef"


class Server(http.server.ThreadingHTTPServer):
  """Answers as OpenAI's API does; `mode` says what goes wrong."""

  daemon_threads = True
  mode = "stream"
  says = "overloaded, no such\\nmodel"
  texts = ("Because ", "of Rayleigh", " scattering.\n")

  def __init__(self):
    super().__init__(("127.0.0.1", 0), Handler)
    self.requests = []
    self.hung_up = threading.Event()

  def handle_error(self, request, client_address):
    pass  # a client that hangs up is part of the tests


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def log_message(self, *_):
    pass

  def do_POST(self):
    length = int(self.headers["Content-Length"])
    body = json.loads(self.rfile.read(length))
    self.server.requests.append((self.path, dict(self.headers), body))
    mode = self.server.mode
    if mode == "refuse":
      text = b'{"error": {"message": "%s"}}' % self.server.says.encode()
      self.send_response(404)
      self.send_header("Content-Length", str(len(text)))
      self.end_headers()
      self.wfile.write(text)
    elif mode == "whole":
      message = {"role": "assistant", "content": "".join(self.server.texts)}
      text = json.dumps({"choices": [{"message": message}]}).encode()
      self.send_response(200)
      self.send_header("Content-Type", "application/json")
      self.send_header("Content-Length", str(len(text)))
      self.end_headers()
      self.wfile.write(text)
    else:
      self.stream(mode)

  def stream(self, mode):
    self.send_response(200)
    self.send_header("Content-Type", "text/event-stream")
    chunked = mode != "unchunked"
    self.send_header(
      *(
        ("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")
      )
    )
    self.end_headers()

    def send(text):
      data = text.encode()
      if chunked:
        # In two chunks that cut lines and letters anywhere.
        for part in (data[:7], data[7:]):
          if part:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
      else:
        self.wfile.write(data)
      self.wfile.flush()

    try:
      send(": a comment\n\n")
      send('data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n')
      for text in self.server.texts:
        event = {"choices": [{"delta": {"content": text}}]}
        send(f"data: {json.dumps(event, ensure_ascii=False)}\r\n\r\n")
      if mode == "hang":
        for _ in range(200):
          send(": still there\n")
          time.sleep(0.05)
      if mode == "break":
        self.close_connection = True
        return
      if mode == "garbage":
        send("data: {not json\n\n")
      if mode == "late error":
        said = json.dumps({"error": {"message": self.server.says}})
        send(f"data: {said}\n\n")
      send('data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n')
      send('data: {"choices": [], "usage": {"total_tokens": 9}}\n\n')
      send("data: [DONE]\n\n")
      if chunked:
        self.wfile.write(b"0\r\n\r\n")
    except OSError:
      self.server.hung_up.set()
    self.close_connection = not chunked


@pytest.fixture(name="server")
def _server():
  with Server() as server:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()


def _chat(server, **arguments):
  url = f"http://127.0.0.1:{server.server_port}/v1/"
  return chat.Chat(url, **({"model": "m", "key": ""} | arguments))


@pytest.mark.parametrize("mode", ["stream", "unchunked", "whole"])
def test_chat(server, mode):
  server.mode = mode
  server.texts = ("Because ", "of Rayleigh — ", "scattering…\n")
  text = ask(
    _chat(server, key="secret"),
    "why is the sky blue",
    name="chat",
    conversation=(Line(1.0, 2.5, "user", "look up"),),
    others=({"call": 1, "result": "7"},),
  )
  assert text == "Because of Rayleigh — scattering…\n"
  ((path, headers, body),) = server.requests
  assert path == "/v1/chat/completions"
  assert headers["Authorization"] == "Bearer secret"
  assert body["model"] == "m" and body["stream"] is True
  system, user = body["messages"]
  assert system["role"] == "system" and user["role"] == "user"
  for part in ("[1.0-2.5] user: look up", '"result": "7"', "at 83.0 s:"):
    assert part in user["content"]
  assert user["content"].endswith("\nwhy is the sky blue")


@pytest.mark.parametrize(
  "mode, reason",
  [
    ("refuse", 'answers 404: {"error": {"message": "overloaded, no such'),
    ("break", "broke off"),
    ("garbage", "broke off"),
    ("late error", "overloaded"),
  ],
)
def test_chat_fails(server, mode, reason):
  server.mode = mode
  with pytest.raises(Failure, match=reason):
    ask(_chat(server), "q")
  assert "Authorization" not in server.requests[0][1]


def test_chat_without_a_server():
  with Server() as server:
    port = server.server_port
  with pytest.raises(Failure, match=f"no connection to 127.0.0.1:{port}"):
    ask(chat.Chat(f"http://127.0.0.1:{port}", model="m", key=""), "q")


def test_a_server_that_never_ends_is_hung_up_on(server):
  server.mode = "hang"
  with background.Runner({"chat": _chat(server, timeout=0.5)}) as runner:
    call = Call(number=1, time=0.0, name="chat", arguments="q")
    ticket = runner.start(call, chars=1000)
    text, end = "", time.monotonic() + 10
    while ticket.outcome == background.Outcome.RUNNING:
      assert time.monotonic() < end
      text += ticket.take()
      time.sleep(0.01)
    assert text == "Because of Rayleigh scattering.\n"  # as far as it came
    assert ticket.outcome == background.Outcome.TIMED_OUT
    assert server.hung_up.wait(10)


@pytest.mark.parametrize(
  "mode, texts",
  [
    ("refuse", ()),
    ("late error", ()),
    ("stream", ("the key is ", KEY, ", keep it")),
    ("stream", ("the key is " + KEY[:3], KEY[3:9], "", KEY[9:] + ", keep it")),
    ("stream", ("cut off: ", KEY[:-1])),
    ("whole", (f"{KEY}{KEY}",)),
  ],
)
def test_a_key_that_the_server_repeats_is_taken_out(server, mode, texts):
  """Out of results and reasons, which are kept and read by models."""
  server.mode, server.texts, server.says = mode, texts, f"bad key {KEY} {KEY}"
  with background.Runner({"chat": _chat(server, key=KEY)}) as runner:
    call = Call(number=1, time=0.0, name="chat", arguments="q")
    ticket = runner.start(call, chars=1000)
    ticket.settle()
    text = ticket.take() + ticket.reason
  assert server.requests[0][1]["Authorization"] == f"Bearer {KEY}"
  assert chat.REDACTED in text
  assert KEY[:-1] not in text and KEY[9:] not in text
  assert text.endswith(", keep it") or mode != "stream" or len(texts) == 2


@hypothesis.given(
  st.lists(st.text(alphabet="ab ", max_size=4), max_size=8),
  st.text(alphabet="ab", min_size=2, max_size=4),
)
def test_taking_out_changes_nothing_else(parts, secret):
  taker = chat._Secret(secret)
  got = "".join([taker.take_out(part) for part in parts])
  held = taker.rest()
  wanted = "".join(parts).replace(secret, chat.REDACTED)
  if held != chat.REDACTED:  # more than half of it at the end
    assert got + held == wanted
  else:
    assert wanted.startswith(got) and len(wanted) - len(got) < len(secret)


@pytest.mark.parametrize(
  "url, words",
  [
    ("http://me:pass@host/v1", "no user"),
    ("http://pass@host/v1", "no user"),
    ("http://host/v1?key=pass", "no user, [?] or #"),
    ("ftp://me:pass@host/v1", "write the base"),
  ],
)
def test_a_secret_in_the_address_is_refused_and_not_repeated(url, words):
  with pytest.raises(errors.UserError, match=words) as error:
    chat.Chat(url, model="m", key="")
  assert "pass" not in str(error.value)


@pytest.mark.parametrize("key", ["a b", "a\nb: c", "schlüssel", "\x00"])
def test_a_key_that_cannot_be_sent(key):
  with pytest.raises(errors.UserError, match="no spaces") as error:
    chat.Chat("http://host/v1", model="m", key=key)
  assert key not in str(error.value)


@pytest.mark.parametrize(
  "url",
  ["", "localhost:8000", "ftp://a/b", "http://", "http://a:b/", "http://a b/"],
)
def test_bad_address(url):
  with pytest.raises(errors.UserError, match="--chat_url"):
    chat.Chat(url, model="m", key="")
