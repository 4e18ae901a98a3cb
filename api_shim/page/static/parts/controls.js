// Small parts that every view is made of. Text from the fleet is only ever a text node here.
import { html, useEffect, useState } from '../html.js';
import { ago, date, none } from '../format.js';
import { toast } from '../store.js';

const PATHS = {
  overview: 'M3 12h4l3-8 4 16 3-8h4',
  queues: 'M4 6h16M4 12h11M4 18h6',
  workers: 'M4 5h16v6H4zM4 13h16v6H4zM8 8h.01M8 16h.01',
  backends: 'M12 3 4 7l8 4 8-4zM4 12l8 4 8-4M4 17l8 4 8-4',
  jobs: 'M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01',
  schedules: 'M12 7v5l3 3M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z',
  dead: 'M12 9v4M12 17h.01M10.3 3.9 2.4 18a2 2 0 0 0 1.7 3h15.8a2 2 0 0 0 1.7-3L13.7 3.9a2 2 0 0 0-3.4 0z',
  batches: 'M4 4h6l2 3h8v13H4zM4 10h16',
  webhooks: 'M4 12h11M11 8l4 4-4 4M20 5v14',
  tenants: 'M16 20v-2a4 4 0 0 0-8 0v2M12 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z',
  playground: 'M21 12a8 8 0 0 1-11.6 7.1L4 20l1-4.6A8 8 0 1 1 21 12z',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  close: 'M6 6l12 12M18 6 6 18',
  check: 'M5 12l5 5L19 7',
  play: 'M8 5v14l11-7z',
  pause: 'M8 5v14M16 5v14',
  stop: 'M7 7h10v10H7z',
  sun: 'M12 4V2M12 22v-2M4 12H2M22 12h-2M6 6 4.6 4.6M19.4 19.4 18 18M18 6l1.4-1.4M4.6 19.4 6 18M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8z',
  moon: 'M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z',
  out: 'M15 4h4v16h-4M10 8l-4 4 4 4M6 12h9',
  more: 'M12 5v14M5 12h14',
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;
}

const TONES = {
  scheduled: 'hollow', queued: 'hollow', running: 'run', done: 'good', failed: 'bad', cancelled: '', dead: 'bad',
  validating: 'run', in_progress: 'run', finalizing: 'run', completed: 'good', expired: 'warn', cancelling: 'warn',
};

export function Status({ of }) {
  return html`<span class=${`badge ${TONES[of] ?? ''}`}>${of.replace('_', ' ')}</span>`;
}

export function Badge({ tone = '', children }) {
  return html`<span class=${`badge ${tone}`}>${children}</span>`;
}

export function View({ title, name = title, actions, children }) {
  useEffect(() => { document.title = `${name} · llm-fleet`; }, [name]);
  return html`<div class="view">
    <div class="view-head"><h1>${title}</h1>${actions && html`<div class="actions">${actions}</div>`}</div>
    ${children}
  </div>`;
}

export function Panel({ title, actions, flush, children, label }) {
  return html`<section class="panel" aria-label=${label || (typeof title === 'string' ? title : undefined)}>
    ${title && html`<header>${typeof title === 'string' ? html`<h2>${title}</h2>` : title}${actions && html`<div class="actions">${actions}</div>`}</header>`}
    <div class=${flush ? 'body flush' : 'body'}>${children}</div>
  </section>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><strong>${title}</strong>${children && html`<p>${children}</p>`}</div>`;
}

export function Field({ label, hint, children }) {
  return html`<label class="field"><span>${label}</span>${children}${hint && html`<span class="hint">${hint}</span>`}</label>`;
}

export function Select({ label, value, options, onChange, hidden = true, ...rest }) {
  const list = options.map((each) => (Array.isArray(each) ? each : [each, each]));
  return html`<label class=${hidden ? '' : 'field'}>
    <span class=${hidden ? 'hidden-label' : ''}>${label}</span>
    <select value=${value} onChange=${(event) => onChange(event.target.value)} ...${rest}>
      ${list.map(([each, text]) => html`<option value=${each} selected=${each === value}>${text}</option>`)}
    </select>
  </label>`;
}

export function Search({ label, value, onInput }) {
  return html`<label class="search"><span class="hidden-label">${label}</span>
    <input type="search" placeholder=${label} value=${value} onInput=${(event) => onInput(event.target.value)} /></label>`;
}

export function Meter({ value, of, label, second }) {
  const share = of ? Math.min(1, value / of) : 0;
  return html`<span class="meter" role="img" aria-label=${label}><span class=${second ? 'second' : ''} style=${{ width: `${share * 100}%` }}></span></span>`;
}

export function Ago({ at }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 5000);
    return () => clearInterval(timer);
  }, []);
  return at ? html`<time title=${date(at)}>${ago(at)}</time>` : html`<span>${none}</span>`;
}

export function Copy({ text, label = 'Copy' }) {
  const copied = async () => {
    const value = await text();
    if (value === undefined) return;
    try {
      await navigator.clipboard.writeText(value);
      toast('Copied.');
    } catch {
      toast('The browser did not allow copying.', 'bad');
    }
  };
  return html`<button type="button" onClick=${copied}><${Icon} name="copy" />${label}</button>`;
}

export function Tabs({ label, tabs, value, onChange }) {
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = tabs.findIndex(([each]) => each === value);
    const next = tabs[(at + step + tabs.length) % tabs.length][0];
    onChange(next);
    event.currentTarget.querySelector(`[data-tab="${next}"]`).focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${label} onKeyDown=${move}>
    ${tabs.map(([each, text]) => html`<button type="button" role="tab" data-tab=${each} aria-selected=${String(each === value)}
      tabindex=${each === value ? 0 : -1} onClick=${() => onChange(each)}>${text}</button>`)}
  </div>`;
}

export function Notice({ tone = '', icon = 'dead', children, action }) {
  return html`<div class=${`notice ${tone}`} role=${tone === 'bad' ? 'alert' : 'status'}>
    <${Icon} name=${icon} /><div class="grow">${children}</div>${action}</div>`;
}

// Polls while the view is open and visible; keeps the last value when a poll fails.
export function usePoll(read, everyS, depends = []) {
  const [state, set] = useState({ value: null, error: null, tick: 0 });
  const [asked, ask] = useState(0);
  useEffect(() => {
    let over = false;
    let timer = 0;
    const stop = new AbortController();
    const look = async () => {
      if (!document.hidden) {
        try {
          const value = await read(stop.signal);
          if (!over) set((old) => ({ value, error: null, tick: old.tick + 1 }));
        } catch (error) {
          if (!over) set((old) => ({ ...old, error }));
        }
      }
      if (!over) timer = setTimeout(look, everyS * 1000);
    };
    look();
    return () => {
      over = true;
      stop.abort();
      clearTimeout(timer);
    };
  }, [...depends, asked]);
  return { ...state, again: () => ask((n) => n + 1) };
}
