// The model, the calibration with what it promises and what came of it, another tau tried on the log, and what is stored.

import { table } from "/kiosk/operator-charts.js";
import { el } from "/kiosk/page.js";

const WAIT_MS = 200; // after the last move of the slider

export function model(page, view) {
  const [device, promise, storage] = [0, 1, 2].map(() => el("section", { class: "panel" }));
  const trial = el("section", { class: "panel" });
  view.append(el("h2", {}, page.say("tab.model")), el("div", { class: "columns" }, device, trial, promise, storage));
  const found = page.api.get("/edge/overview", {}, page.left.signal);
  found.catch(() => {}); // each panel says it
  page.fill(device, async () => about(page, await found));
  page.fill(storage, async () => stored(page, await found));
  page.fill(promise, async () => calibration(page, await page.api.get("/edge/calibration", {}, page.left.signal)));
  page.fill(trial, async () => preview(page, await found));
}

function facts(rows) {
  return el("dl", { class: "facts" }, ...rows.filter(([, value]) => value !== null && value !== undefined && value !== "").flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

function about(page, found) {
  return [el("h3", {}, page.say("model.heading")), facts([
    [page.say("model.name"), found.model.name],
    [page.say("model.quantization"), found.model.quantization],
    [page.say("model.architecture"), found.model.architecture],
    [page.say("model.sha256"), found.model.sha256],
    [page.say("facts.policy"), page.named("policy", found.policy.name)],
    [page.say("facts.readout"), page.named("readout", found.policy.readout)],
    [page.say("facts.tau"), decimal(page, found.policy.tau)],
    [page.say("facts.tie"), found.policy.tie_share ? page.share(found.policy.tie_share, 1) : null],
    [page.say("model.audits"), found.audit_share ? page.share(found.audit_share, 1) : page.say("none")],
    [page.say("model.version"), found.version],
  ])];
}

function decimal(page, value) {
  return typeof value === "number" ? page.words.number(value, { maximumFractionDigits: 4 }) : null;
}

function calibration(page, found) {
  const heading = el("h3", {}, page.say("calibration.heading"));
  const audits = found.audits ? el("p", { class: found.audits.fell ? "notice" : "" }, page.say("calibration.audits", { sentence: found.audits.sentence })) : null;
  const one = found.calibration;
  if (!one) return [heading, el("p", {}, page.say("calibration.none", { tau: decimal(page, found.policy.tau) })), audits];
  const { live } = found;
  const promised = one.delta === null ? page.say("guarantee.none")
    : page.say(one.goal === "max_local_error" ? "guarantee.error" : "guarantee.other", { value: page.share(one.value, 1), chance: page.share(1 - one.delta, 1) });
  const range = live.interval ? live.interval.map((end) => page.share(end, 1)).join(" – ") : "–";
  return [
    heading,
    el("p", { class: "lead" }, page.say(`goal.${one.goal}`, { value: one.goal === "budget" ? decimal(page, one.value) : page.share(one.value, 1) })),
    el("p", { class: "promised" }, promised),
    facts([
      [page.say("calibration.rule"), page.say("calibration.keeps", { readout: page.named("readout", one.readout), tau: decimal(page, one.tau) })],
      [page.say("calibration.error"), one.local_error === null ? null : page.share(one.local_error, 1)],
      [page.say("calibration.questions"), one.questions.map((n) => page.count(n)).join(" + ")],
      [page.say("calibration.data"), one.data],
      [page.say("calibration.made"), page.time(one.created_at)],
      [page.say("facts.calibration"), one.sha256.slice(0, 12)],
    ]),
    el("h4", {}, page.say("live.heading")),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": page.say("live.heading") }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, page.say("live.what")), el("th", { scope: "col" }, page.say("live.then")), el("th", { scope: "col" }, page.say("live.now")))),
      el("tbody", {},
        el("tr", {}, el("th", { scope: "row" }, page.say("live.rate")), el("td", {}, page.share(live.expected_rate, 1)), el("td", {}, `${page.share(live.deferral_rate, 1)} (${range})`)),
        el("tr", {}, el("th", { scope: "row" }, page.say("live.kept")), el("td", {}, page.share(live.audits.before, 1)),
          el("td", {}, live.audits.audited ? `${page.share(live.audits.agreed / live.audits.audited, 1)} (${page.count(live.audits.audited)})` : "–")),
        el("tr", {}, el("th", { scope: "row" }, page.say("live.deferred")), el("td", {}, "–"),
          el("td", {}, live.compared ? `${page.share(live.upheld / live.compared, 1)} (${page.count(live.compared)})` : "–"))))),
    live.drift ? page.notice(page.say(`live.drift.${live.drift}`)) : el("p", {}, page.say("live.drift.none")),
    audits,
    el("p", { class: "faint" }, page.say("live.text")),
  ];
}

