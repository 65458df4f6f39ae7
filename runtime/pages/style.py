"""The style sheet of report.html, for light and dark, phone and desktop, and print."""

from __future__ import annotations

#: Colors are named by their meaning; every pair of text and ground has a contrast of 4.5 or more.
STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --raised: #f4f6f8; --ink: #1b1f24; --muted: #57606a; --line: #d0d7de;
  --mark: #0b5cad; --good: #116329; --bad: #b3261e; --warn: #7a4b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171a; --raised: #1e2328; --ink: #e8eaed; --muted: #a9b1ba; --line: #3d444d;
    --mark: #79b8ff; --good: #6fd38b; --bad: #ff9b93; --warn: #f0c060;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 3rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
  -webkit-text-size-adjust: 100%;
}
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.75rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--mark); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 3px solid var(--mark); outline-offset: 2px; border-radius: 2px;
}
code { font: .9em ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.title { display: flex; flex-wrap: wrap; align-items: center; gap: .35rem .9rem; }
.verdict { border: 2px solid; border-radius: 1.2rem; padding: 0 .8rem; font-weight: 700; }
.pass { color: var(--good); } .fail { color: var(--bad); } .vacuous { color: var(--warn); }
.lead { font-size: 1.15rem; } .muted { color: var(--muted); } .warn { color: var(--warn); }
nav { margin: 1rem 0 0; padding: .6rem 0; border-block: 1px solid var(--line); }
nav ul { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; margin: 0; padding: 0; }
nav a { display: inline-block; padding: .15rem 0; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; margin: .75rem 0; }
.facts dt { color: var(--muted); } .facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
caption { text-align: left; color: var(--muted); padding-bottom: .3rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem 1rem .35rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; } tbody th { font-weight: 400; } thead th { color: var(--muted); white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.long { width: max-content; min-width: 100%; }
.wide { min-width: 13rem; overflow-wrap: anywhere; }
details { margin: .75rem 0; } summary { cursor: pointer; color: var(--mark); padding: .2rem 0; }
figure { margin: 1rem 0; } figcaption { color: var(--muted); font-size: .9375rem; margin-top: .35rem; }
.plot { display: flex; } .plot svg { display: block; overflow: visible; }
.plot .axis { flex: none; width: 2.6rem; } .plot .area { flex: 1; min-width: 0; margin-right: .5rem; }
.plot text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--muted); }
.plot .halo { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; stroke-linejoin: round; }
.plot .name { fill: var(--ink); font-weight: 600; }
.plot .grid { stroke: var(--line); } .plot .floor { stroke: var(--muted); stroke-width: 1.5; }
.plot .limit { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; }
.plot .limit-name { fill: var(--bad); }
.plot .path { stroke: var(--mark); opacity: .45; } .plot .leader { stroke: var(--muted); stroke-dasharray: 2 3; }
.plot .layer { fill: var(--mark); } .plot .beyond { fill: var(--bad); }
.plot .ring { fill: none; stroke: var(--ink); stroke-width: 1.5; }
.order { display: flex; justify-content: space-between; gap: 1rem; margin: .1rem .5rem 0 2.6rem; }
.order span { min-width: 0; overflow-wrap: anywhere; } .order span:last-child { text-align: right; }
ol.worst { margin: .5rem 0; padding-left: 1.6rem; } ol.worst li { margin: .15rem 0; overflow-wrap: anywhere; }
.share { display: inline-block; height: .7rem; min-width: 1px; background: var(--mark); border-radius: 1px; }
.bar { width: 40%; min-width: 5rem; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--line); color: var(--muted); }
@media (max-width: 40rem) {
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: .5rem; }
  th, td { padding-right: .75rem; }
  .bar { display: none; }
  .stack, .stack caption, .stack tbody, .stack tr, .stack th, .stack td { display: block; }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stack tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .stack th, .stack td { border: 0; padding: .1rem 0; text-align: left; white-space: normal; overflow-wrap: anywhere; }
  .stack tbody th { font-weight: 600; }
  .stack td { position: relative; padding-left: 8.5rem; min-width: 0; width: auto; }
  .stack td::before { content: attr(data-label); position: absolute; left: 0; color: var(--muted); }
  .stack td:empty { display: none; }
}
@media print { nav, summary { display: none; } .scroll { overflow: visible; } }
"""
