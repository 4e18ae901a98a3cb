// Texts as vectors: which are alike, in a plot and as a list.
import { html, useState } from '../../html.js';
import { count } from '../../format.js';
import { Empty, Panel } from '../../parts/controls.js';
import { ModelPicker, useChoice } from '../../parts/model_picker.js';
import { Meta, useSpeech } from './speech.js';
import { neighbours, plane, rows } from './vectors.js';

const SAMPLE = 'The cat sleeps on the sofa.\nA kitten naps on the couch.\nThe stock market fell today.\nShares lost value this morning.\nHow do I bake bread?\nA recipe for a sourdough loaf.\nThe train to Bern is late.\nOur flight was delayed by an hour.';
const MOST = 200;

function Plot({ texts, points, chosen, near, choose }) {
  const place = ([x, y]) => [400 + x * 340, 210 - y * 180];
  const [cx, cy] = place(points[chosen]);
  return html`<svg class="plot" viewBox="0 0 800 420" role="img" aria-label="Texts in the plane of their two main directions; alike ones are close">
    ${near.slice(0, 3).map(({ at }) => { const [x, y] = place(points[at]); return html`<line x1=${cx} y1=${cy} x2=${x} y2=${y} />`; })}
    ${points.map((point, at) => { const [x, y] = place(point); return html`<circle cx=${x} cy=${y} r=${at === chosen ? 7 : 5.5} class=${at === chosen ? 'chosen' : near.slice(0, 3).some((each) => each.at === at) ? 'near' : ''} onClick=${() => choose(at)}><title>${texts[at]}</title></circle>
      ${points.length <= 40 ? html`<text x=${x + (x > 540 ? -11 : 11)} y=${y + 4} text-anchor=${x > 540 ? 'end' : 'start'}>${texts[at].slice(0, 32)}${texts[at].length > 32 ? '…' : ''}</text>` : null}`; })}
  </svg>`;
}

export default function Embed() {
  const choice = useChoice('embed');
  const speech = useSpeech();
  const [text, type] = useState(SAMPLE);
  const [result, set] = useState(null);
  const [chosen, choose] = useState(0);
  const texts = text.split('\n').map((each) => each.trim()).filter(Boolean).slice(0, MOST);
  const run = async (event) => {
    event.preventDefault();
    const done = await speech.say('embed', { backend: choice.named, model: choice.model.name, input: texts });
    const vectors = done ? rows(done.vectors) : [];
    if (vectors.length < 2) return;
    set({ texts, vectors, points: plane(vectors) });
    choose(0);
  };
  const near = result ? neighbours(result.vectors, chosen) : [];
  if (choice.ready && !choice.model) return html`<${Panel}><${Empty} title="No model can embed">Add a backend that can, under <a href="#/backends">Backends</a>.<//><//>`;
  return html`<div class="play">
    <div class="stack">
      <${Panel} title="Neighbours" actions=${speech.state && html`<${Meta} ...${speech} />`}>${result ? html`<${Plot} ...${result} chosen=${chosen} near=${near} choose=${choose} />` : html`<${Empty} title=${speech.busy ? 'Computing…' : 'No vectors yet'}>Each line of text becomes a point; alike texts are close.<//>`}<//>
      ${result && html`<${Panel} title="Most alike" flush=${true} actions=${html`<label class="row"><span class="small muted">to</span><select onChange=${(event) => choose(Number(event.target.value))} aria-label="Text to compare with">${result.texts.map((each, at) => html`<option value=${at} selected=${at === chosen}>${each.slice(0, 60)}</option>`)}</select></label>`}>
        <div class="scroll-x"><table><thead><tr><th>Text</th><th class="number">Cosine</th></tr></thead><tbody>${near.slice(0, 8).map(({ at, alike }) => html`<tr><td>${result.texts[at]}</td><td class="number">${alike.toFixed(3)}</td></tr>`)}</tbody></table></div><//>`}
    </div>
    <${Panel} title="Texts"><form class="form" onSubmit=${run}><${ModelPicker} choice=${choice} />
      <label class="field"><span>One a line</span><textarea rows="10" value=${text} onInput=${(event) => type(event.target.value)}></textarea><span class="hint">${count(texts.length)} of at most ${MOST}</span></label>
      <button class="primary" disabled=${speech.busy || texts.length < 2 || !choice.model}>Embed</button></form><//>
  </div>`;
}
