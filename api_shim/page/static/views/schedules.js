// Schedules: jobs and batches for later by their time, jobs that wait for others, when queues run, limits.
import { del, get, post, query } from '../api.js';
import { html } from '../html.js';
import { ahead, date, none, short } from '../format.js';
import { Ago, Badge, Empty, Notice, Panel, usePoll, View } from '../parts/controls.js';
import { confirmed } from '../parts/overlays.js';
import { attempt, may, overview } from '../store.js';
import { Limits } from './usage.js';

const MOST = 100;

const link = (id) => html`<a class="mono" href=${`#/jobs/${id}`}>${short(id)}</a>`;

function Cancel({ of, path, remove = del, onChanged }) {
  const cancel = async () => {
    if (await confirmed({ title: `Cancel this ${of}?`, text: 'It will not run.', action: `Cancel the ${of}` })) {
      await attempt(() => remove(path), `The ${of} is cancelled.`);
      onChanged();
    }
  };
  return html`<button type="button" class="tiny danger" onClick=${cancel}>Cancel</button>`;
}

function Timed({ jobs, batches, onChanged }) {
  const rows = [...jobs.map((job) => ({ at: job.not_before, job })), ...batches.map((batch) => ({ at: batch.not_before, batch }))].sort((a, b) => a.at - b.at);
  if (!rows.length) return html`<${Empty} title="Nothing is to start later">A request may say <code>not_before</code>; so do <code>fleet embed --at 22:00</code> and <code>fleet batch submit --at 22:00</code>.<//>`;
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of what starts later"><table><thead><tr><th>Starts</th><th class="medium">At</th><th>What</th><th class="medium">Model</th><th class="wide">Queue</th><th class="medium">Tenant</th><th><span class="hidden-label">Actions</span></th></tr></thead>
    <tbody>${rows.map(({ at, job, batch }) => (job
      ? html`<tr key=${job.id}><td>${ahead(at)}</td><td class="medium">${date(at)}</td><td>${job.kind} ${link(job.id)}</td><td class="medium">${job.model || none}</td><td class="wide"><a href=${`#/queues/${job.queue}`}>${job.queue}</a></td><td class="medium">${job.tenant}</td>
        <td class="actions"><${Cancel} of="job" path=${`/api/v1/jobs/${job.id}`} onChanged=${onChanged} /></td></tr>`
      : html`<tr key=${batch.id}><td>${ahead(at)}</td><td class="medium">${date(at)}</td><td>batch <a class="mono" href="#/batches">${short(batch.id.replace('batch_', ''))}</a></td><td class="medium">${none}</td><td class="wide">${batch.endpoint}</td><td class="medium">${none}</td>
        <td class="actions"><${Cancel} of="batch" path=${`/v1/batches/${batch.id}/cancel`} remove=${post} onChanged=${onChanged} /></td></tr>`))}</tbody></table></div>`;
}

function Blocked({ jobs, onChanged }) {
  if (!jobs.length) return html`<${Empty} title="No job waits for another">A request may name jobs in <code>after</code> and <code>after_any</code>.<//>`;
  const parents = (ids) => ids.map((id, at) => html`${at ? ', ' : ''}${link(id)}`);
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of jobs that wait for others"><table><thead><tr><th>Job</th><th class="medium">Model</th><th>Waits for</th><th class="medium">Not before</th><th class="wide">Queue</th><th class="medium">Created</th><th><span class="hidden-label">Actions</span></th></tr></thead>
    <tbody>${jobs.map((job) => html`<tr key=${job.id}><td>${job.kind} ${link(job.id)}</td><td class="medium">${job.model || none}</td>
      <td>${job.after.length ? html`<div>done: ${parents(job.after)}</div>` : null}${job.after_any.length ? html`<div>ended: ${parents(job.after_any)}</div>` : null}</td>
      <td class="medium">${job.not_before ? date(job.not_before) : none}</td><td class="wide">${job.queue}</td><td class="medium"><${Ago} at=${job.created_at} /></td>
      <td class="actions"><${Cancel} of="job" path=${`/api/v1/jobs/${job.id}`} onChanged=${onChanged} /></td></tr>`)}</tbody></table></div>`;
}

function Times({ queues }) {
  const timed = queues.filter((each) => each.paused || each.windows.length);
  if (!timed.length) return html`<${Empty} title="All queues run at any time">A queue's own view pauses it and sets its run windows.<//>`;
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of queues that are paused or have windows"><table><thead><tr><th>Queue</th><th>Now</th><th>Until</th><th class="medium">Run windows</th><th class="wide">Because</th></tr></thead>
    <tbody>${timed.map(({ name, paused, windows }) => html`<tr key=${name}><td><a class="name" href=${`#/queues/${name}`}>${name}</a></td>
      <td>${paused ? html`<${Badge} tone="warn">${paused.by === 'windows' ? 'outside its windows' : 'paused'}<//>` : html`<${Badge} tone="good">runs<//>`}</td>
      <td>${paused ? (paused.until ? html`<span title=${date(paused.until)}>${ahead(paused.until)}</span>` : 'it is resumed') : none}</td>
      <td class="medium">${windows.length ? windows.map((each) => html`<div key=${each}>${each}</div>`) : 'at any time'}</td><td class="wide">${(paused && paused.reason) || none}</td></tr>`)}</tbody></table></div>`;
}

export default function Schedules() {
  const scheduled = usePoll(() => get(query('/api/v1/jobs/scheduled', { limit: MOST })), 5);
  const batches = usePoll(() => (may('batches') ? get('/v1/batches?limit=100') : { data: [] }), 5);
  const limits = usePoll(() => get('/api/v1/usage/limits'), 5);
  const error = scheduled.error || batches.error || limits.error;
  const jobs = scheduled.value ? scheduled.value.jobs : [];
  const again = () => { scheduled.again(); batches.again(); };
  const later = (batches.value ? batches.value.data : []).filter((each) => each.not_before && each.status === 'validating');
  return html`<${View} title="Schedules">
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    ${scheduled.value && !scheduled.value.complete ? html`<${Notice}><p>There are more: these are the first ${jobs.length}.</p><//>` : null}
    <${Panel} title="By time" flush=${true}>${scheduled.value && html`<${Timed} jobs=${jobs.filter((each) => !each.blocked)} batches=${later} onChanged=${again} />`}<//>
    <${Panel} title="Waiting for other jobs" flush=${true}>${scheduled.value && html`<${Blocked} jobs=${jobs.filter((each) => each.blocked)} onChanged=${again} />`}<//>
    ${overview.value && html`<${Panel} title="When queues run" flush=${true}><${Times} queues=${overview.value.queues} /><//>`}
    <${Panel} title="Limits" flush=${true}>${limits.value && html`<${Limits} page=${limits.value} />`}<//>
  <//>`;
}
