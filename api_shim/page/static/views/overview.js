// What needs attention first, then how the fleet does now.
import { html, useEffect, useState } from '../html.js';
import { bytes, count, ms, none, rate, span } from '../format.js';
import { Badge, Empty, Icon, Meter, Panel, View } from '../parts/controls.js';
import { Sparkline } from '../parts/sparkline.js';
import { history, isAdmin, overview } from '../store.js';

const PLACES = {
  no_worker: 'queues', starts_worker: 'queues', paused: 'queues', oldest_waits: 'queues', backend_down: 'backends', circuit_open: 'backends',
  dead_letters: 'dead', unreadable_messages: 'dead', redis_memory: '',
};

function Concerns({ concerns }) {
  if (!concerns.length) {
    return html`<div class="notice good" role="status"><${Icon} name="check" /><p>Nothing needs attention.</p></div>`;
  }
  return html`<${Panel} title="Needs attention" flush=${true}>
    <ul class="concerns">${concerns.map((each) => html`<li key=${each.code + each.subject} class=${each.level === 'critical' ? 'bad' : 'warn'}>
      <${Icon} name="dead" /><p><span class="hidden-label">${each.level}: </span>${each.text}</p>
      ${PLACES[each.code] && html`<a href=${`#/${PLACES[each.code]}`}>${PLACES[each.code] === 'dead' ? 'Dead letters' : PLACES[each.code] === 'queues' ? 'Queues' : 'Backends'}</a>`}
    </li>`)}</ul>
  <//>`;
}

function Tile({ label, value, unit, note, values }) {
  return html`<div class="panel tile"><span class="label">${label}</span>
    <span class="value">${value}${unit && value !== none && html`<span class="unit">${unit}</span>`}</span>
    <span class="note">${note}</span>${values && html`<${Sparkline} values=${values} />`}</div>`;
}

function useChart() {
  const [Chart, set] = useState(null);
  useEffect(() => { import('../parts/chart.js').then((module) => set(() => module.Chart)); }, []);
  return Chart;
}

function Charts({ state, past }) {
  const Chart = useChart();
  if (!Chart) return html`<div class="grid-2"><${Panel} title="Jobs ended"><div class="chart"></div><//><${Panel} title="Waiting and running"><div class="chart"></div><//></div>`;
  const minute = Math.floor(state.at / 60) * 60;
  const ended = [state.ended.map((_, at) => minute - (state.ended.length - 1 - at) * 60), state.ended];
  const line = [past.map((each) => each.at), past.map((each) => each.waiting), past.map((each) => each.running)];
  return html`<div class="grid-2">
    <${Panel} title="Jobs ended" actions=${html`<span class="small muted">each minute, all queues</span>`}>
      <${Chart} bars=${true} data=${ended} labels=${['ended']} format=${count} label=${`Jobs ended in each of the last 15 minutes: ${state.ended.join(', ')}`} /><//>
    <${Panel} title="Waiting and running" actions=${html`<span class="legend"><span>waiting</span><span class="second">running</span></span>`}>
      <${Chart} data=${line} labels=${['waiting', 'running']} format=${count} label=${`Now ${state.waiting} waiting, ${state.running} running`} /><//>
  </div>`;
}

function Busy({ queues }) {
  const busy = queues.filter((each) => each.depth || each.running || each.delayed).sort((a, b) => b.depth - a.depth).slice(0, 8);
  if (!busy.length) return html`<${Empty} title="No jobs now">Every queue is empty.<//>`;
  return html`<div class="scroll-x"><table><thead><tr><th>Queue</th><th class="number">Waiting</th><th class="medium number">Oldest</th><th>Running</th><th class="number">Start in</th></tr></thead>
    <tbody>${busy.map((each) => html`<tr key=${each.name}><td><a class="name" href=${`#/queues/${each.name}`}>${each.name}</a></td>
      <td class="number">${count(each.depth)}</td><td class="medium number">${span(each.oldest_s)}</td>
      <td><div class="meter-cell"><${Meter} value=${each.running} of=${each.slots} second=${true} label=${`${each.running} of ${each.slots} slots`} /><span class="number small">${each.running}/${each.slots}</span></div></td>
      <td class="number">${each.depth ? span(each.eta_s) : 'at once'}</td></tr>`)}</tbody></table></div>`;
}

function Backends({ backends }) {
  if (!backends.length) return html`<${Empty} title="No backend yet">Start a worker next to one, or add one under Backends.<//>`;
  return html`<div class="scroll-x"><table><thead><tr><th>Backend</th><th>State</th><th class="medium">In memory</th><th class="number">Models</th></tr></thead>
    <tbody>${backends.map((each) => html`<tr key=${each.name}><td><a class="name" href=${`#/backends/${each.name}`}>${each.name}</a> <span class="muted small medium">${each.type}</span></td>
      <td>${backendState(each)}</td>
      <td class="medium small">${each.loading.length ? html`<span class="muted">loading </span>${each.loading.join(', ')}` : inMemory(each.warm)}</td>
      <td class="number">${count(each.models)}</td></tr>`)}</tbody></table></div>`;
}

function inMemory(names) {
  if (!names.length) return html`<span class="muted">nothing</span>`;
  const more = names.length - 2;
  return html`<span title=${names.join(', ')}>${names.slice(0, 2).join(', ')}${more > 0 ? ` and ${more} more` : ''}</span>`;
}

export function backendState(each) {
  if (!each.workers) return html`<${Badge} tone="hollow">no worker<//>`;
  if (each.circuit_open_until) return html`<${Badge} tone="bad">circuit open<//>`;
  if (!each.healthy) return html`<${Badge} tone="bad">down<//>`;
  if (each.endpoints_down.length) return html`<${Badge} tone="warn">partly down<//>`;
  return html`<${Badge} tone="good">healthy<//>`;
}

function memory(redis) {
  if (!redis) return '';
  return redis.max_bytes ? `${Math.round((100 * redis.used_bytes) / redis.max_bytes)} % of ${bytes(redis.max_bytes)}` : 'no maxmemory set';
}

export default function Overview() {
  const state = overview.value;
  if (!state) return html`<${View} title="Overview"><p class="starting">Reading the fleet…</p><//>`;
  const past = history.value;
  const of = (name) => past.slice(-120).map((each) => each[name]);
  return html`<${View} title="Overview">
    <${Concerns} concerns=${state.concerns} />
    <div class="tiles">
      <${Tile} label="Throughput" value=${rate(state.ended_per_s)} unit="jobs/s" note="over five minutes" values=${of('ended')} />
      <${Tile} label="Waiting" value=${count(state.waiting)} note=${state.delayed ? `and ${count(state.delayed)} between attempts` : 'jobs'} values=${of('waiting')} />
      <${Tile} label="Running" value=${count(state.running)} note="jobs" values=${of('running')} />
      <${Tile} label="First word" value=${ms(state.first_token_ms)} note="median of a minute" values=${of('first')} />
      <${Tile} label="Output" value=${rate(state.tokens_per_s)} unit="tokens/s" note="over a minute" values=${of('tokens')} />
      ${isAdmin.value && html`<${Tile} label="Dead letters" value=${count(state.dead)} note=${state.dead_lately ? `${count(state.dead_lately)} in ten minutes` : 'none lately'} values=${of('dead')} />
        <${Tile} label="Redis memory" value=${bytes(state.redis && state.redis.used_bytes)} note=${memory(state.redis)} values=${of('memory')} />`}
    </div>
    <${Charts} state=${state} past=${past} />
    <div class="grid-2">
      <${Panel} title="Busy queues" flush=${true}><${Busy} queues=${state.queues} /><//>
      <${Panel} title="Backends" flush=${true}><${Backends} backends=${state.backends} /><//>
    </div>
  <//>`;
}
