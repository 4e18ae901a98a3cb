// Batches with their progress, rate and what went wrong, and the files they read and wrote.
import { call, del, download, get, post } from '../api.js';
import { html, useRef, useState } from '../html.js';
import { bytes, count, date, many, none, rate, short, span } from '../format.js';
import { Ago, Empty, Icon, Meter, Notice, Panel, Status, usePoll, View } from '../parts/controls.js';
import { confirmed, Dialog } from '../parts/overlays.js';
import { attempt, may } from '../store.js';

const LIVE = new Set(['validating', 'in_progress', 'finalizing', 'cancelling']);
const tail = (id) => short(id.replace(/^(batch_|file-)/, ''));

// Answers a second of each running batch, from what two polls have seen.
function useRates(batches) {
  const seen = useRef(new Map());
  const now = Date.now() / 1000;
  return new Map(batches.map((each) => {
    const done = each.request_counts.completed + each.request_counts.failed;
    const past = (seen.current.get(each.id) || []).filter((point) => now - point.at < 60);
    if (!past.length || past[past.length - 1].done !== done || now - past[past.length - 1].at > 2) past.push({ at: now, done });
    seen.current.set(each.id, past);
    const first = past[0];
    const passed = now - first.at;
    return [each.id, passed > 2 ? (done - first.done) / passed : null];
  }));
}

function Row({ batch, speed, onOpen, onChanged }) {
  const { total, completed, failed } = batch.request_counts;
  const done = completed + failed;
  const live = LIVE.has(batch.status);
  const cancel = async () => {
    if (await confirmed({ title: 'Cancel this batch?', text: 'Answers so far are kept in its output.', action: 'Cancel the batch' })) {
      await attempt(() => post(`/v1/batches/${batch.id}/cancel`), 'The batch is being cancelled.');
      onChanged();
    }
  };
  return html`<tr><td class="mono"><button type="button" class="quiet tiny mono" onClick=${onOpen}>${tail(batch.id)}</button></td><td><${Status} of=${batch.status === 'validating' && batch.not_before ? 'scheduled' : batch.status} /></td>
    <td class="medium">${batch.endpoint}</td>
    <td><div class="meter-cell"><${Meter} value=${done} of=${total} label=${`${done} of ${total}`} /><span class="number small">${count(done)}/${count(total)}</span></div></td>
    <td class=${`number ${failed ? 'bad' : ''}`}>${count(failed)}</td>
    <td class="wide number">${live && speed ? `${rate(speed)}/s` : none}</td><td class="medium number">${live && speed ? span((total - done) / speed) : none}</td>
    <td class="wide"><${Ago} at=${batch.created_at} /></td>
    <td class="actions">${batch.output_file_id ? html`<button type="button" class="tiny" onClick=${() => attempt(() => download(`/v1/files/${batch.output_file_id}/content`, `${batch.id}-output.jsonl`))}>Output</button>` : null}
      ${batch.error_file_id ? html`<button type="button" class="tiny" onClick=${() => attempt(() => download(`/v1/files/${batch.error_file_id}/content`, `${batch.id}-errors.jsonl`))}>Errors</button>` : null}
      ${live && batch.status !== 'cancelling' ? html`<button type="button" class="tiny danger" onClick=${cancel}>Cancel</button>` : null}</td></tr>`;
}

function Details({ batch, onClose }) {
  const times = [['Created', 'created_at'], ['Not before', 'not_before'], ['Started', 'in_progress_at'], ['Completed', 'completed_at'], ['Failed', 'failed_at'], ['Expired', 'expired_at'], ['Cancelled', 'cancelled_at'], ['Given up at', 'expires_at']];
  const errors = batch.errors ? batch.errors.data : [];
  return html`<${Dialog} title="Batch" wide=${true} onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button>`}>
    <dl class="facts"><dt>Id</dt><dd class="mono small">${batch.id}</dd><dt>Status</dt><dd><${Status} of=${batch.status} /></dd><dt>Requests</dt><dd>${many(batch.request_counts.total, 'request')}, ${count(batch.request_counts.completed)} answered, ${count(batch.request_counts.failed)} failed</dd>
      <dt>Tokens</dt><dd>${count(batch.usage.input_tokens)} in, ${count(batch.usage.output_tokens)} out</dd>
      ${times.filter(([, name]) => batch[name]).map(([text, name]) => html`<dt>${text}</dt><dd>${date(batch[name])}</dd>`)}
      <dt>Input</dt><dd class="mono small">${batch.input_file_id}</dd>
      ${batch.metadata && html`<dt>Metadata</dt><dd class="mono small">${JSON.stringify(batch.metadata)}</dd>`}</dl>
    ${errors.map((each) => html`<${Notice} tone="bad"><p>${each.line ? `Line ${each.line}: ` : ''}${each.message}</p><//>`)}
  <//>`;
}

