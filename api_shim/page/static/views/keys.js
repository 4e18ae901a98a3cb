// API keys: what they may do, when they were last used and expire; made and shown once, changed, rotated, revoked.
import { del, patch, post } from '../api.js';
import { html, useState } from '../html.js';
import { date, none, span } from '../format.js';
import { Ago, Badge, Copy, Empty, Field, Notice } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { attempt, enter } from '../store.js';

const LIMITS = ['limit_jobs', 'limit_tokens', 'limit_bytes', 'limit_tokens_minute', 'limit_tokens_day', 'limit_spend_day', 'limit_spend_month'];
const EXPIRES = [['', 'Never'], ['86400', 'In a day'], ['2592000', 'In 30 days'], ['7776000', 'In 90 days'], ['31536000', 'In a year']];
const USE = ['chat', 'embed', 'rerank', 'image', 'files', 'batches', 'webhooks', 'models:read'];
const CHANGE = [['models:write', 'pull, load, unload'], ['models:admin', 'copy, create, delete']];
const RETENTIONS = { none: 'until a job ends', ttl: 'as long as any' };
const RIGHTS = { permissions: new Set(USE), models: '', backends: '' };

const names = (text) => text.split(',').map((each) => each.trim()).filter(Boolean);

function rightsOf(fields) {
  if (fields.admin) return { admin: true };
  const patterns = (text) => (names(text).length ? names(text) : ['*']);
  return { admin: false, permissions: [...fields.permissions], models: patterns(fields.models), backends: patterns(fields.backends) };
}

function mayOf(key) {
  if (key.admin) return 'everything';
  const isUsual = USE.every((name) => key.permissions.includes(name));
  const may = isUsual ? ['use models', ...key.permissions.filter((name) => !USE.includes(name))] : key.permissions;
  const only = [key.models && key.models.join(', '), key.backends && `on ${key.backends.join(', ')}`].filter(Boolean).join(' ');
  return `${may.join(', ') || 'nothing'}${only ? `; only ${only}` : ''}`;
}

const keptOf = (key) => (key.retention === null ? '' : `; texts are kept ${RETENTIONS[key.retention] || `for ${span(key.retention)}`}`);

function Retention({ fields, set }) {
  return html`<${Field} label="Texts of jobs are kept" hint="none, ttl or seconds after a job's end; empty: as the fleet says."><input name="retention" pattern="none|ttl|[0-9]{1,8}" value=${fields.retention} onInput=${(event) => set({ ...fields, retention: event.target.value })} /><//>`;
}

function Rights({ fields, set, first = false }) {
  const toggle = (name, isOn) => {
    const permissions = new Set(fields.permissions);
    if (isOn) permissions.add(name);
    else permissions.delete(name);
    set({ ...fields, permissions });
  };
  const box = (name, told) => html`<label class="check"><input type="checkbox" name=${name} checked=${fields.admin || fields.permissions.has(name)} disabled=${fields.admin} onChange=${(event) => toggle(name, event.target.checked)} />${name}${told ? `: ${told}` : ''}</label>`;
  const text = (name, label, hint) => html`<${Field} label=${label} hint=${hint}><input name=${name} value=${fields.admin ? '' : fields[name]} disabled=${fields.admin} onInput=${(event) => set({ ...fields, [name]: event.target.value })} /><//>`;
  return html`<fieldset class="rights"><legend>May</legend><div class="pair">${USE.map((name) => box(name))}</div>
      <div class="pair">${CHANGE.map(([name, told]) => box(name, told))}</div>
      <label class="check"><input type="checkbox" checked=${fields.admin} disabled=${first} onChange=${(event) => set({ ...fields, admin: event.target.checked })} />Admin: everything, and the jobs of all tenants</label></fieldset>
    <div class="pair">${text('models', 'Only these models', 'With commas between; * for any characters; empty: all.')}${text('backends', 'Only these backends', 'In the same way.')}</div>`;
}

