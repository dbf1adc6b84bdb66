// What the operator's page asks its server, always with the operator's token.
// Owns the token and every connection. Invariants: the token goes into a header, never into an address; it is in memory, and in this tab's
// storage only if the operator wished so; after `forget` no reply is used any more.

const KEY = "edge-agent-operator-token";
const AGAIN_MS = 2000;
const TIMEOUT_MS = 60_000;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  // `onDenied` is called with a sentence when the server does not take the token.
  constructor(onDenied) {
    this.token = sessionStorage.getItem(KEY);
    this.onDenied = onDenied;
    this.ended = new AbortController();
  }

  get isSignedIn() {
    return this.token !== null;
  }

  signIn(token, keep) {
    this.token = token;
    if (keep) sessionStorage.setItem(KEY, token);
  }

  forget() {
    this.token = null;
    sessionStorage.removeItem(KEY);
    this.ended.abort();
    this.ended = new AbortController();
  }

  async get(path, values = {}, signal = null) {
    const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== "")).toString();
    return this.reply("GET", query ? `${path}?${query}` : path, signal);
  }

  async post(path) {
    return this.reply("POST", path, null);
  }

  async reply(method, path, signal) {
    const ended = this.ended.signal;
    const signals = [ended, AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])];
    const reply = await fetch(path, { method, headers: this.headers(), cache: "no-store", signal: AbortSignal.any(signals) });
    const data = await reply.json().catch(() => ({}));
    if (ended.aborted) throw new DOMException("signed out", "AbortError");
    if (reply.ok) return data;
    const refused = new Refused(reply.status, data?.error?.message ?? "");
    if (reply.status === 401 || reply.status === 403) this.onDenied(reply.status === 401 ? "" : refused.message);
    throw refused;
  }

  headers() {
    return { Authorization: `Bearer ${this.token}` };
  }

  // Reads the stream of events until the operator signs out; EventSource cannot send a token.
  // `heard` gets the name and the data of each event, `lost` is called when the connection ends.
  async follow(heard, lost) {
    const ended = this.ended.signal;
    let last = null;
    while (!ended.aborted) {
      try {
        const headers = last === null ? this.headers() : { ...this.headers(), "Last-Event-ID": last };
        const reply = await fetch("/edge/events", { headers, cache: "no-store", signal: ended });
        if (reply.status === 401 || reply.status === 403) return this.onDenied(reply.status === 401 ? "" : (await reply.json())?.error?.message ?? "");
        if (reply.ok) for await (const event of events(reply.body)) {
          last = event.id ?? last;
          heard(event.event, JSON.parse(event.data));
        }
      } catch { /* the server is gone, or the operator is */ }
      if (ended.aborted) return;
      lost();
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

// The events of a stream, each as an object of its fields.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
      const fields = {};
      for (const line of text.slice(0, end).split("\n")) {
        const colon = line.indexOf(": ");
        if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
      }
      text = text.slice(end + 2);
      if (fields.data) yield fields;
    }
  }
}
