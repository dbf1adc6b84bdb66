// Keeps the files of the visitor's page, so that a reload while the server is gone shows "back in a moment" and not the browser's error page.
// Owns the cache of files. Invariant: only what is listed here is kept, so no question, answer or event ever is.

const CACHE = "edge-agent-pages-1";
const KEPT = [
  "/", "/kiosk/deck", "/kiosk/visitor.js", "/kiosk/answer.js", "/kiosk/idle.js", "/kiosk/keyboard.js",
  "/kiosk/page.js", "/kiosk/server.js", "/kiosk/words.js", "/kiosk/write.js", "/kiosk/icons.svg", "/kiosk/icon.svg", "/kiosk/words/en.json",
  "/kiosk/words/kk.json", "/kiosk/words/ru.json", "/kiosk/fonts/golos-latin.woff2", "/kiosk/fonts/golos-latin-ext.woff2",
  "/kiosk/fonts/golos-cyrillic.woff2", "/kiosk/fonts/golos-cyrillic-ext.woff2",
];

self.addEventListener("install", (event) => {
  // Questions and events go past this worker, which would have to be started first: a browser ends it after half a minute of rest.
  event.addRoutes?.({ condition: { or: [{ urlPattern: "/edge/*" }, { urlPattern: "/health" }] }, source: "network" });
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(KEPT)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = caches.keys().then((names) => Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name))));
  event.waitUntil(old.then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method === "GET" && url.origin === location.origin && KEPT.includes(url.pathname)) {
    event.respondWith(fresh(event.request, url.pathname));
  }
});

// The server's file if it answers, otherwise the one that was kept.
async function fresh(request, path) {
  const cache = await caches.open(CACHE);
  try {
    const reply = await fetch(request);
    if (reply.status === 200) await cache.put(path, reply.clone());
    else if (reply.status >= 500) return (await cache.match(path)) ?? reply;
    return reply;
  } catch (error) {
    const kept = await cache.match(path);
    if (kept) return kept;
    throw error;
  }
}