function Files({ files, onChanged }) {
  const remove = async (file) => {
    if (await confirmed({ title: `Delete ${file.filename}?`, text: 'Its bytes are deleted for good.', action: 'Delete the file' })) {
      await attempt(() => del(`/v1/files/${file.id}`), 'Deleted.');
      onChanged();
    }
  };
  if (!files.length) return html`<${Empty} title="No files">Uploads and the outputs of batches are kept here until they expire.<//>`;
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of files"><table><thead><tr><th>File</th><th class="medium">Purpose</th><th class="number">Size</th><th class="medium">Created</th><th><span class="hidden-label">Actions</span></th></tr></thead>
    <tbody>${files.map((each) => html`<tr key=${each.id}><td><span class="name">${each.filename}</span><div class="mono small muted">${tail(each.id)}</div></td><td class="medium">${each.purpose.replace('_', ' ')}</td><td class="number">${bytes(each.bytes)}</td><td class="medium"><${Ago} at=${each.created_at} /></td>
      <td class="actions"><button type="button" class="tiny" onClick=${() => attempt(() => download(`/v1/files/${each.id}/content`, each.filename))}>Download</button><button type="button" class="tiny danger" onClick=${() => remove(each)}>Delete</button></td></tr>`)}</tbody></table></div>`;
}

function Create({ onClose, onChanged }) {
  const [file, choose] = useState(null);
  const [endpoint, point] = useState('/v1/chat/completions');
  const [within, set] = useState('24h');
  const [busy, work] = useState(false);
  const create = async (event) => {
    event.preventDefault();
    work(true);
    const made = await attempt(async () => {
      const form = new FormData();
      form.append('purpose', 'batch');
      form.append('file', file);
      const uploaded = await call('POST', '/v1/files', form);
      return post('/v1/batches', { input_file_id: uploaded.id, endpoint, completion_window: within });
    }, 'The batch is created.');
    work(false);
    if (made) {
      onChanged();
      onClose();
    }
  };
  return html`<${Dialog} title="New batch" onClose=${onClose} footer=${html`<button type="button" onClick=${onClose}>Close</button><button type="submit" form="new-batch" class="primary" disabled=${!file || busy}>${busy ? 'Uploading…' : 'Create'}</button>`}>
    <form id="new-batch" class="form" onSubmit=${create}>
      <label class="field"><span>File of requests</span><input type="file" accept=".jsonl" required onChange=${(event) => choose(event.target.files[0])} /><span class="hint">One JSON object a line: custom_id, method, url, body.</span></label>
      <div class="pair"><label class="field"><span>Endpoint</span><select value=${endpoint} onChange=${(event) => point(event.target.value)}>${['/v1/chat/completions', '/v1/embeddings', '/v1/responses', '/v1/completions', '/v1/rerank'].map((each) => html`<option>${each}</option>`)}</select></label>
        <label class="field"><span>Within</span><input value=${within} pattern="[1-9][0-9]{0,6}[smhd]" onInput=${(event) => set(event.target.value)} /></label></div>
    </form><//>`;
}

export default function Batches() {
  const [open, show] = useState(null);
  const [creating, create] = useState(false);
  const { value, error, again } = usePoll(async () => {
    const [batches, files] = await Promise.all([may('batches') ? get('/v1/batches?limit=100') : { data: [] }, may('files') ? get('/v1/files?limit=100') : { data: [] }]);
    return { batches: batches.data, more: batches.has_more, files: files.data };
  }, 2);
  const batches = value ? value.batches : [];
  const rates = useRates(batches);
  const shown = batches.find((each) => each.id === open);
  return html`<${View} title="Batches and files" actions=${may('batches') && may('files') && html`<button type="button" class="primary" onClick=${() => create(true)}><${Icon} name="more" />New batch</button>`}>
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    <${Panel} title="Batches" flush=${true}>${batches.length ? html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of batches"><table><thead><tr><th>Batch</th><th>Status</th><th class="medium">Endpoint</th><th>Progress</th><th class="number">Failed</th><th class="wide number">Rate</th><th class="medium number">Left</th><th class="wide">Created</th><th><span class="hidden-label">Actions</span></th></tr></thead>
      <tbody>${batches.map((each) => html`<${Row} key=${each.id} batch=${each} speed=${rates.get(each.id)} onOpen=${() => show(each.id)} onChanged=${again} />`)}</tbody></table></div>` : value ? html`<${Empty} title="No batches">A file of many requests, answered in another file.<//>` : null}<//>
    <${Panel} title="Files" flush=${true}>${value && html`<${Files} files=${value.files} onChanged=${again} />`}<//>
    ${shown && html`<${Details} batch=${shown} onClose=${() => show(null)} />`}
    ${creating && html`<${Create} onClose=${() => create(false)} onChanged=${again} />`}
  <//>`;
}
