// How the device is doing: its state in a few tiles, the decisions over time, and how often the cloud agreed.

import { columns, reliability, shares, table } from "/kiosk/operator-charts.js";
import { el } from "/kiosk/page.js";

const SPANS = { day: { per: "hour", count: 24 }, week: { per: "hour", count: 24 * 7 }, month: { per: "day", count: 30 }, year: { per: "day", count: 365 } };
const REFRESH_MS = 5000; // at most so often, when decisions come in

export function overview(page, view) {
  const tiles = el("div", { class: "tiles" });
  const charts = el("div", { class: "grid even" });
  let span = "month";
  const choice = el("div", { class: "choice", role: "group", "aria-label": page.say("span") }, ...Object.keys(SPANS).map((name) =>
    el("button", { type: "button", "aria-pressed": String(name === span), "data-name": name, onclick: () => pick(name) }, page.say(`span.${name}`))));
  view.append(el("h2", {}, page.say("tab.overview")), tiles, el("div", { class: "row" }, el("h3", {}, page.say("time.heading")), choice), charts);

  let looking = new AbortController();
  function pick(name) {
    span = name;
    for (const one of choice.children) one.setAttribute("aria-pressed", String(one.dataset.name === name));
    looking.abort();
    looking = new AbortController();
    page.fill(charts, () => past(page, SPANS[span], AbortSignal.any([looking.signal, page.left.signal])));
  }
  const refresh = () => page.fill(tiles, async () => now(page, await page.api.get("/edge/overview", {}, page.left.signal)));
  refresh();
  pick(span);

  let due = 0;
  page.left.signal.addEventListener("abort", () => clearTimeout(due));
  return {
    heard: (name) => {
      if (name !== "state" && !due) due = setTimeout(() => { due = 0; refresh(); }, REFRESH_MS);
      if (name === "state") refresh();
    },
  };
}

function tile(name, value, ...more) {
  return el("div", { class: "tile" }, el("p", { class: "tile-name" }, name), el("p", { class: "tile-value" }, value),
    ...more.filter(Boolean).map((one) => el("p", { class: "tile-more" }, one)));
}

function now(page, found) {
  const { queue, storage, reading_times: read, cloud_times: cloud } = found;
  return [
    tile(page.say("tile.connection"), page.named("connection", found.connection), page.say("tile.uptime", { time: page.age(found.uptime_s) })),
    tile(page.say("tile.waiting"), page.count(queue.waiting), queue.waiting ? page.say("tile.oldest", { time: page.age(queue.oldest_s) }) : page.say("tile.nothing"),
      queue.dead ? page.say("tile.dead", { n: queue.dead }) : null),
    tile(page.say("tile.reading"), page.ms(read.p50_ms), read.n ? page.say("tile.p95", { time: page.ms(read.p95_ms) }) : null, read.n ? page.say("tile.of", { n: read.n }) : null),
    tile(page.say("tile.cloud"), page.ms(cloud.p50_ms), cloud.n ? page.say("tile.p95", { time: page.ms(cloud.p95_ms) }) : null, cloud.n ? page.say("tile.of", { n: cloud.n }) : null),
    tile(page.say("tile.storage"), page.bytes(storage.file_bytes), page.say("tile.free", { size: page.bytes(storage.disk_free_bytes) }),
      page.say("tile.decisions", { n: storage.rows.decisions })),
    tile(page.say("tile.model"), found.model.name, found.model.quantization, page.say("tile.tau", { tau: page.words.number(found.policy.tau, { maximumFractionDigits: 4 }) })),
  ];
}

