// Dead letters by how they failed; retried some or all, at a rate, after a rehearsal.
import { del, get, post, query, stream } from '../api.js';
import { html, useEffect, useState } from '../html.js';
import { count, many, none, short, span } from '../format.js';
import { Ago, Empty, Field, Meter, Notice, Panel, usePoll, View } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { attempt, isAdmin } from '../store.js';

function Report({ report, rate }) {
  return html`<div class="stack" aria-live="polite">
    <p><strong>${many(report.matched, 'letter')}</strong> chosen${report.complete ? '' : ', more are left for another time'}; at ${rate} a second that takes ${span(report.seconds)}.</p>
    ${report.queues.length ? html`<table><thead><tr><th>Queue</th><th class="number">Letters</th><th class="number">Workers</th><th class="number">Wait there now</th></tr></thead>
      <tbody>${report.queues.map((each) => html`<tr><td class="name">${each.queue}</td><td class="number">${count(each.jobs)}</td><td class=${`number ${each.workers ? '' : 'bad'}`}>${count(each.workers)}</td><td class="number">${count(each.waiting)}</td></tr>`)}</tbody></table>` : null}
    ${report.refused.map((each) => html`<${Notice} tone="warn"><p>${many(each.jobs, 'letter')}: ${each.message}</p><//>`)}
  </div>`;
}

function Redrive({ choice, title, total, onClose }) {
  const [rate, setRate] = useState('10');
  const [limit, setLimit] = useState(String(Math.min(10000, Math.max(1, total))));
  const [rehearsal, rehearse] = useState(null);
  const [progress, move] = useState(null);
  const [stop, setStop] = useState(null);
  const body = { ...choice, rate_per_s: Number(rate), limit: Number(limit) };
  useEffect(() => { rehearse(null); }, [rate, limit]);
  const look = async () => rehearse(await attempt(() => post('/api/v1/dead/redrive', { ...body, dry_run: true })));
  const run = async () => {
    const control = new AbortController();
    setStop(control);
    await attempt(async () => {
      for await (const { data } of stream('POST', '/api/v1/dead/redrive', { body, signal: control.signal })) move(data);
    }).catch((error) => { if (!control.signal.aborted) throw error; });
    setStop(null);
  };
  const running = Boolean(stop);
  const settled = progress ? progress.retried + progress.refused.reduce((sum, each) => sum + each.jobs, 0) : 0;
  const close = () => {
    if (stop) stop.abort();
    onClose();
  };
  return html`<${Dialog} title=${title} wide=${true} onClose=${close} footer=${html`
    <button type="button" onClick=${close}>${running ? 'Stop and close' : 'Close'}</button>
    ${running ? html`<button type="button" class="danger" onClick=${() => stop.abort()}>Stop</button>` : null}
    ${!running && !progress ? html`<button type="button" onClick=${look}>Dry run</button><button type="button" class="primary" disabled=${!rehearsal} onClick=${run}>Retry them</button>` : null}`}>
    ${progress ? html`<div class="stack" aria-live="polite"><p><strong>${count(progress.retried)}</strong> of ${many(progress.matched, 'letter')} queued again${progress.done ? '.' : running ? '…' : ', then stopped: the others are still dead letters.'}</p>
        <${Meter} value=${settled} of=${progress.matched} label=${`${settled} of ${progress.matched}`} />
        ${progress.refused.map((each) => html`<${Notice} tone="warn"><p>${many(each.jobs, 'letter')}: ${each.message}</p><//>`)}</div>`
      : html`<div class="form"><div class="pair">
          <${Field} label="Letters a second"><input type="number" min="0.1" max="1000" step="any" value=${rate} onInput=${(event) => setRate(event.target.value)} /><//>
          <${Field} label="At most"><input type="number" min="1" max="10000" value=${limit} onInput=${(event) => setLimit(event.target.value)} /><//></div></div>
        ${rehearsal ? html`<${Report} report=${rehearsal} rate=${rate} />` : html`<p class="muted">A dry run says what would happen. Each letter becomes a new job of its tenant.</p>`}`}
  <//>`;
}

