// Small pieces of a page. Invariant: text becomes text nodes; nothing is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
export const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

// An element: el("button", { class: "primary", onclick: ... }, "text", child).
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && typeof value === "boolean") node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", name === "spark" ? "0 0 32 32" : "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `/kiosk/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

// The round badge of an option or a question; a screen reader has the text beside it.
export const letter = (i) => el("span", { class: "letter", "aria-hidden": "true" }, LETTERS[i]);

// Replace what a node shows, and move the focus to its heading so that a screen reader reads on from there.
export function show(node, ...children) {
  node.replaceChildren(...children.filter(Boolean));
  node.scrollTop = 0;
  const heading = node.querySelector("h2");
  if (heading) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
}
