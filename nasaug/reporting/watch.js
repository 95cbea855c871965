// The watching page: asks for JSON every few seconds and draws it. All text is set as text, never as HTML.
"use strict";

const EVERY_MS = 2000, RESTING_MS = 10000;
const $ = id => document.getElementById(id);
let shown = "";      // what was drawn last, as JSON, so that nothing is drawn again in vain
let timer = 0;

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter(child => child !== null && child !== ""));
  return made;
}

function draw(tag, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  let left = Math.round(seconds);
  const parts = [];
  for (const [name, size] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
    const count = Math.floor(left / size);
    left %= size;
    if (count || parts.length) parts.push([count, name]);
  }
  return parts.slice(0, 2).filter(part => part[0]).map(part => part.join(" ")).join(" ");
}

function quantity(value) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]])
    if (value >= size) return `${Number((value / size).toPrecision(3))}${unit}`;
  return String(Number(value.toPrecision(3)));
}

const wholeLeft = progress =>
  progress.whole === null ? "" : `${progress.known ? "about" : "more than"} ${duration(progress.whole)} left in all`;

// whole minutes for which a run that is at work has told nothing
const silence = run =>
  run?.state === "running" && run.progress.format ? Math.max(0, Math.floor((run.time - run.progress.time) / 60)) : 0;

function nowOf(run, time) {
  const at = run.progress, box = make("div", { class: "now" });
  const where = at.of > 1 ? `stage ${at.number} of ${at.of}: ${at.stage}` : at.stage;
  const left = run.state === "running" ? wholeLeft(at) : "";
  box.append(make("p", { class: "big" }, [where, left].filter(Boolean).join(" · ")));
  box.append(make("progress", { max: 1, value: at.share, "aria-label": `${where}, share done` }));
  const title = at.title === at.stage ? "" : at.title;
  const said = [`${Math.round(100 * at.share)} %`, title, `${at.done}/${at.total}`, at.rate, at.best];
  if (at.number < at.of && at.left !== null && run.state === "running") said.push(`${duration(at.left)} left in this stage`);
  box.append(make("p", {}, said.filter(Boolean).join(" · ")));
  if (run.state === "running" && time - at.time > 60)
    box.append(make("p", { class: "worse" }, `nothing heard for ${duration(time - at.time)}`));
  if (at.ended.length)
    box.append(make("ul", { class: "stages" }, ...at.ended.map(
      each => make("li", {}, `${each.name} took ${duration(each.seconds)}`))));
  return box;
}

function headOf(run) {
  return [make("strong", {}, run.id === "." ? run.verb || "run" : run.id),
    make("span", { class: `state ${run.state.split(" ")[0]}` }, run.state)];
}

function cardOf(run, time, link) {
  const card = make(link ? "a" : "div", link ? { class: "card", href: `#${encodeURIComponent(run.id)}` } : { class: "card" });
  card.append(...headOf(run));
  const of = [run.verb, run.network, run.macs && `${run.macs} MACs`, run.data].filter(Boolean).join(" · ");
  card.append(make("span", { class: "small" }, of));
  const at = run.progress;
  if (at.format && run.state === "running") {
    card.append(make("progress", { max: 1, value: at.share, "aria-label": `${at.stage}, share done` }));
    const where = at.of > 1 ? `stage ${at.number} of ${at.of}: ${at.stage}` : at.stage;
    card.append(make("span", { class: "small" }, [where, wholeLeft(at), at.best].filter(Boolean).join(" · ")));
  } else if (run.figures) card.append(make("span", { class: "small" }, run.figures));
  return make("li", {}, card);
}

// round numbers from low to high, a few of them; `whole`: whole ones alone
function ticks(low, high, whole) {
  const rough = (high - low) / 5, size = 10 ** Math.floor(Math.log10(rough));
  const fine = [1, 2, 5, 10].map(times => times * size).find(step => step >= rough);
  const step = whole ? Math.max(1, fine) : fine, marks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) marks.push(Number((i * step).toPrecision(9)));
  return marks;
}

// a plot with axes; `series` are {points, kind, colour}, kind dots or line
function plot(title, across, up, series) {
  const [W, H, left, bottom, top, right] = [480, 280, 52, 40, 12, 12];
  const all = series.flatMap(each => each.points);
  if (!all.length) return null;
  let [x0, x1] = [Math.min(...all.map(p => p[0])), Math.max(...all.map(p => p[0]))];
  let [y0, y1] = [Math.min(...all.map(p => p[1])), Math.max(...all.map(p => p[1]))];
  if (x0 === x1) { x0 -= .5; x1 += .5; }
  const room = (y1 - y0) * .06 || Math.abs(y1) * .05 || 1, percent = up.includes("%");
  y0 = percent ? Math.max(0, y0 - room) : y0 - room;
  y1 = percent ? Math.min(100, y1 + room) : y1 + room;
  const x = v => left + (v - x0) / (x1 - x0) * (W - left - right);
  const y = v => H - bottom - (v - y0) / (y1 - y0) * (H - bottom - top);
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  svg.append(draw("title", {}, title));
  for (const v of ticks(y0, y1)) {
    svg.append(draw("line", { class: "grid", x1: left, x2: W - right, y1: y(v), y2: y(v) }));
    svg.append(draw("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v));
  }
  for (const u of ticks(x0, x1, across !== "MACs"))
    svg.append(draw("text", { x: x(u), y: H - bottom + 16, "text-anchor": x(u) > W - 30 ? "end" : "middle" }, quantity(u)));
  svg.append(draw("text", { x: (left + W) / 2, y: H - 6, "text-anchor": "middle" }, across));
  for (const each of series) {
    if (each.kind === "line") {
      svg.append(draw("polyline", { class: `curve ${each.old ? "old" : ""}`,
        stroke: each.colour, points: each.points.map(p => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" ") }));
      const last = each.points[each.points.length - 1];
      if (each.points.length === 1 || !each.old) svg.append(draw("circle", { cx: x(last[0]), cy: y(last[1]), r: 3, fill: each.colour }));
    } else for (const p of each.points)
      svg.append(draw("circle", { class: "dot", cx: x(p[0]), cy: y(p[1]), r: 3, fill: each.colour }));
  }
  return make("figure", {}, make("figcaption", {}, `${title}, ${up}`), svg);
}

// a table without the columns that are empty
function table(caption, allHeads, allRows) {
  const kept = allHeads.map((_, i) => allRows.some(row => row[i] !== ""));
  const [heads, ...rows] = [allHeads, ...allRows].map(row => row.filter((_, i) => kept[i]));
  const head = make("tr", {}, ...heads.map(text => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first),
    ...rest.map(text => make("td", {}, text))));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, make("span", {}, caption)),
      make("thead", {}, head), make("tbody", {}, ...body)));
}

