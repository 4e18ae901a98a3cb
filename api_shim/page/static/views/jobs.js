// All jobs, newest first, as many as there are; a job of its own under #/jobs/<id>.
import { get, query } from '../api.js';
import { html, useEffect, useRef, useState } from '../html.js';
import { many, none, short, span } from '../format.js';
import { Ago, Badge, Empty, Notice, Search, Select, Status, View } from '../parts/controls.js';
import { VirtualList } from '../parts/virtual_list.js';
import { go, overview } from '../store.js';
import Job from './job.js';

const KINDS = ['chat', 'embed', 'rerank', 'image', 'pull', 'load', 'unload', 'show', 'running', 'create', 'copy', 'delete'];
const STATUSES = ['scheduled', 'queued', 'running', 'done', 'failed', 'cancelled'];
const MOST_PAGES = 6;
const COLUMNS = [['Status'], ['Job', 'medium'], ['Model'], ['Kind', 'medium'], ['Tenant', 'wide'], ['Created'], ['Waited', 'wide'], ['Took', 'wide']];

// Pages of jobs that match, fetched as the list is scrolled; new ones are added at the top.
function useJobs(filter) {
  const [state, set] = useState({ jobs: [], next: null, ended: false, error: null, loading: true });
  const busy = useRef(false);
  const current = useRef(0);
  const shown = useRef();
  shown.current = state.jobs;
  const key = JSON.stringify(filter);
  const fetchPage = (before, limit) => get(query('/api/v1/jobs', { ...filter, before, limit }));
  useEffect(() => {
    const mine = ++current.current;
    busy.current = true;
    set({ jobs: [], next: null, ended: false, error: null, loading: true });
    fetchPage('', 100).then(
      (page) => { if (mine === current.current) set({ jobs: page.jobs, next: page.next, ended: !page.next, error: null, loading: false }); },
      (error) => { if (mine === current.current) set((old) => ({ ...old, error, loading: false, ended: true })); },
    ).finally(() => { if (mine === current.current) busy.current = false; });
    const timer = setInterval(async () => {
      if (document.hidden || busy.current) return;
      busy.current = true;
      const added = await newest(fetchPage, shown.current).catch(() => null);
      if (mine !== current.current) return;
      busy.current = false;
      if (added) set((old) => ({ ...old, ...merged(added, old) }));
    }, 2000);
    return () => clearInterval(timer);
  }, [key]);
  const more = async () => {
    if (busy.current || state.ended || !state.next) return;
    busy.current = true;
    const mine = current.current;
    try {
      const page = await fetchPage(state.next, 200);
      if (mine === current.current) set((old) => ({ ...old, jobs: unique([...old.jobs, ...page.jobs]), next: page.next, ended: !page.next, error: null }));
    } catch (error) {
      if (mine === current.current) set((old) => ({ ...old, error }));
    } finally {
      if (mine === current.current) busy.current = false;
    }
  };
  return { ...state, more };
}

// What is newer than the list, in as many pages as that takes; after some it does not reach the list.
// A page that is not full has read so many records that it does.
async function newest(fetchPage, shown) {
  const found = { jobs: [], next: null, reaches: false };
  for (let pages = 0; !found.reaches && pages < (shown.length ? MOST_PAGES : 1); pages += 1) {
    const limit = pages ? 200 : 100;
    const page = await fetchPage(found.next || '', limit);
    found.jobs.push(...page.jobs);
    found.next = page.next;
    found.reaches = !page.next || page.jobs.length < limit || (shown.length > 0 && page.jobs[limit - 1].created_at <= shown[0].created_at);
  }
  return found;
}

// The newest jobs over what is there: changed records replace old ones, in the order of creation.
function merged({ jobs, next, reaches }, old) {
  if (!reaches || !next) return { jobs, next, ended: !next };
  const oldest = jobs.length ? jobs[jobs.length - 1].created_at : Infinity;
  return { jobs: unique([...jobs, ...old.jobs.filter((each) => each.created_at <= oldest)]) };
}

