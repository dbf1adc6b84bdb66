// What was asked and how it was decided: a list in pages, and one decision in full.

import { probabilities } from "/kiosk/operator-charts.js";
import { el, icon } from "/kiosk/page.js";

const KINDS = ["", "deferred", "kept", "cloud", "waiting", "upheld", "overturned", "abandoned"];
const AT_ONCE = 25;
const SEARCH_MS = 300;

export function decisions(page, view) {
  const list = el("div", { class: "list" });
  const more = el("div", { class: "more" });
  const fresh = el("button", { class: "quiet small", type: "button", hidden: true, onclick: () => begin() });
  const kind = el("select", { id: "kind", onchange: () => begin() }, ...KINDS.map((one) => el("option", { value: one }, page.say(`kind.${one || "all"}`))));
  const text = el("input", { id: "text", type: "search", maxlength: "200", autocomplete: "off", oninput: () => later() });
  view.append(el("h2", {}, page.say("tab.decisions")),
    el("div", { class: "filters" },
      el("label", { for: "kind" }, el("span", {}, page.say("filter.kind")), kind),
      el("label", { for: "text" }, el("span", {}, page.say("filter.text")), text)),
    fresh, list, more);

  let timer = 0;
  let looking = new AbortController();
  let n = 0;
  page.left.signal.addEventListener("abort", () => { clearTimeout(timer); looking.abort(); });
  const later = () => { clearTimeout(timer); timer = setTimeout(begin, SEARCH_MS); };
  function begin() {
    looking.abort();
    looking = new AbortController();
    n = 0;
    fresh.hidden = true;
    more.replaceChildren();
    page.fill(list, () => load(null));
  }
  async function load(before) {
    const signal = looking.signal;
    const found = await page.api.get("/edge/decisions", { limit: AT_ONCE, before, kind: kind.value, text: text.value.trim() }, signal);
    if (signal.aborted) throw new DOMException("another search", "AbortError");
    const rows = found.decisions.map((one) => line(page, one, () => open(one.decision_id)));
    more.replaceChildren();
    if (found.next) {
      more.append(el("button", { class: "quiet small", type: "button", onclick: (event) => append(event.target, found.next) }, page.say("older")));
    }
    if (!rows.length && before === null) rows.push(el("p", { class: "panel faint" }, page.say(found.next ? "list.further" : "list.empty")));
    return rows;
  }
  async function append(button, before) {
    button.disabled = true;
    try {
      const rows = await load(before);
      list.append(...rows);
      rows[0]?.querySelector?.("button")?.focus();
    } catch (error) {
      const why = page.trouble(error);
      if (why) more.replaceChildren(page.notice(why));
    }
  }
  function open(id) {
    const opener = document.activeElement;
    const nodes = [...view.childNodes];
    const place = el("div", {});
    const back = () => {
      view.replaceChildren(...nodes);
      opener?.focus();
    };
    view.replaceChildren(el("button", { class: "quiet small", type: "button", onclick: back }, icon("back"), page.say("back")), place);
    page.fill(place, async () => full(page, await page.api.get(`/edge/decisions/${id}/facts`, {}, page.left.signal))).then(() => {
      const heading = place.querySelector("h2");
      if (heading) { heading.tabIndex = -1; heading.focus(); }
    });
  }
  begin();
  return {
    heard: (name) => {
      if (name === "state") return;
      n += 1;
      fresh.hidden = false;
      fresh.textContent = page.say("list.fresh", { n });
    },
  };
}

function line(page, one, onclick) {
  return el("button", { class: "line", type: "button", onclick },
    el("span", { class: "line-question" }, one.question),
    el("span", { class: "line-answer" }, answer(one.answer, one.answer_text)),
    el("span", { class: "line-facts" }, ...tags(page, one), el("span", { class: "faint" }, page.time(one.created_at))));
}

function answer(letter, text) {
  return text && text !== letter ? `${letter}. ${text}` : letter ?? "–";
}

function tags(page, one) {
  const waits = one.provisional && one.ending === null;
  return [
    el("span", { class: "tag", "data-kind": one.route }, icon(one.route === "cloud" ? "cloud" : "device"), page.named("route", one.route)),
    el("span", { class: "tag" }, page.named("reason", one.reason)),
    waits ? el("span", { class: "tag", "data-kind": "waiting" }, icon("waiting"), page.say("kind.waiting")) : null,
    one.ending ? el("span", { class: "tag", "data-kind": one.ending }, page.named("kind", one.ending)) : null,
    one.recalled ? el("span", { class: "tag" }, page.say("time.recalled")) : null,
  ].filter(Boolean);
}

