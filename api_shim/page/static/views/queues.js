// Queues: what waits and for how long, whose it is, how fast it drains.
import { html, useState } from '../html.js';
import { count, many, none, rate, span } from '../format.js';
import { Badge, Empty, Meter, Panel, Search, View } from '../parts/controls.js';
import { overview } from '../store.js';

function Row({ queue }) {
  const waiting = queue.depth + queue.delayed;
  return html`<tr>
    <td><a class="name" href=${`#/queues/${queue.name}`}>${queue.name}</a></td>
    <td>${queue.workers ? html`<${Badge} tone=${queue.running ? 'run' : 'good'}>${queue.running ? 'working' : 'ready'}<//>` : queue.is_known ? html`<${Badge} tone=${waiting ? 'warn' : 'hollow'}>${waiting ? 'starts a worker' : 'asleep'}<//>` : html`<${Badge} tone=${waiting ? 'bad' : 'warn'}>no worker<//>`}</td>
    <td class="number">${count(queue.urgent)}</td><td class="number">${count(queue.depth - queue.urgent)}</td>
    <td class="medium number">${queue.delayed ? count(queue.delayed) : none}</td>
    <td class="number">${span(queue.oldest_s)}</td>
    <td class="medium"><div class="meter-cell"><${Meter} value=${queue.running} of=${queue.slots} second=${true} label=${`${queue.running} of ${queue.slots} slots`} /><span class="number small">${count(queue.running)}/${count(queue.slots)}</span></div></td>
    <td class="wide number">${queue.drain_per_s === null ? none : `${rate(queue.drain_per_s)}/s`}</td>
    <td class="number">${queue.depth ? span(queue.eta_s) : queue.workers ? 'at once' : none}</td>
  </tr>`;
}

function List({ queues }) {
  const [text, find] = useState('');
  const [all, show] = useState(false);
  const used = queues.filter((each) => each.depth || each.delayed || each.running || each.ended.some(Boolean));
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

function Detail({ queue, workers }) {
  const serving = workers.filter((each) => each.queues.some((q) => q.queue === queue.name) || queue.name.startsWith(`${each.backends[0]}.`));
  const batch = queue.depth - queue.urgent;
  return html`<${View} title=${queue.name} actions=${html`<a class="button" href=${`#/jobs?queue=${encodeURIComponent(queue.name)}`}>Its jobs</a>`}>
    <div class="grid-2">
      <${Panel} title="Now"><dl class="facts">
        <dt>Waiting</dt><dd>${many(queue.depth, 'job')}, about ${many(queue.tokens, 'token')}</dd>
        <dt>By class</dt><dd>${count(queue.urgent)} interactive or standard, ${count(batch)} batch</dd>
        <dt>Between attempts</dt><dd>${count(queue.delayed)}</dd>
        <dt>Oldest has waited</dt><dd>${span(queue.oldest_s)}</dd>
        <dt>Running</dt><dd>${count(queue.running)} of ${many(queue.slots, 'slot')}</dd>
        <dt>Drain rate</dt><dd>${queue.drain_per_s === null ? 'unknown: none ended lately' : `${rate(queue.drain_per_s)} jobs a second, ${many(queue.ended.reduce((a, b) => a + b, 0), 'job')} in 15 minutes`}</dd>
        <dt>A new job starts in</dt><dd>${queue.depth ? (queue.eta_s === null ? 'unknown' : span(queue.eta_s)) : queue.workers ? 'no time: a slot is free' : 'unknown: no worker'}</dd>
      </dl><//>
      <${Panel} title="Waiting by tenant" flush=${true}><${Tenants} queue=${queue} /><//>
      <${Panel} title="Workers" flush=${true}>${serving.length ? html`<table><thead><tr><th>Worker</th><th>Host</th><th>State</th></tr></thead><tbody>${serving.map((each) => html`<tr><td class="name">${each.name}</td><td>${each.host}</td><td>${each.draining ? html`<${Badge} tone="warn">draining<//>` : html`<${Badge} tone="good">live<//>`}</td></tr>`)}</tbody></table>` : html`<${Empty} title="No worker consumes it">Jobs wait until one does, or until their deadline.<//>`}<//>
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
