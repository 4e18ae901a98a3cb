// Queues: what waits and for how long, whose it is, how fast it drains, when it runs.
import { post, put } from '../api.js';
import { html, useState } from '../html.js';
import { count, date, many, none, rate, span } from '../format.js';
import { Badge, Empty, Field, Meter, Panel, Search, View } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { attempt, isAdmin, overview } from '../store.js';

function State({ queue, waiting }) {
  if (queue.paused) return html`<${Badge} tone="warn">${queue.paused.by === 'windows' ? 'outside its windows' : 'paused'}<//>`;
  if (queue.workers) return html`<${Badge} tone=${queue.running ? 'run' : 'good'}>${queue.running ? 'working' : 'ready'}<//>`;
  if (queue.is_known) return html`<${Badge} tone=${waiting ? 'warn' : 'hollow'}>${waiting ? 'starts a worker' : 'asleep'}<//>`;
  return html`<${Badge} tone=${waiting ? 'bad' : 'warn'}>no worker<//>`;
}

function startsIn(queue) {
  if (queue.paused) return queue.paused.until ? span(Math.max(0, queue.paused.until - Date.now() / 1000)) : 'paused';
  if (queue.depth) return span(queue.eta_s);
  return queue.workers ? 'at once' : none;
}

function Row({ queue }) {
  const waiting = queue.depth + queue.delayed;
  return html`<tr>
    <td><a class="name" href=${`#/queues/${queue.name}`}>${queue.name}</a></td>
    <td><${State} queue=${queue} waiting=${waiting} /></td>
    <td class="number">${count(queue.urgent)}</td><td class="number">${count(queue.depth - queue.urgent)}</td>
    <td class="medium number">${queue.delayed ? count(queue.delayed) : none}</td>
    <td class="number">${span(queue.oldest_s)}</td>
    <td class="medium"><div class="meter-cell"><${Meter} value=${queue.running} of=${queue.slots} second=${true} label=${`${queue.running} of ${queue.slots} slots`} /><span class="number small">${count(queue.running)}/${count(queue.slots)}</span></div></td>
    <td class="wide number">${queue.drain_per_s === null ? none : `${rate(queue.drain_per_s)}/s`}</td>
    <td class="number">${startsIn(queue)}</td>
  </tr>`;
}

function List({ queues }) {
  const [text, find] = useState('');
  const [all, show] = useState(false);
  const used = queues.filter((each) => each.depth || each.delayed || each.running || each.paused || each.scheduled || each.ended.some(Boolean));
  const found = (all || text ? queues : used).filter((each) => each.name.includes(text)).sort((a, b) => b.depth + b.delayed - a.depth - a.delayed || b.running - a.running || a.name.localeCompare(b.name));
  const quiet = queues.length - used.length;
  return html`<${View} title="Queues">
    <div class="filters"><${Search} label="Search queues" value=${text} onInput=${find} />
      <label class="check"><input type="checkbox" checked=${all} onChange=${(event) => show(event.target.checked)} />Show ${many(quiet, 'quiet queue')}</label></div>
    <${Panel} label="Queues" flush=${true}>
      ${found.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of queues"><table><thead><tr><th>Queue</th><th>State</th><th class="number" title="Classes interactive and standard">Waiting</th><th class="number">Batch</th><th class="medium number">Between attempts</th><th class="number">Oldest</th><th class="medium">Running</th><th class="wide number">Ends</th><th class="number">Start in</th></tr></thead>
        <tbody>${found.map((each) => html`<${Row} key=${each.name} queue=${each} />`)}</tbody></table></div>`
      : html`<${Empty} title=${text ? 'No queue matches' : 'All queues are quiet'}>${text ? 'Change the search.' : 'No job waited, ran or ended in the last 15 minutes.'}<//>`}
    <//>
  <//>`;
}

function Tenants({ queue }) {
  if (queue.tenants === null) return html`<p class="muted">Too many tenants wait to list them.</p>`;
  const rows = Object.entries(queue.tenants).sort((a, b) => b[1] - a[1]);
  if (!rows.length) return html`<${Empty} title="Nobody waits" />`;
  const most = rows[0][1];
  return html`<table><thead><tr><th>Tenant</th><th class="number">Waiting</th><th>Share of what waits</th></tr></thead><tbody>${rows.map(([name, jobs]) => html`<tr key=${name}>
    <td><a class="name" href=${`#/jobs?tenant=${encodeURIComponent(name)}&queue=${encodeURIComponent(queue.name)}`}>${name}</a></td><td class="number">${count(jobs)}</td>
    <td><${Meter} value=${jobs} of=${most} label=${`${Math.round((100 * jobs) / queue.depth)} percent`} /></td></tr>`)}</tbody></table>`;
}

function Windows({ queue, onClose }) {
  const [text, write] = useState(queue.windows.join('\n'));
  const [busy, set] = useState(false);
  const save = async (event) => {
    event.preventDefault();
    set(true);
    const windows = text.split('\n').map((each) => each.trim()).filter(Boolean);
    const saved = await attempt(() => put(`/api/v1/queues/${queue.name}/windows`, { windows }), windows.length ? `${queue.name} runs in its windows.` : `${queue.name} runs at any time.`);
    set(false);
    if (saved) onClose();
  };
  return html`<${Dialog} title=${`Run windows of ${queue.name}`} onClose=${onClose} footer=${html`
    <button type="button" onClick=${onClose}>Keep it</button><button class="primary" form="windows" disabled=${busy}>Save</button>`}>
    <form id="windows" onSubmit=${save}><${Field} label="One a line; none: it runs at any time" hint="As in mon-fri 22:00-06:00 Europe/Berlin, or 22:00-06:00 UTC. The days are those on which a window opens.">
      <textarea rows="4" maxlength="2400" spellcheck="false" value=${text} onInput=${(event) => write(event.target.value)} /><//></form>
  <//>`;
}

function Times({ queue }) {
  const [edits, edit] = useState(false);
  const byAdmin = queue.paused && queue.paused.by === 'admin';
  const pause = async () => {
    if (await confirmed({ title: `Pause ${queue.name}?`, text: 'No more of its jobs start. Those that run go on; the others wait, and their deadlines go on.', action: 'Pause the queue' })) {
      await attempt(() => post(`/api/v1/queues/${queue.name}/pause`, {}), `${queue.name} is paused.`);
    }
  };
  const resume = () => attempt(() => post(`/api/v1/queues/${queue.name}/resume`), `${queue.name} is resumed.`);
  return html`<${Panel} title="When it runs" actions=${isAdmin.value ? html`
      ${byAdmin ? html`<button type="button" class="tiny" onClick=${resume}>Resume</button>` : html`<button type="button" class="tiny" onClick=${pause}>Pause</button>`}
      <button type="button" class="tiny" onClick=${() => edit(true)}>Run windows</button>` : null}>
    <dl class="facts">
      <dt>Now</dt><dd>${queue.paused ? (byAdmin ? 'paused' : 'outside its run windows') : 'its jobs start'}</dd>
      ${queue.paused && queue.paused.reason ? html`<dt>Because</dt><dd>${queue.paused.reason}</dd>` : null}
      ${queue.paused && queue.paused.since ? html`<dt>Since</dt><dd>${date(queue.paused.since)}</dd>` : null}
      ${queue.paused ? html`<dt>Until</dt><dd>${queue.paused.until ? date(queue.paused.until) : 'it is resumed'}</dd>` : null}
      <dt>Run windows</dt><dd>${queue.windows.length ? queue.windows.map((each) => html`<div key=${each}>${each}</div>`) : 'none: at any time'}</dd>
    </dl>
    ${edits ? html`<${Windows} queue=${queue} onClose=${() => edit(false)} />` : null}
  <//>`;
}

function Detail({ queue, workers }) {
  const serving = workers.filter((each) => each.queues.some((q) => q.queue === queue.name) || queue.name.startsWith(`${each.backends[0]}.`));
  const batch = queue.depth - queue.urgent;
  return html`<${View} title=${queue.name} actions=${html`<a class="button" href=${`#/jobs?queue=${encodeURIComponent(queue.name)}`}>Its jobs</a>`}>
    <div class="grid-2">
      <${Panel} title="Now"><dl class="facts">
        <dt>Waiting</dt><dd>${many(queue.depth, 'job')}, about ${many(queue.tokens, 'token')}</dd>
        <dt>By class</dt><dd>${queue.interactive === null ? `${count(queue.urgent)} interactive or standard` : `${count(queue.interactive)} interactive, ${count(queue.urgent - queue.interactive)} standard`}, ${count(batch)} batch</dd>
        <dt>Between attempts</dt><dd>${count(queue.delayed)}</dd>
        <dt>Scheduled</dt><dd>${queue.scheduled ? html`<a href=${`#/jobs?queue=${encodeURIComponent(queue.name)}&status=scheduled`}>${many(queue.scheduled, 'job')}</a>` : 'none'}</dd>
        <dt>Oldest has waited</dt><dd>${span(queue.oldest_s)}</dd>
        <dt>Running</dt><dd>${count(queue.running)} of ${many(queue.slots, 'slot')}</dd>
        <dt>Drain rate</dt><dd>${queue.drain_per_s === null ? 'unknown: none ended lately' : `${rate(queue.drain_per_s)} jobs a second, ${many(queue.ended.reduce((a, b) => a + b, 0), 'job')} in 15 minutes`}</dd>
        <dt>A new job starts in</dt><dd>${queue.paused ? startsIn(queue) : queue.depth ? (queue.eta_s === null ? 'unknown' : span(queue.eta_s)) : queue.workers ? 'no time: a slot is free' : 'unknown: no worker'}</dd>
      </dl><//>
      <${Times} queue=${queue} />
      <${Panel} title="Waiting by tenant" flush=${true}><${Tenants} queue=${queue} /><//>
      <${Panel} title="Workers" flush=${true}>${serving.length ? html`<table><thead><tr><th>Worker</th>${isAdmin.value && html`<th>Host</th>`}<th>State</th></tr></thead><tbody>${serving.map((each) => html`<tr><td class="name">${each.name}</td>${isAdmin.value && html`<td>${each.host || none}</td>`}<td>${each.draining ? html`<${Badge} tone="warn">draining<//>` : html`<${Badge} tone="good">live<//>`}</td></tr>`)}</tbody></table>` : html`<${Empty} title="No worker consumes it">Jobs wait until one does, or until their deadline.<//>`}<//>
    </div>
  <//>`;
}

export default function Queues({ rest }) {
  const state = overview.value;
  if (!state) return html`<${View} title="Queues"><p class="starting">Reading the fleet…</p><//>`;
  if (!rest[0]) return html`<${List} queues=${state.queues} />`;
  const queue = state.queues.find((each) => each.name === rest[0]);
  if (!queue) return html`<${View} title=${rest[0]}><${Empty} title="This queue is empty, and no worker serves it"><a href="#/queues">All queues</a><//><//>`;
  return html`<${Detail} queue=${queue} workers=${state.workers} />`;
}
