// What waits for the cloud, and what was given up: each row with what can be done about it.

import { el, icon } from "/kiosk/page.js";

const STATES = ["", "ready", "sending", "dead", "expired", "done", "cancelled"];
const AT_ONCE = 50;
const REFRESH_MS = 2000;

export function queue(page, view) {
  const counts = el("div", { class: "tiles" });
  const list = el("div", { class: "list" });
  const more = el("div", { class: "more" });
  const state = el("select", { id: "state", onchange: () => begin() }, ...STATES.map((one) => el("option", { value: one }, page.say(`state.${one || "open"}`))));
  view.append(el("h2", {}, page.say("tab.queue")), counts,
    el("div", { class: "filters" }, el("label", { for: "state" }, el("span", {}, page.say("filter.state")), state)), list, more);

  async function load(after) {
    const found = await page.api.get("/edge/queue", { limit: AT_ONCE, after, state: state.value }, page.left.signal);
    counts.replaceChildren(...["ready", "sending", "dead", "expired", "done", "cancelled"].map((name) =>
      el("div", { class: "tile slim" }, el("p", { class: "tile-name" }, page.say(`state.${name}`)), el("p", { class: "tile-value" }, page.count(found.states[name] ?? 0)))));
    more.replaceChildren();
    if (found.next) more.append(el("button", { class: "quiet small", type: "button", onclick: () => append(found.next) }, page.say("more")));
    const rows = found.rows.map((row) => line(page, row, change));
    return rows.length || after ? rows : [el("p", { class: "panel faint" }, page.say("queue.empty"))];
  }
  async function append(after) {
    try {
      list.append(...await load(after));
    } catch (error) {
      const why = page.trouble(error);
      if (why) more.replaceChildren(page.notice(why));
    }
  }
  async function change(row, verb, place) {
    if (verb === "drop" && !(await page.confirm(page.say("drop.heading"), page.say("drop.text"), page.say("drop")))) return;
    try {
      const changed = await page.api.post(`/edge/queue/${row.queue_id}/${verb}`);
      place.replaceWith(line(page, changed, change));
      page.announce(page.say(`${verb}.done`, { number: row.queue_id }));
    } catch (error) {
      const why = page.trouble(error);
      if (why) place.append(page.notice(why));
    }
  }
  const begin = () => page.fill(list, () => load(0));
  begin();

  let due = 0;
  page.left.signal.addEventListener("abort", () => clearTimeout(due));
  return {
    heard: () => {
      // A list that a person reads on in, or works in, does not change under the hand.
      if (!due && list.childElementCount <= AT_ONCE) due = setTimeout(() => { due = 0; if (!list.contains(document.activeElement)) begin(); }, REFRESH_MS);
    },
  };
}

function line(page, row, change) {
  const isOpen = ["ready", "dead", "expired", "cancelled"].includes(row.state);
  const place = el("article", { class: "line still" },
    el("span", { class: "line-question" }, row.question ?? page.say("queue.damaged")),
    el("span", { class: "line-facts" },
      el("span", { class: "tag", "data-kind": row.state }, page.named("state", row.state)),
      el("span", { class: "faint" }, page.say("queue.facts", { number: row.queue_id, time: page.time(row.created_at) })),
      el("span", { class: "faint" }, page.say("queue.attempts", { n: row.attempts })),
      row.due_in_s ? el("span", { class: "faint" }, page.say("queue.due", { time: page.age(row.due_in_s) })) : null),
    row.last_error ? el("span", { class: "line-error" }, row.last_error) : null);
  if (isOpen) {
    place.append(el("span", { class: "line-actions" },
      row.state === "ready" ? null : el("button", { class: "quiet small", type: "button", onclick: () => change(row, "retry", place) }, icon("check"), page.say("retry")),
      row.state === "cancelled" ? null : el("button", { class: "quiet small", type: "button", onclick: () => change(row, "drop", place) }, icon("close"), page.say("drop"))));
  }
  return place;
}
