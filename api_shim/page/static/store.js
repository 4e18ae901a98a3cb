// The state of the page: who is signed in, where it is, and the fleet as it was seen last.
import { Problem, get, key, pause, stream } from './api.js';
import { computed, signal } from './html.js';

const HISTORY = 900;
const REMEMBERED = 'fleet.remembered';

export const caller = signal(null);
export const signIn = signal({ state: 'checking', message: '' });
export const overview = signal(null);
export const link = signal({ state: 'connecting', message: '' });
export const history = signal([]);
export const models = signal(null);
export const aliases = signal([]);
export const toasts = signal([]);
export const route = signal(parsed(location.hash));
// What the state of the fleet and the lists of models, backends and queues need.
export const READ = 'models:read';
export const may = (permission) => Boolean(caller.value && (caller.value.tenant.admin || caller.value.tenant.permissions.includes(permission)));
export const isAdmin = computed(() => Boolean(caller.value && caller.value.tenant.admin));

// Choices that a browser keeps: the theme, the last backend and model. Never a key.
export const remembered = signal(load());

function load() {
  try {
    return JSON.parse(localStorage.getItem(REMEMBERED)) || {};
  } catch {
    return {};
  }
}

export function remember(change) {
  remembered.value = { ...remembered.value, ...change };
  localStorage.setItem(REMEMBERED, JSON.stringify(remembered.value));
}

export function theme() {
  const chosen = remembered.value.theme;
  if (chosen === 'dark' || chosen === 'light') return chosen;
  return matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
}

// A part of an address as it was before it was escaped; as it stands if a hand escaped it wrongly.
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// `#/jobs/abc?status=failed` is {view: 'jobs', rest: ['abc'], query: {status: 'failed'}}.
function parsed(hash) {
  const [path, search] = hash.replace(/^#\/?/, '').split('?');
  const [view, ...rest] = path.split('/').map(decoded);
  return { view: view || 'overview', rest, query: Object.fromEntries(new URLSearchParams(search || '')) };
}

export function go(path) {
  location.hash = path;
}

addEventListener('hashchange', () => { route.value = parsed(location.hash); });

let nextToast = 1;
export function toast(text, level = 'good') {
  const entry = { id: nextToast++, text, level };
  toasts.value = [...toasts.value.slice(-3), entry];
  setTimeout(() => dismiss(entry.id), level === 'bad' ? 12000 : 5000);
}

export function dismiss(id) {
  toasts.value = toasts.value.filter((each) => each.id !== id);
}

// Runs an action and says how it went; returns its value, or undefined if it failed.
export async function attempt(action, success) {
  try {
    const value = await action();
    if (success) toast(success);
    return value;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status === 401) signOut(error.message);
    else toast(error.message, 'bad');
    return undefined;
  }
}

export async function enter(newKey) {
  if (newKey) key.set(newKey.trim());
  signIn.value = { state: 'checking', message: '' };
  try {
    caller.value = await get('/api/v1/caller');
    signIn.value = { state: 'in', message: '' };
  } catch (error) {
    const refused = error.status === 401 || error.status === 403;
    if (refused && newKey) key.clear();
    signIn.value = { state: refused ? 'asking' : 'lost', message: newKey || !refused || error.status === 403 ? error.message : '' };
  }
}

export function signOut(message = '') {
  key.clear();
  caller.value = null;
  overview.value = null;
  history.value = [];
  models.value = null;
  signIn.value = { state: 'asking', message };
}

// Follows the fleet while somebody is signed in and looks at the page.
export async function watch() {
  let failures = 0;
  for (;;) {
    if (!may(READ) || document.hidden) {
      await pause(document.hidden ? 0.5 : 0.05);
      continue;
    }
    const stop = new AbortController();
    const check = setInterval(() => { if (!may(READ) || document.hidden) stop.abort(); }, 1000);
    try {
      for await (const { event, data } of stream('GET', '/api/v1/overview/events', { signal: stop.signal })) {
        failures = 0;
        if (event === 'overview') seen(data);
        else link.value = { state: 'lost', message: data.message };
      }
    } catch (error) {
      if (!stop.signal.aborted && error.status === 401) signOut(error.message);
      if (!stop.signal.aborted && error.status === 403) await enter('');  // its rights have changed
    } finally {
      clearInterval(check);
    }
    if (may(READ) && !stop.signal.aborted) {
      failures += 1;
      if (failures > 1) link.value = { state: 'lost', message: 'The fleet cannot be reached.' };
      await pause(Math.min(5, failures));
    }
  }
}

function seen(state) {
  const before = overview.value;
  overview.value = state;
  link.value = { state: 'live', message: '' };
  const { at, waiting, running, ended_per_s: ended } = state;
  history.value = [...history.value.slice(1 - HISTORY), {
    at, waiting, running, ended: ended || 0, tokens: state.tokens_per_s || 0, first: state.first_token_ms || 0, dead: state.dead || 0,
    memory: state.redis ? state.redis.used_bytes : 0,
  }];
  if (models.value && before && before.roster_revision !== state.roster_revision) refreshModels();
}

export async function refreshModels() {
  const [found, named] = await Promise.all([attempt(() => get('/api/v1/models')), attempt(() => get('/api/v1/aliases'))]);
  if (named) aliases.value = named.aliases;
  if (found) models.value = found.models;
}

// The models, fetched once and then whenever the roster changes.
export function useModels(useEffect) {
  useEffect(() => { if (!models.value && may(READ)) refreshModels(); }, []);
  return models.value;
}
