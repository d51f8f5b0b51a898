"""How a page looks, and what it does when it is touched.

For: `html.page`. Not for: what is on it. Dark and light follow the reader's
settings. The script moves a line over the windows of a recording, with the
sound or with the arrow keys, and says what the window holds.
"""

CSS = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --soft: #555;
  --line: #ccc; --lane: #f2f2f2; --blue: #0072b2; --red: #d55e00;
  --green: #009e73; --purple: #b0478a; --sky: #56b4e9; --orange: #e69f00;
  --yellow: #c9b800; --brown: #966e46; --black: #6e6e6e; --none: #c8c8c8 }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --paper: #161616;
  --soft: #aaa; --line: #444; --lane: #242424; --blue: #4aa3df;
  --red: #ff8a3d; --green: #2fc79b; --purple: #e29bc8; --orange: #f0b429;
  --yellow: #e6da4e; --brown: #c39a6f; --black: #9a9a9a; --none: #3c3c3c } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 80rem;
  padding: 0 1rem 4rem; color: var(--ink); background: var(--paper) }
h1 { font-size: 1.6rem; margin: 1rem 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .5rem;
  border-top: 2px solid var(--line); overflow-wrap: anywhere }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem; overflow-wrap: anywhere }
p, .note { margin: .25rem 0 .75rem; max-width: 60rem }
.note { color: var(--soft); font-size: .9rem }
a { color: var(--blue) }
:focus-visible { outline: 3px solid var(--orange); outline-offset: 2px }
.skip { position: absolute; left: -99rem } .skip:focus { left: 1rem }
nav ul { padding: 0; margin: .5rem 0; display: flex; flex-wrap: wrap;
  gap: .25rem 1rem; list-style: none }
.scroll { overflow-x: auto; max-width: 100% }
table { border-collapse: collapse; margin: .5rem 0; font-size: .95rem }
caption, figcaption { text-align: left; font-weight: 600; padding: .25rem 0 }
td, th { padding: .15rem .6rem; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; font-weight: 400 }
thead th { font-weight: 600 } .number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums }
.facts { display: flex; flex-wrap: wrap; gap: .4rem 2rem;
  margin: .5rem 0 1rem }
.facts div { min-width: 8rem }
.facts dt { color: var(--soft); font-size: .85rem }
.facts dd { margin: 0; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere }
.columns { columns: 23rem; column-gap: 2rem }
.columns > * { break-inside: avoid; margin-bottom: 1rem }
.bars table { width: 100% } .bars td.bar { width: 40% }
.bars th { white-space: nowrap }
.bars svg { width: 100%; height: .9rem; display: block }
figure { margin: .75rem 0 } .stack { width: 100%; height: 1.6rem }
.legend { list-style: none; padding: 0; margin: .25rem 0; display: flex;
  flex-wrap: wrap; gap: .1rem 1.25rem; font-size: .95rem }
.key { display: inline-block; width: .8rem; height: .8rem;
  margin-right: .35rem }
.c-blue { fill: var(--blue); background: var(--blue) }
.c-red { fill: var(--red); background: var(--red) }
.c-green { fill: var(--green); background: var(--green) }
.c-purple { fill: var(--purple); background: var(--purple) }
.c-sky { fill: var(--sky); background: var(--sky) }
.c-orange { fill: var(--orange); background: var(--orange) }
.c-yellow { fill: var(--yellow); background: var(--yellow) }
.c-brown { fill: var(--brown); background: var(--brown) }
.c-black { fill: var(--black); background: var(--black) }
.c-none { fill: var(--none); background: var(--none) }
.players { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; margin: .5rem 0 }
.players label { display: block; font-size: .9rem }
.players audio { display: block; width: 19rem; max-width: 100% }
.grid { display: flex; border: 1px solid var(--line) }
.grid .names { flex: none; background: var(--paper) }
.grid .lanes { overflow-x: auto; position: relative; flex: 1 }
.grid svg { display: block } .grid text { font-size: 11px; fill: var(--ink) }
.grid .lane { fill: var(--lane) } .grid .tick { stroke: var(--line) }
.grid .user { fill: var(--blue) } .grid .agent { fill: var(--red) }
.grid .event { fill: var(--purple) } .grid .soft { fill: var(--soft) }
.grid image { image-rendering: pixelated }
.grid .cursor { fill: var(--orange); opacity: .45; pointer-events: none }
.window { min-height: 3.2em; font-family: ui-monospace, monospace;
  font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere;
  padding: .25rem .5rem; background: var(--lane); margin: 0 0 .5rem }
.tokens { font-family: ui-monospace, monospace; font-size: .85rem;
  line-height: 1.7; overflow-wrap: anywhere; white-space: pre-wrap }
.tokens span { border-bottom: 3px solid transparent }
.tokens .t { border-bottom-color: var(--green) }
.tokens .line { display: block; border: 0 } .tokens .soft { color: var(--soft) }
.map { image-rendering: pixelated; width: 100%; border: 1px solid var(--line);
  background: var(--lane) }
summary { cursor: pointer; padding: .25rem 0 }
"""

SCRIPT = """
"use strict";
for (const grid of document.querySelectorAll("[data-windows]")) {
  const lanes = grid.querySelector(".lanes");
  const cursor = grid.querySelector(".cursor");
  const says = grid.querySelector(".window");
  const lines = JSON.parse(grid.querySelector("script").textContent);
  const wide = Number(grid.dataset.wide);
  const seconds = Number(grid.dataset.seconds);
  const players = grid.querySelectorAll("audio");
  let now = -1;
  const show = (window, follow) => {
    window = Math.max(0, Math.min(lines.length - 1, window));
    if (window === now) return;
    now = window;
    cursor.setAttribute("x", window * wide);
    cursor.setAttribute("visibility", "visible");
    says.textContent = lines[window];
    const left = window * wide;
    if (follow && (left < lanes.scrollLeft ||
        left > lanes.scrollLeft + lanes.clientWidth - 2 * wide)) {
      lanes.scrollLeft = left - lanes.clientWidth / 4;
    }
  };
  lanes.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1, PageDown: 25, PageUp: -25,
      Home: -1e9, End: 1e9}[event.key];
    if (step === undefined) return;
    event.preventDefault();
    says.ariaLive = "polite";
    show(now + step, true);
  });
  lanes.addEventListener("click", (event) => {
    const box = lanes.getBoundingClientRect();
    const at = event.clientX - box.left + lanes.scrollLeft;
    show(Math.floor(at / wide), false);
    for (const player of players) player.currentTime = now * seconds;
  });
  for (const player of players) {
    player.addEventListener("play", () => {
      says.ariaLive = "off";  // nobody wants to hear five a second
      for (const other of document.querySelectorAll("audio")) {
        if (other !== player) other.pause();
      }
      const follow = () => {
        show(Math.floor(player.currentTime / seconds + 1e-6), true);
        if (!player.paused) requestAnimationFrame(follow);
      };
      follow();
    });
  }
}
"""
