// Tenants with their shares, usage and limits, their API keys, and what was done with rights to change the fleet.
import { get } from '../api.js';
import { html, useState } from '../html.js';
import { bytes, count, many, none } from '../format.js';
import { Empty, Icon, Meter, Notice, Panel, usePoll, View } from '../parts/controls.js';
import { isAdmin, overview } from '../store.js';
import { AuditPanel } from './audit.js';
import { ChangeKey, Keys, NewKey } from './keys.js';
import { DeletionPanel } from './tenant_deletion.js';
import { UsagePanels } from './usage.js';

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
      const size = own.map((each) => each.limit_bytes).find(Boolean);
      const share = weights.get(name) / sum;
      return html`<tr key=${name}><td><a class="name" href=${`#/jobs?tenant=${encodeURIComponent(name)}`}>${name}</a></td><td class="number">${weights.get(name)}</td>
        <td><div class="meter-cell"><${Meter} value=${share} of=${1} label=${`${Math.round(100 * share)} percent`} /><span class="number small">${Math.round(100 * share)} %</span></div></td>
        <td class="number">${count(waiting.get(name) || 0)}</td><td class="medium number">${own.length}</td>
        <td class="medium">${[jobs && many(jobs, 'job'), tokens && many(tokens, 'token'), size && bytes(size)].filter(Boolean).join(', ') || none}</td></tr>`;
    })}</tbody></table></div>`;
}

export default function Tenancy() {
  const [creating, create] = useState(false);
  const [changing, change] = useState(null);
  const { value, error, again } = usePoll(() => (isAdmin.value ? get('/api/v1/keys') : null), 10, [isAdmin.value]);
  if (!isAdmin.value) return html`<${View} title="Usage and limits"><${UsagePanels} /><//>`;
  const keys = value ? value.keys : [];
  return html`<${View} title="Tenants and keys" actions=${html`<button type="button" class="primary" disabled=${!value} onClick=${() => create(true)}><${Icon} name="more" />New key</button>`}>
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    <${Panel} title="Tenants" flush=${true}>${value && html`<${Tenants} keys=${keys} />`}<//>
    <${UsagePanels} />
    <${Panel} title="API keys" flush=${true}>${value && html`<${Keys} keys=${keys} onChange=${change} onChanged=${again} />`}<//>
    <${DeletionPanel} names=${[...new Set(keys.map((each) => each.tenant))].sort()} onChanged=${again} />
    <${AuditPanel} />
    ${changing && html`<${ChangeKey} of=${changing} onClose=${() => change(null)} onChanged=${again} />`}
    ${creating && html`<${NewKey} first=${!keys.length} onClose=${() => create(false)} onChanged=${again} />`}
  <//>`;
}
