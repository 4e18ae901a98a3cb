// Tenants with their shares, usage and limits, and API keys: made here, shown once, revoked here.
import { del, get, post } from '../api.js';
import { html, useState } from '../html.js';
import { count, date, many, none } from '../format.js';
import { Ago, Badge, Copy, Empty, Field, Icon, Meter, Notice, Panel, usePoll, View } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { attempt, enter, isAdmin, overview } from '../store.js';
import { UsagePanels } from './usage.js';

const LIMITS = ['limit_jobs', 'limit_tokens', 'limit_tokens_minute', 'limit_tokens_day', 'limit_spend_day', 'limit_spend_month'];
const EXPIRES = [['', 'Never'], ['86400', 'In a day'], ['2592000', 'In 30 days'], ['7776000', 'In 90 days'], ['31536000', 'In a year']];

function waitingOf(state) {
  const waiting = new Map();
  for (const queue of state ? state.queues : []) {
    for (const [name, jobs] of Object.entries(queue.tenants || {})) waiting.set(name, (waiting.get(name) || 0) + jobs);
  }
  return waiting;
}

function Tenants({ keys }) {
  const waiting = waitingOf(overview.value);
  const names = [...new Set([...keys.map((each) => each.tenant), ...waiting.keys()])].sort();
  const weights = new Map(names.map((name) => [name, Math.max(0, ...keys.filter((each) => each.tenant === name).map((each) => each.weight)) || 1]));
  const sum = [...weights.values()].reduce((a, b) => a + b, 0);
  if (!names.length) return html`<${Empty} title="One tenant">Without API keys all jobs belong to the tenant <code>default</code>.<//>`;
  return html`<div class="scroll-x"><table><thead><tr><th>Tenant</th><th class="number">Weight</th><th>Share if all wait</th><th class="number">Waiting</th><th class="medium number">Keys</th><th class="medium">Bounds in a queue</th></tr></thead>
    <tbody>${names.map((name) => {
      const own = keys.filter((each) => each.tenant === name);
      const jobs = own.map((each) => each.limit_jobs).find(Boolean);
      const tokens = own.map((each) => each.limit_tokens).find(Boolean);
      const share = weights.get(name) / sum;
      return html`<tr key=${name}><td><a class="name" href=${`#/jobs?tenant=${encodeURIComponent(name)}`}>${name}</a></td><td class="number">${weights.get(name)}</td>
        <td><div class="meter-cell"><${Meter} value=${share} of=${1} label=${`${Math.round(100 * share)} percent`} /><span class="number small">${Math.round(100 * share)} %</span></div></td>
        <td class="number">${count(waiting.get(name) || 0)}</td><td class="medium number">${own.length}</td>
        <td class="medium">${[jobs && many(jobs, 'job'), tokens && many(tokens, 'token')].filter(Boolean).join(', ') || none}</td></tr>`;
    })}</tbody></table></div>`;
}

