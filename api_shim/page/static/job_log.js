// A job as its log tells it: the answer, the attempts and the phases after any number of events.

const MOST_EVENTS = 20000;

// Appends an event; a log of very many fragments is kept with old neighbours joined.
export function append(events, event) {
  events.push(event);
  if (events.length <= MOST_EVENTS) return events;
  const joined = [];
  for (const each of events.splice(0, MOST_EVENTS / 2)) {
    const last = joined[joined.length - 1];
    if (last && joinable(last) && joinable(each) && last.size < 40) {
      last.content = (last.content || '') + (each.content || '');
      last.thinking = (last.thinking || '') + (each.thinking || '');
      last.size += 1;
      last.at = each.at;
    } else {
      joined.push(joinable(each) ? { ...each, size: 1 } : each);
    }
  }
  events.unshift(...joined);
  return events;
}

const joinable = (event) => event.type === 'delta' && !event.tool_calls && !event.refusal && !(event.content && event.thinking);

// The state after the first `upTo` events.
export function fold(events, upTo = events.length) {
  const state = { parts: [], attempts: [], status: 'queued', queue: null, phase: null, progress: null, vectors: null, scores: null, details: null, end: null, usage: null, firstAt: null, queuedAt: null };
  for (let at = 0; at < upTo; at += 1) add(state, events[at]);
  return state;
}

function add(state, event) {
  switch (event.type) {
    case 'queued':
      state.queue = event;
      state.queuedAt ??= event.at;
      if (event.id) {
        state.status = 'queued';
        close(state, event.at, event.reason || 'back in the queue');
      }
      break;
    case 'started':
      state.status = 'running';
      state.phase = null;
      close(state, event.at, 'ended');
      state.attempts.push({ number: event.attempt, worker: event.worker, backend: event.backend, endpoint: event.endpoint, model: event.model, at: event.at });
      break;
    case 'phase': state.phase = event; break;
    case 'delta':
      if (event.content || event.thinking || event.tool_calls || event.refusal) {
        state.firstAt ??= event.at;
        state.phase = null;
      }
      if (event.thinking) text(state, 'thinking', event.thinking);
      if (event.content) text(state, 'text', event.content);
      if (event.refusal) text(state, 'text', event.refusal);
      if (event.tool_calls) event.tool_calls.forEach((call) => tool(state, call));
      if (event.usage) state.usage = event.usage;
      break;
    case 'progress': state.progress = event; break;
    case 'vectors':
      state.firstAt ??= event.at;
      state.vectors = { count: (state.vectors ? state.vectors.count : 0) + event.count, dimension: event.dimension };
      break;
    case 'scores':
      state.firstAt ??= event.at;
      (state.scores ??= []).push(...event.scores);
      break;
    case 'image':
      state.firstAt ??= event.at;
      state.parts = state.parts.filter((part) => part.kind !== 'image' || part.index !== event.index);
      state.parts.push({ kind: 'image', index: event.index, source: source(event), partial: event.partial });
      break;
    case 'details': state.details = event.details; break;
    case 'resumed':
      state.parts.push({ kind: 'mark', text: `Attempt ${event.attempt} continues here: ${event.reason}` });
      break;
    case 'reset':
      state.parts = [{ kind: 'mark', text: `Attempt ${event.attempt} starts over: ${event.reason}` }];
      state.vectors = null;
      state.scores = null;
      break;
    case 'done': case 'failed': case 'cancelled':
      state.status = event.type;
      state.end = event;
      state.phase = null;
      if (event.usage) state.usage = event.usage;
      close(state, event.at, event.type);
      break;
    default: break;
  }
}

function close(state, at, how) {
  const last = state.attempts[state.attempts.length - 1];
  if (last && !last.endedAt) Object.assign(last, { endedAt: at, how });
}

function text(state, kind, words) {
  const last = state.parts[state.parts.length - 1];
  if (last && last.kind === kind) last.text += words;
  else state.parts.push({ kind, text: words });
}

function tool(state, call) {
  let found = state.parts.find((part) => part.kind === 'call' && part.index === call.index);
  if (!found) state.parts.push((found = { kind: 'call', index: call.index, name: '', arguments: '' }));
  found.name += call.name || '';
  found.arguments += call.arguments || '';
}

// An image is shown only from bytes in the event, never fetched from an address that it names.
export function source(event) {
  return event.data && /^image\/[a-z.+-]+$/.test(event.mime_type) ? `data:${event.mime_type};base64,${event.data}` : '';
}

// The command that enqueues the same job; the key stays in the environment.
export function asCurl(kind, request, withKey) {
  const quoted = JSON.stringify(request).replaceAll("'", "'\\''");
  const key = withKey ? ` \\\n  -H "Authorization: Bearer $FLEET_API_KEY"` : '';
  return `curl -s ${location.origin}/api/v1/jobs/${kind}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}
