// What was done with rights to change the fleet, and what was refused to keys that lack them.
import { get } from '../api.js';
import { html, useState } from '../html.js';
import { none, short } from '../format.js';
import { Ago, Empty, Panel, Tabs, usePoll } from '../parts/controls.js';

export function AuditPanel() {
  const [which, choose] = useState('done');
  const { value } = usePoll(() => get(`/api/v1/audit?limit=20&refused=${which === 'refused'}`), 10, [which]);
  const entries = value ? value.entries : [];
  const tabs = html`<${Tabs} label="Which entries" tabs=${[['done', 'Done'], ['refused', 'Refused']]} value=${which} onChange=${choose} />`;
  return html`<${Panel} title="Audit" flush=${true} actions=${tabs}>
    ${value && !entries.length && html`<${Empty} title="Nothing yet">Changes of keys, backends, aliases, queues and models are recorded here.<//>`}
    ${entries.length > 0 && html`<div class="scroll-x" tabindex="0" role="region" aria-label="Audit log"><table>
      <thead><tr><th>When</th><th>Who</th><th>What</th><th>Of</th><th class="wide">From</th></tr></thead>
      <tbody>${entries.map((each) => html`<tr key=${each.id}><td><${Ago} at=${each.at} /></td>
        <td>${each.tenant} <span class="muted small">${each.key_name || short(each.key)}</span></td><td class="mono small">${each.action}</td>
        <td class="small">${each.subject || none}</td><td class="wide small">${each.address || none}</td></tr>`)}</tbody></table></div>`}<//>`;
}
