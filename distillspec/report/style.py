"""The style sheet of the report: light and dark, no resource from outside the page."""

STYLE = """
:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #1c2330; --faint: #5d6778; --line: #e3e7ee;
  --accent: #1f63d6; --slow: #b3481d;
  --accepted: #d7ecd9; --corrected: #f7d9cb; --bonus: #d5e3fa; --plain: transparent;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1217; --card: #171b22; --ink: #e6e9ef; --faint: #9aa4b5; --line: #2c333f;
    --accent: #6aa2ff; --slow: #ee8a5a;
    --accepted: #1f4027; --corrected: #5a2f1d; --bonus: #1e3a66;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 20px 80px; }
header { margin-bottom: 24px; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 6px; }
h2 { font-size: 1.12rem; letter-spacing: -0.005em; margin: 0 0 12px; }
h3 { font-size: 0.98rem; margin: 22px 0 8px; }
.facts { color: var(--faint); margin: 0; font-size: 0.9rem; }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 20px 24px; margin: 18px 0;
}
section > p { margin: 0 0 12px; }
ul { margin: 0; padding-left: 1.15em; }
li { margin: 4px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 14px; }
.tile {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 20px;
}
.label { color: var(--faint); font-size: 0.85rem; }
.number { font-size: 2.3rem; font-weight: 650; letter-spacing: -0.02em; line-height: 1.25; }
.interval { color: var(--faint); font-size: 0.88rem; }
figure { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption { color: var(--faint); font-size: 0.88rem; margin-top: 10px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.86rem; }
th {
  text-align: left; color: var(--faint); font-weight: 600; white-space: nowrap;
  border-bottom: 1px solid var(--line);
}
th, td { padding: 5px 12px 5px 0; vertical-align: baseline; }
td { border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
.n { text-align: right; white-space: nowrap; }
tr.slow td { color: var(--slow); }
tr.null td { color: var(--faint); }
tr.higher td:last-child { color: var(--accent); font-weight: 600; }
tr.lower td:last-child { color: var(--slow); font-weight: 600; }
pre, .piece { font: 13px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: 6px 0 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.prompt { color: var(--faint); max-height: 320px; overflow: auto; }
.examples { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 18px; }
.piece { border-radius: 3px; box-shadow: inset 0 0 0 0.5px var(--card); }
.piece.accepted { background: var(--accepted); }
.piece.corrected { background: var(--corrected); }
.piece.bonus { background: var(--bonus); }
.break { opacity: 0.45; }
.legend { color: var(--faint); font-size: 0.88rem; }
.key { margin-right: 12px; } .key .piece { padding: 2px 7px; color: var(--ink); }
details summary { cursor: pointer; color: var(--faint); font-size: 0.88rem; }
dl { margin: 0; display: grid; grid-template-columns: minmax(150px, auto) 1fr; gap: 8px 20px; }
dt { font: 600 0.86rem/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
dd { margin: 0; font-size: 0.9rem; }
@media (max-width: 640px) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 8px; } }
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } }
"""
