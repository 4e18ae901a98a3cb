// Workers: where they run (for admins), what they run, how fast they answer, whether they drain.
import { html } from '../html.js';
import { count, none } from '../format.js';
import { Ago, Badge, Empty, Meter, Panel, View } from '../parts/controls.js';
import { isAdmin, overview } from '../store.js';

function Slots({ queues }) {
  return html`<div class="stack" style=${{ gap: '0.15rem' }}>${queues.map((each) => html`<div class="meter-cell small" key=${each.queue}>
    <span class="muted" style=${{ width: '3.4rem' }}>${each.kind}</span><${Meter} value=${each.running} of=${each.slots} second=${true} label=${`${each.running} of ${each.slots} slots for ${each.kind}`} />
    <span class="number">${count(each.running)}/${count(each.slots)}</span></div>`)}</div>`;
}

export default function Workers() {
  const state = overview.value;
  if (!state) return html`<${View} title="Workers"><p class="starting">Reading the fleet…</p><//>`;
  const versions = new Set(state.workers.map((each) => each.version).filter(Boolean));
  return html`<${View} title="Workers">
    <${Panel} label="Workers" flush=${true}>${state.workers.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of workers"><table>
      <thead><tr><th>Worker</th><th>Backend</th><th>State</th><th>Leases of slots</th>${isAdmin.value && html`<th class="wide">Host, process</th>`}<th class="wide">Started</th><th class="wide">Version</th></tr></thead>
      <tbody>${state.workers.map((each) => html`<tr key=${each.name}><td><span class="name">${each.name}</span></td>
        <td>${each.backends.map((name) => html`<a href=${`#/backends/${name}`}>${name}</a> `)}</td>
        <td>${each.draining ? html`<${Badge} tone="warn">draining<//>` : each.loading.length ? html`<${Badge} tone="run">loading ${each.loading.join(', ')}<//>` : html`<${Badge} tone=${each.running ? 'run' : 'good'}>${each.running ? 'working' : 'idle'}<//>`}</td>
        <td><${Slots} queues=${each.queues} /></td>
        ${isAdmin.value && html`<td class="wide">${each.host ? html`${each.host}, <span class="number">${each.pid}</span>` : none}</td>`}<td class="wide"><${Ago} at=${each.started_at} /></td>
        <td class="wide">${each.version || none}${versions.size > 1 ? html` <${Badge} tone="warn">mixed<//>` : null}</td></tr>`)}</tbody></table></div>`
      : html`<${Empty} title="No worker is live">Start one next to a backend: <code>FLEET_WORKER_BACKEND=box python -m workers</code><//>`}<//>
  <//>`;
}
