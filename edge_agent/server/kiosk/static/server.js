// What the page says to its server: questions, drafts, and the events that come back.
// Owns the connections. Invariant: what a visitor wrote goes into the body of a request, never into an address or into storage.

const HEALTH_EVERY_MS = 1000;
const ASK_TIMEOUT_MS = 90_000;
const DRAFT_AFTER_MS = 80; // after the last letter
const OPEN_AGAIN_MS = 2000;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function askQuestion(question, options) {
  const reply = await fetch("/edge/ask", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(options.length ? { question, options } : { question }),
    signal: AbortSignal.timeout(ASK_TIMEOUT_MS),
  });
  const data = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Refused(reply.status, data?.error?.message ?? "");
  return data;
}

export async function isHealthy() {
  try {
    const reply = await fetch("/health", { cache: "no-store", signal: AbortSignal.timeout(3000) });
    return reply.ok;
  } catch {
    return false;
  }
}

// Resolves when the server answers again.
export async function untilHealthy() {
  while (!(await isHealthy())) await new Promise((done) => setTimeout(done, HEALTH_EVERY_MS));
}

// What is typed so far, read ahead by the model. The server forgets it when the connection ends.
export class Draft {
  constructor() {
    this.socket = null;
    this.next = null;
    this.timer = 0;
  }

  send(text, options, complete = false) {
    this.next = JSON.stringify(options.length ? { text, options, complete } : { text, complete });
    if (!this.socket || this.socket.readyState > WebSocket.OPEN) {
      this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/edge/draft`);
      this.socket.addEventListener("open", () => this.flush());
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), DRAFT_AFTER_MS);
  }

  flush() {
    if (this.next !== null && this.socket?.readyState === WebSocket.OPEN) {
      this.socket.send(this.next);
      this.next = null;
    }
  }

  // Send nothing more: the question itself is asked now. What the model has read stays read.
  hold() {
    clearTimeout(this.timer);
    this.next = null;
  }

  forget() {
    this.hold();
    this.socket?.close();
    this.socket = null;
  }
}

// The stream of events: the state of the network, and how the named decisions end.
export class Events {
  constructor({ state, ending, gone, lost }) {
    this.handlers = { state, ending, gone };
    this.lost = lost;
    this.ids = [];
    this.stream = null;
    this.timer = 0;
    this.open();
  }

  // Hear how this decision ends, and of no other.
  follow(id) {
    this.ids = [id];
    this.open();
  }

  forget() {
    if (this.ids.length) {
      this.ids = [];
      this.open();
    }
  }

  open() {
    this.stream?.close();
    clearTimeout(this.timer);
    const stream = new EventSource(this.ids.length ? `/edge/events?ids=${this.ids.join(",")}` : "/edge/events");
    for (const [name, handle] of Object.entries(this.handlers)) {
      stream.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    }
    stream.addEventListener("error", () => {
      this.lost();
      if (stream.readyState === EventSource.CLOSED) this.timer = setTimeout(() => this.open(), OPEN_AGAIN_MS);
    });
    this.stream = stream;
  }
}