async function past(page, { per, count }, signal) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const found = await page.api.get("/edge/history", { per, count, zone, offset_min: -new Date().getTimezoneOffset() }, signal);
  const { periods, total } = found;
  const later = found.later ? page.notice(page.say("time.later", { n: found.later })) : null;
  if (!total.decisions) return [el("p", { class: "panel faint" }, page.say("time.empty")), later];
  const short = per === "day" ? { day: "numeric", month: "short" } : count > 24 ? { weekday: "short", hour: "2-digit" } : { hour: "2-digit", minute: "2-digit" };
  const labels = periods.map((one) => page.time(one.begins_at, short));
  const full = periods.map((one) => page.time(one.begins_at, per === "day" ? { dateStyle: "medium" } : undefined));
  const share = (part, whole) => (whole ? part / whole : null);
  const busy = periods.map((one, place) => [one, place]).filter(([one]) => one.decisions).reverse();
  const said = (key, part, whole) => page.say(key, { share: page.share(share(part, whole)), part: page.count(part), whole: page.count(whole) });
  return [
    panel(page.say("time.decisions"), said("time.deferred", total.deferred, total.decisions),
      columns({
        sentence: `${page.say("time.decisions")}: ${said("time.deferred", total.deferred, total.decisions)}`, labels,
        whole: periods.map((one) => one.decisions), part: periods.map((one) => one.deferred), format: (value) => page.count(value),
        legend: el("ul", { class: "legend" }, el("li", { class: "is-part" }, page.say("kind.deferred")), el("li", { class: "is-rest" }, page.say("kind.kept"))),
        alternative: table(page.say("as-table"), ["time.period", "time.all", "kind.deferred", "kind.cloud", "kind.waiting", "time.recalled"].map((key) => page.say(key)),
          busy.map(([one, place]) => [full[place], page.count(one.decisions), `${page.count(one.deferred)} (${page.share(share(one.deferred, one.decisions))})`,
            page.count(one.cloud), page.count(one.waiting), page.count(one.recalled)])),
      })),
    panel(page.say("time.rate"), page.say("time.rate.text"),
      shares({
        sentence: `${page.say("time.rate")}: ${said("time.deferred", total.deferred, total.decisions)}`, labels,
        values: periods.map((one) => share(one.deferred, one.decisions)), format: (value) => page.share(value), alternative: null,
      })),
    panel(page.say("time.agreement"), total.compared ? said("time.agreed", total.agreed, total.compared) : page.say("time.uncompared"),
      total.compared ? shares({
        sentence: `${page.say("time.agreement")}: ${said("time.agreed", total.agreed, total.compared)}`, labels,
        values: periods.map((one) => share(one.agreed, one.compared)), format: (value) => page.share(value),
        alternative: table(page.say("as-table"), ["time.period", "time.compared", "time.same", "kind.upheld", "kind.overturned"].map((key) => page.say(key)),
          busy.filter(([one]) => one.compared).map(([one, place]) => [full[place], page.count(one.compared),
            `${page.count(one.agreed)} (${page.share(share(one.agreed, one.compared))})`, page.count(one.upheld), page.count(one.overturned)])),
      }) : null,
      el("p", { class: "faint" }, page.say("time.agreement.text"))),
    panel(page.say("reliability.heading"), page.say("reliability.text"),
      found.reliability.length ? reliability({
        sentence: page.say("reliability.heading"), points: found.reliability, format: (value) => page.share(value), across: page.say("reliability.across"),
        alternative: table(page.say("as-table"), ["reliability.level", "time.compared", "time.same", "reliability.interval"].map((key) => page.say(key)),
          found.reliability.map((one) => [page.share(one.confidence), page.count(one.compared), `${page.count(one.agreed)} (${page.share(one.agreed / one.compared)})`,
            one.interval.map((end) => page.share(end)).join(" – ")])),
      }) : el("p", { class: "faint" }, page.say("time.uncompared"))),
    found.complete ? null : page.notice(page.say("time.incomplete")),
    later,
  ];
}

function panel(heading, lead, ...children) {
  return el("section", { class: "panel" }, el("h4", {}, heading), el("p", { class: "lead" }, lead), ...children.filter(Boolean));
}