function unique(jobs) {
  const seen = new Set();
  return jobs.filter((each) => !seen.has(each.id) && seen.add(each.id));
}

const waited = (job) => (job.started_at ? job.started_at - job.created_at : (job.ended_at || Date.now() / 1000) - job.created_at);
const took = (job) => (job.started_at ? (job.ended_at || Date.now() / 1000) - job.started_at : null);

function cells(job) {
  return html`<span role="cell"><${Status} of=${job.status} /></span>
    <span role="cell" class="medium mono"><a href=${`#/jobs/${job.id}`}>${short(job.id)}</a></span>
    <span role="cell" title=${job.model}><a class="narrow-only" href=${`#/jobs/${job.id}`}>${job.model || short(job.id)}</a><span class="medium">${job.model || none}</span>${job.dead_at && !job.retried_as ? html` <${Badge} tone="bad">dead<//>` : null}</span>
    <span role="cell" class="medium">${job.kind}</span>
    <span role="cell" class="wide">${job.tenant}</span>
    <span role="cell" class="muted"><${Ago} at=${job.created_at} /></span>
    <span role="cell" class="wide number">${span(waited(job))}</span>
    <span role="cell" class="wide number">${span(took(job))}</span>`;
}

function List({ query: given }) {
  const [filter, set] = useState({ status: given.status || '', kind: given.kind || '', queue: given.queue || '', backend: given.backend || '', tenant: given.tenant || '' });
  const [typed, type] = useState(given.search || '');
  const [search, find] = useState(typed);
  useEffect(() => {
    const timer = setTimeout(() => find(typed), 250);
    return () => clearTimeout(timer);
  }, [typed]);
  const { jobs, ended, error, loading, more } = useJobs({ ...filter, search });
  const change = (name) => (value) => set({ ...filter, [name]: value });
  const backends = overview.value ? overview.value.backends.map((each) => each.name) : [];
  return html`<${View} title="Jobs">
    <div class="filters">
      <${Search} label="Search id, model, queue, worker" value=${typed} onInput=${type} />
      <${Select} label="Status" value=${filter.status} onChange=${change('status')} options=${[['', 'Any status'], ...STATUSES]} />
      <${Select} label="Kind" value=${filter.kind} onChange=${change('kind')} options=${[['', 'Any kind'], ...KINDS]} />
      <${Select} label="Backend" value=${filter.backend} onChange=${change('backend')} options=${[['', 'Any backend'], ...new Set([...backends, filter.backend].filter(Boolean))]} />
      ${filter.queue && html`<button type="button" class="tiny" onClick=${() => change('queue')('')}>queue ${filter.queue} ×</button>`}
      ${filter.tenant && html`<button type="button" class="tiny" onClick=${() => change('tenant')('')}>tenant ${filter.tenant} ×</button>`}
      <span class="grow"></span><span class="muted small number" role="status">${loading ? 'loading' : ended ? many(jobs.length, 'job') : `${jobs.length}+ jobs`}</span>
    </div>
    ${error && html`<${Notice} tone="bad"><p>${error.message}</p><//>`}
    <section class="panel" aria-label="Jobs">
      ${!loading && !jobs.length && ended
        ? html`<${Empty} title="No jobs match">${Object.values(filter).some(Boolean) || search ? 'Change the filter, or clear the search.' : html`Enqueue one: the <a href="#/playground">playground</a> does.`}<//>`
        : html`<${VirtualList} label="jobs" className="jobs-row" columns=${COLUMNS} items=${jobs} row=${cells} onEnd=${more} onOpen=${(job) => go(`/jobs/${job.id}`)} />`}
    </section>
  <//>`;
}

export default function Jobs({ rest, query: given }) {
  return rest[0] ? html`<${Job} key=${rest[0]} id=${rest[0]} />` : html`<${List} key=${JSON.stringify(given)} query=${given} />`;
}
