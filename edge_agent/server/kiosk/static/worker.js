// Keeps the pages themselves, so that a reload while the server is gone shows "back in a moment" and not the browser's error page.
// Owns the cache of files. Invariant: no question, answer or event is ever kept.

const CACHE = "edge-agent-pages-1";
const KEPT = (url) => url.pathname === "/" || (url.pathname.startsWith("/kiosk/") && url.search === "");
const SHELL = [
  "/", "/kiosk/look.css", "/kiosk/visitor.css", "/kiosk/visitor.js", "/kiosk/idle.js", "/kiosk/keyboard.js", "/kiosk/page.js",
  "/kiosk/server.js", "/kiosk/words.js", "/kiosk/icons.svg", "/kiosk/icon.svg", "/kiosk/deck", "/kiosk/words/en.json",
  "/kiosk/words/kk.json", "/kiosk/words/ru.json", "/kiosk/fonts/golos-latin.woff2", "/kiosk/fonts/golos-latin-ext.woff2",
  "/kiosk/fonts/golos-cyrillic.woff2", "/kiosk/fonts/golos-cyrillic-ext.woff2",
];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(SHELL)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = caches.keys().then((names) => Promise.all(names.filter((name) => name !== CACHE).map((name) => caches.delete(name))));
  event.waitUntil(old.then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin || !KEPT(url)) return;
  event.respondWith(fresh(event.request));
});

// The server's file if it answers, otherwise the one that was kept.
async function fresh(request) {
  const cache = await caches.open(CACHE);
  try {
    const reply = await fetch(request);
    if (reply.ok) await cache.put(request.url, reply.clone());
    return reply;
  } catch (error) {
    const kept = await cache.match(request.url);
    if (kept) return kept;
    throw error;
  }
}
