// An answer: what was said, how sure the model is, where it came from, and what the bigger model said later.
// Owns the picture of a decision. Changes nothing.

import { el, icon, letter, LETTERS } from "/kiosk/page.js";

// The section for `{ decision, text, options, ending }`.
export function answerView({ decision, text, options, ending }, words) {
  const say = (key, values) => words.say(key, values);
  const overturned = ending?.ending === "overturned";
  const final = overturned ? ending.final_answer : decision.answer;
  return el("section", { class: "answer", "data-ending": ending?.ending ?? "" },
    el("h2", { class: "unseen" }, say("answer.heading")),
    el("div", { class: "said" },
      el("p", { class: "question" }, text),
      overturned && el("p", { class: "settled" }, icon("cloud"), say("answer.overturned")),
      el("p", { class: "result" }, ...face(final, options)),
      overturned ? el("p", { class: "before" }, say("answer.before", { answer: named(decision.answer, options) })) : sureness(decision, ending, words),
      el("p", { class: "source" }, ...source(decision, ending, words)),
      promise(decision, ending, say)));
}

// What a screen reader says of it.
export function spoken({ decision, options, ending }, words) {
  const parts = [`${words.say("answer.heading")}: ${named(ending?.final_answer ?? decision.answer, options)}.`];
  if (ending) parts.push(words.say(`answer.${ending.ending}`));
  else if (isMeasured(decision)) parts.push(`${words.say(isSure(decision) ? "answer.sure" : "answer.unsure")}.`);
  if (decision.provisional && !ending && decision.reason !== "no_cloud") parts.push(words.say("answer.first"));
  return parts.join(" ");
}

// The answer in large type: its letter and its text, or the text alone.
function face(answer, options) {
  const at = LETTERS.indexOf(answer);
  const option = options[at];
  return option === undefined ? [el("span", {}, answer)] : [letter(at), el("span", {}, option)];
}

const named = (answer, options) => options[LETTERS.indexOf(answer)] ?? answer;

// Whether it is known how sure the model on this device is: it says so, or a calibration does; without one, a plain model is not sure.
const isMeasured = ({ route, confidence, score, cause }) =>
  route === "local" && (confidence !== null || (score ?? null) !== null || cause === "no_confidence");

// Sure means: not below the threshold, whoever was asked.
const isSure = ({ score, tau, cause }) => cause !== "unsure" && cause !== "no_confidence" && (score ?? 1) >= (tau ?? 0);

function sureness(decision, ending, words) {
  if (!isMeasured(decision) || ending?.ending === "upheld") return null; // what was checked is sure now
  const share = decision.confidence;
  const lit = Math.round(share * 4) + 1; // one for each of the five levels
  return el("p", { class: "sureness", "data-sure": String(isSure(decision)) },
    el("strong", {}, words.say(isSure(decision) ? "answer.sure" : "answer.unsure")),
    share === null ? null : el("span", { class: "meter", role: "img", "aria-label": words.say("answer.level", { percent: words.percent(share) }) },
      ...[1, 2, 3, 4, 5].map((n) => el("i", { class: n <= lit ? "lit" : null }))));
}

function source(decision, ending, words) {
  if (decision.route === "cloud" || ending?.ending === "overturned") return [icon("cloud"), words.say("answer.cloud")];
  if (decision.recalled) return [icon("device"), words.say("answer.remembered")];
  return [icon("device"), words.say("answer.here", { time: words.seconds(decision.timings.total_ms) })];
}

function promise(decision, ending, say) {
  if (ending?.ending === "overturned") return null;
  if (ending?.ending === "upheld") return el("p", { class: "settled" }, icon("check"), say("answer.upheld"));
  if (ending) return el("p", { class: "plain" }, say("answer.abandoned"));
  if (decision.reason === "no_cloud") return el("p", { class: "plain" }, say("answer.alone"));
  if (decision.provisional) return el("p", { class: "promise" }, icon("waiting"), say("answer.first"));
  if (decision.reason === "never_send") return el("p", { class: "plain" }, say("answer.stays"));
  return null;
}
