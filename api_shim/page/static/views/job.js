// One job: its stream as it is spoken or was, its attempts and timings, and what can be done now.
import { del, follow, get, isOver, post } from '../api.js';
import { html, useEffect, useRef, useState } from '../html.js';
import { clock, count, date, ms, none, short, span } from '../format.js';
import { append, asCurl, fold } from '../job_log.js';
import { Answer } from '../parts/answer.js';
import { Badge, Copy, Empty, Icon, Notice, Panel, Status, View } from '../parts/controls.js';
import { confirmed } from '../parts/overlays.js';
import { attempt, caller, go } from '../store.js';

// The events of a job so far; the list grows in place, and `version` says when it has: a component
// is drawn again only if one of its properties is another value.
function useEvents(id) {
  const events = useRef([]);
  const [state, set] = useState({ version: 0, error: null, over: false });
  useEffect(() => {
    const stop = new AbortController();
    let frame = 0;
    const show = () => {
      frame = 0;
      set((old) => ({ ...old, version: old.version + 1 }));
    };
    const read = async () => {
      try {
        for await (const event of follow(id, stop.signal)) {
          if (event.type === 'log_reset') events.current.length = 0;
          else append(events.current, event);
          frame = frame || requestAnimationFrame(show);
        }
        if (!stop.signal.aborted) set((old) => ({ ...old, version: old.version + 1, over: true }));
      } catch (error) {
        set((old) => ({ ...old, error, over: true }));
      }
    };
    read();
    return () => {
      stop.abort();
      cancelAnimationFrame(frame);
    };
  }, [id]);
  return { events: events.current, ...state };
}

function useRecord(id, version, over) {
  const [record, set] = useState(null);
  useEffect(() => {
    let gone = false;
    get(`/api/v1/jobs/${id}?result=false`).then((found) => { if (!gone) set(found); }, () => {});
    return () => { gone = true; };
  }, [id, over, version === 0]);
  return record;
}

// Where the reader is in the log: at its end, or at an event, moving at the speed it was spoken.
function useReplay(events) {
  const [at, set] = useState(null);
  const [speed, play] = useState(0);
  useEffect(() => {
    if (!speed || at === null) return undefined;
    if (at >= events.length) {
      play(0);
      set(null);
      return undefined;
    }
    const gap = at > 0 ? events[at].at - events[at - 1].at : 0;
    const timer = setTimeout(() => set(at + 1), Math.min(1500, Math.max(0, (gap * 1000) / speed)));
    return () => clearTimeout(timer);
  }, [at, speed]);
  return { at, speed, seek: (to) => { play(0); set(to >= events.length ? null : to); }, start: (how) => { set(at === null ? 0 : at); play(how); }, stop: () => play(0), live: () => { play(0); set(null); } };
}

