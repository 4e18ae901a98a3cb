// Webhooks: where ends are posted, how deliveries go, secrets shown once, and replay.
import { call, del, get, post, query } from '../api.js';
import { html, useState } from '../html.js';
import { ahead, count, date, none, short } from '../format.js';
import { Ago, Badge, Copy, Empty, Field, Icon, Notice, Panel, Select, usePoll, View } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { attempt } from '../store.js';

const PATH = '/api/v1/webhooks';
const CALLBACKS = 'callbacks';
const EVENTS = ['job.*', 'job.failed', 'batch.*', 'response.*'];
const TONES = { delivered: 'good', waiting: 'run', failed: 'bad', dropped: 'warn' };
const SINCE = [['3600', 'an hour'], ['86400', 'a day'], ['604800', 'a week']];
const path = (webhook) => `${PATH}/${webhook.id}`;

function Secret({ secret, onClose }) {
  return html`<${Dialog} title="Secret of the signatures" onClose=${onClose} footer=${html`<button type="button" class="primary" onClick=${onClose}>Done</button>`}>
    <p>It is shown only now. The receiver verifies with it.</p><p class="mono small">${secret} <${Copy} text=${secret} label="Copy the secret" /></p><//>`;
}

function Create({ onClose, onSecret }) {
  const [url, setUrl] = useState('');
  const [name, setName] = useState('');
  const [events, choose] = useState(['job.*', 'batch.*']);
  const save = async (event) => {
    event.preventDefault();
    await attempt(async () => onSecret((await post(PATH, { url, name, events })).secret));
  };
  const toggle = (each) => choose(events.includes(each) ? events.filter((other) => other !== each) : [...events, each]);
  return html`<${Dialog} title="New webhook" onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button><button type="submit" form="new-webhook" class="primary" disabled=${!events.length}>Create</button>`}>
    <form id="new-webhook" class="form" onSubmit=${save}>
      <${Field} label="Address" hint="Gets a POST for each end of a job or batch."><input type="url" required maxlength="2048" value=${url} onInput=${(event) => setUrl(event.target.value)} placeholder="An https address of yours" /><//>
      <${Field} label="Note" hint="What it is for."><input maxlength="80" value=${name} onInput=${(event) => setName(event.target.value)} /><//>
      ${EVENTS.map((each) => html`<label key=${each} class="check"><input type="checkbox" checked=${events.includes(each)} onChange=${() => toggle(each)} />${each}</label>`)}
    </form><//>`;
}

