// The one client of the API: calls, event streams, and a job's events with late join and resume.

const KEY = 'fleet.key';
const LAST = new Set(['done', 'failed', 'cancelled']);

export const key = {
  get: () => sessionStorage.getItem(KEY) || '',
  set: (value) => sessionStorage.setItem(KEY, value),
  clear: () => sessionStorage.removeItem(KEY),
};

// An error that the fleet has sent, or the loss of the connection (status 0).
export class Problem extends Error {
  constructor(status, body) {
    const said = body && (body.detail || (body.error && (body.error.message || body.error)));
    super(typeof said === 'string' ? said : `The fleet answered ${status || 'nothing'}.`);
    this.status = status;
    this.code = (body && (body.code || (body.error && body.error.code))) || '';
    this.body = body;
  }
}

async function send(method, path, { body, signal, accept, headers } = {}) {
  const sent = { ...headers };
  if (key.get()) sent.Authorization = `Bearer ${key.get()}`;
  if (accept) sent.Accept = accept;
  if (body !== undefined && !(body instanceof FormData)) sent['Content-Type'] = 'application/json';
  const data = body === undefined || body instanceof FormData ? body : JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { method, body: data, signal, headers: sent });
  } catch (error) {
    if (signal && signal.aborted) throw error;
    throw new Problem(0, { detail: 'The fleet cannot be reached.' });
  }
  if (response.ok) return response;
  throw new Problem(response.status, await response.json().catch(() => null));
}

export async function call(method, path, body, options = {}) {
  const response = await send(method, path, { ...options, body });
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => call('GET', path, undefined, options);
export const post = (path, body, options) => call('POST', path, body, options);
export const patch = (path, body, options) => call('PATCH', path, body, options);
export const put = (path, body, options) => call('PUT', path, body, options);
export const del = (path, options) => call('DELETE', path, undefined, options);

// The path with those fields of a query that are set.
export function query(path, fields) {
  const set = Object.entries(fields).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  return set.length ? `${path}?${new URLSearchParams(set)}` : path;
}

// Saves what a path returns as a file; the key goes in a header, so a plain link would not do.
export async function download(path, name) {
  const blob = await (await send('GET', path)).blob();
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Server-sent events of one response, as {event, id, data} with data parsed.
export async function* stream(method, path, { body, signal } = {}) {
  const response = await send(method, path, { body, signal, accept: 'text/event-stream' });
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        if (signal && signal.aborted) throw error;
        throw new Problem(0, { detail: 'The stream was cut off.' });
      });
      if (done) return;
      rest += value;
      const blocks = rest.split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        const found = fields(block);
        if (found.data) yield { ...found, data: JSON.parse(found.data) };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function fields(block) {
  const found = {};
  for (const line of block.split('\n')) {
    const at = line.indexOf(': ');
    if (at > 0) found[line.slice(0, at)] = line.slice(at + 2);
  }
  return found;
}

export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    if (signal) signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

// Resolves when the tab is seen, or at once when `signal` is aborted.
function seen(signal) {
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener('visibilitychange', look);
      resolve();
    };
    document.addEventListener('visibilitychange', look);
    signal.addEventListener('abort', look, { once: true });
    look();
  });
}

// What ends with `signal`, and when the tab is hidden.
function sight(signal) {
  const control = new AbortController();
  const look = () => { if (document.hidden || signal.aborted) control.abort(); };
  document.addEventListener('visibilitychange', look, { signal: control.signal });
  signal.addEventListener('abort', look, { signal: control.signal });
  look();
  return control;
}

// Every event of a job, from the beginning, until its terminal event; reconnects by its cursor. A
// hidden tab holds no connection, because all tabs of a browser share six; `always` holds it.
export async function* follow(jobId, signal, { always = false } = {}) {
  let after = '';
  let failures = 0;
  while (!signal.aborted) {
    if (!always) await seen(signal);
    const open = always ? { signal, abort() {} } : sight(signal);
    try {
      for await (const { data } of stream('GET', query(`/api/v1/jobs/${jobId}/events`, { after }), { signal: open.signal })) {
        failures = 0;
        if (data.type === 'log_reset') after = '';
        else if (data.id) after = data.id;
        yield data;
        if (LAST.has(data.type)) return;
      }
      if (after && !failures) failures += 1;
      const record = await get(query(`/api/v1/jobs/${jobId}`, { result: false }), { signal });
      if (LAST.has(record.status) && failures > 3) return;
    } catch (error) {
      if (signal.aborted) return;
      if (open.signal.aborted) continue;
      if (error.status >= 400 && error.status < 500) throw error;
      failures += 1;
    } finally {
      open.abort();
    }
    await pause(Math.min(5, 0.25 * 2 ** Math.min(failures, 6)), signal);
  }
}

export const isOver = (status) => LAST.has(status);