function Letters({ group, onChanged }) {
  const [letters, set] = useState(null);
  useEffect(() => {
    let over = false;
    Promise.all(group.newest.map((id) => get(`/api/v1/dead/${id}`).catch(() => null))).then((found) => { if (!over) set(found.filter(Boolean)); });
    return () => { over = true; };
  }, [group.newest.join()]);
  const retry = async (id) => {
    await attempt(() => post(`/api/v1/jobs/${id}/retry`), 'Enqueued again.');
    onChanged();
  };
  const purge = async (id) => {
    if (await confirmed({ title: 'Delete this dead letter?', text: 'Its request, its log and its record are deleted for good.', action: 'Delete it' })) {
      await attempt(() => del(`/api/v1/dead/${id}`), 'Deleted.');
      onChanged();
    }
  };
  if (!letters) return html`<p class="muted">Reading…</p>`;
  return html`<div class="scroll-x"><table><thead><tr><th>Newest</th><th class="medium">Tenant</th><th class="number">Attempts</th><th>Died</th><th><span class="hidden-label">Actions</span></th></tr></thead>
    <tbody>${letters.map((each) => html`<tr key=${each.id}><td class="mono"><a href=${`#/jobs/${each.id}`}>${short(each.id)}</a></td><td class="medium">${each.tenant}</td>
      <td class="number">${each.tries} of ${each.max_attempts}</td><td><${Ago} at=${each.dead_at} /></td>
      <td class="actions"><button type="button" class="tiny" onClick=${() => retry(each.id)}>Retry</button><button type="button" class="tiny danger" onClick=${() => purge(each.id)}>Delete</button></td></tr>`)}</tbody></table></div>`;
}

function Group({ group, onRedrive, onChanged }) {
  const [open, set] = useState(false);
  const title = html`<h2>${group.code || 'no error kept'}</h2><span class="badge bad">${many(group.count, 'letter')}</span><span class="muted small">${group.kind}${group.model ? ` of ${group.model}` : ''}</span>`;
  return html`<${Panel} title=${title} label=${`Dead letters: ${group.code}`} actions=${html`
      <button type="button" class="tiny" aria-expanded=${String(open)} onClick=${() => set(!open)}>${open ? 'Hide the newest' : 'Show the newest'}</button>
      <button type="button" class="tiny primary" onClick=${() => onRedrive({ choice: { fingerprint: group.fingerprint }, title: `Retry ${many(group.count, 'letter')}`, total: group.count })}>Retry…</button>`}>
    <div class="stack"><p style=${{ overflowWrap: 'anywhere' }}>${group.message || none}</p>
      <p class="small muted">${group.queues.join(', ')} · tenants ${group.tenants.join(', ')} · first <${Ago} at=${group.first_at} />, last <${Ago} at=${group.last_at} /></p>
      ${open && html`<${Letters} group=${group} onChanged=${onChanged} />`}</div>
  <//>`;
}

function Messages({ total, onChanged }) {
  const { value } = usePoll(() => get('/api/v1/dead/messages?limit=20'), 10);
  const purge = async () => {
    if (await confirmed({ title: 'Delete all unreadable messages?', text: 'They are deleted for good.', action: 'Delete them' })) {
      await attempt(() => del('/api/v1/dead/messages'), 'Deleted.');
      onChanged();
    }
  };
  return html`<${Panel} title="Messages that no worker could read" flush=${true} actions=${html`<button type="button" class="tiny danger" onClick=${purge}>Delete all ${count(total)}</button>`}>
    <div class="scroll-x"><table><thead><tr><th>Queue</th><th>Reason</th><th class="number">Bytes</th><th>Stored</th></tr></thead><tbody>${((value && value.messages) || []).map((each) => html`<tr key=${each.id}>
      <td>${each.queue}</td><td>${each.reason}</td><td class="number">${count(each.size_bytes)}</td><td><${Ago} at=${each.at} /></td></tr>`)}</tbody></table></div><//>`;
}

export default function Dead() {
  const [asked, ask] = useState(null);
  const { value, error, again } = usePoll(async () => {
    const [groups, page] = await Promise.all([get('/api/v1/dead/groups'), get(query('/api/v1/dead', { limit: 1 }))]);
    return { ...groups, unreadable: page.unreadable };
  }, 5);
  const groups = value ? value.groups : [];
  const total = groups.reduce((sum, each) => sum + each.count, 0);
  return html`<${View} title="Dead letters" actions=${total ? html`<button type="button" class="primary" onClick=${() => ask({ choice: {}, title: `Retry all ${many(total, 'letter')}`, total })}>Retry all…</button>` : null}>
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    ${value && !value.complete ? html`<${Notice} tone="warn"><p>There are more than ${count(value.counted)} dead letters; the newest are shown.</p><//>` : null}
    ${groups.map((each) => html`<${Group} key=${each.fingerprint} group=${each} onRedrive=${ask} onChanged=${again} />`)}
    ${value && !groups.length ? html`<${Panel}><${Empty} title="No dead letters">A job that has used all its attempts would be kept here.<//><//>` : null}
    ${isAdmin.value && value && value.unreadable ? html`<${Messages} total=${value.unreadable} onChanged=${again} />` : null}
    ${asked && html`<${Redrive} ...${asked} onClose=${() => { ask(null); again(); }} />`}
  <//>`;
}
