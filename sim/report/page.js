const runs = JSON.parse(document.getElementById("data").textContent);
const FATES = ["used", "unused", "late", "lost"];
const PARTS = { payload_bits: "payload", side_bits: "side information", header_bytes: "header and CRC",
  padding_bits: "padding", zmtp_bytes: "framing", curve_bytes: "encryption" };
const STAGES = ["start", "estimate", "encode", "pack", "fronthaul", "wait", "fuse"];
const CONTROLS = { wknn: ["WKNN, unquantised", "6 3"], prior: ["prior (no information)", "1 3"], bound: ["position error bound", "9 3 2 3"] };
const CHI2_90 = 4.605; // of two degrees of freedom, at 0.9
const state = { run: 0, chosen: new Set(), view: null, colour: "error" };

// A run: numbers of a snapshot that the tables do not hold as they are
function prepare(run) {
  const shots = run.snapshots, links = run.links, world = links.world, wide = run.stations.length;
  const truth = (axis) => shots[axis].map((value, n) => value ?? links[axis]?.[n] ?? null);
  run.truth = [truth("true_x"), truth("true_y"), truth("true_z")];
  run.count = shots.snapshot.length;
  run.of = (name, n, k) => (world ? world[name][links.row[n] * wide + k] : null);
  const over = (n, name, fold) => {
    const values = run.stations.map((_, k) => run.of(name, n, k)).filter(known);
    return values.length ? fold(values) : null;
  };
  const each = (make) => Array.from({ length: run.count }, (_, n) => make(n));
  run.colours = {
    error: { name: "3D error [m]", values: shots.error, bounds: [0.1, 0.3, 1, 3] },
    vertical: { name: "vertical error [m]", values: shots.vertical },
    used: { name: "reports used", values: each((n) => run.stations.filter((_, k) => links.fate[n * wide + k] === 0).length), few: true },
  };
  if (world) {
    run.colours.sight = { name: "links with line of sight", values: each((n) => over(n, "line_of_sight", (v) => v.reduce((a, b) => a + b))), few: true };
    run.colours.snr = { name: "highest SNR [dB]", values: each((n) => over(n, "snr_db", (v) => Math.max(...v))), few: true };
  }
  run.colours.gdop = { name: "GDOP", values: shots.gdop };
  run.colours.training = { name: "distance to training [m]", values: shots.training };
  for (const [name, it] of Object.entries(run.colours)) {
    const sorted = ascending(it.values.filter(known));
    if (!sorted.length) delete run.colours[name];
    else it.bounds ??= [...new Set([0.2, 0.4, 0.6, 0.8].map((share) => quantile(sorted, share)))];
  }
  run.sorted = ascending(shots.error.filter(known));
}
const classOf = (it, value) => {
  const place = it.bounds.filter((bound) => value > bound).length;
  return Math.round((it.few ? it.bounds.length - place : place) * 4 / it.bounds.length); // few of them are bad
};