function ShownOnce({ issued, onClose, children }) {
  return html`<${Dialog} title="The new key" onClose=${onClose} footer=${html`<${Copy} text=${async () => issued.key} label="Copy the key" /><button type="button" class="primary" onClick=${onClose}>Done</button>`}>
    <${Notice} tone="warn"><p>It is shown this once; the fleet keeps only a digest of it. ${children}</p><//>
    <pre class="code" tabindex="0" data-key>${issued.key}</pre><//>`;
}

export function NewKey({ first, onClose, onChanged }) {
  const [fields, set] = useState({ tenant: '', name: '', weight: '1', limit_jobs: '', limit_tokens: '', limit_bytes: '', limit_tokens_minute: '', limit_tokens_day: '', limit_spend_day: '', limit_spend_month: '', expires_in_s: '', retention: '', admin: first, ...RIGHTS });
  const [issued, show] = useState(null);
  const input = (name, rest) => html`<input value=${fields[name]} onInput=${(event) => set({ ...fields, [name]: event.target.value })} ...${rest} />`;
  const create = async (event) => {
    event.preventDefault();
    const numbers = ['weight', ...LIMITS, 'expires_in_s'].filter((name) => fields[name] !== '').map((name) => [name, Number(fields[name])]);
    const made = await attempt(() => post('/api/v1/keys', { tenant: fields.tenant, name: fields.name, retention: fields.retention || null, ...rightsOf(fields), ...Object.fromEntries(numbers) }));
    if (made) show(made);
  };
  const close = async () => {
    if (issued && first) await enter(issued.key);
    onChanged();
    onClose();
  };
  if (issued) {
    return html`<${ShownOnce} issued=${issued} onClose=${close}>${first ? 'From now on every call needs a key; you stay signed in with this one.' : ''}<//>`;
  }
  return html`<${Dialog} title="New key" onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button><button type="submit" form="new-key" class="primary">Create</button>`}>
    <form id="new-key" class="form" onSubmit=${create}>
      <div class="pair"><${Field} label="Tenant" hint="Small letters, digits, . _ and -.">${input('tenant', { required: true, pattern: '[a-z0-9][a-z0-9._\\-]{0,63}' })}<//>
        <${Field} label="Note" hint="Which client uses it.">${input('name', { maxlength: 80 })}<//></div>
      <div class="pair"><${Field} label="Weight" hint="Twice the weight, twice the share.">${input('weight', { type: 'number', min: 0.01, step: 'any', required: true })}<//>
        <label class="field"><span>Expires</span><select disabled=${first} onChange=${(event) => set({ ...fields, expires_in_s: event.target.value })}>${EXPIRES.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label></div>
      <div class="pair"><${Field} label="Most waiting jobs" hint="In one queue; empty: no bound.">${input('limit_jobs', { type: 'number', min: 1 })}<//>
        <${Field} label="Most waiting tokens" hint="In one queue; empty: no bound.">${input('limit_tokens', { type: 'number', min: 1 })}<//>
        <${Field} label="Most waiting bytes" hint="Of requests in one queue; empty: no bound.">${input('limit_bytes', { type: 'number', min: 1024 })}<//></div>
      <div class="pair"><${Field} label="Tokens a minute" hint="Used or reserved; empty: no limit.">${input('limit_tokens_minute', { type: 'number', min: 1 })}<//>
        <${Field} label="Tokens a day" hint="UTC; empty: no limit.">${input('limit_tokens_day', { type: 'number', min: 1 })}<//></div>
      <div class="pair"><${Field} label="Money a day" hint="By the prices of the fleet.">${input('limit_spend_day', { type: 'number', min: 0.000001, step: 'any' })}<//>
        <${Field} label="Money a month" hint="UTC; empty: no limit.">${input('limit_spend_month', { type: 'number', min: 0.000001, step: 'any' })}<//></div>
      <${Rights} fields=${fields} set=${set} first=${first} />
      <${Retention} fields=${fields} set=${set} />
      ${first && html`<p class="muted small">The first key must be an admin's and cannot expire.</p>`}
    </form><//>`;
}

