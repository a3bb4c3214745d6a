"""How the page looks: the reader's own fonts, light or dark as their system is, and fit to be printed."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root{color-scheme:light dark;--page:#fbfaf8;--card:#fff;--ink:#23211e;--dim:#77716a;--line:#e5e1da;--code:#f4f2ee;
--user:#eef3fb;--user-edge:#4a7bc8;--accent:#b4552d;--add:#e3f4e4;--add-ink:#14532d;--del:#fce8e6;--del-ink:#7f1d1d;
--hunk:#6b5fa8;--ok:#2f855a;--bad:#c53030;--warn:#b7791f;--odd:#9b2c6f}
@media (prefers-color-scheme:dark){:root{--page:#191816;--card:#211f1d;--ink:#e6e2dc;--dim:#9b948b;--line:#35322e;
--code:#272522;--user:#1d2633;--user-edge:#6f9fe8;--accent:#e08a5f;--add:#16301d;--add-ink:#b7e4c0;--del:#3a1b1a;
--del-ink:#f5b9b3;--hunk:#a99be0;--ok:#68c391;--bad:#f08a80;--warn:#e0b050;--odd:#e58ac0}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:54rem;padding:3rem 1.25rem 6rem;background:var(--page);color:var(--ink);display:flex;
flex-direction:column;font:16px/1.6 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
header{order:0}footer{order:1}main{order:2}
h1{font-size:1.75rem;line-height:1.25;margin:0 0 .75rem;letter-spacing:-.015em;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.25rem;margin:0;font-size:.875rem}
dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
footer{margin:1.25rem 0 0;padding:.9rem 1.1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
footer dl{grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.6rem 1.5rem}
footer div{display:flex;flex-direction:column}footer dt{font-size:.75rem;line-height:1.3}
footer dd{font-weight:600;font-size:.85rem}
h2{display:flex;flex-wrap:wrap;align-items:baseline;gap:.25rem .75rem;margin:3rem 0 1rem;padding-bottom:.4rem;
border-bottom:2px solid var(--line);font-size:1.15rem}
h2 small{font-size:.8rem;font-weight:400;color:var(--dim);overflow-wrap:anywhere}
h2 time{margin-left:auto}
time{color:var(--dim);font-size:.75rem;font-weight:400;font-variant-numeric:tabular-nums;white-space:nowrap}
article{margin:1.1rem 0}
article>h3{display:flex;align-items:baseline;gap:.6rem;margin:0 0 .25rem;font-size:.8rem;font-weight:650;
color:var(--accent);overflow-wrap:anywhere}
article>h3 time{margin-left:auto}
.user{background:var(--user);border-left:3px solid var(--user-edge);border-radius:0 .6rem .6rem 0;padding:.7rem 1rem}
.user>h3{color:var(--user-edge)}
.system>h3,.tool>h3{color:var(--dim)}
.nested{margin-left:1.5rem;padding-left:1rem;border-left:2px solid var(--line)}
.tag{padding:0 .45em;border:1px solid currentColor;border-radius:1em;font-size:.7rem;font-weight:500}
.prose{white-space:pre-wrap;overflow-wrap:anywhere}
.prose b.hd{font-size:1.06em}
code,pre{font-family:ui-monospace,"SF Mono",SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;
font-size:.8125rem}
code{background:var(--code);padding:.1em .3em;border-radius:.25em}
pre{margin:.5rem 0;padding:.65rem .85rem;background:var(--code);border-radius:.45rem;line-height:1.5;max-height:36rem;
overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere;tab-size:4}
.label{margin:.6rem 0 -.25rem;color:var(--dim);font-size:.75rem;overflow-wrap:anywhere}
.diff{padding:.4rem 0}
.diff>span{display:block;padding:0 .85rem;min-height:1.5em}
.diff>.a{background:var(--add);color:var(--add-ink)}
.diff>.d{background:var(--del);color:var(--del-ink)}
.diff>.a::before{content:"+ "}.diff>.d::before{content:"\\2212  "}.diff>.s::before{content:"  "}
.diff>.h{color:var(--hunk)}.diff>.f{color:var(--dim);font-weight:600}
details{margin:.45rem 0;border:1px solid var(--line);border-radius:.5rem;background:var(--card);font-size:.875rem}
summary{display:flex;align-items:baseline;gap:.55rem;padding:.4rem .75rem;cursor:pointer;list-style:none}
summary::-webkit-details-marker{display:none}
summary::before{content:"\\203a";color:var(--dim);flex:none;width:.6em}
details[open]>summary::before{transform:rotate(90deg)}
summary b{flex:none;font-weight:600;max-width:40%;overflow-wrap:anywhere}
summary .about{flex:1;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;color:var(--dim);
font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.8rem}
details[open] .about{white-space:normal;overflow-wrap:anywhere}
summary .end{flex:none;font-size:.75rem;color:var(--dim)}
.dot{flex:none;width:.5rem;height:.5rem;border-radius:50%;background:var(--ok);align-self:center}
.failed .dot,.interrupted .dot{background:var(--bad)}.denied .dot,.unfinished .dot{background:var(--warn)}
.failed .end,.interrupted .end{color:var(--bad)}.denied .end,.unfinished .end{color:var(--warn)}
.in{padding:0 .85rem .5rem}
.thought[open]>summary .about{display:none}
.thought{border-style:dashed;background:none;color:var(--dim)}
.note{display:flex;gap:.75rem;margin:.5rem 0;font-size:.8125rem;color:var(--dim);overflow-wrap:anywhere}
.note time{margin-left:auto}
.note.warning{color:var(--warn)}.note.error{color:var(--bad)}
.note+.in{padding-left:0}
.ended{display:flex;flex-wrap:wrap;gap:.2rem 1rem;align-items:baseline;margin:1.25rem 0;padding:.5rem .85rem;
border-radius:.5rem;background:var(--code);font-size:.8125rem;font-variant-numeric:tabular-nums}
.ended b{color:var(--bad)}.ended.completed b{color:var(--ok)}.ended.cancelled b{color:var(--warn)}
.ended time{margin-left:auto}.ended .why{flex-basis:100%;overflow-wrap:anywhere}
.on{margin:1.5rem 0 .25rem;color:var(--dim);font-size:.75rem;text-align:center}
.x{color:var(--odd);font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.85em}
@media (max-width:34rem){body{padding:1.5rem .9rem 3rem}summary .end{display:none}}
@media print{body{max-width:none;padding:0;font-size:11pt}pre{max-height:none}details,article{break-inside:avoid-page}}
""".strip()
