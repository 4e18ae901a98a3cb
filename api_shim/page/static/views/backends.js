// Backends and their models: what is in memory, what each can do, and what can be changed here.
import { del, follow, post, Problem } from '../api.js';
import { html, useEffect, useState } from '../html.js';
import { bytes, count, many, none } from '../format.js';
import { fold, append } from '../job_log.js';
import { Answer } from '../parts/answer.js';
import { Badge, Empty, Field, Icon, Notice, Panel, Search, Select, View } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { attempt, go, isAdmin, may, overview, refreshModels, remember, remembered, useModels } from '../store.js';
import { Aliases } from './aliases.js';
import { backendState } from './overview.js';

// Runs a job that changes models, and says how it ended.
async function run(kind, body, success) {
  await attempt(async () => {
    const { id } = await post(`/api/v1/jobs/${kind}`, body);
    for await (const event of follow(id, new AbortController().signal)) {
      if (event.type === 'failed') throw new Problem(409, { detail: event.message });
    }
    await refreshModels();
  }, success);
}

function State({ model, loading }) {
  if (loading) return html`<${Badge} tone="run">loading<//>`;
  if (model.warm) return html`<${Badge} tone="good">warm<//>`;
  return model.warm === false ? html`<${Badge} tone="hollow">cold<//>` : html`<span class="muted">unknown</span>`;
}

function Model({ model, backend }) {
  const [busy, set] = useState('');
  const can = new Set(backend.capabilities);
  const loading = backend.loading.includes(model.name) || busy === 'load';
  const act = (kind, success) => async () => {
    set(kind);
    await run(kind, { backend: backend.name, model: model.name }, success);
    set('');
  };
  const remove = async () => {
    if (await confirmed({ title: `Delete ${model.name}?`, text: `Its files are deleted from ${backend.name}. Jobs that ask for it fail until it is pulled again.`, action: 'Delete the model' })) {
      await act('delete', `${model.name} is deleted.`)();
    }
  };
  const plays = model.lacks.includes('chat') ? (model.lacks.includes('embed') ? 'image' : 'embed') : 'chat';
  const onlyRanks = model.traits.length === 1 && model.traits[0] === 'rerank';
  return html`<tr><td><span class="name">${model.name}</span></td><td><${State} model=${model} loading=${loading} /></td>
    <td class="medium">${model.traits.map((each) => html`<span class="chip">${each}</span> `)}${model.traits.length ? null : html`<span class="muted small">not reported</span>`}</td>
    <td class="wide number">${model.context_length ? count(model.context_length) : none}</td><td class="wide number">${model.size_bytes ? bytes(model.size_bytes) : none}</td>
    <td class="actions"><span class="model-tools">
      ${onlyRanks ? null : html`<button type="button" class="tiny" onClick=${() => { remember({ backend: backend.name, [plays]: model.name, tab: plays }); go('/playground'); }}>Try</button>`}
      ${can.has('load') && may('models:write') && !model.warm ? html`<button type="button" class="tiny" disabled=${Boolean(busy)} onClick=${act('load', `${model.name} is in memory.`)}>Load</button>` : null}
      ${can.has('unload') && may('models:write') && model.warm ? html`<button type="button" class="tiny" disabled=${Boolean(busy)} onClick=${act('unload', `${model.name} is unloaded.`)}>Unload</button>` : null}
      ${can.has('delete') && may('models:admin') ? html`<button type="button" class="tiny quiet" disabled=${Boolean(busy)} onClick=${remove}>Delete</button>` : null}
    </span></td></tr>`;
}

function Pull({ backend, onClose }) {
  const [model, name] = useState('');
  const [job, set] = useState(null);
  const [events, grow] = useState([]);
  useEffect(() => {
    if (!job) return undefined;
    const stop = new AbortController();
    (async () => {
      const list = [];
      for await (const event of follow(job, stop.signal)) grow([...append(list, event)]);
      refreshModels();
    })().catch(() => {});
    return () => stop.abort();
  }, [job]);
  const state = fold(events);
  const start = async (event) => {
    event.preventDefault();
    const accepted = await attempt(() => post('/api/v1/jobs/pull', { backend: backend.name, model }));
    if (accepted) set(accepted.id);
  };
  return html`<${Dialog} title=${`Pull a model to ${backend.name}`} onClose=${onClose} footer=${html`
    ${job ? html`<a class="button" href=${`#/jobs/${job}`} onClick=${onClose}>Its job</a>` : null}
    ${job && !state.end ? html`<button type="button" class="danger" onClick=${() => attempt(() => del(`/api/v1/jobs/${job}`))}>Cancel the pull</button>` : null}
    <button type="button" onClick=${onClose}>Close</button>`}>
    <form class="row" onSubmit=${start}><label class="grow field"><span>Model</span><input required maxlength="256" placeholder="llama3.2" disabled=${Boolean(job)} value=${model} onInput=${(event) => name(event.target.value)} /></label>
      <button class="primary" style=${{ alignSelf: 'end' }} disabled=${Boolean(job) || !model}>Pull</button></form>
    ${job ? html`<div aria-live="polite">${state.end ? html`<${Notice} tone=${state.end.type === 'done' ? 'good' : 'bad'} icon=${state.end.type === 'done' ? 'check' : 'dead'}><p>${state.end.type === 'done' ? `${model} is there.` : state.end.message || 'Cancelled.'}</p><//>` : html`<${Answer} state=${state} live=${true} />`}</div>`
      : html`<p class="muted small">The download goes on when you close this; its job shows the progress.</p>`}
  <//>`;
}

function Add({ onClose }) {
  const [name, setName] = useState('');
  const [dsn, setDsn] = useState('');
  const [busy, set] = useState(false);
  const add = async (event) => {
    event.preventDefault();
    set(true);
    const added = await attempt(() => post('/api/v1/backends', { name, dsn }), `${name} was added.`);
    set(false);
    if (added) {
      refreshModels();
      onClose();
    }
  };
  return html`<${Dialog} title="Add a backend" onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button>
    <button type="submit" form="add-backend" class="primary" disabled=${busy}>${busy ? 'Starting a worker…' : 'Add'}</button>`}>
    <form id="add-backend" class="form" onSubmit=${add}>
      <${Field} label="Name" hint="A small letter first, then small letters, digits, _ and -."><input required pattern="[a-z][a-z0-9_\\-]{0,39}" value=${name} onInput=${(event) => setName(event.target.value)} placeholder="box" /><//>
      <${Field} label="Address" hint="A type and an address. A key in it goes to the worker only."><input required minlength="3" autocomplete="off" spellcheck=${false} value=${dsn} onInput=${(event) => setDsn(event.target.value)} placeholder="ollama://10.0.0.5:11434" /><//>
    </form>
    <p class="muted small">Workers are started by the <code>fleet up</code> that runs this fleet; it forgets the backend when it exits.</p>
  <//>`;
}

