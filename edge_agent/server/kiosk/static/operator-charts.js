// Small charts, drawn as SVG to the width that there is, each with the same numbers as a table.
// Owns their form. Invariant: text is only ever a text node, and every chart says in one sentence what it shows.

import { el } from "/kiosk/page.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 190;
const LEFT = 40;
const RIGHT = 10;
const TOP = 12;
const BOTTOM = 26;
const LABEL_EVERY = 62; // pixels between two labels below a chart

function shape(name, attributes, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// A chart that is drawn again when its place changes its width. `draw(svg, width)` adds the shapes.
function chart(sentence, height, draw, ...below) {
  const svg = shape("svg", { class: "chart", role: "img", "aria-label": sentence });
  const place = el("figure", { class: "figure" }, svg, ...below);
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(svg.parentNode.clientWidth);
    if (!width || width === drawn) return;
    drawn = width;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    svg.replaceChildren();
    draw(svg, width);
  }).observe(place);
  return place;
}

export function table(summary, heads, rows) {
  const body = rows.map(([first, ...rest]) => el("tr", {}, el("th", { scope: "row" }, first), ...rest.map((cell) => el("td", {}, cell))));
  return el("details", { class: "as-table" },
    el("summary", {}, summary),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": summary },
      el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...body))));
}

function axis(svg, width, height, top, format) {
  for (const share of [0, 0.5, 1]) {
    const y = height - BOTTOM - share * (height - TOP - BOTTOM);
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
    svg.append(shape("text", { class: "tick", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, format(share * top)));
  }
}

function below(svg, width, height, labels, middle) {
  const step = Math.max(1, Math.ceil(labels.length * LABEL_EVERY / (width - LEFT - RIGHT)));
  labels.forEach((label, place) => {
    if ((labels.length - 1 - place) % step) return;
    const x = Math.min(Math.max(middle(place), LEFT + 16), width - RIGHT - 18);
    svg.append(shape("text", { class: "tick", x, y: height - 8, "text-anchor": "middle" }, label));
  });
}

// A number from 1, 2, 4, 6, 10, 20, 40, ... that is not below the highest value: half of it is a whole number, too, from 2 on.
function roundUp(value) {
  const size = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return size * [1, 2, 4, 6, 10].find((one) => one * size >= value);
}

// Columns of a whole, with a part of it below: how many decisions, and how many of them were deferred.
export function columns({ sentence, labels, whole, part, format, legend, alternative }) {
  const top = roundUp(Math.max(...whole, 2));
  return chart(sentence, HEIGHT, (svg, width) => {
    axis(svg, width, HEIGHT, top, format);
    const step = (width - LEFT - RIGHT) / labels.length;
    const gap = Math.min(3, step * 0.2);
    const tall = (value) => (value / top) * (HEIGHT - TOP - BOTTOM);
    whole.forEach((value, place) => {
      const x = LEFT + place * step + gap / 2;
      const box = (kind, from, to) => to > from && svg.append(shape("rect", {
        class: kind, x, width: Math.max(step - gap, 1), y: HEIGHT - BOTTOM - tall(to), height: tall(to - from), rx: Math.min(2, step / 6),
      }));
      box("part", 0, part[place]);
      box("rest", part[place], value);
    });
    below(svg, width, HEIGHT, labels, (place) => LEFT + (place + 0.5) * step);
  }, legend, alternative);
}

// Shares over time, as dots whose line breaks where nothing is known.
export function shares({ sentence, labels, values, format, alternative }) {
  return chart(sentence, HEIGHT, (svg, width) => {
    axis(svg, width, HEIGHT, 1, format);
    const step = (width - LEFT - RIGHT) / labels.length;
    const at = (place) => [LEFT + (place + 0.5) * step, HEIGHT - BOTTOM - values[place] * (HEIGHT - TOP - BOTTOM)];
    let path = "";
    values.forEach((value, place) => {
      if (value === null) return;
      path += `${place > 0 && values[place - 1] !== null ? "L" : "M"}${at(place).map((one) => one.toFixed(1)).join(" ")}`;
    });
    svg.append(shape("path", { class: "line", d: path || "M0 0" }));
    values.forEach((value, place) => {
      if (value !== null) svg.append(shape("circle", { class: "dot", cx: at(place)[0], cy: at(place)[1], r: step > 9 ? 3.5 : 2 }));
    });
    below(svg, width, HEIGHT, labels, (place) => LEFT + (place + 0.5) * step);
  }, alternative);
}

// What was said against what came of it: points with their intervals, and the line where both are the same.
export function reliability({ sentence, points, format, across, alternative }) {
  const height = 280;
  return chart(sentence, height, (svg, width) => {
    const right = Math.min(width - RIGHT, LEFT + 420);
    const x = (value) => LEFT + 14 + value * (right - LEFT - 28);
    const y = (value) => height - 44 - value * (height - TOP - 44);
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      svg.append(shape("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }));
      svg.append(shape("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, format(value)));
      svg.append(shape("text", { class: "tick", x: x(value), y: height - 26, "text-anchor": "middle" }, format(value)));
    }
    svg.append(shape("text", { class: "tick", x: (LEFT + right) / 2, y: height - 6, "text-anchor": "middle" }, across));
    svg.append(shape("line", { class: "same", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
    const most = Math.max(...points.map((one) => one.compared), 1);
    for (const one of points) {
      const [low, high] = one.interval;
      svg.append(shape("line", { class: "interval", x1: x(one.confidence), x2: x(one.confidence), y1: y(low), y2: y(high) }));
      const radius = 4 + 6 * Math.sqrt(one.compared / most);
      svg.append(shape("circle", { class: "dot", cx: x(one.confidence), cy: y(one.agreed / one.compared), r: radius }));
    }
  }, alternative);
}

// Probabilities as bars, each with its name and its number.
export function probabilities(rows, format) {
  return el("ul", { class: "probabilities" }, ...rows.map(({ name, value, chosen }) => {
    const bar = el("span", { class: "fill" });
    bar.style.inlineSize = `${Math.max(0, Math.min(1, value)) * 100}%`;
    return el("li", chosen ? { class: "chosen" } : {},
      el("span", { class: "name" }, name), el("span", { class: "track", "aria-hidden": "true" }, bar), el("span", { class: "number" }, format(value)));
  }));
}