// Map
function whole(run, width, height) {
  const sites = run.stations.map((bs) => run.scene.sites[bs].at);
  const xs = [...sites.map((at) => at[0]), ...run.truth[0].filter(known)], ys = [...sites.map((at) => at[1]), ...run.truth[1].filter(known)];
  return fit([Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)], width, height, 1.12);
}
function ellipse(run, n, at, scale, style) {
  const [xx, xy, yy] = run.snapshots.covariance.map((column) => column[n]);
  if (!known(xx)) return "";
  const half = (xx + yy) / 2, root = Math.hypot((xx - yy) / 2, xy);
  const turn = -Math.atan2(2 * xy, xx - yy) * 90 / Math.PI;
  const [a, b] = [half + root, half - root].map((value) => Math.sqrt(CHI2_90 * Math.max(0, value)) * scale);
  return `<ellipse rx="${a.toFixed(1)}" ry="${b.toFixed(1)}" transform="translate(${at[0].toFixed(1)} ${at[1].toFixed(1)}) rotate(${turn.toFixed(1)})" ${style}/>`;
}
function drawMap() {
  const svg = byId("map"), run = runs[state.run], shots = run.snapshots, height = clamp(svg.clientWidth * 0.8, 300, 560);
  const width = sized(svg, height);
  state.view ??= whole(run, width, height);
  const { x, y } = projection(state.view, width, height), parts = [ground(run.scene, x, y)];
  const it = run.colours[state.colour] ?? run.colours.error ?? run.colours.used;
  const within = (n) => known(run.truth[0][n]) && Math.abs(x(run.truth[0][n]) - width / 2) < width && Math.abs(y(run.truth[1][n]) - height / 2) < height;
  const seen = Array.from({ length: run.count }, (_, n) => n).filter(within);
  const near = seen.filter((n) => x(run.truth[0][n]) > 0 && x(run.truth[0][n]) < width && y(run.truth[1][n]) > 0 && y(run.truth[1][n]) < height).length < 250;
  const faint = state.chosen.size ? 0.25 : 1;
  for (const n of [...seen.filter((n) => !state.chosen.has(n)), ...seen.filter((n) => state.chosen.has(n))]) {
    const mine = state.chosen.has(n), at = [x(run.truth[0][n]), y(run.truth[1][n])], value = it.values[n];
    const colour = known(value) ? `var(--s${classOf(it, value)})` : "var(--muted)", opacity = `opacity="${mine ? 1 : faint}"`;
    if (!known(shots.x[n])) {
      parts.push(`<circle cx="${at[0].toFixed(1)}" cy="${at[1].toFixed(1)}" r="4" fill="none" style="stroke:var(--lost)" ${opacity}/>`);
      continue;
    }
    const found = [x(shots.x[n]), y(shots.y[n])];
    parts.push(line(...at, ...found, `style="stroke:${colour}" ${opacity}`));
    if (shots.covariance && (mine || near)) parts.push(ellipse(run, n, found, state.view.scale, `fill="none" style="stroke:${colour}" ${opacity}`));
    if (mine || near) parts.push(`<path d="M${(found[0] - 3).toFixed(1)} ${(found[1] - 3).toFixed(1)}l6 6m0 -6l-6 6" style="stroke:var(--ink)" ${opacity}/>`);
    parts.push(`<circle cx="${at[0].toFixed(1)}" cy="${at[1].toFixed(1)}" r="${mine ? 4 : 2.6}" style="fill:${colour}" ${opacity}/>`);
  }
  const only = state.chosen.size === 1 ? [...state.chosen][0] : null;
  run.stations.forEach((bs, k) => {
    const at = run.scene.sites[bs].at;
    if (only !== null && known(run.truth[0][only]) && run.of("paths", only, k) !== 0) {
      const fate = FATES[run.links.fate[only * run.stations.length + k]], dash = run.of("line_of_sight", only, k) === 0 ? "6 5" : "none";
      parts.push(line(x(run.truth[0][only]), y(run.truth[1][only]), x(at[0]), y(at[1]), `style="stroke:var(--${fate ?? "muted"})" stroke-dasharray="${dash}"`));
    }
    parts.push(site(run.scene, bs, x, y));
  });
  parts.push(scaleBar(state.view, width, height));
  svg.innerHTML = parts.join("");
  const steps = [...it.bounds.map((bound) => `up to ${short(bound)}`), `above ${short(it.bounds.at(-1))}`];
  byId("legend").innerHTML = `<span>${esc(it.name)}:</span>` + steps.map((text, n) => key(`s${classOf(it, n < it.bounds.length ? it.bounds[n] : Infinity)}`, text)).join("")
    + `<span>dot: truth, cross: estimate${shots.covariance ? ", ellipse: 90 % region" : ""}, ring: no fix</span>`;
}