function full(page, one) {
  const reading = typeof one.reading === "object" ? one.reading : null;
  const policy = typeof one.policy === "object" ? one.policy ?? {} : {};
  const cloud = typeof one.cloud_answer === "object" ? one.cloud_answer : null;
  const options = Array.isArray(one.options) ? one.options : [];
  const fact = (name, value) => (value === null || value === undefined || value === "" ? [] : [el("dt", {}, name), el("dd", {}, value)]);
  const decimal = (value) => (typeof value === "number" ? page.words.number(value, { maximumFractionDigits: 4 }) : null);
  const letter = (index) => String.fromCharCode(65 + index);
  const removed = one.cloud_answer === "" || (one.cloud_answer === null && one.cloud_kind === "answered");
  const own = reading ? (reading.letter ?? reading.text) : null;
  return [
    el("h2", { class: "stem" }, one.question),
    el("p", { class: "line-facts" }, ...tags(page, one), el("span", { class: "faint" }, page.time(one.created_at))),
    el("div", { class: "columns" },
      el("section", { class: "panel" }, el("h3", {}, page.say("facts.answers")),
        options.length ? el("ol", { class: "options" }, ...options.map((option, index) =>
          el("li", {}, el("span", { class: "letter" }, letter(index)), el("span", { class: "option" }, String(option)),
            own === letter(index) ? el("span", { class: "tag", "data-kind": "local" }, icon("device"), page.say("facts.device")) : null,
            cloud?.answer === letter(index) ? el("span", { class: "tag", "data-kind": "cloud" }, icon("cloud"), page.say("facts.cloud")) : null,
            (one.final_answer ?? one.answer) === letter(index) ? el("span", { class: "tag", "data-kind": "upheld" }, icon("check"), page.say("facts.final")) : null)))
          : el("dl", { class: "facts" }, ...fact(page.say("facts.device"), own), ...fact(page.say("facts.cloud"), cloud?.answer), ...fact(page.say("facts.final"), one.final_answer ?? one.answer)),
        el("p", {}, page.named("why", one.reason)),
        one.cause && one.cause !== one.reason ? el("p", { class: "faint" }, page.named("cause", one.cause)) : null,
        one.ending ? el("p", {}, page.sentence("ending", one.ending, { time: page.time(one.ended_at) })) : null,
        one.provisional && !one.ending ? el("p", {}, page.say("ending.waits", { number: one.queue_id ?? "–" })) : null,
        one.audit ? el("p", {}, page.say(one.audit.agrees ? "audit.same" : "audit.different", { answer: one.audit.answer ?? "–" })) : null,
        removed ? el("p", { class: "faint" }, page.say("facts.removed")) : null),
      reading && Array.isArray(reading.levels) && reading.levels.length ? el("section", { class: "panel" }, el("h3", {}, page.say("facts.levels")),
        el("p", { class: "lead" }, page.say("facts.levels.text", { level: page.share(Number(reading.level)) })),
        probabilities(reading.levels.map((level, index) => ({ name: page.share(Number(level)), value: Number(reading.level_probs?.[index]) || 0, chosen: level === reading.level })),
          (value) => page.share(value, 1))) : null,
      reading && typeof reading.letters === "string" ? el("section", { class: "panel" }, el("h3", {}, page.say("facts.letters")),
        probabilities([...reading.letters].map((name, index) => ({ name, value: Number(reading.answer_probs?.[index]) || 0, chosen: name === reading.letter })), (value) => page.share(value, 1)),
        cloud?.probs ? el("h4", {}, page.say("facts.cloud.probs")) : null,
        cloud?.probs ? probabilities(Object.entries(cloud.probs).map(([name, value]) => ({ name, value: Number(value) || 0, chosen: name === cloud.answer })), (value) => page.share(value, 1)) : null) : null,
      el("section", { class: "panel" }, el("h3", {}, page.say("facts.rules")),
        el("dl", { class: "facts" },
          ...fact(page.say("facts.policy"), page.named("policy", policy.name)),
          ...fact(page.say("facts.readout"), page.named("readout", policy.readout ?? "confidence")),
          ...fact(page.say("facts.score"), decimal(one.score)),
          ...fact(page.say("facts.tau"), decimal(policy.tau)),
          ...fact(page.say("facts.tie"), policy.tie_share > 0 ? page.share(policy.tie_share, 1) : null),
          ...fact(page.say("facts.calibration"), one.calibration ? one.calibration.slice(0, 12) : page.say("none")),
          ...fact(page.say("facts.mass"), (reading?.format_mass ?? null) !== null ? page.share(reading.format_mass, 1) : null),
          ...fact(page.say("facts.prefill"), reading?.timings ? page.ms(reading.timings.prefill_ms) : null),
          ...fact(page.say("facts.decode"), reading?.timings ? page.ms(reading.timings.decode_ms) : null),
          ...fact(page.say("facts.cloud.model"), cloud?.model),
          ...fact(page.say("facts.cloud.time"), cloud ? page.ms(cloud.latency_ms) : null),
          ...fact(page.say("facts.cloud.reply"), cloud?.reply),
          ...fact(page.say("facts.queue"), one.queue_id),
          ...fact(page.say("facts.id"), one.decision_id)))),
  ];
}
