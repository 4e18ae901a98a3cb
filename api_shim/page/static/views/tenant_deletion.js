// Deletion of everything that a tenant has: its name is written twice, and the receipt tells how far it is.
import { del, get, query } from '../api.js';
import { html, useState } from '../html.js';
import { count, date, none } from '../format.js';
import { Badge, Empty, Field, Notice, Panel, usePoll } from '../parts/controls.js';
import { Dialog } from '../parts/overlays.js';
import { attempt, caller } from '../store.js';

const NAME = '[a-z0-9][a-z0-9._\\-]{0,63}';
const TONES = { running: 'run', done: 'good', incomplete: 'bad' };
const path = (tenant) => `/api/v1/tenants/${encodeURIComponent(tenant)}`;

function Confirm({ tenant, onClose, onBegun }) {
  const [again, write] = useState('');
  const [usage, choose] = useState('keep');
  const remove = async (event) => {
    event.preventDefault();
    if (await attempt(() => del(query(path(tenant), { confirm: again, usage })))) onBegun();
  };
  return html`<${Dialog} title=${`Delete the tenant ${tenant}?`} onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Keep it</button>
      <button type="submit" form="delete-tenant" class="danger" disabled=${again !== tenant}>Delete everything</button>`}>
    <form id="delete-tenant" class="form" onSubmit=${remove}>
      <p>Its keys are revoked, its jobs cancelled; they go with their requests and answers, and so do files, batches, webhooks and cached vectors. Nothing of it can be undone.</p>
      <${Field} label="The tenant's name again"><input required autocomplete="off" spellcheck=${false} value=${again} onInput=${(event) => write(event.target.value)} /><//>
      <label class="check"><input type="checkbox" checked=${usage === 'delete'} onChange=${(event) => choose(event.target.checked ? 'delete' : 'keep')} />Delete its usage as well: accounting keeps it otherwise</label>
    </form><//>`;
}

function Receipt({ of }) {
  const counts = Object.entries(of.counts).sort();
  return html`<p><${Badge} tone=${TONES[of.status]}>${of.status}<//> ${of.tenant}: requested ${date(of.requested_at)} by ${of.requested_by}${of.ended_at ? `, ended ${date(of.ended_at)}` : ''}. Usage is ${of.usage === 'keep' ? 'kept' : 'deleted, too'}.</p>
    ${of.reason && html`<${Notice} tone="bad"><p>${of.reason}</p><//>`}
    ${counts.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label="What was deleted"><table><thead><tr><th>Deleted</th><th class="number">How many</th></tr></thead>
      <tbody>${counts.map(([kind, n]) => html`<tr key=${kind}><td>${kind.replaceAll('_', ' ')}</td><td class="number">${count(n)}</td></tr>`)}</tbody></table></div>`
      : html`<p class="muted small">${of.status === 'running' ? 'Nothing yet.' : 'There was nothing to delete.'}</p>`}`;
}

// The receipt of the last deletion of a tenant; null: it has none.
async function receiptOf(tenant, signal) {
  try {
    return await get(`${path(tenant)}/deletion`, { signal });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function Last({ tenant }) {
  const { value, error, tick } = usePoll((signal) => receiptOf(tenant, signal), 2, [tenant]);
  if (error) return html`<${Notice} tone="bad"><p>${error.message}</p><//>`;
  if (value && value.tenant === tenant) return html`<${Receipt} of=${value} />`;
  return tick && !value ? html`<${Empty} title="No receipt">${tenant} has not been deleted in the last 400 days.<//>` : null;
}

export function DeletionPanel({ names, onChanged }) {
  const [name, write] = useState('');
  const [asked, ask] = useState('');
  const [shown, show] = useState(null);
  const tenant = name.trim();
  const isOwn = tenant === caller.value.tenant.name;
  const submit = (event) => {
    event.preventDefault();
    ask(tenant);
  };
  const receipt = () => show({ tenant, at: Date.now() });
  const begun = () => {
    receipt();
    ask('');
    onChanged();
  };
  return html`<${Panel} title="Delete a tenant">
    <form class="form" onSubmit=${submit}>
      <${Field} label="Tenant" hint=${isOwn ? 'This is your own tenant: an admin of another one can delete it.' : 'Everything that it has; there is a receipt of what it was.'}>
        <input list="tenants" required pattern=${NAME} autocomplete="off" spellcheck=${false} value=${name} onInput=${(event) => write(event.target.value)} /><//>
      <datalist id="tenants">${names.map((each) => html`<option key=${each} value=${each} />`)}</datalist>
      <div class="row"><button type="submit" class="danger" disabled=${!tenant || isOwn}>Delete</button>
        <button type="button" disabled=${!tenant} onClick=${receipt}>Show the receipt</button></div>
    </form>
    ${shown && html`<${Last} key=${shown.at} tenant=${shown.tenant} />`}
    ${asked && html`<${Confirm} tenant=${asked} onClose=${() => ask('')} onBegun=${begun} />`}<//>`;
}