function Row({ webhook, isOpen, onOpen, onChanged, onSecret }) {
  const own = webhook.id !== CALLBACKS;
  const rotate = async () => {
    if (await confirmed({ title: 'Replace the secret?', text: 'For a day deliveries are signed with both.', action: 'Replace the secret', danger: false })) {
      await attempt(async () => onSecret((await post(`${path(webhook)}/rotate`, {})).secret));
    }
  };
  const toggle = async () => {
    const enabled = Boolean(webhook.disabled_at);
    await attempt(() => call('PATCH', path(webhook), { enabled }), enabled ? 'Enabled.' : 'Disabled.');
    onChanged();
  };
  const remove = async () => {
    if (await confirmed({ title: 'Remove this webhook?', text: 'What waits for it, its secret and its list of deliveries go with it.', action: 'Remove the webhook' })) {
      await attempt(() => del(path(webhook)), 'Removed.');
      onChanged();
    }
  };
  return html`<tr><td><button type="button" class="quiet tiny mono" aria-expanded=${isOpen} onClick=${onOpen}>${own ? short(webhook.id.slice(3)) : CALLBACKS}</button></td>
    <td><span class="name">${webhook.url || 'of each request'}</span>${webhook.name ? html`<div class="muted small">${webhook.name}</div>` : null}</td>
    <td class="medium">${own ? webhook.events.join(' ') : none}</td>
    <td>${webhook.disabled_at ? html`<${Badge} tone="bad">disabled<//>` : webhook.tries ? html`<${Badge} tone="warn">failing<//>` : html`<${Badge} tone="good">enabled<//>`}
      ${webhook.disabled_reason || webhook.error ? html`<div class="small muted">${webhook.disabled_reason || webhook.error}</div>` : null}</td>
    <td class="number">${count(webhook.waiting)}${webhook.tries && webhook.next_at ? html`<div class="small muted">next ${ahead(webhook.next_at)}</div>` : null}</td>
    <td class="wide"><${Ago} at=${webhook.created_at} /></td>
    <td class="actions"><button type="button" class="tiny" onClick=${rotate}>New secret</button>${own ? html`<button type="button" class="tiny" onClick=${toggle}>${webhook.disabled_at ? 'Enable' : 'Disable'}</button>` : null}<button type="button" class="tiny danger" onClick=${remove}>Remove</button></td></tr>`;
}

function Deliveries({ webhook, onChanged }) {
  const [state, choose] = useState('');
  const [since, setSince] = useState('86400');
  const { value, error, again } = usePoll(() => get(query(`${path(webhook)}/deliveries`, { state })), 3, [webhook.id, state]);
  const found = value ? value.deliveries : [];
  const replay = async (wanted) => {
    await attempt(() => post(`${path(webhook)}/replay`, wanted), 'Delivered again.');
    again();
    onChanged();
  };
  const actions = html`<${Select} label="State" value=${state} options=${[['', 'all'], ...Object.keys(TONES).map((each) => [each, each])]} onChange=${choose} />
    <${Select} label="Ended within" value=${since} options=${SINCE} onChange=${setSince} />
    <button type="button" class="tiny" onClick=${() => replay({ since: Date.now() / 1000 - Number(since), failed_only: true })}>Replay what failed</button>`;
  return html`<${Panel} title=${`Deliveries of ${webhook.url || 'callbacks'}`} flush=${true} actions=${actions}>
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    ${found.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of deliveries"><table><thead><tr><th>Event</th><th class="medium">Of</th><th>State</th><th class="number">Tries</th><th class="medium">Answer</th><th class="medium">Ended</th><th><span class="hidden-label">Actions</span></th></tr></thead>
      <tbody>${found.map((each) => html`<tr key=${each.id + each.state + each.ended_at}><td>${each.type}${each.url ? html`<div class="small muted cut">${each.url}</div>` : null}</td><td class="medium mono small">${each.type.startsWith('job.') ? html`<a href=${`#/jobs/${each.subject}`}>${short(each.subject)}</a>` : each.subject}</td>
        <td><${Badge} tone=${TONES[each.state]}>${each.state}<//></td><td class="number">${each.tries}</td><td class="medium">${each.error || each.status || none}</td><td class="medium" title=${date(each.at)}><${Ago} at=${each.at} /></td>
        <td class="actions">${each.state === 'waiting' ? null : html`<button type="button" class="tiny" onClick=${() => replay({ id: each.id })}>Replay</button>`}</td></tr>`)}</tbody></table></div>`
      : value ? html`<${Empty} title="No deliveries">The last thousand are listed for a week.<//>` : null}<//>`;
}

export default function Webhooks() {
  const [creating, create] = useState(false);
  const [secret, show] = useState('');
  const [open, choose] = useState('');
  const { value, error, again } = usePoll(() => get(PATH), 3);
  const found = value ? value.webhooks : [];
  const shown = found.find((each) => each.id === open) || found[0];
  const made = (text) => { create(false); show(text); again(); };
  const callbacks = async () => { await attempt(async () => made((await post(`${PATH}/${CALLBACKS}/rotate`, {})).secret)); };
  return html`<${View} title="Webhooks" actions=${html`${value && !found.some((each) => each.id === CALLBACKS) ? html`<button type="button" onClick=${callbacks}>Allow callbacks</button>` : null}<button type="button" class="primary" onClick=${() => create(true)}><${Icon} name="more" />New webhook</button>`}>
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    <${Panel} title="Webhooks" flush=${true}>${found.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of webhooks"><table><thead><tr><th>Webhook</th><th>Address</th><th class="medium">Events</th><th>State</th><th class="number">Waiting</th><th class="wide">Created</th><th><span class="hidden-label">Actions</span></th></tr></thead>
      <tbody>${found.map((each) => html`<${Row} key=${each.id} webhook=${each} isOpen=${shown.id === each.id} onOpen=${() => choose(each.id)} onChanged=${again} onSecret=${made} />`)}</tbody></table></div>` : value ? html`<${Empty} title="No webhooks">The ends of jobs and batches are posted to addresses of yours, signed. Single requests name theirs as <code>callback_url</code>.<//>` : null}<//>
    ${shown && html`<${Deliveries} key=${shown.id} webhook=${shown} onChanged=${again} />`}
    ${creating && html`<${Create} onClose=${() => create(false)} onSecret=${made} />`}
    ${secret && html`<${Secret} secret=${secret} onClose=${() => show('')} />`}
  <//>`;
}