function Stream({ events, over }) {
  const replay = useReplay(events);
  const shown = replay.at === null ? events.length : replay.at;
  const state = fold(events, shown);
  const live = !over && replay.at === null;
  const box = useRef();
  const stick = useRef(true);
  useEffect(() => {
    if (stick.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  });
  const moment = shown > 0 ? events[shown - 1].at - events[0].at : 0;
  return html`<${Panel} flush=${true} title=${html`<h2>Stream</h2>${replay.at !== null ? html`<${Badge} tone="warn">replay<//>` : over ? null : html`<${Badge} tone="run">live<//>`}`} label="Stream"
    actions=${html`<span class="muted small number">${count(shown)} of ${count(events.length)} events</span>`}>
    <div class="answer" tabindex="0" role="region" aria-label="Answer" ref=${box}
      onScroll=${({ currentTarget: it }) => { stick.current = it.scrollHeight - it.scrollTop - it.clientHeight < 40; }}>
      <${Answer} state=${state} live=${live || replay.at !== null} />
      ${!live && replay.at === null && !state.parts.length && !state.vectors && !state.scores && !state.details && !state.progress ? html`<span class="muted">${state.end && state.end.message ? state.end.message : 'Nothing was said.'}</span>` : null}
    </div>
    <div class="scrub">
      ${replay.speed
        ? html`<button type="button" class="quiet tiny" aria-label="Pause the replay" onClick=${replay.stop}><${Icon} name="pause" /></button>`
        : html`<button type="button" class="quiet tiny" aria-label="Replay" disabled=${events.length < 2} onClick=${() => replay.start(1)}><${Icon} name="play" /></button>`}
      <button type="button" class="quiet tiny" disabled=${events.length < 2} aria-label="8× as fast" title="Replay eight times as fast" onClick=${() => replay.start(8)}>8×</button>
      <input type="range" min="0" max=${events.length} value=${shown} aria-label="Event" aria-valuetext=${`event ${shown} of ${events.length}`} onInput=${(event) => replay.seek(Number(event.target.value))} />
      <span class="at">${span(moment)} ${replay.at !== null ? html`<button type="button" class="quiet tiny" onClick=${replay.live}>${over ? 'end' : 'live'}</button>` : null}</span>
    </div>
  <//>`;
}

function Timings({ record, state }) {
  const end = record.ended_at || (state.end && state.end.at) || Date.now() / 1000;
  const started = record.started_at;
  const first = state.firstAt;
  const phases = [
    ['wait', 'Waited', (started || end) - record.created_at],
    ['first', 'First word', started ? (first ?? end) - started : null],
    ['speak', 'Answered', first ? end - first : null],
  ];
  const { timings = {}, usage } = { ...state.end, usage: state.usage };
  const speaking = first ? end - first : 0;
  return html`<div class="phases" role="img" aria-label=${phases.filter(([, , s]) => s).map(([, text, s]) => `${text} ${span(s)}`).join(', ')}>
      ${phases.map(([name, , seconds]) => (seconds > 0 ? html`<span class=${name} style=${{ flexGrow: seconds }}></span>` : null))}</div>
    <div class="timing">
      ${phases.map(([name, text, seconds]) => html`<span><span class=${`swatch ${name}`}></span>${text}</span><span class="number">${span(seconds)}</span>`)}
      ${timings.load_ms ? html`<span class="muted">of which loading</span><span class="number muted">${ms(timings.load_ms)}</span>` : null}
      <strong>Total</strong><strong class="number">${span(end - record.created_at)}</strong>
      ${usage ? html`<span class="muted">Tokens in / out</span><span class="number muted">${count(usage.prompt_tokens)} / ${count(usage.completion_tokens)}</span>` : null}
      ${usage && speaking > 0.05 ? html`<span class="muted">Tokens a second</span><span class="number muted">${count(usage.completion_tokens / speaking)}</span>` : null}
    </div>`;
}

function Attempts({ state }) {
  if (!state.attempts.length) return html`<${Empty} title="Not started">${state.queue && state.queue.reason}<//>`;
  return html`<ol class="steps">${state.attempts.map((each) => html`<li><strong class="number">${each.number}</strong>
    <div class="grow"><div class="cut" title=${each.worker}>${each.worker}</div>
      <div class="small muted">${[each.backend, each.endpoint].filter(Boolean).join(', ')}</div>
      <div class="small muted">${clock(each.at)}${each.endedAt ? `, ${span(each.endedAt - each.at)}` : ', runs'}</div></div>
    <span class="small ${each.how === 'done' ? 'good' : each.how === 'failed' ? 'bad' : 'muted'}">${each.how || ''}</span></li>`)}</ol>`;
}

function Facts({ record }) {
  const rows = [
    ['Job', html`<span class="mono small">${record.id}</span>`], ['Kind', record.kind], ['Model', record.model || none],
    record.alias && ['Alias', record.alias],
    record.conversation && ['Conversation', `${record.conversation}${record.conversation_policy ? ` (${record.conversation_policy})` : ''}`],
    ['Queue', html`<a href=${`#/queues/${record.queue}`}>${record.queue}</a>`], ['Tenant', record.tenant], ['Priority', record.priority],
    ['Created', date(record.created_at)], record.deadline_at && !isOver(record.status) && ['Deadline', date(record.deadline_at)],
    ['Attempts', `${record.tries} of ${record.max_attempts}${record.lost ? `, ${record.lost} lost workers` : ''}`],
    ['If left', typeof record.on_disconnect === 'object' ? `cancelled after ${span(record.on_disconnect.cancel_after_s)}` : record.on_disconnect === 'cancel' ? 'cancelled' : 'continues'],
    record.not_before && ['Not before', date(record.not_before)],
    (record.after.length > 0 || record.after_any.length > 0) && ['Waits for', [...record.after, ...record.after_any].map((each) => html`<a class="mono" key=${each} href=${`#/jobs/${each}`}>${short(each)}</a> `)],
    record.retry_of && ['Retry of', html`<a class="mono" href=${`#/jobs/${record.retry_of}`}>${short(record.retry_of)}</a>`],
    record.retried_as && ['Retried as', html`<a class="mono" href=${`#/jobs/${record.retried_as}`}>${short(record.retried_as)}</a>`],
    Object.keys(record.metadata).length > 0 && ['Metadata', html`<span class="mono small">${JSON.stringify(record.metadata)}</span>`],
  ].filter(Boolean);
  return html`<dl class="facts">${rows.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

function Request({ id }) {
  const [request, set] = useState(null);
  return html`<${Panel} title="Request" actions=${!request && html`<button type="button" class="tiny" onClick=${async () => set(await attempt(() => get(`/api/v1/jobs/${id}/request`)))}>Show</button>`}>
    ${request ? html`<pre class="code" tabindex="0">${JSON.stringify(request.request, null, 2)}</pre>` : html`<p class="muted">What the client sent, without fields that have their default.</p>`}
  <//>`;
}

function Actions({ record, over, status }) {
  const id = record.id;
  const cancel = async () => {
    if (await confirmed({ title: 'Cancel this job?', text: 'Its backend is told to stop at once. What was said so far stays in its log.', action: 'Cancel the job' })) {
      attempt(() => del(`/api/v1/jobs/${id}`), 'Cancelled.');
    }
  };
  const again = async () => {
    const accepted = await attempt(async () => {
      if (record.dead_at && !record.retried_as) return post(`/api/v1/jobs/${id}/retry`);
      const { kind, request } = await get(`/api/v1/jobs/${id}/request`);
      return post(`/api/v1/jobs/${kind}`, request);
    }, 'Enqueued again.');
    if (accepted) go(`/jobs/${accepted.id}`);
  };
  const curl = () => attempt(async () => {
    const { kind, request } = await get(`/api/v1/jobs/${id}/request`);
    return asCurl(kind, request, caller.value.needs_key);
  });
  return html`<${Copy} text=${curl} label="Copy as curl" />
    ${over || isOver(status)
      ? html`<button type="button" class="primary" onClick=${again}>${record.dead_at && !record.retried_as ? 'Retry' : 'Run again'}</button>`
      : html`<button type="button" class="danger" onClick=${cancel}><${Icon} name="stop" />Cancel</button>`}`;
}

export default function Job({ id }) {
  const { events, version, error, over } = useEvents(id);
  const record = useRecord(id, version, over);
  const state = fold(events);
  const known = record ? record.status : 'queued';
  const status = events.length && !(known === 'scheduled' && state.status === 'queued') ? state.status : known;
  if (error && !record) return html`<${View} title="Job"><${Notice} tone="bad"><p>${error.message}</p><//><p><a href="#/jobs">All jobs</a></p><//>`;
  if (!record) return html`<${View} title=${`Job ${short(id)}`}><p class="starting">Reading the log…</p><//>`;
  return html`<${View} name=${`Job ${short(record.id)}`} title=${html`<span class="row">Job <span class="mono">${short(record.id)}</span> <${Status} of=${status} /></span>`}
      actions=${html`<${Actions} record=${record} over=${over} status=${status} />`}>
    ${state.end && state.end.type === 'failed' && html`<${Notice} tone="bad"><p><strong>${state.end.code}</strong>: ${state.end.message}</p><//>`}
    ${state.end && state.end.type === 'cancelled' && html`<${Notice} tone="warn"><p>Cancelled by ${state.end.by}${state.end.reason ? `: ${state.end.reason}` : '.'}</p><//>`}
    <div class="job-grid">
      <div class="stack"><${Stream} events=${events} version=${version} over=${over} /><${Request} id=${record.id} /></div>
      <div class="stack">
        <${Panel} title="Timings"><${Timings} record=${record} state=${state} /><//>
        <${Panel} title="Attempts"><${Attempts} state=${state} /><//>
        <${Panel} title="About"><${Facts} record=${record} /><//>
      </div>
    </div>
  <//>`;
}
