const run = JSON.parse(byId("data").textContent);
const NEW = 50, SHOWN = 2000, EVERY_MS = 1000;
const BOUNDS_M = [0.1, 0.3, 1, 3];
const COLUMNS = ["used", "late", "delivered", "duplicate", "corrupt", "rejected", "bytes"];
const shots = { error: [], truth: [], estimate: [] };
let news = null, view = null;

function drawMap() {
  const svg = byId("map"), height = clamp(svg.clientWidth * 0.8, 300, 560), width = sized(svg, height);
  const [west, east, south, north] = run.extent;
  view = fit([west, east, south, north], width, height, 1.25);
  const { x, y } = projection(view, width, height), parts = [ground(run.scene, x, y)], count = shots.error.length;
  for (let n = Math.max(0, count - SHOWN); n < count; n++) {
    const error = shots.error[n];
    const colour = `var(--s${BOUNDS_M.filter((bound) => error > bound).length})`, opacity = `opacity="${n < count - NEW ? 0.25 : 1}"`;
    const at = [x(shots.truth[n][0]), y(shots.truth[n][1])], found = [x(shots.estimate[n][0]), y(shots.estimate[n][1])];
    parts.push(line(...at, ...found, `style="stroke:${colour}" ${opacity}`), `<circle cx="${at[0].toFixed(1)}" cy="${at[1].toFixed(1)}" r="2.6" style="fill:${colour}" ${opacity}/>`);
  }
  for (const bs of run.stations) parts.push(site(run.scene, bs, x, y));
  parts.push(scaleBar(view, width, height));
  svg.innerHTML = parts.join("");
}
function drawCdf(sorted) {
  const svg = byId("cdf"), height = clamp(svg.clientWidth * 0.95, 280, 560), width = sized(svg, height), scale = errorScale(sorted, width);
  svg.innerHTML = cdfAxes(scale, width, height) + (sorted.length ? cdfCurve(sorted, scale, height, 'style="stroke:var(--c0)" stroke-width="2.4"') : "");
  byId("curves").innerHTML = key("c0", `${short(sorted.length)} fixes so far`);
}
function showFigures(sorted) {
  const mean = sorted.length ? sorted.reduce((a, b) => a + b) / sorted.length : null;
  const figures = { [`of ${short(run.snapshots)} snapshots closed`]: short(news.done), fixes: short(news.fixes), "mean 3D error [m]": metres(mean),
    "median [m]": metres(quantile(sorted, 0.5)), "90 % below [m]": metres(quantile(sorted, 0.9)) };
  byId("figures").innerHTML = Object.entries(figures).map(([name, value]) => `<div><b>${value}</b><span>${esc(name)}</span></div>`).join("");
}
function showLinks() {
  const rows = run.stations.map((bs) => {
    const link = news.links[bs], share = news.done ? clamp(link.used / news.done, 0, 1) : 0;
    const bar = `<span class="bar"><i style="width:${(100 * share).toFixed(1)}%;background:var(--used)"></i></span>`;
    return [`${bs} ${esc(run.scene.sites[bs].name ?? "")}`, bar, ...COLUMNS.map((name) => short(link[name]))];
  });
  byId("links").innerHTML = table(["base station", "used of closed", ...COLUMNS], rows);
}
function draw() {
  const sorted = ascending(shots.error);
  showFigures(sorted); drawMap(); drawCdf(sorted); showLinks();
}
function tell(text) { byId("subtitle").textContent = text; }

async function follow() {
  try {
    const answer = await fetch(`data?since=${shots.error.length}`, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    news = await answer.json();
  } catch {
    tell("The run has ended, or its process is gone: nothing new comes from it.");
    return;
  }
  for (const name of Object.keys(shots)) shots[name].push(...news[name]);
  tell(news.stage === "write" ? "Writing the run's folder." : news.stage === "start" ? "Starting." : "Positioning.");
  draw();
  setTimeout(follow, EVERY_MS);
}
byId("title").textContent = run.name;
byId("legend").innerHTML = "<span>3D error [m]:</span>" + BOUNDS_M.map((bound, n) => key(`s${n}`, `up to ${bound}`)).join("") + key("s4", `above ${BOUNDS_M.at(-1)}`)
  + `<span>dot: truth, line: to the estimate; strong: the last ${NEW} fixes, faint: up to ${short(SHOWN)} before</span>`;
let waiting = null;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { if (news) draw(); }, 100); });
follow();