export function ChangeKey({ of, onClose, onChanged }) {
  const [fields, set] = useState({
    name: of.name, expires_in_s: 'same', retention: of.retention === null ? '' : String(of.retention), admin: of.admin, permissions: new Set(of.admin ? USE : of.permissions),
    models: (of.models || []).join(', '), backends: (of.backends || []).join(', '),
  });
  const save = async (event) => {
    event.preventDefault();
    const expires = fields.expires_in_s === 'same' ? {} : { expires_in_s: fields.expires_in_s === '' ? null : Number(fields.expires_in_s) };
    if (await attempt(() => patch(`/api/v1/keys/${of.id}`, { name: fields.name, retention: fields.retention || null, ...rightsOf(fields), ...expires }), 'Changed.')) {
      onChanged();
      onClose();
    }
  };
  return html`<${Dialog} title=${`Key of ${of.tenant}`} onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button><button type="submit" form="change-key" class="primary">Save</button>`}>
    <form id="change-key" class="form" onSubmit=${save}>
      <div class="pair"><${Field} label="Note" hint="Which client uses it."><input value=${fields.name} maxlength="80" onInput=${(event) => set({ ...fields, name: event.target.value })} /><//>
        <label class="field"><span>Expires</span><select onChange=${(event) => set({ ...fields, expires_in_s: event.target.value })}>
          <option value="same">${of.expires_at ? `As before: ${date(of.expires_at)}` : 'As before: never'}</option>${EXPIRES.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label></div>
      <${Rights} fields=${fields} set=${set} />
      <${Retention} fields=${fields} set=${set} />
    </form><//>`;
}

export function Keys({ keys, onChange, onChanged }) {
  const [rotated, show] = useState(null);
  const revoke = async (each) => {
    if (await confirmed({ title: `Revoke the key of ${each.tenant}?`, text: 'Its clients are refused within three seconds, and their streams end.', action: 'Revoke the key' })) {
      await attempt(() => del(`/api/v1/keys/${each.id}`), 'Revoked.');
      onChanged();
    }
  };
  const rotate = async (each) => {
    if (await confirmed({ title: `Replace the key of ${each.tenant}?`, text: 'A new key with the same rights is made. The old one is valid for one more day.', action: 'Make the new key', danger: false })) {
      const made = await attempt(() => post(`/api/v1/keys/${each.id}/rotate`, {}));
      if (made) show(made);
      onChanged();
    }
  };
  if (!keys.length) return html`<${Empty} title="No API keys">Only clients on the machine of the fleet are served. The first key opens it to others.<//>`;
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of keys"><table><thead><tr><th>Key</th><th>Tenant</th><th class="medium">Note</th><th>May</th><th class="medium">Last used</th><th class="wide">Created</th><th class="medium">Expires</th><th><span class="hidden-label">Actions</span></th></tr></thead>
    <tbody>${keys.map((each) => html`<tr key=${each.id}><td class="mono small">${each.id}</td><td>${each.tenant} ${each.admin ? html`<${Badge} tone="run">admin<//>` : null}</td><td class="medium">${each.name || none}</td>
      <td class="small">${mayOf(each)}${keptOf(each)}</td><td class="medium">${each.last_used_at ? html`<${Ago} at=${each.last_used_at} />` : none}</td>
      <td class="wide"><${Ago} at=${each.created_at} /></td><td class="medium">${each.expires_at ? date(each.expires_at) : 'never'}</td>
      <td class="actions"><button type="button" class="tiny" onClick=${() => onChange(each)}>Change</button> <button type="button" class="tiny" onClick=${() => rotate(each)}>Rotate</button>
        <button type="button" class="tiny danger" onClick=${() => revoke(each)}>Revoke</button></td></tr>`)}</tbody></table></div>
    ${rotated && html`<${ShownOnce} issued=${rotated} onClose=${() => show(null)}>The old key expires ${date(keys.find((each) => each.id === rotated.replaces)?.expires_at || null)}.<//>`}`;
}
