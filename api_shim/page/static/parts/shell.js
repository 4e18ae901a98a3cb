// The frame around every view: navigation, theme, who is signed in; and the form to sign in.
import { html, useEffect, useLayoutEffect, useRef, useState } from '../html.js';
import { count } from '../format.js';
import { caller, enter, isAdmin, link, may, overview, READ, remember, route, signOut, theme } from '../store.js';
import { Field, Icon, Notice, View } from './controls.js';
import { help } from './overlays.js';

const VIEWS = {
  overview: ['Overview', () => import('../views/overview.js')],
  queues: ['Queues', () => import('../views/queues.js')],
  workers: ['Workers', () => import('../views/workers.js')],
  backends: ['Backends', () => import('../views/backends.js')],
  jobs: ['Jobs', () => import('../views/jobs.js')],
  schedules: ['Schedules', () => import('../views/schedules.js')],
  dead: ['Dead letters', () => import('../views/dead.js')],
  batches: ['Batches', () => import('../views/batches.js')],
  webhooks: ['Webhooks', () => import('../views/webhooks.js')],
  tenants: ['Tenants', () => import('../views/tenants.js')],
  playground: ['Playground', () => import('../views/playground.js')],
};
// Of views that need a permission: one of these.
const NEEDS = {
  overview: [READ], queues: [READ], workers: [READ], backends: [READ], playground: [READ], batches: ['batches', 'files'], webhooks: ['webhooks'],
};
const isOpen = (name) => !NEEDS[name] || NEEDS[name].some(may);
const GAPS = new Set(['queues', 'jobs', 'tenants', 'playground']);
const base = document.querySelector('link[rel="icon"]').href;

function counts(state) {
  if (!state) return {};
  const scheduled = state.queues.reduce((sum, each) => sum + each.scheduled, 0);
  return {
    overview: state.concerns.length || '',
    queues: state.waiting ? count(state.waiting) : '',
    workers: state.workers.length,
    backends: state.backends.length,
    schedules: scheduled ? count(scheduled) : '',
    dead: state.dead ? count(state.dead) : '',
  };
}

function Navigation({ current }) {
  const numbers = counts(overview.value);
  const nav = useRef();
  // On a phone the views are a row that scrolls.
  useEffect(() => {
    const here = nav.current.querySelector('[aria-current]');
    nav.current.scrollTo({ left: here.offsetLeft - nav.current.offsetLeft - (nav.current.clientWidth - here.clientWidth) / 2 });
  }, [current]);
  return html`<nav class="nav" aria-label="Views" ref=${nav}>
    ${Object.keys(VIEWS).filter((name) => isOpen(name) || name === current).map((name) => html`
      ${GAPS.has(name) && html`<div class="gap"></div>`}
      <a href=${`#/${name}`} aria-current=${name === current ? 'page' : undefined}>
        <${Icon} name=${name} /><span>${name === 'tenants' && !isAdmin.value ? 'Usage' : VIEWS[name][0]}</span>
        ${numbers[name] ? html`<span class="count">${numbers[name]}</span>` : null}
      </a>`)}
  </nav>`;
}

function Foot() {
  const dark = theme() === 'dark';
  const { tenant, needs_key: needsKey } = caller.value;
  const live = link.value.state;
  const tone = { live: 'good', lost: 'bad', connecting: 'warn' }[live];
  return html`<div class="side-foot">
    ${may(READ) && html`<div class="line"><span class=${`badge ${tone}`} role="status">${live === 'live' ? 'live' : live === 'lost' ? 'not connected' : 'connecting'}</span></div>`}
    <div class="line">
      <span class="who cut" title=${tenant.name}>${tenant.name}${tenant.admin && needsKey ? ', admin' : ''}</span>
      <span class="grow"></span>
      <button type="button" class="quiet tiny medium" aria-label="Keyboard shortcuts" title="Keyboard shortcuts" onClick=${() => { help.value = true; }}>?</button>
      <button type="button" class="quiet tiny" aria-label=${dark ? 'Light theme' : 'Dark theme'} title=${dark ? 'Light theme' : 'Dark theme'}
        onClick=${() => remember({ theme: dark ? 'light' : 'dark' })}><${Icon} name=${dark ? 'sun' : 'moon'} /></button>
      ${needsKey && html`<button type="button" class="quiet tiny" aria-label="Sign out" title="Sign out" onClick=${() => signOut()}><${Icon} name="out" /></button>`}
    </div>
  </div>`;
}

function useView(name) {
  const [loaded, set] = useState({});
  useEffect(() => {
    let over = false;
    VIEWS[name][1]().then(
      (module) => { if (!over) set({ name, View: module.default }); },
      () => { if (!over) set({ name, failed: true }); },
    );
    return () => { over = true; };
  }, [name]);
  return loaded;
}

export function Shell() {
  const { view, rest, query } = route.value;
  const asked = VIEWS[view] ? view : 'overview';
  const name = asked === 'overview' && !isOpen(asked) ? 'jobs' : asked;
  const loaded = useView(name);
  const main = useRef();
  const seen = useRef('');
  const place = [name, ...rest].join('/');
  useLayoutEffect(() => {
    if (seen.current && seen.current !== place && main.current) {
      main.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    seen.current = place;
  }, [place]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Skip to the content</a>
    <div class="shell">
      <div class="side" role="banner">
        <a class="brand" href="#/overview" aria-label="llm-fleet, overview"><img src=${base} alt="" /><span>llm-fleet</span></a>
        <${Navigation} current=${name} />
        <${Foot} />
      </div>
      <main class="main" id="main" tabindex="-1" ref=${main}>
        ${may(READ) && link.value.state === 'lost' && html`<div class="view"><${Notice} tone="bad">
          <p><strong>Not live.</strong> ${link.value.message} What you see is from before; the page tries again by itself.</p><//><br /></div>`}
        ${loaded.failed ? html`<${Notice} tone="bad"><p>This view could not be loaded: the fleet may have been upgraded. Reload the page.</p><//>` : null}
        ${!isOpen(name) ? html`<${View} title=${VIEWS[name][0]}><${Notice} tone="warn"><p>Your key lacks the permission <code>${NEEDS[name].join(' or ')}</code>: an admin can give it.</p><//><//>` : loaded.View && loaded.name === name ? html`<${loaded.View} key=${name} rest=${rest} query=${query} />` : null}
      </main>
    </div>`;
}

export function SignIn({ state }) {
  const [value, set] = useState('');
  if (state.state === 'checking') {
    return html`<p class="starting">Connecting…</p>`;
  }
  const submit = (event) => {
    event.preventDefault();
    enter(value);
  };
  return html`<div class="sign-in"><main class="panel">
    <div class="brand"><img src=${base} alt="" /><span>llm-fleet</span></div>
    <div class="stack"><h1>Sign in</h1>
      <p class="muted">With an API key of this fleet, or a token of your identity provider, if the fleet takes these. It is kept in this tab only, and forgotten when you close it.</p></div>
    ${state.message && html`<${Notice} tone="bad"><p>${state.message}</p><//>`}
    <form class="form" onSubmit=${submit}>
      <${Field} label="API key or token"><input type="password" name="key" autocomplete="off" spellcheck=${false} required autofocus
        placeholder="flk_… or ey…" value=${value} onInput=${(event) => set(event.target.value)} /><//>
      <button class="primary">Sign in</button>
    </form>
    ${state.state === 'lost' && html`<button type="button" onClick=${() => enter('')}>Try again</button>`}
  </main></div>`;
}