function Create({ first, onClose, onChanged }) {
  const [fields, set] = useState({ tenant: '', name: '', weight: '1', limit_jobs: '', limit_tokens: '', limit_tokens_minute: '', limit_tokens_day: '', limit_spend_day: '', limit_spend_month: '', expires_in_s: '', admin: first });
  const [issued, show] = useState(null);
  const input = (name, rest) => html`<input value=${fields[name]} onInput=${(event) => set({ ...fields, [name]: event.target.value })} ...${rest} />`;
  const create = async (event) => {
    event.preventDefault();
    const numbers = ['weight', ...LIMITS, 'expires_in_s'].filter((name) => fields[name] !== '').map((name) => [name, Number(fields[name])]);
    const made = await attempt(() => post('/api/v1/keys', { tenant: fields.tenant, name: fields.name, admin: fields.admin, ...Object.fromEntries(numbers) }));
    if (made) show(made);
  };
  const close = async () => {
    if (issued && first) await enter(issued.key);
    onChanged();
    onClose();
  };
  if (issued) {
    return html`<${Dialog} title="The new key" onClose=${close} footer=${html`<${Copy} text=${async () => issued.key} label="Copy the key" /><button type="button" class="primary" onClick=${close}>Done</button>`}>
      <${Notice} tone="warn"><p>It is shown this once; the fleet keeps only a digest of it.${first ? ' From now on every call needs a key; you stay signed in with this one.' : ''}</p><//>
      <pre class="code" tabindex="0" data-key>${issued.key}</pre><//>`;
  }
  return html`<${Dialog} title="New key" onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button><button type="submit" form="new-key" class="primary">Create</button>`}>
    <form id="new-key" class="form" onSubmit=${create}>
      <div class="pair"><${Field} label="Tenant" hint="Small letters, digits, . _ and -.">${input('tenant', { required: true, pattern: '[a-z0-9][a-z0-9._\\-]{0,63}' })}<//>
        <${Field} label="Note" hint="Which client uses it.">${input('name', { maxlength: 80 })}<//></div>
      <div class="pair"><${Field} label="Weight" hint="Twice the weight, twice the share.">${input('weight', { type: 'number', min: 0.01, step: 'any', required: true })}<//>
        <label class="field"><span>Expires</span><select disabled=${first} onChange=${(event) => set({ ...fields, expires_in_s: event.target.value })}>${EXPIRES.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label></div>
      <div class="pair"><${Field} label="Most waiting jobs" hint="In one queue; empty: no bound.">${input('limit_jobs', { type: 'number', min: 1 })}<//>
        <${Field} label="Most waiting tokens" hint="In one queue; empty: no bound.">${input('limit_tokens', { type: 'number', min: 1 })}<//></div>
      <div class="pair"><${Field} label="Tokens a minute" hint="Used or reserved; empty: no limit.">${input('limit_tokens_minute', { type: 'number', min: 1 })}<//>
        <${Field} label="Tokens a day" hint="UTC; empty: no limit.">${input('limit_tokens_day', { type: 'number', min: 1 })}<//></div>
      <div class="pair"><${Field} label="Money a day" hint="By the prices of the fleet.">${input('limit_spend_day', { type: 'number', min: 0.000001, step: 'any' })}<//>
        <${Field} label="Money a month" hint="UTC; empty: no limit.">${input('limit_spend_month', { type: 'number', min: 0.000001, step: 'any' })}<//></div>
      <label class="check"><input type="checkbox" checked=${fields.admin} disabled=${first} onChange=${(event) => set({ ...fields, admin: event.target.checked })} />Admin: sees all jobs, manages backends and keys</label>
      ${first && html`<p class="muted small">The first key must be an admin's and cannot expire.</p>`}
    </form><//>`;
}

function Keys({ keys, onChanged }) {
  const revoke = async (each) => {
    if (await confirmed({ title: `Revoke the key of ${each.tenant}?`, text: 'Its clients are refused within three seconds, and their streams end.', action: 'Revoke the key' })) {
      await attempt(() => del(`/api/v1/keys/${each.id}`), 'Revoked.');
      onChanged();
    }
  };
  if (!keys.length) return html`<${Empty} title="No API keys">Only clients on the machine of the fleet are served. The first key opens it to others.<//>`;
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of keys"><table><thead><tr><th>Key</th><th>Tenant</th><th class="medium">Note</th><th class="medium">Created</th><th class="wide">Expires</th><th><span class="hidden-label">Actions</span></th></tr></thead>
    <tbody>${keys.map((each) => html`<tr key=${each.id}><td class="mono small">${each.id}</td><td>${each.tenant} ${each.admin ? html`<${Badge} tone="run">admin<//>` : null}</td><td class="medium">${each.name || none}</td>
      <td class="medium"><${Ago} at=${each.created_at} /></td><td class="wide">${each.expires_at ? date(each.expires_at) : 'never'}</td>
      <td class="actions"><button type="button" class="tiny danger" onClick=${() => revoke(each)}>Revoke</button></td></tr>`)}</tbody></table></div>`;
}

export default function Tenancy() {
  const [creating, create] = useState(false);
  const { value, error, again } = usePoll(() => (isAdmin.value ? get('/api/v1/keys') : null), 10, [isAdmin.value]);
  if (!isAdmin.value) return html`<${View} title="Usage and limits"><${UsagePanels} /><//>`;
  const keys = value ? value.keys : [];
  return html`<${View} title="Tenants and keys" actions=${html`<button type="button" class="primary" onClick=${() => create(true)}><${Icon} name="more" />New key</button>`}>
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    <${Panel} title="Tenants" flush=${true}>${value && html`<${Tenants} keys=${keys} />`}<//>
    <${UsagePanels} />
    <${Panel} title="API keys" flush=${true}>${value && html`<${Keys} keys=${keys} onChanged=${again} />`}<//>
    ${creating && html`<${Create} first=${!keys.length} onClose=${() => create(false)} onChanged=${again} />`}
  <//>`;
}