function preview(page, found) {
  const start = Math.round(found.policy.tau * 20) / 20;
  const slider = el("input", { id: "tau", type: "range", min: "0", max: "1", step: "0.05", value: String(start) });
  const said = el("output", { for: "tau", class: "tau-value" });
  const result = el("div", { class: "result", role: "status" });
  let timer = 0;
  let looking = new AbortController();
  page.left.signal.addEventListener("abort", () => { clearTimeout(timer); looking.abort(); });
  const moved = () => {
    said.textContent = decimal(page, Number(slider.value));
    clearTimeout(timer);
    looking.abort();
    timer = setTimeout(() => {
      looking = new AbortController();
      page.fill(result, async () => outcome(page, await page.api.get("/edge/preview", { tau: slider.value }, looking.signal)));
    }, WAIT_MS);
  };
  slider.addEventListener("input", moved);
  moved();
  return [
    el("h3", {}, page.say("trial.heading")), el("p", { class: "lead" }, page.say("trial.text")),
    el("label", { class: "slider", for: "tau" }, el("span", {}, page.say("trial.tau")), said), slider, result,
  ];
}

function outcome(page, { tau, log, other }) {
  if (!log.decisions) return el("p", { class: "faint" }, page.say("trial.empty"));
  const row = (key, value) => el("li", {}, el("strong", {}, value), " ", page.say(key));
  const rate = (one) => page.share(one.deferral_rate, 1);
  return [
    el("ul", { class: "outcome" },
      row("trial.deferred", rate(other)),
      row("trial.today", rate(log)),
      row("trial.changed", page.count(other.changed)),
      row("trial.unknown", page.count(other.unknown))),
    table(page.say("as-table"), [page.say("trial.of", { n: log.decisions }), page.say("trial.log"), page.say("trial.other", { tau: decimal(page, tau) })],
      ["kept", "deferred", "cloud_calls", "cloud_tokens", "changed", "unknown"].map((name) => [page.say(`tally.${name}`), page.count(log[name]), page.count(other[name])])),
    el("p", { class: "faint" }, page.say("trial.note", { n: log.decisions })),
    el("p", {}, page.say("trial.apply"), " ", el("code", {}, `edge-agent config set tau ${tau}`)),
  ];
}

function stored(page, found) {
  const { storage, retention } = found;
  return [
    el("h3", {}, page.say("storage.heading")),
    facts([
      [page.say("storage.file"), page.bytes(storage.file_bytes)],
      [page.say("storage.unused"), page.bytes(storage.unused_bytes)],
      [page.say("storage.free"), page.bytes(storage.disk_free_bytes)],
      [page.say("storage.oldest"), page.time(storage.oldest_at)],
      [page.say("storage.kept"), retention.keep_s === null ? page.say("storage.forever") : page.age(retention.keep_s)],
      [page.say("storage.answers"), page.count(retention.answers_max_rows)],
      [page.say("storage.path"), storage.path],
    ]),
    el("h4", {}, page.say("storage.rows")),
    facts(Object.entries(storage.rows).map(([name, n]) => [page.say(`rows.${name}`), page.count(n)])),
  ];
}