// Distribution
function cdfScale(width) {
  return errorScale(runs.flatMap((run) => run.sorted).concat(Object.values(runs[state.run].controls).flat()), width);
}
function drawCdf() {
  const svg = byId("cdf"), height = clamp(svg.clientWidth * 0.95, 280, 560), width = sized(svg, height);
  const scale = cdfScale(width), { x } = scale, y = shareScale(height), parts = [cdfAxes(scale, width, height)];
  const curve = (sorted, style) => cdfCurve(sorted, scale, height, style);
  const legend = [];
  for (const [name, [text, dash]] of Object.entries(CONTROLS)) {
    const values = runs[state.run].controls[name], style = `style="stroke:var(--muted)" stroke-width="1.6" stroke-dasharray="${dash}"`;
    if (!values) continue;
    parts.push(curve(values.filter(known), style));
    legend.push(`<span><svg class="dash" viewBox="0 0 28 8">${line(0, 4, 28, 4, style)}</svg>${esc(text)}</span>`);
  }
  runs.forEach((run, n) => {
    const colour = `c${runs.length > 1 ? n % 6 : 0}`, width = n === state.run ? 2.4 : 1.4;
    if (run.sorted.length) parts.push(curve(run.sorted, `style="stroke:var(--${colour})" stroke-width="${width}"`));
    legend.splice(n, 0, key(colour, run.label));
  });
  const run = runs[state.run];
  for (const n of state.chosen) {
    const error = run.snapshots.error[n];
    if (known(error)) parts.push(line(x(error), y(0), x(error), y(0) - 9, 'style="stroke:var(--accent)" stroke-width="1.5"'));
  }
  svg.innerHTML = parts.join("");
  byId("curves").innerHTML = legend.join("");
}

// Choosing
function brush(svg, across, choose) {
  let from = null, box = null;
  const at = (event) => { const area = svg.getBoundingClientRect(); return [event.clientX - area.left, event.clientY - area.top]; };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    from = at(event);
    if (event.pointerType !== "mouse") return;
    svg.setPointerCapture(event.pointerId);
    box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    box.setAttribute("class", "brush");
    svg.append(box);
  });
  svg.addEventListener("pointermove", (event) => {
    if (!box) return;
    const to = at(event), height = svg.clientHeight;
    const [left, right] = ascending([from[0], to[0]]), [top, bottom] = across ? [0, height] : ascending([from[1], to[1]]);
    for (const [name, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) box.setAttribute(name, value);
  });
  svg.addEventListener("pointerup", (event) => {
    if (!from) return;
    choose(from, at(event), event.shiftKey);
    from = box = null;
  });
  svg.addEventListener("pointercancel", () => { box?.remove(); from = box = null; });
}
function chooseOnMap(from, to, more) {
  const svg = byId("map"), run = runs[state.run], { x, y } = projection(state.view, svg.clientWidth, svg.clientHeight);
  const [left, right] = ascending([from[0], to[0]]), [top, bottom] = ascending([from[1], to[1]]), hits = [];
  let nearest = 14;
  for (let n = 0; n < run.count; n++) {
    if (!known(run.truth[0][n])) continue;
    const px = x(run.truth[0][n]), py = y(run.truth[1][n]);
    if (right - left + bottom - top > 8) { if (px >= left && px <= right && py >= top && py <= bottom) hits.push(n); continue; }
    const away = Math.hypot(px - to[0], py - to[1]);
    if (away < nearest) { nearest = away; hits[0] = n; }
  }
  chooseThese(hits, more);
}
function chooseOnCdf(from, to, more) {
  const { m } = cdfScale(byId("cdf").clientWidth), errors = runs[state.run].snapshots.error;
  const [low, high] = ascending([m(Math.min(from[0], to[0]) - 2), m(Math.max(from[0], to[0]) + 2)]);
  chooseThese(errors.flatMap((error, n) => (known(error) && error >= low && error <= high ? [n] : [])), more);
}
function chooseThese(hits, more = false) {
  state.chosen = new Set(more ? [...state.chosen, ...hits] : hits);
  drawChosen();
}
function drawChosen() { drawMap(); drawCdf(); showChosen(); drawWaterfall(); }
function showChosen() {
  const run = runs[state.run], shots = run.snapshots, chosen = [...state.chosen];
  chosen.sort((a, b) => (shots.error[b] ?? Infinity) - (shots.error[a] ?? Infinity));
  if (!chosen.length) { byId("chosen").innerHTML = ""; return; }
  const columns = Object.entries(run.colours).filter(([name]) => name !== "error" && name !== "vertical");
  const rows = chosen.slice(0, 50).map((n) => `<tr data-at="${n}">${cells([shots.snapshot[n], metres(shots.error[n]), metres(shots.vertical[n]),
    ...columns.map(([, it]) => short(it.values[n])), run.truth.map((axis) => fixed(axis[n], 1)).join(", "), ["x", "y", "z"].map((axis) => fixed(shots[axis][n], 1)).join(", ")])}</tr>`);
  let html = `<h3>${chosen.length} chosen${chosen.length > 50 ? ", the 50 with the largest errors" : ""}</h3>`
    + table(["snapshot", "3D error [m]", "vertical [m]", ...columns.map(([, it]) => esc(it.name)), "true x, y, z [m]", "estimate [m]"], rows);
  if (chosen.length === 1) html += `<h3>Links of snapshot ${shots.snapshot[chosen[0]]}</h3>` + linksOf(run, chosen[0]);
  byId("chosen").innerHTML = html;
}
function linksOf(run, n) {
  const wide = run.stations.length, world = run.links.world;
  const head = ["base station", "report", "arrived after [ms]", ...(world ? ["line of sight", "paths", "gain [dB]", "SNR [dB]", "distance [m]"] : [])];
  return table(head, run.stations.map((bs, k) => {
    const fate = FATES[run.links.fate[n * wide + k]];
    return [`${bs} ${esc(run.scene.sites[bs].name ?? "")}`, fate ? key(fate, fate) : "none sent", fixed(run.links.arrival[n * wide + k], 3),
      ...(world ? [["no", "yes"][run.of("line_of_sight", n, k)] ?? "–", run.of("paths", n, k) ?? "–", fixed(run.of("gain_db", n, k), 1), fixed(run.of("snr_db", n, k), 1), fixed(run.of("distance_m", n, k), 1)] : [])];
  }));
}

