// Starts the page: the theme, the keyboard, the shell with the view that the address names.
import { effect, html, render } from './html.js';
import { Overlays, help } from './parts/overlays.js';
import { Shell, SignIn } from './parts/shell.js';
import { caller, enter, go, remembered, signIn, theme, watch } from './store.js';

const JUMPS = { o: 'overview', q: 'queues', w: 'workers', b: 'backends', j: 'jobs', s: 'schedules', d: 'dead', f: 'batches', h: 'webhooks', t: 'tenants', p: 'playground' };

function Page() {
  if (!caller.value) return html`<${SignIn} state=${signIn.value} />`;
  return html`<${Shell} /><${Overlays} />`;
}

let jumpUntil = 0;
addEventListener('keydown', (event) => {
  const typing = event.target.closest('input, textarea, select, [contenteditable], dialog');
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !caller.value) return;
  if (Date.now() < jumpUntil && JUMPS[event.key]) {
    go(`/${JUMPS[event.key]}`);
    jumpUntil = 0;
  } else if (event.key === 'g') {
    jumpUntil = Date.now() + 1200;
  } else if (event.key === '/') {
    const search = document.querySelector('input[type="search"]');
    if (search) {
      event.preventDefault();
      search.focus();
    }
  } else if (event.key === '?') {
    help.value = true;
  }
});

effect(() => {
  remembered.value;
  document.documentElement.dataset.theme = theme();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  document.documentElement.dataset.theme = theme();
});

const root = document.getElementById('page');
root.replaceChildren();
render(html`<${Page} />`, root);
enter('');
watch();
