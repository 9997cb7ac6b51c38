"""Colours and layout of the pages."""

#: Number of colours of curves and classes: ``c0`` to ``c7``.
COLOURS = 8

# Colours have names, with values for light and for dark mode.
STYLE = """
:root{--page:#f6f7f9;--card:#fff;--line:#e1e5ea;--text:#1c2430;
--muted:#5b6675;--bar:#3d6fa5;--tint:#dbe7f3;--track:#eef1f5;
--c0:#2f6db3;--c1:#d1581f;--c2:#2c8a52;--c3:#a2368d;--c4:#8a6d00;
--c5:#0f8a96;--c6:#c02f45;--c7:#6b5bd0}
@media(prefers-color-scheme:dark){:root{--page:#12161c;--card:#1a2028;
--line:#2c3440;--text:#e4e9ef;--muted:#98a4b3;--bar:#6ea3d8;
--tint:#2a4059;--track:#242c36;
--c0:#6ea3d8;--c1:#f0915f;--c2:#63c08a;--c3:#d97fc7;--c4:#d3b244;
--c5:#56c2cd;--c6:#f07f8f;--c7:#a99df2}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1400px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:24px;margin:0 0 12px;overflow-wrap:anywhere}
h2{font-size:17px;margin:36px 0 12px}
dl{display:flex;flex-wrap:wrap;gap:6px 28px;margin:0 0 24px}
dl div{display:flex;gap:8px}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
.cards{display:grid;gap:12px;
grid-template-columns:repeat(auto-fit,minmax(150px,1fr))}
.card,figure,.scroll{background:var(--card);border:1px solid var(--line);
border-radius:8px}
.card{padding:14px 16px;display:flex;flex-direction:column}
.card b,.card small{font-weight:400;font-size:13px;color:var(--muted)}
.card strong{font-size:24px;font-weight:600;line-height:1.35;
white-space:nowrap}
.charts{display:grid;gap:12px;margin-top:12px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr))}
.pair{grid-template-columns:1fr 1fr}
figure{margin:0;padding:16px;min-width:0}
.pair figure:last-child{grid-column:1/-1}
figcaption{font-weight:600;margin-bottom:12px}
figcaption small{display:block;font-weight:400;color:var(--muted)}
.bars{display:grid;grid-template-columns:fit-content(45%) 1fr max-content;
gap:7px 12px;align-items:center;font-size:13px}
.label{overflow-wrap:anywhere}
.track{background:var(--track);border-radius:3px;height:14px}
.track i{display:block;height:100%;min-width:1px;border-radius:3px;
background:var(--bar)}
.value,td{font-variant-numeric:tabular-nums}
.value{color:var(--muted);text-align:right}
ul{margin:0 0 14px;padding-left:20px;max-width:90ch;color:var(--muted)}
li{margin:4px 0;overflow-wrap:anywhere}
.scroll{overflow:auto;max-height:85vh}
.scroll+.scroll{margin-top:12px}
table{border-collapse:collapse;width:100%;font-size:12px}
th,td{padding:4px 6px;text-align:right;white-space:nowrap}
th{position:sticky;top:0;background:var(--card);color:var(--muted);
font-weight:600;box-shadow:inset 0 -1px var(--line)}
td{border-top:1px solid var(--line)}
.text{text-align:left}
td.share{background:linear-gradient(var(--tint),var(--tint)) left/var(--w)
100% no-repeat}
tbody tr:hover{background:var(--track)}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}
.c4{--c:var(--c4)}.c5{--c:var(--c5)}.c6{--c:var(--c6)}.c7{--c:var(--c7)}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:13px;
margin-bottom:6px;color:var(--muted)}
.legend span{overflow-wrap:anywhere}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;
margin-right:5px;background:var(--c)}
.legend b{font-weight:600;color:var(--text)}
svg{display:block;width:100%;height:auto}
svg text{font-size:11px;fill:var(--muted)}
svg .grid{stroke:var(--line)}
svg polyline{fill:none;stroke:var(--c);stroke-width:1.6}
svg circle{fill:var(--c)}
h3{font-size:15px;margin:28px 0 4px}
h4{font-size:13px;font-weight:400;margin:16px 0 6px;color:var(--muted);
overflow-wrap:anywhere}
.hidden{position:absolute;width:0;height:0}
.pictures{margin-top:0;
grid-template-columns:repeat(auto-fit,minmax(min(100%,240px),1fr))}
.picture rect{fill:none;stroke:var(--c)}
.picture text{fill:var(--c);font-weight:600;paint-order:stroke;
stroke:var(--card);stroke-width:.25em;stroke-linejoin:round}
nav{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;
margin:0 0 18px}
nav a{color:var(--bar)}
@media(max-width:800px){.pair{grid-template-columns:1fr}
td.text{white-space:normal;overflow-wrap:anywhere;min-width:150px}}
@media print{.scroll{max-height:none;overflow:visible}}
"""
