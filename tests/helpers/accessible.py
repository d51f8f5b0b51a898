"""What people with a keyboard, a screen reader or tired eyes find on a page.

For: tests of pages. Not for: what a page does. Names come from Chromium's own
accessibility tree; contrast is WCAG 2.2, criterion 1.4.3.
"""

LEAST = 4.5  # contrast of text
_CONTROLS = {
  "button",
  "checkbox",
  "combobox",
  "img",
  "log",
  "meter",
  "slider",
  "textbox",
}

# Relative luminance and contrast as WCAG defines them. Backgrounds are those
# of the nearest element that has one.
_CONTRAST = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] === undefined || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const rows = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility()) continue;
    if (element.closest(":disabled, noscript, script")) continue;
    const [one, two] = [parse(getComputedStyle(element).color), ground(element)]
      .map(light).sort((a, b) => b - a);
    rows.push({text, ratio: (one + 0.05) / (two + 0.05)});
  }
  return rows;
}"""


def unnamed(page) -> list[str]:
  """Controls, pictures and logs without an accessible name."""
  devtools = page.context.new_cdp_session(page)
  nodes = devtools.send("Accessibility.getFullAXTree")["nodes"]
  found = [
    (node["role"]["value"], node.get("name", {}).get("value", "").strip())
    for node in nodes
    if not node["ignored"] and node["role"]["value"] in _CONTROLS
  ]
  assert len(found) >= 1, "the tree is read"
  return [role for role, name in found if not name]


def checked(page) -> int:
  """How many pieces of text `faint_text` looks at."""
  return len(page.evaluate(_CONTRAST))


def faint_text(page) -> list[str]:
  """Text whose contrast is too low, with its contrast."""
  return [
    f"{row['text'][:40]}: {row['ratio']:.2f}"
    for row in page.evaluate(_CONTRAST)
    if row["ratio"] < LEAST
  ]


def tab_to(page, name: str) -> None:
  """Presses Tab until the element with this id has the focus."""
  for _ in range(60):
    page.keyboard.press("Tab")
    if page.evaluate("document.activeElement.id") == name:
      return
  raise AssertionError(f"Tab never reaches #{name}")


def outline(page) -> float:
  """Width in pixels of what shows the focus."""
  return page.evaluate(
    "parseFloat(getComputedStyle(document.activeElement).outlineWidth)"
  )
