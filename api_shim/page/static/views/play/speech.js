// One answer of a model as it comes: enqueued as a job, followed, stopped on demand.
import { del, follow, post } from '../../api.js';
import { html, useEffect, useRef, useState } from '../../html.js';
import { many, rate, short, span } from '../../format.js';
import { append, fold } from '../../job_log.js';
import { waitingFor } from '../../parts/answer.js';
import { attempt } from '../../store.js';

// `say(kind, body)` runs a job; `state` is its fold, or null; the last one stays until the next.
export function useSpeech() {
  const [run, set] = useState({ id: null, state: null, at: null, busy: false });
  const stop = useRef(null);
  useEffect(() => () => { if (stop.current) stop.current.abort(); }, []);
  const say = async (kind, body) => {
    const control = new AbortController();
    stop.current = control;
    const sent = performance.now();
    set({ id: null, state: null, busy: true });
    const events = [];
    const vectors = [];
    let frame = 0;
    const finished = await attempt(async () => {
      const { id } = await post(`/api/v1/jobs/${kind}`, { ...body, priority: 'interactive', on_disconnect: { cancel_after_s: 30 } }, { signal: control.signal });
      control.job = id;
      set({ id, state: fold([]), busy: true });
      let first = null;
      const show = () => {
        frame = 0;
        if (!control.signal.aborted) set({ id, state: fold(events), first, busy: true });
      };
      for await (const event of follow(id, control.signal, { always: true })) {
        if (first === null && ['delta', 'vectors', 'image'].includes(event.type)) first = (performance.now() - sent) / 1000;
        if (event.type === 'vectors') vectors.push(event);
        if (event.type === 'reset') vectors.length = 0;
        append(events, event);
        frame = frame || requestAnimationFrame(show);
      }
      cancelAnimationFrame(frame);
      const state = fold(events);
      if (!control.signal.aborted) set({ id, state, first, busy: false });
      return { id, state, first, vectors };
    }).catch((error) => { if (!control.signal.aborted) throw error; });
    if (!finished && !control.signal.aborted) set({ id: null, state: null, busy: false });
    return finished;
  };
  const halt = () => { if (stop.current && stop.current.job) attempt(() => del(`/api/v1/jobs/${stop.current.job}`)); };
  return { ...run, say, halt };
}

export function Meta({ id, state, first }) {
  if (!state) return null;
  const { usage, end, firstAt } = state;
  const took = end && firstAt ? end.at - firstAt : null;
  const parts = [
    first ? `first word ${span(first)}` : null,
    usage && usage.completion_tokens ? many(usage.completion_tokens, 'token') : null,
    usage && usage.completion_tokens && took > 0.05 ? `${rate(usage.completion_tokens / took)} tokens/s` : null,
    end && end.ignored && end.ignored.length ? `ignored: ${end.ignored.join(', ')}` : null,
    end && end.type === 'cancelled' ? 'stopped' : null,
  ].filter(Boolean);
  return html`<span class="meta">${parts.join(' · ')}${id ? html`${parts.length ? ' · ' : ''}<a href=${`#/jobs/${id}`}>job ${short(id)}</a>` : null}</span>`;
}

// The parts of an answer, with the thinking folded away above it.
export function Spoken({ state, busy }) {
  const thought = state.parts.filter((each) => each.kind === 'thinking').map((each) => each.text).join('');
  const rest = state.parts.filter((each) => each.kind !== 'thinking');
  const failed = state.end && state.end.type === 'failed';
  return html`${thought && html`<details class="thought" open=${busy && !rest.length}><summary>Thinking</summary><div>${thought}</div></details>`}
    <div class="text">${rest.map((part, at) => (part.kind === 'call'
      ? html`<span class="call mono">${part.name}(${part.arguments})</span>`
      : html`<span class=${`${part.kind === 'mark' ? 'muted small' : ''} ${busy && at === rest.length - 1 ? 'cursor' : ''}`}>${part.text}</span>`))}
      ${busy && !rest.length ? html`<span class="muted cursor">${waitingFor(state)}</span>` : null}
      ${failed ? html`<span class="bad">${state.end.message}</span>` : null}</div>`;
}
