// Aliases: names that stand for models, what each stands for now, and what an admin can change.
import { del, put } from '../api.js';
import { html, useState } from '../html.js';
import { Badge, Empty, Field, Panel } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { aliases, attempt, isAdmin, refreshModels } from '../store.js';

// `qwen3:8b@box` is a model on a backend; a name may have an @ of its own.
function target(text) {
  const parts = /^(.+)@([a-z][a-z0-9_-]{0,39})$/.exec(text.trim());
  return parts ? { model: parts[1], backend: parts[2] } : { model: text.trim() };
}

const shown = (each) => (each.backend ? `${each.model}@${each.backend}` : each.model);
const path = (name) => `/api/v1/aliases/${encodeURIComponent(name)}`;

function Set({ old, onClose }) {
  const first = old && { model: old.alias.model, backend: old.alias.backend };
  const [name, setName] = useState(old ? old.name : '');
  const [model, setModel] = useState(first ? shown(first) : '');
  const [fallbacks, setFallbacks] = useState(old ? old.alias.fallbacks.map(shown).join('\n') : '');
  const [wait, setWait] = useState(old && old.alias.wait_s !== null ? String(old.alias.wait_s) : '');
  const save = async (event) => {
    event.preventDefault();
    // What this form has no field for stays as it is.
    const kept = new Map((old ? old.alias.fallbacks : []).map((each) => [shown(each), each]));
    const further = fallbacks.split('\n').map((line) => line.trim()).filter(Boolean).map((line) => kept.get(line) || target(line));
    const { default: set = {}, force = {} } = old ? old.alias : {};
    const body = { ...target(model), wait_s: wait === '' ? null : Number(wait), default: set, force, fallbacks: further };
    if (await attempt(() => put(path(name), body), `${name} is set.`)) {
      await refreshModels();
      onClose();
    }
  };
  return html`<${Dialog} title=${old ? `Change ${old.name}` : 'New alias'} onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button><button type="submit" form="set-alias" class="primary">Save</button>`}>
    <form id="set-alias" class="form" onSubmit=${save}>
      <${Field} label="Name" hint="What clients send as model; * is any text."><input required maxlength="128" disabled=${Boolean(old)} value=${name} onInput=${(event) => setName(event.target.value)} placeholder="claude-*" /><//>
      <${Field} label="Stands for" hint="A model or another alias; @ and a backend, if several have it."><input required maxlength="300" value=${model} onInput=${(event) => setModel(event.target.value)} placeholder="qwen3:8b@box" /><//>
      <${Field} label="Fallbacks" hint="One a line, in the order in which they take over."><textarea rows="3" value=${fallbacks} onInput=${(event) => setFallbacks(event.target.value)}></textarea><//>
      <${Field} label="Seconds to wait" hint="Before a job moves to the next one; empty: 30."><input type="number" min="0" max="86400" step="any" value=${wait} onInput=${(event) => setWait(event.target.value)} /><//>
    </form>
    <p class="muted small">Jobs that are queued keep what they began with.${old ? ' Parameters stay as they are.' : ''}</p>
  <//>`;
}

function Alias({ alias, onChange }) {
  const remove = async () => {
    if (await confirmed({ title: `Remove ${alias.name}?`, text: 'New requests for this name are refused, unless it is a model or configured otherwise.', action: 'Remove the alias' })) {
      await attempt(() => del(path(alias.name)), `${alias.name} is removed.`);
      refreshModels();
    }
  };
  return html`<tr><td><span class="name">${alias.name}</span>${alias.shadows ? html` <span class="muted small">hides a model</span>` : null}</td>
    <td>${alias.targets.map((each, number) => html`${number ? ', then ' : ''}<span class="chip">${shown(each)}</span>${each.problem ? html` <${Badge} tone="bad">${each.problem}<//>` : null}`)}${alias.problem ? html`<${Badge} tone="bad">${alias.problem}<//>` : null}</td>
    <td class="medium">${alias.origin}</td>
    <td class="actions"><span class="model-tools">${isAdmin.value ? html`<button type="button" class="tiny" onClick=${onChange}>Change</button>` : null}
      ${isAdmin.value && alias.origin === 'stored' ? html`<button type="button" class="tiny danger" onClick=${remove}>Remove</button>` : null}</span></td></tr>`;
}

export function Aliases() {
  const [editing, edit] = useState(null);
  const found = aliases.value;
  if (!found.length && !isAdmin.value) return null;
  return html`<${Panel} title="Aliases" flush=${true} actions=${isAdmin.value && html`<button type="button" class="tiny" onClick=${() => edit({ old: null })}>New alias</button>`}>
    ${found.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label="All aliases"><table><thead><tr><th>Alias</th><th>Stands for</th><th class="medium">Origin</th><th><span class="hidden-label">Actions</span></th></tr></thead>
      <tbody>${found.map((each) => html`<${Alias} key=${each.name} alias=${each} onChange=${() => edit({ old: each })} />`)}</tbody></table></div>`
      : html`<${Empty} title="No alias yet">A name that stands for a model, with fallbacks.<//>`}
    ${editing && html`<${Set} old=${editing.old} onClose=${() => edit(null)} />`}
  <//>`;
}