function Backend({ backend, models, text }) {
  const [pulling, pull] = useState(false);
  const [all, show] = useState(false);
  const found = models.filter((each) => each.name.toLowerCase().includes(text.toLowerCase())).sort((a, b) => Number(b.warm || 0) - Number(a.warm || 0));
  const shown = all || text ? found : found.slice(0, 25);
  const remove = async () => {
    if (await confirmed({ title: `Remove ${backend.name}?`, text: 'Its workers finish what they run and end. Jobs that wait for it stay in its queues.', action: 'Remove the backend' })) {
      attempt(() => del(`/api/v1/backends/${backend.name}`), `${backend.name} is removed.`);
    }
  };
  const title = html`<div class="backend-head"><h2>${backend.name}</h2><span class="muted">${backend.type}${backend.version && backend.version !== backend.type ? ` ${backend.version}` : ''}</span>${backendState(backend)}
    <span class="muted small">${backend.endpoints.join(', ')}</span></div>`;
  return html`<${Panel} title=${title} label=${`Backend ${backend.name}`} flush=${true} actions=${html`
      <span class="small muted medium">${backend.warm.length ? `in memory: ${backend.warm.slice(0, 2).join(', ')}${backend.warm.length > 2 ? ` and ${backend.warm.length - 2} more` : ''}` : 'nothing in memory'}</span>
      ${backend.capabilities.includes('pull') && may('models:write') && html`<button type="button" class="tiny" onClick=${() => pull(true)}>Pull a model</button>`}
      ${isAdmin.value && html`<button type="button" class="tiny danger" onClick=${remove}>Remove</button>`}`}>
    ${backend.error && backend.workers ? html`<div class="body"><${Notice} tone="bad"><p>${backend.error}</p><//></div>` : null}
    ${shown.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label=${`Models of ${backend.name}`}><table class="models"><thead><tr><th>Model</th><th>State</th><th class="medium">Can</th><th class="wide number">Context</th><th class="wide number">Size</th><th><span class="hidden-label">Actions</span></th></tr></thead>
      <tbody>${shown.map((each) => html`<${Model} key=${each.name} model=${each} backend=${backend} />`)}</tbody></table></div>`
      : html`<${Empty} title=${text ? 'No model matches' : 'No models'}>${text ? 'Change the search.' : backend.capabilities.includes('pull') && may('models:write') ? 'Pull one.' : 'This backend reports none.'}<//>`}
    ${found.length > shown.length ? html`<div class="body"><button type="button" class="tiny" onClick=${() => show(true)}>Show all ${count(found.length)} models</button></div>` : null}
    ${pulling && html`<${Pull} backend=${backend} onClose=${() => pull(false)} />`}
  <//>`;
}

export default function Backends({ rest }) {
  const state = overview.value;
  const models = useModels(useEffect);
  const [text, find] = useState('');
  const [adding, add] = useState(false);
  const chosen = rest[0] || '';
  useEffect(() => { if (chosen) remember({ backend: chosen }); }, [chosen]);
  if (!state) return html`<${View} title="Backends"><p class="starting">Reading the fleet…</p><//>`;
  const shown = state.backends.filter((each) => !chosen || each.name === chosen);
  const total = models ? models.length : 0;
  return html`<${View} title="Backends and models" actions=${html`${isAdmin.value && html`<button type="button" class="primary" onClick=${() => add(true)}><${Icon} name="more" />Add a backend</button>`}`}>
    <div class="filters"><${Search} label=${models ? `Search ${many(total, 'model')}` : 'Search models'} value=${text} onInput=${find} />
      <${Select} label="Backend" value=${chosen} onChange=${(name) => go(name ? `/backends/${name}` : '/backends')} options=${[['', 'All backends'], ...state.backends.map((each) => each.name)]} />
      ${remembered.value.backend && !chosen && state.backends.some((each) => each.name === remembered.value.backend) ? html`<span class="muted small">last used: <a href=${`#/backends/${remembered.value.backend}`}>${remembered.value.backend}</a></span>` : null}</div>
    ${shown.map((each) => html`<${Backend} key=${each.name} backend=${each} models=${(models || []).filter((model) => model.backend === each.name)} text=${text} />`)}
    ${!shown.length && html`<${Panel}><${Empty} title=${chosen ? `There is no backend ${chosen}` : 'No backend yet'}>Add one, or start a worker next to one.<//><//>`}
    ${!chosen && html`<${Aliases} />`}
    ${adding && html`<${Add} onClose=${() => add(false)} />`}
  <//>`;
}