function showRun(run, one) {
  const box = $("run"), parts = [];
  if (!one) parts.push(make("p", {}, make("a", { href: "#" }, "all runs")));
  const of = [run.verb, run.network, run.macs && `${run.macs} MACs`, run.data].filter(Boolean).join(" · ");
  parts.push(make("p", {}, ...headOf(run), make("span", { class: "small" }, of)));
  if (run.figures && (run.state !== "running" || !run.progress.format)) parts.push(make("p", {}, run.figures));
  if (run.progress.format) parts.push(nowOf(run, run.time));
  const plots = make("div", { class: "plots" });
  const curves = run.curves.map((curve, i) => ({ points: curve.points, kind: "line",
    old: i < run.curves.length - 1, colour: i < run.curves.length - 1 ? "var(--soft)" : "var(--c0)" }));
  if (curves.length) {
    const last = run.curves[run.curves.length - 1].name;
    const title = curves.length > 1 ? `Validation of ${curves.length} trainings, the last (${last}) in colour` : `Validation of ${last}`;
    const short = curves.length > 1 && curves.every(curve => curve.points.length === 1);
    const order = [{ kind: "dots", colour: "var(--c0)", points: curves.map((curve, i) => [i + 1, curve.points[0][1]]) }];
    plots.append(short ? plot(`Validation of ${curves.length} trainings`, "training", run.label, order)
      : plot(title, "epoch", run.label, curves));
  }
  const sized = run.candidates.filter(each => each.macs !== null);
  const dots = sized.length ? sized.map(each => [each.macs, each.score]) : run.candidates.map((each, i) => [i + 1, each.score]);
  if (dots.length) {
    const front = { points: run.front.map(each => [each.macs, each.score]), kind: "line", colour: "var(--c1)" };
    const drawn = [{ points: dots, kind: "dots", colour: "var(--c0)" }, ...(run.front.length ? [front] : [])];
    plots.append(plot(`${dots.length} candidates and their front`, sized.length ? "MACs" : "candidate", run.label, drawn) ?? "");
  }
  if (plots.children.length) parts.push(plots);
  if (run.best.length) parts.push(make("h2", {}, "Best candidates"), table(
    `${run.label}: with the supernet's weights, and after their own training where they had one`,
    ["network", "MACs", "by the supernet", "own training"], run.best.map(r => [r.id, r.macs, r.score, r.own])));
  if (run.cells.length) parts.push(make("h2", {}, "Trainings"),
    make("ul", { class: "cards" }, ...run.cells.map(cell => cardOf(cell, run.time, false))));
  for (const page of run.pages) {
    const source = `/pages/${page}?run=${encodeURIComponent(run.id)}`;
    parts.push(make("h2", {}, make("a", { href: source, target: "_blank", rel: "noopener" }, page)),
      make("iframe", { src: source, title: page, sandbox: "" }));
  }
  box.replaceChildren(...parts);
}

async function ask(what) {
  const answer = await fetch(what, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

async function refresh() {
  clearTimeout(timer);
  let wait = EVERY_MS;
  try {
    const all = await ask("/runs.json");
    const one = all.runs.length === 1 && all.runs[0].id === ".";
    const wanted = one ? "." : decodeURIComponent(location.hash.slice(1));
    const run = all.runs.some(each => each.id === wanted) ? await ask(`/run.json?run=${encodeURIComponent(wanted)}`) : null;
    const running = all.runs.filter(each => each.state === "running").length;
    const named = run === null ? "Runs" : one ? all.folder.split(/[\\/]/).pop() : run.id;
    $("title").textContent = named;
    document.title = `${running ? `${running} running · ` : ""}${named} · nasaug`;
    $("status").className = "";
    $("status").textContent = `${all.folder}: ${all.runs.length} run${all.runs.length === 1 ? "" : "s"}, ${running} running`;
    const { time, ...rest } = run ?? all, now = JSON.stringify([rest, silence(run)]);
    if (now !== shown) {
      shown = now;
      $("run").hidden = run === null;
      $("runs").hidden = run !== null;
      if (run !== null) showRun(run, one);
      else if (all.runs.length)
        $("runs").replaceChildren(make("ul", { class: "cards" }, ...all.runs.map(each => cardOf(each, all.time, true))));
      else $("runs").replaceChildren(make("p", {}, "No runs here yet."));
    }
    if (!running) wait = RESTING_MS;
  } catch (error) {
    $("status").className = "lost";
    $("status").textContent = "nasaug watch does not answer: it has ended, or this machine is busy";
  }
  timer = setTimeout(refresh, wait);
}

addEventListener("hashchange", refresh);
refresh();
