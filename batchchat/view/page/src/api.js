// What the page asks its server.

/** A JSON answer; throws an Error with the server's sentence. */
export async function ask(path, parameters = {}, signal = undefined) {
  const response = await fetch(url(path, parameters), { signal, headers: { Accept: "application/json" } });
  const found = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(found.error ?? "the server refused"), { status: response.status });
  return found;
}

export function url(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Calls back with each state of the runs; tells when the server is gone and when it is back. */
export function listen(onState, onConnection) {
  const source = new EventSource("/api/events");
  source.addEventListener("message", (event) => onState(JSON.parse(event.data)));
  source.addEventListener("open", () => onConnection(true));
  source.addEventListener("error", () => onConnection(false));
}
