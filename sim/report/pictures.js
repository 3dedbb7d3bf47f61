"use strict";
// Text and numbers
const byId = (id) => document.getElementById(id);
const esc = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
const known = (value) => value !== null && value !== undefined;
const fixed = (value, digits) => (known(value) ? value.toFixed(digits) : "–");
const metres = (value) => (known(value) ? value.toFixed(value < 0.1 ? 4 : value < 100 ? 3 : 1) : "–");
const short = (value) => (known(value) ? Number(value.toPrecision(4)).toLocaleString("en") : "–");
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const cells = (values, tag = "td") => values.map((value) => `<${tag}>${value}</${tag}>`).join("");
const table = (head, rows) => `<div class="wide"><table><thead><tr>${cells(head, "th")}</tr></thead><tbody>${
  rows.map((row) => (Array.isArray(row) ? `<tr>${cells(row)}</tr>` : row)).join("")}</tbody></table></div>`;
const key = (colour, text) => `<span><i class="key" style="background:var(--${colour})"></i>${esc(text)}</span>`;
const quantile = (sorted, share) => sorted[clamp(Math.ceil(share * sorted.length) - 1, 0, sorted.length - 1)];
const ascending = (values) => [...values].sort((a, b) => a - b);

// Pictures
function sized(svg, height) {
  const width = svg.clientWidth || 600;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  return width;
}
const line = (x1, y1, x2, y2, style) => `<line x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}" ${style}/>`;
const rect = (x, y, w, h, style) => `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${Math.max(0, w).toFixed(1)}" height="${Math.max(0, h).toFixed(1)}" ${style}/>`;
const label = (x, y, text, style = "") => `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${style}>${esc(text)}</text>`;
function roundBelow(high) {
  const step = 10 ** Math.floor(Math.log10(high));
  return [5, 2, 1].find((n) => n * step <= high) * step;
}
function ticks(high, count) {
  const step = 10 ** Math.floor(Math.log10(high / count));
  const wide = [1, 2, 5, 10].map((n) => n * step).find((it) => high / it <= count);
  return Array.from({ length: Math.floor(high / wide) + 1 }, (_, n) => n * wide);
}

// Map
function fit([west, east, south, north], width, height, room) {
  const scale = Math.min(width / Math.max(1, (east - west) * room), height / Math.max(1, (north - south) * room));
  return { x: (west + east) / 2, y: (south + north) / 2, scale };
}
function projection(view, width, height) {
  return { x: (m) => width / 2 + (m - view.x) * view.scale, y: (m) => height / 2 - (m - view.y) * view.scale,
    east: (px) => view.x + (px - width / 2) / view.scale, north: (px) => view.y - (px - height / 2) / view.scale };
}
function ground(scene, x, y) {
  if (!scene.ground) return "";
  const [west, east, south, north] = scene.ground.extent;
  return `<image class="ground" href="${scene.ground.picture}" x="${x(west)}" y="${y(north)}" width="${x(east) - x(west)}" height="${y(south) - y(north)}" preserveAspectRatio="none"/>`;
}
function site(scene, bs, x, y) {
  const [e, n] = scene.sites[bs].at, [left, top] = [x(e), y(n)];
  return `<path d="M${left.toFixed(1)} ${(top - 8).toFixed(1)}l7 13h-14z" style="fill:var(--ink);stroke:var(--paper)"/>`
    + label(left, top - 12, `${bs} ${scene.sites[bs].name ?? ""}`.trim(), 'text-anchor="middle"');
}
function scaleBar(view, width, height) {
  const bar = roundBelow(width / 4 / view.scale);
  return line(12, height - 14, 12 + bar * view.scale, height - 14, 'style="stroke:var(--ink)" stroke-width="2"') + label(12, height - 20, `${short(bar)} m`);
}

// Distribution of the 3D error
const CDF = { left: 44, right: 24, top: 12, bottom: 40 };
function errorScale(errors, width) {
  const positive = errors.filter((value) => known(value) && value > 0), sorted = ascending(positive.length ? positive : [0.1, 1]);
  const low = Math.floor(Math.log10(Math.max(quantile(sorted, 0.005), 1e-4))), high = Math.max(low + 1, Math.ceil(Math.log10(sorted.at(-1))));
  const span = width - CDF.left - CDF.right;
  return { low, high, x: (m) => CDF.left + span * clamp((Math.log10(Math.max(m, 1e-9)) - low) / (high - low), 0, 1), m: (px) => 10 ** (low + (high - low) * (px - CDF.left) / span) };
}
const shareScale = (height) => (share) => height - CDF.bottom - share * (height - CDF.top - CDF.bottom);
function cdfAxes({ low, high, x }, width, height) {
  const y = shareScale(height), parts = [];
  for (let power = low; power <= high; power++) {
    const at = x(10 ** power);
    parts.push(line(at, CDF.top, at, height - CDF.bottom, 'class="grid"'), label(at, height - CDF.bottom + 16, short(10 ** power), 'text-anchor="middle" class="quiet"'));
  }
  for (const share of [0, 0.25, 0.5, 0.75, 1]) parts.push(line(CDF.left, y(share), width - CDF.right, y(share), 'class="grid"'), label(CDF.left - 6, y(share) + 4, share, 'text-anchor="end" class="quiet"'));
  parts.push(label((width + CDF.left) / 2, height - 6, "3D error [m], share of fixes below", 'text-anchor="middle"'));
  return parts.join("");
}
function cdfCurve(sorted, { x }, height, style) {
  const y = shareScale(height);
  return `<path fill="none" d="${sorted.map((m, n) => `${n ? "L" : "M"}${x(m).toFixed(1)} ${y((n + 1) / sorted.length).toFixed(1)}`).join("")}" ${style}/>`;
}
