// What lies above a view: dialogs, confirmations, messages, the list of keys.
import { html, signal, useEffect, useRef } from '../html.js';
import { dismiss, toasts } from '../store.js';
import { Icon } from './controls.js';

export const help = signal(false);
const question = signal(null);

// Asks before something that cannot be undone; resolves to whether it was confirmed.
export function confirmed({ title, text, action, danger = true }) {
  return new Promise((resolve) => { question.value = { title, text, action, danger, resolve }; });
}

export function Dialog({ title, onClose, children, footer, wide }) {
  const ref = useRef();
  useEffect(() => {
    const dialog = ref.current;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  return html`<dialog ref=${ref} aria-labelledby="dialog-title" style=${wide ? { width: 'min(46rem, calc(100vw - 2rem))' } : {}}
      onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <header><h2 id="dialog-title">${title}</h2></header>
    <div class="body">${children}</div>
    <footer>${footer}</footer>
  </dialog>`;
}

function Question() {
  const asked = question.value;
  if (!asked) return null;
  const answer = (yes) => {
    question.value = null;
    asked.resolve(yes);
  };
  return html`<${Dialog} title=${asked.title} onClose=${() => answer(false)} footer=${html`
    <button type="button" onClick=${() => answer(false)}>Keep it</button>
    <button type="button" class=${asked.danger ? 'danger' : 'primary'} onClick=${() => answer(true)}>${asked.action}</button>`}>
    <p>${asked.text}</p>
  <//>`;
}

const KEYS = [
  ['g o', 'Overview'], ['g j', 'Jobs'], ['g q', 'Queues'], ['g w', 'Workers'], ['g b', 'Backends and models'],
  ['g s', 'Schedules'], ['g d', 'Dead letters'], ['g f', 'Batches and files'], ['g h', 'Webhooks'], ['g t', 'Tenants and keys'], ['g p', 'Playground'],
  ['/', 'Search in this view'], ['↑ ↓ Enter', 'Move in the list of jobs, open one'], ['Esc', 'Close a dialog'], ['?', 'This list'],
];

function Help() {
  if (!help.value) return null;
  const close = () => { help.value = false; };
  return html`<${Dialog} title="Keyboard" onClose=${close} footer=${html`<button type="button" onClick=${close}>Close</button>`}>
    <div class="keys">${KEYS.map(([keys, text]) => html`<span class="row">${keys.split(' ').map((each) => html`<kbd>${each}</kbd>`)}</span><span>${text}</span>`)}</div>
  <//>`;
}

export function Overlays() {
  return html`<${Question} /><${Help} />
    <div class="toasts" aria-live="polite">${toasts.value.map((each) => html`
      <div key=${each.id} class=${`notice ${each.level}`}>
        <${Icon} name=${each.level === 'bad' ? 'dead' : 'check'} /><p class="grow">${each.text}</p>
        <button type="button" class="quiet tiny" aria-label="Dismiss" onClick=${() => dismiss(each.id)}><${Icon} name="close" /></button>
      </div>`)}</div>`;
}
