"""The style sheet of pages of results: light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --faint: #5f6670; --line: #d9dce1;
  --paper: #ffffff; --card: #f6f7f9; --good: #0a6b33; --bad: #b3261e; --warn: #8a5a00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --faint: #a0a7b1; --line: #3a3f47; --paper: #15171a; --card: #1e2126;
    --good: #5fce8b; --bad: #ff8a80; --warn: #f0c060 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 2px solid var(--line) }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .25rem }
p { margin: .5rem 0 } .recipe, figcaption, .n { color: var(--faint); font-size: .85rem }
.warn { color: var(--warn); font-weight: 600 }
.good { color: var(--good) } .bad { color: var(--bad) }
section.run { background: var(--card); border-radius: .6rem; padding: .5rem 1rem 1rem;
  margin: 1rem 0 }
.wide { overflow-x: auto } summary { cursor: pointer; padding: .3rem 0 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; vertical-align: top }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
td .ends { white-space: nowrap; color: var(--faint); font-size: .85rem }
tr.strong { font-weight: 600 } tr.part th { padding-top: 1rem; color: var(--faint) }
dl { display: grid; grid-template-columns: minmax(6rem, auto) 1fr; gap: .15rem 1rem;
  font-size: .85rem }
dt { color: var(--faint) } dd { margin: 0; font-family: ui-monospace, monospace }
figure { margin: 1rem 0 } figure img { display: block; max-width: none }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .8rem }
.tiles figure { margin: 0 }
.tiles img { width: 100%; border-radius: .3rem } img.small { image-rendering: pixelated }
.legend span { display: inline-block; margin-right: 1.2rem }
.legend span::before { content: ""; display: inline-block; width: .8em; height: .8em;
  margin-right: .4em; border-radius: 50%; background: var(--run) }
svg.plot { display: block; margin: .5rem 0 1.2rem; overflow: visible }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif } svg .strong { font-weight: 600 }
svg .tick { fill: var(--faint); font-size: 12px } svg .axis { stroke: var(--line) }
svg .zero { stroke: var(--faint) } svg .bar { stroke: var(--run); stroke-width: 3; opacity: .55 }
svg .dot { fill: var(--run) }
"""
GOLDEN_ANGLE = 137.508  # degrees: hues that follow each other are far apart, however many
FIRST_HUE = 215.0


def style(runs: int) -> str:
    """Return the style sheet, with a colour for each of so many runs."""
    hues = ((FIRST_HUE + GOLDEN_ANGLE * run) % 360 for run in range(runs))
    colours = "".join(
        f".run-{run} {{ --run: hsl({hue:.0f} 65% 48%) }}\n" for run, hue in enumerate(hues)
    )
    return STYLE + colours
