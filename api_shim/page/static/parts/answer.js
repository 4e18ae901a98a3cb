// An answer as it was spoken: text, thinking apart, calls of tools, images. Never HTML.
import { html } from '../html.js';
import { bytes, count } from '../format.js';
import { Meter } from './controls.js';

export function Answer({ state, live }) {
  const last = state.parts.length - 1;
  return html`${state.parts.map((part, at) => {
    const cursor = live && at === last ? 'cursor' : '';
    switch (part.kind) {
      case 'thinking': return html`<div class=${`thinking ${cursor}`}>${part.text}</div>`;
      case 'call': return html`<span class="call">${part.name}(${part.arguments})</span>`;
      case 'image': return part.source ? html`<img src=${part.source} alt=${part.partial ? 'Preview of the image' : `Image ${part.index + 1}`} />` : null;
      case 'mark': return html`<span class="mark">${part.text}</span>`;
      default: return html`<span class=${cursor}>${part.text}</span>`;
    }
  })}
  ${state.vectors && html`<p>${count(state.vectors.count)} vectors of ${count(state.vectors.dimension)} numbers.</p>`}
  ${state.scores && html`<p>${count(state.scores.length)} scores. The best documents: ${best(state.scores).map(({ at, score }) => `number ${at + 1} (${score.toFixed(4)})`).join(', ')}.</p>`}
  ${state.details && html`<pre class="code">${JSON.stringify(state.details, null, 2)}</pre>`}
  ${state.progress && html`<${Progress} event=${state.progress} />`}
  ${live && !state.parts.length && html`<span class="muted cursor">${waitingFor(state)}</span>`}`;
}

export function Progress({ event }) {
  const done = event.overall_completed_bytes ?? event.completed_bytes;
  const total = event.overall_total_bytes ?? event.total_bytes;
  return html`<div class="stack"><span>${event.status}${total ? `, ${bytes(done || 0)} of ${bytes(total)}` : ''}</span>
    ${total ? html`<${Meter} value=${done || 0} of=${total} label=${`${Math.round((100 * (done || 0)) / total)} percent`} />` : null}</div>`;
}

export function waitingFor(state) {
  if (state.phase) {
    const share = state.phase.progress;
    return `${state.phase.phase}${share ? `, ${Math.round(share * 100)} %` : ''} `;
  }
  if (state.status === 'queued') {
    const { position, reason } = state.queue || {};
    return `${reason || (position ? `position ${position}` : 'waiting')} `;
  }
  return state.status === 'running' && !state.progress ? 'waiting for the first word ' : '';
}

// The documents with the five best scores, the best first.
function best(scores) {
  return scores.map((score, at) => ({ at, score })).sort((a, b) => b.score - a.score || a.at - b.at).slice(0, 5);
}
