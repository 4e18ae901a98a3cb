// What tenants used and how full their limits are: panels of the view of tenants.
import { download, get, query } from '../api.js';
import { html, useState } from '../html.js';
import { count, none, span } from '../format.js';
import { Empty, Meter, Notice, Panel, usePoll } from '../parts/controls.js';
import { attempt } from '../store.js';

const LIMITS = { limit_tokens_minute: 'Tokens a minute', limit_tokens_day: 'Tokens a day', limit_spend_day: 'Money a day', limit_spend_month: 'Money a month' };
const PERIODS = [['1', 'Today'], ['7', '7 days'], ['30', '30 days'], ['365', 'A year']];
const ROWS = 200;

export function money(amount, currency) {
  if (!amount) return none;
  return `${amount.toLocaleString('en', { minimumFractionDigits: 2, maximumFractionDigits: amount < 1 ? 6 : 2 })} ${currency}`;
}

const first = (days) => new Date(Date.now() - (days - 1) * 86400000).toISOString().slice(0, 10);

export function Limits({ page }) {
  const rows = page.tenants.flatMap((each) => each.limits.map((limit) => ({ ...limit, tenant: each.tenant, jobs: each.reserved_jobs })));
  if (!rows.length) return html`<${Empty} title="No limits">A key may limit its tenant's tokens and money.<//>`;
  const amount = (row, value) => (row.name.includes('spend') ? money(value, page.currency) : count(value));
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of limits"><table><thead><tr><th>Tenant</th><th>Limit</th><th>Full</th><th class="number">Used</th><th class="medium number">Of</th><th class="wide number">Free again in</th><th class="wide number">Open jobs</th></tr></thead>
    <tbody>${rows.map((row) => {
      const share = Math.min(1, row.used / row.limit);
      return html`<tr key=${row.tenant + row.name}><td>${row.tenant}</td><td>${LIMITS[row.name] || row.name}</td>
        <td><div class="meter-cell"><${Meter} value=${share} of=${1} label=${`${Math.round(100 * share)} percent used`} /><span class="number small">${Math.round(100 * share)} %</span></div></td>
        <td class="number">${amount(row, row.used)}</td><td class="medium number">${amount(row, row.limit)}</td>
        <td class="wide number">${row.used ? span(row.free_in_s) : none}</td><td class="wide number">${count(row.jobs)}</td></tr>`;
    })}</tbody></table></div>`;
}

function Rows({ page }) {
  if (!page.rows.length) return html`<${Empty} title="Nothing was used">Jobs that have ended in this time would be here.<//>`;
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Table of usage"><table><thead><tr><th>Tenant</th><th>Model</th><th class="number">Requests</th><th class="number">Tokens in</th><th class="number">Out</th><th class="wide number">Images</th><th class="medium number">Backend time</th><th class="number">Cost</th></tr></thead>
    <tbody>${page.rows.map((row) => html`<tr key=${`${row.tenant} ${row.model}`}><td>${row.tenant}</td><td>${row.model || none}</td><td class="number">${count(row.requests)}</td>
      <td class="number">${count(row.prompt_tokens)}</td><td class="number" title=${row.estimated ? `estimated in ${row.estimated} requests` : ''}>${row.estimated ? '~' : ''}${count(row.completion_tokens)}</td>
      <td class="wide number">${row.images ? count(row.images) : none}</td><td class="medium number">${span(row.backend_s)}</td><td class="number">${money(row.cost, page.currency)}</td></tr>`)}</tbody></table></div>`;
}

export function UsagePanels() {
  const [days, set] = useState('30');
  const asked = { from: first(Number(days)), group_by: 'tenant,model', limit: ROWS };
  const used = usePoll(() => get(query('/api/v1/usage', asked)), 10, [days]);
  const limits = usePoll(() => get('/api/v1/usage/limits'), 5);
  const save = () => attempt(() => download(query('/api/v1/usage', { from: first(Number(days)), format: 'csv' }), `usage-${first(Number(days))}.csv`));
  const more = used.value && used.value.next ? html`<p class="muted small">The first ${ROWS} rows; the file has all.</p>` : null;
  const period = html`<label><span class="hidden-label">Time of usage</span><select value=${days} onChange=${(event) => set(event.target.value)}>${PERIODS.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label>
    <button type="button" class="tiny" onClick=${save}>CSV</button>`;
  return html`${(used.error || limits.error) && html`<${Notice} tone="bad"><p>${(used.error || limits.error).message}</p><//>`}
    <${Panel} title="Limits" flush=${true}>${limits.value && html`<${Limits} page=${limits.value} />`}<//>
    <${Panel} title="Usage" flush=${true} actions=${period}>${used.value && html`<${Rows} page=${used.value} />`}${more}<//>`;
}