// Tables and pictures of the whole run
function showCauses() {
  const run = runs[state.run], errors = run.snapshots.error, tables = [];
  for (const name of ["sight", "used", "snr", "gdop", "training"]) {
    const it = run.colours[name];
    if (!it || new Set(it.values.filter(known)).size < 2) continue;
    const distinct = ascending(new Set(it.values.filter(known))), bounds = distinct.length <= 8 ? distinct : [...it.bounds, Infinity];
    const rows = bounds.map((bound, n) => {
      const mine = errors.flatMap((_, at) => (known(it.values[at]) && it.values[at] <= bound && (!n || it.values[at] > bounds[n - 1]) ? [at] : []));
      const made = ascending(mine.map((at) => errors[at]).filter(known));
      const mean = made.length ? made.reduce((a, b) => a + b) / made.length : null;
      const text = distinct.length <= 8 ? short(bound) : bound === Infinity ? `above ${short(bounds[n - 1])}` : `up to ${short(bound)}`;
      return [text, mine.length, mine.length - made.length, metres(mean), metres(made.length ? quantile(made, 0.9) : null)];
    });
    tables.push(table([esc(it.name), "n", "no fix", "mean [m]", "p90 [m]"], rows));
  }
  byId("causes").innerHTML = tables.length ? `<div class="causes">${tables.map((it) => `<div>${it}</div>`).join("")}</div>` : '<p class="hint">All snapshots see the same.</p>';
}
const stack = (parts) => {
  const total = parts.reduce((sum, [, value]) => sum + value, 0);
  return `<span class="bar" title="${esc(parts.map(([, value, text]) => `${text} ${short(value)}`).join(", "))}">${parts.map(([colour, value]) => (value && total ? `<i style="width:${100 * value / total}%;background:var(--${colour})"></i>` : "")).join("")}</span>`;
};
function showLinks() {
  const run = runs[state.run], inBytes = (link, name) => (name.endsWith("_bits") ? link[name] / 8 : link[name]);
  const names = Object.keys(PARTS), asked = run.summary.links ?? [];
  const rows = run.totals.map((link) => {
    const report = asked.find((it) => it.bs === link.bs && it.direction === link.direction), want = report?.requested, got = report?.achieved;
    const told = want ? [["loss", want.loss, got.loss, 100, "%"], ["delay", want.delay_s, got.delay_mean_s, 1e3, "ms"], ["rate", want.rate_bps, got.rate_bps, 1e-6, "Mbit/s"]]
      .filter(([, value]) => value).map(([name, value, achieved, scale, unit]) => `${name} ${short(value * scale)} → ${known(achieved) ? short(achieved * scale) : "–"} ${unit}`).join("<br>") : "";
    return [`${link.bs} ${link.direction}`, stack(names.map((name, n) => [`c${n}`, inBytes(link, name), PARTS[name]])), short(link.payload_bits / 8), short(link.stream_bytes),
      known(link.reports_used) ? stack(FATES.map((fate) => [fate, link[`reports_${fate}`], fate])) : "", ...FATES.map((fate) => short(link[`reports_${fate}`])),
      short(link.frames_delivered), short(link.frames_dropped + link.frames_corrupt + link.frames_rejected), told];
  });
  byId("links").innerHTML = `<figcaption><span>bytes:</span>${names.map((name, n) => key(`c${n}`, PARTS[name])).join("")}<span>reports:</span>${FATES.map((fate) => key(fate, fate)).join("")}</figcaption>`
    + table(["link", '<span class="left">bytes by name</span>', "payload [B]", "stream [B]", "reports by fate", ...FATES, "frames delivered", "not delivered", "requested → achieved"], rows);
}
function drawWaterfall() {
  const svg = byId("waterfall"), run = runs[state.run], latency = run.summary.latency_ms ?? {};
  const only = state.chosen.size === 1 ? [...state.chosen][0] : null;
  const names = STAGES.filter((name) => latency[name]), row = 26, height = (names.length + (latency.total ? 1 : 0)) * row + 44, width = sized(svg, Math.max(height, 60));
  let sum = 0;
  const bars = names.map((name) => { const from = sum; sum += Math.max(0, latency[name].p50); return { name, from, ...latency[name] }; });
  if (latency.total) bars.push({ name: "total", from: 0, ...latency.total });
  const end = 1.05 * Math.max(1e-6, ...bars.map((bar) => bar.from + bar.p95)), left = 84, x = (ms) => left + (width - left - 20) * clamp(ms / end, 0, 1), parts = [];
  for (const tick of ticks(end, Math.max(2, Math.floor(width / 110)))) parts.push(line(x(tick), 8, x(tick), height - 28, 'class="grid"'), label(x(tick), height - 12, `${short(tick)} ms`, 'text-anchor="middle" class="quiet"'));
  bars.forEach((bar, n) => {
    const top = 12 + n * row;
    parts.push(label(left - 8, top + 13, bar.name, 'text-anchor="end"'), rect(x(bar.from), top, Math.max(1.5, x(bar.from + bar.p50) - x(bar.from)), 17, `style="fill:var(--${bar.name === "total" ? "c5" : "c0"})"`));
    parts.push(line(x(bar.from + bar.p50), top + 8.5, x(bar.from + bar.p95), top + 8.5, 'style="stroke:var(--ink)"'), line(x(bar.from + bar.p95), top + 4, x(bar.from + bar.p95), top + 13, 'style="stroke:var(--ink)"'));
    const own = only === null ? null : run.snapshots.stages[bar.name][only];
    if (known(own)) parts.push(`<circle cx="${x(bar.from + own).toFixed(1)}" cy="${top + 8.5}" r="4" style="fill:var(--c1)"/>`);
  });
  svg.innerHTML = bars.length ? parts.join("") : label(16, 34, "No latencies were measured.");
  byId("clock").textContent = `Bar: median; line: up to the 95th percentile, from the same start${only === null ? "" : "; dot: the chosen snapshot"}. `
    + (run.summary.clock === "simulated" ? "The clock is simulated: only computing was measured." : "Along the path of the report that came last.");
}
function drawTimeline() {
  const svg = byId("timeline"), run = runs[state.run], { reports, fixes, end_s } = run.timeline, height = 190, width = sized(svg, height);
  const most = Math.max(1, ...fixes.map((_, n) => FATES.reduce((sum, fate) => sum + reports[fate][n], 0))), left = 44, span = width - left - 12;
  const x = (s) => left + span * clamp(s / end_s, 0, 1), y = (count) => 150 - 92 * count / most, parts = [];
  for (const tick of ticks(most, 4)) parts.push(line(left, y(tick), width - 12, y(tick), 'class="grid"'), label(left - 6, y(tick) + 4, short(tick), 'text-anchor="end" class="quiet"'));
  for (const tick of ticks(end_s, Math.max(2, Math.floor(width / 110)))) parts.push(label(x(tick), 168, `${short(tick)} s`, 'text-anchor="middle" class="quiet"'));
  fixes.forEach((_, n) => {
    let below = 0;
    for (const fate of FATES) {
      const count = reports[fate][n];
      if (count) parts.push(rect(left + span * n / fixes.length, y(below + count), Math.max(0.8, span / fixes.length - 0.6), y(below) - y(below + count), `style="fill:var(--${fate})"`));
      below += count;
    }
  });
  const mostFixes = Math.max(1, ...fixes);
  parts.push(label(left - 6, 42, "fixes", 'text-anchor="end" class="quiet"'), `<path fill="none" style="stroke:var(--ink)" stroke-width="1.4" d="${fixes.map((count, n) => `${n ? "L" : "M"}${(left + span * (n + 0.5) / fixes.length).toFixed(1)} ${(48 - 22 * count / mostFixes).toFixed(1)}`).join("")}"/>`);
  for (const event of run.events) if (known(event.s)) parts.push(`<path d="M${x(event.s).toFixed(1)} 6l4 8h-8z" style="fill:var(--lost)"><title>${esc(`${event.s} s: ${event.kind}, ${event.who} ${event.detail}`)}</title></path>`);
  svg.innerHTML = parts.join("");
  const list = run.events.length ? `<details><summary>${run.events.length} events: faults, and what either end noted</summary>${
    table(["after [s]", "what", "who", "particulars"], run.events.map((it) => [fixed(it.s, 3), esc(it.kind), esc(it.who), `<span class="left">${esc(it.detail)}</span>`]))}</details>` : "<p class=\"hint\">Nothing but the routine was noted.</p>";
  byId("events").innerHTML = `<figcaption>${FATES.map((fate) => key(fate, `reports ${fate}`)).join("")}<span>line: fixes, at most ${mostFixes} an interval; triangle: an event</span></figcaption>${list}`;
}
function showRepeat() {
  const { command, links, toml, environment, ...digests } = runs[state.run].repeat, flat = [];
  const walk = (name, value) => {
    if (value && typeof value === "object") Object.entries(value).forEach(([inner, it]) => walk(name ? `${name} ${inner}` : inner, it));
    else flat.push(`<dt>${esc(name)}</dt><dd>${esc(value ?? "–")}</dd>`);
  };
  walk("", digests);
  walk("", environment);
  byId("repeat").innerHTML = `<pre>${esc(command)}</pre><dl>${flat.join("")}</dl>`
    + (links ? `<details><summary>links.toml</summary><pre>${esc(links)}</pre></details>` : "") + `<details><summary>run.toml</summary><pre>${esc(toml)}</pre></details>`;
}
function showHead() {
  const run = runs[state.run], summary = run.summary, error = summary.error_3d_m, reports = summary.reports;
  byId("title").textContent = runs.length > 1 ? `${runs.length} runs` : run.name;
  byId("subtitle").textContent = `${runs.length > 1 ? `${run.name}: ` : ""}scheme ${run.label}, scenario ${summary.scenario}, ${run.stations.length} base stations, ${summary.driver === "ray" ? "on Ray over sockets" : "in process"}`;
  const sent = Object.values(reports).reduce((a, b) => a + b, 0), figures = [
    [error ? `${metres(error.mean)} m` : "no fix", error ? `mean 3D error, 95 %: ${error.ci95_of_mean.map(metres).join(" … ")}` : "mean 3D error"],
    [error ? `${metres(error.p90)} m` : "–", "90th percentile of the fixes"],
    [`${short(summary.fixes)} of ${short(summary.snapshots)}`, "snapshots with a fix"],
    [`${short(summary.payload_bits_per_report)} bit`, `payload per report, ${short(100 * summary.payload_ratio)} % of lossless CSI`],
    [`${short(100 * (reports.late + reports.lost) / Math.max(1, sent))} %`, `reports late or lost, of ${short(sent)}`]];
  if (known(summary.coverage_90)) figures.push([`${short(100 * summary.coverage_90)} %`, "of the fixes within their 90 % region"]);
  byId("figures").innerHTML = figures.map(([value, text]) => `<div><b>${esc(value)}</b><span>${esc(text)}</span></div>`).join("");
  byId("notes").innerHTML = [...(summary.notes ?? []), ...(summary.failures ?? []), ...(run.every > 1 ? [`Every ${run.every}th snapshot is shown.`] : [])].map((note) => `<li>${esc(note)}</li>`).join("");
  byId("runs").innerHTML = runs.length > 1 ? runs.map((it, n) => `<button data-run="${n}" aria-pressed="${n === state.run}">${key(`c${n % 6}`, it.label)}</button>`).join("") : "";
  byId("comparison").hidden = runs.length < 2;
  byId("compared").outerHTML = `<div id="compared">${table(["run", "scenario", "payload [bit/report]", "fixes", "mean 3D [m]", "95 % interval", "median [m]", "p90 [m]", "late or lost"], runs.map((it, n) => {
    const one = it.summary, its = one.error_3d_m, all = Object.values(one.reports).reduce((a, b) => a + b, 0);
    return [key(`c${n % 6}`, `${it.label}${it.label.includes(it.name) ? "" : ` (${it.name})`}`), esc(one.scenario), short(one.payload_bits_per_report), `${short(one.fixes)} of ${short(one.snapshots)}`, metres(its?.mean),
      its ? its.ci95_of_mean.map(metres).join(" … ") : "–", metres(its?.median), metres(its?.p90), `${short(100 * (one.reports.late + one.reports.lost) / Math.max(1, all))} %`];
  }))}</div>`;
  if (!run.colours[state.colour]) state.colour = Object.keys(run.colours)[0];
  byId("colour").innerHTML = Object.entries(run.colours).map(([name, it]) => `<option value="${name}"${name === state.colour ? " selected" : ""}>${esc(it.name)}</option>`).join("");
}
function showRun(number) {
  state.run = number;
  state.chosen.clear();
  state.view = null;
  showHead(); drawChosen(); showCauses(); showLinks(); drawTimeline(); showRepeat();
}
function zoom(factor) { state.view = { ...state.view, scale: state.view.scale * factor, own: true }; drawMap(); }
function zoomToChosen() {
  const run = runs[state.run], svg = byId("map"), chosen = [...state.chosen].filter((n) => known(run.truth[0][n]));
  if (!chosen.length) return;
  const of = (truth, estimate) => chosen.flatMap((n) => [truth[n], estimate[n]]).filter(known);
  const xs = of(run.truth[0], run.snapshots.x), ys = of(run.truth[1], run.snapshots.y);
  const around = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  state.view = { ...fit(around, svg.clientWidth, svg.clientHeight, 1.6), own: true };
  drawMap();
}

runs.forEach(prepare);
const labels = runs.map((run) => run.label);
runs.forEach((run) => { if (labels.filter((it) => it === run.label).length > 1) run.label += ` (${run.name})`; });
brush(byId("map"), false, chooseOnMap);
brush(byId("cdf"), true, chooseOnCdf);
byId("colour").addEventListener("change", (event) => { state.colour = event.target.value; drawMap(); });
for (const [id, act] of Object.entries({ "zoom-in": () => zoom(1.6), "zoom-out": () => zoom(1 / 1.6), "zoom-all": () => { state.view = null; drawMap(); }, "zoom-chosen": zoomToChosen, clear: () => chooseThese([]) })) byId(id).addEventListener("click", act);
byId("runs").addEventListener("click", (event) => { const button = event.target.closest("button"); if (button) showRun(Number(button.dataset.run)); });
byId("chosen").addEventListener("click", (event) => { const row = event.target.closest("tr[data-at]"); if (row) chooseThese([Number(row.dataset.at)]); });
let waiting = null;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { if (!state.view.own) state.view = null; drawChosen(); drawTimeline(); }, 100); });
showRun(0);
